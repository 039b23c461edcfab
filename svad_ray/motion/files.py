"""Motions from files: our own track ``.npz``, AMASS / SMPL-X ``.npz``, and ExAvatar's folders."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.interpolate import interp1d
from scipy.spatial.transform import Rotation, Slerp

from svad_ray.errors import InputError
from svad_ray.export.atomic import atomic_path
from svad_ray.motion.builtin import MOTIONS, blank_track
from svad_ray.motion.exavatar import read_motion
from svad_ray.motion.parts import PARTS, check_finite, halved, joined_parts, listed, numbers
from svad_ray.subject import OFFSETS, BodyTrack, TexturedFace

if TYPE_CHECKING:
    from svad_ray.body import Body

TRACK_VERSION = 3  # 2: face_offset; 3: the face's texture
_HEADER = "svad_ray_track"
_OPTIONAL = (*OFFSETS, "residual_px", "face")
_OF_FACE = "face_texture_"  # before the names of its fields
_READABLE = "a built-in name, a track .npz of this project, an AMASS or SMPL-X .npz, or a folder of ExAvatar's"
_Z_UP_TO_Y_UP = Rotation.from_euler("x", -90, degrees=True)


def load_motion(source: str | Path, body: Body | None = None, *, fps: float | None = None) -> BodyTrack:
    """A motion by built-in name (``turn``, ``a-pose-turn``, ``walk``, ``arms``) or from a file or folder.

    Shapes inside foreign files belong to foreign bodies and are left out; only this project's own tracks keep theirs.

    Args:
        source: Name or path.
        body: The body that will dance. Its mean hand pose is subtracted from files that hold the whole hand pose; None: it is zero.
        fps: Resample to this rate; None keeps the source's.

    Raises:
        InputError: Nothing readable at ``source``; the message names what was found there.
    """
    name = str(source)
    built_in = name in MOTIONS and not Path(name).exists()
    track = _without_hand_mean(MOTIONS[name](), body) if built_in else _from_path(Path(source), body)
    if not len(track):
        raise InputError(f"the motion '{source}' has no frames", expected="at least one frame", remedy="choose another motion")
    return track if fps is None else resample(track, fps)


def _from_path(path: Path, body: Body | None) -> BodyTrack:
    if path.is_dir():
        return read_motion(path)
    if not path.exists():
        raise InputError(f"no motion '{path}'", expected=_READABLE, remedy=f"use one of {', '.join(MOTIONS)}, or check the path")
    arrays = _read_npz(path)
    if _HEADER in arrays:
        return _track_from(arrays, path)
    if "poses" in arrays or any(name in arrays for name in PARTS["body_pose"]):
        return _without_hand_mean(_smplx_npz(arrays, path), body)
    raise InputError(f"{path} holds the arrays {listed(arrays)}", expected=_READABLE, remedy="export poses as SMPL-X axis-angle (keys poses, trans)")


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an npz; arrays of Python objects (AMASS keeps a gender that way at times) are passed over, never unpickled."""
    out: dict[str, np.ndarray] = {}
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("no zip archive, or a damaged one")
        with np.load(path, allow_pickle=False) as stored:
            for name in stored.files:
                try:
                    out[name] = stored[name]
                except ValueError:
                    continue
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise InputError(f"{path} is no readable npz file ({error})", expected=_READABLE, remedy="check that the file is complete") from error
    return out


def save_track(track: BodyTrack, path: str | Path) -> None:
    """Write a track as a versioned, compressed npz without pickles; appears whole or not at all."""
    arrays: dict[str, Any] = {f.name: getattr(track, f.name) for f in fields(track) if f.name != "face" and getattr(track, f.name) is not None}
    if track.face is not None:
        arrays |= {_OF_FACE + f.name: getattr(track.face, f.name) for f in fields(track.face)}
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, **{_HEADER: np.int64(TRACK_VERSION), **arrays})


