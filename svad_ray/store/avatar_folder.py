"""The avatar as a folder that explains itself: ``avatar.safetensors`` holds the arrays, ``avatar.json`` says what each of them is."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from svad_ray.errors import InputError, StoreError
from svad_ray.subject import Avatar, BodyTrack

FORMAT = 1
_TRACK = "track."
_REMEDY = "copy the avatar's folder again, or make it again with `svad-ray create`"
MEANING = {
    "means": "centres in the shaped rest pose, metres, y up",
    "quats": "orientation in the rest pose, w x y z",
    "scales": "standard deviations along the own axes, metres",
    "opacities": "in [0, 1]",
    "colors": "RGB in [0, 1]",
    "lbs_joints": "joints that move a Gaussian",
    "lbs_weights": "skinning weights of those joints, rows sum to 1",
    "rest_joints": "joint positions in the rest pose, metres, SMPL-X order",
    "parents": "parent of each joint, -1 for the root",
    "expr_index": "Gaussians that expressions move",
    "expr_dirs": "their displacement per unit of expression, metres",
    "confidence": "share of a Gaussian's look that photos showed, in [0, 1]; 0 = generated",
    "source": "0 = generated, k = seen best in photo k of facts.confidence.photos",
    "surface_offset": "clothing and hair on the body's vertices, metres",
}


def save_avatar(avatar: Avatar, folder: str | Path) -> Path:
    """Write the folder; both files are written aside and renamed, the description last.

    Raises:
        StoreError: The folder cannot be written.
    """
    folder = Path(folder)
    arrays = {name: np.array(value, order="C") for name, value in avatar.tensors.items()}
    plain: dict[str, Any] = {}
    for f in fields(BodyTrack):
        value = getattr(avatar.track, f.name)
        if isinstance(value, np.ndarray):
            arrays[_TRACK + f.name] = np.array(value, order="C")
        else:
            plain[f.name] = list(value) if isinstance(value, tuple) else value
    table = {name: {"shape": list(a.shape), "dtype": str(a.dtype), "meaning": MEANING.get(name, "")} for name, a in arrays.items()}
    head = {"format": FORMAT, "kind": avatar.kind, "tensors": table, "track": plain, "facts": avatar.facts}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "avatar.safetensors.part").write_bytes(save(arrays))  # save_file would make it readable by the owner alone
        (folder / "avatar.json.part").write_text(json.dumps(head, indent=1), encoding="utf-8")
        for name in ("avatar.safetensors", "avatar.json"):
            (folder / f"{name}.part").replace(folder / name)
    except (OSError, SafetensorError) as error:
        for name in ("avatar.safetensors.part", "avatar.json.part"):
            with suppress(OSError):
                (folder / name).unlink()
        raise StoreError(f"the avatar cannot be written to {folder}: {error}", remedy="check the folder's permissions and the free space") from error
    return folder


def load_avatar(folder: str | Path) -> Avatar:
    """The avatar in ``folder`` (or in its ``avatar`` subfolder, so that the output folder of ``create`` works as well).

    Raises:
        InputError: No avatar there, or one that cannot be read.
    """
    folder = Path(folder)
    if not (folder / "avatar.json").exists() and (folder / "avatar" / "avatar.json").exists():
        folder = folder / "avatar"
    try:
        head = json.loads((folder / "avatar.json").read_text(encoding="utf-8"))
        arrays = load_file(folder / "avatar.safetensors")
    except OSError as error:
        raise InputError(
            f"there is no avatar in {folder}", expected="a folder with avatar.json and avatar.safetensors", remedy="make one with `svad-ray create`"
        ) from error
    except (ValueError, SafetensorError) as error:
        raise InputError(f"the avatar in {folder} cannot be read: {error}", expected="both files as they were written", remedy=_REMEDY) from error
    _check_head(head, folder)
    track: dict[str, Any] = {name.removeprefix(_TRACK): value for name, value in arrays.items() if name.startswith(_TRACK)}
    tensors = {name: value for name, value in arrays.items() if not name.startswith(_TRACK)}
    try:
        plain = head["track"] | {"image_size": tuple(head["track"]["image_size"])}
        return Avatar(head["kind"], tensors, BodyTrack(**track, **plain), head["facts"])
    except (KeyError, TypeError) as error:
        raise InputError(f"the avatar in {folder} is not whole: {error}", expected="both files as they were written", remedy=_REMEDY) from error


def _check_head(head: Any, folder: Path) -> None:
    """Refuse a description that is none, or of another version."""
    version = head.get("format") if isinstance(head, dict) else None
    if not isinstance(version, int):
        raise InputError(f"{folder / 'avatar.json'} describes no avatar", expected=f"an avatar of format {FORMAT}", remedy=_REMEDY)
    if version != FORMAT:
        newer = "update svad-ray: a newer version made the avatar" if version > FORMAT else "use the version that made it"
        raise InputError(f"the avatar in {folder} has format {version}", expected=f"format {FORMAT}", remedy=newer)