def load_track(path: str | Path) -> BodyTrack:
    """Read what ``save_track`` wrote.

    Raises:
        InputError: Not a track, damaged, of a newer version, or with arrays whose lengths disagree.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no track file {path}", expected="a track .npz of this project", remedy="check the path")
    arrays = _read_npz(path)
    if _HEADER not in arrays:
        raise InputError(
            f"{path} holds the arrays {listed(arrays)}", expected="a track .npz of this project", remedy="use load_motion for other formats"
        )
    return _track_from(arrays, path)


def _track_from(arrays: Mapping[str, np.ndarray], path: Path) -> BodyTrack:
    version = int(arrays[_HEADER])
    if not 1 <= version <= TRACK_VERSION:
        raise InputError(
            f"{path} is a track of version {version}", expected=f"at most version {TRACK_VERSION}", remedy="update svad-ray, or write the track again"
        )
    missing = [f.name for f in fields(BodyTrack) if f.name not in arrays and f.name not in _OPTIONAL]
    if missing:
        raise InputError(f"{path} lacks {', '.join(missing)}", expected="a complete track", remedy="write the track again")
    values: dict[str, Any] = {f.name: arrays.get(f.name) for f in fields(BodyTrack)}
    height, width = (int(side) for side in arrays["image_size"])
    values |= {"image_size": (height, width), "fps": float(arrays["fps"]), "body_id": str(arrays["body_id"]), "face": _face_from(arrays, path)}
    track = BodyTrack(**values)
    lengths = {name: len(values[name]) for name in (*PARTS, "expression", "viewmats", "Ks") if len(values[name]) != len(track)}
    if lengths:
        raise InputError(f"{path}: {len(track)} frames, but {lengths}", expected="one row per frame in every array", remedy="write the track again")
    check_finite(path, *(value for name, value in values.items() if isinstance(value, np.ndarray) and name != "residual_px"))
    return track


def _face_from(arrays: Mapping[str, np.ndarray], path: Path) -> TexturedFace | None:
    """The texture of the face, where the file has one."""
    names = [f.name for f in fields(TexturedFace)]
    if not any(_OF_FACE + name in arrays for name in names):
        return None
    if missing := [name for name in names if _OF_FACE + name not in arrays]:
        raise InputError(f"{path} lacks the face's {', '.join(missing)}", expected="a complete track", remedy="write the track again")
    values: dict[str, Any] = {name: arrays[_OF_FACE + name] for name in names}
    return TexturedFace(**values | {"source": str(values["source"])})


def _smplx_npz(arrays: Mapping[str, np.ndarray], path: Path) -> BodyTrack:
    """AMASS (z up) or plain SMPL-X parameters (y up unless the file carries AMASS's frame-rate key)."""
    pose = _whole_pose(arrays["poses"], path) if "poses" in arrays else joined_parts(halved(arrays), path)
    transl = numbers(arrays.get("trans", arrays.get("transl", np.zeros((len(pose), 3)))), "trans", path)
    if transl.shape != (len(pose), 3):
        raise InputError(
            f"{path}: {len(pose)} poses and translations of shape {transl.shape}", expected=f"({len(pose)}, 3)", remedy="repair the file"
        )
    check_finite(path, pose, transl)
    rate_key = next((key for key in ("mocap_frame_rate", "mocap_framerate", "fps") if key in arrays), None)
    if rate_key is not None and rate_key.startswith("mocap"):
        pose, transl = _to_y_up(pose, transl)
    rate = np.full(1, 30.0) if rate_key is None else numbers(arrays[rate_key], rate_key, path).reshape(-1)
    if len(rate) != 1 or not 0 < rate[0] < np.inf:
        found = rate[0] if len(rate) == 1 else rate.tolist()
        raise InputError(f"{path}: {rate_key} is {found}", expected="frames per second", remedy="repair the file")
    track = blank_track(pose, transl=transl, fps=float(rate[0]))
    expression = numbers(arrays.get("expression", np.zeros((len(pose), 10))), "expression", path).astype(np.float32)
    if expression.ndim != 2 or len(expression) != len(pose):
        raise InputError(
            f"{path}: {len(pose)} poses and expressions of shape {expression.shape}",
            expected=f"({len(pose)}, coefficients)",
            remedy="repair the file",
        )
    check_finite(path, expression)
    return replace(track, expression=expression)


def _whole_pose(poses: np.ndarray, path: Path) -> np.ndarray:
    """(T, 55, 3) from (T, 165) SMPL-X, (T, 156) SMPL+H (22 body joints, then hands) or (T, 72) SMPL (hands as one joint each, left out)."""
    width = poses.shape[1] if poses.ndim == 2 else int(np.prod(poses.shape[1:]))
    flat = numbers(poses, "poses", path).reshape(len(poses), width)
    if width == 165:
        return flat.reshape(-1, 55, 3)
    out = np.zeros((len(flat), 55, 3))
    if width == 156:
        out[:, :22], out[:, 25:] = flat[:, :66].reshape(-1, 22, 3), flat[:, 66:].reshape(-1, 30, 3)
    elif width == 72:
        out[:, :22] = flat[:, :66].reshape(-1, 22, 3)
    else:
        raise InputError(
            f"{path}: poses of {width} numbers a frame", expected="165 (SMPL-X), 156 (SMPL+H) or 72 (SMPL)", remedy="export full axis-angle poses"
        )
    return out


def _to_y_up(pose: np.ndarray, transl: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """From AMASS's floor in x-y to ours in x-z: (x, y, z) -> (x, z, -y)."""
    pose = pose.copy()
    pose[:, 0] = (_Z_UP_TO_Y_UP * Rotation.from_rotvec(pose[:, 0])).as_rotvec()
    return pose, _Z_UP_TO_Y_UP.apply(transl)


def _without_hand_mean(track: BodyTrack, body: Body | None) -> BodyTrack:
    """Tracks keep hand poses relative to the body's mean hand; these sources hold the whole pose."""
    if body is None:
        return track
    mean = np.asarray(body.hands_mean, np.float32).reshape(2, 15, 3)
    return replace(track, left_hand_pose=track.left_hand_pose - mean[0], right_hand_pose=track.right_hand_pose - mean[1])


def resample(track: BodyTrack, fps: float) -> BodyTrack:
    """The same motion at another frame rate: rotations by slerp, everything else linearly; first and last moments stay."""
    if fps <= 0:
        raise InputError(f"a frame rate of {fps}", expected="a positive number of frames per second", remedy="leave it out to keep the source's")
    if len(track) < 2 or fps == track.fps:
        return replace(track, fps=float(fps))
    old = np.arange(len(track)) / track.fps
    new = np.arange(int(np.floor(old[-1] * fps + 1e-6)) + 1) / fps
    new = np.minimum(new, old[-1])
    pose = track.full_pose
    turned = np.stack([Slerp(old, Rotation.from_rotvec(pose[:, j]))(new).as_rotvec() for j in range(pose.shape[1])], 1).astype(np.float32)
    linear = {name: interp1d(old, getattr(track, name), axis=0)(new).astype(np.float32) for name in ("transl", "expression", "Ks")}
    # Cameras do not blend linearly; the nearest one is exact for fixed cameras.
    nearest = np.rint(new * track.fps).astype(int).clip(0, len(track) - 1)
    return replace(track, **linear, viewmats=track.viewmats[nearest], fps=float(fps)).with_full_pose(turned)
