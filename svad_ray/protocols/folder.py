"""Anybody's renders against anybody's truth: pairs of pictures by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np

from svad_ray.errors import InputError
from svad_ray.evaluate.metrics import temporal_flicker
from svad_ray.evaluate.rows import Row
from svad_ray.evaluate.scoring import Choice, Protocol, Scorer
from svad_ray.protocols.orders import Order, Result, worst_strips
from svad_ray.store import digest

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
_PAIRS = "pictures of the same names in both folders, directly or one folder a subject"


def orders(
    renders: Path,
    truth: Path,
    out: str,
    choice: Choice,
    protocol: Protocol,
    *,
    masks: Path | None = None,
    own_masks: Path | None = None,
    sequence: bool = False,
) -> list[Order]:
    """One order a subject: the folder itself, or each folder in it.

    Args:
        masks: Of the truth, own_masks: of the renders, by the same names; pictures with an alpha channel bring their own.
        sequence: The pictures in the order of their names are a sequence, whose flicker is measured too.

    Raises:
        InputError: Nothing to pair, or pictures without a partner.
    """
    for name, folder in (("renders", renders), ("truth", truth), ("masks", masks), ("masks of the renders", own_masks)):
        if folder is not None and not folder.is_dir():
            raise InputError(f"there is no folder {folder} with the {name}", expected=_PAIRS)
    subjects = [""] if _pictures(truth) else sorted(path.name for path in truth.iterdir() if path.is_dir() and _pictures(path))
    found = []
    for subject in subjects:
        names = _paired(renders / subject, truth / subject)
        parameters = {
            "renders": str(renders / subject), "truth": str(truth / subject), "names": names, "masks": str(masks / subject) if masks else "",
            "own_masks": str(own_masks / subject) if own_masks else "", "protocol": asdict(protocol), "sequence": sequence,
        }  # fmt: skip
        files = [folder / subject / name for folder in (renders, truth, masks, own_masks) if folder for pair in names for name in set(pair)]
        inputs = (digest(*(path.read_bytes() for path in files if path.is_file())),)
        found.append(Order("folder", subject or truth.name, parameters, out, choice=asdict(choice), inputs=inputs))
    if not found:
        raise InputError(f"there are no pictures in {truth}", expected=_PAIRS)
    return found


def measure(order: Order, scorer: Scorer, tell: Callable[[str, float], None]) -> Result:
    """Score every pair."""
    p = order.parameters
    protocol = Protocol(**p["protocol"])
    rows: list[Row] = []
    kept: list[tuple[np.ndarray, np.ndarray]] = []
    for number, (ours, theirs) in enumerate(p["names"]):
        image, own = read_picture(Path(p["renders"]) / ours, protocol.background)
        truth, true = read_picture(Path(p["truth"]) / theirs, protocol.background)
        if image.shape != truth.shape:
            found = f"{Path(p['renders']) / ours} has {image.shape[1]} x {image.shape[0]} pixels, its truth {truth.shape[1]} x {truth.shape[0]}"
            raise InputError(found, expected="one size", remedy="render at the truth's size; resizing would hide errors")
        own = _mask(p["own_masks"], ours) if p["own_masks"] else own
        true = _mask(p["masks"], theirs) if p["masks"] else true
        described = scorer.described(protocol, image)
        figures = scorer(image, truth, described, mask=own, true_mask=true)
        rows.append({"subject": order.subject, "view": Path(theirs).stem, **figures, **described.columns()})
        kept.append((image, truth))
        tell(order.subject, (number + 1) / len(p["names"]))
    if p["sequence"] and len(kept) > 1 and len({image.shape for image, _ in kept}) == 1:
        frames, truths = (np.stack([pair[k] for pair in kept]).astype(np.float32) / 255 for k in (0, 1))
        rows[0]["flicker"] = temporal_flicker(frames, truths)
    return Result(order.subject, rows, worst_strips(rows, kept.__getitem__))


def read_picture(path: Path, background: str) -> tuple[np.ndarray, np.ndarray | None]:
    """(H, W, 3) uint8 RGB, an alpha channel flattened onto the background, and that channel as (H, W) float32.

    Raises:
        InputError: It is no picture, or has an alpha channel and the background is not said.
    """
    data = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if data is None or data.dtype != np.uint8:
        raise InputError(f"{path} is no picture of 8 bits", expected=" or ".join(SUFFIXES))
    if data.ndim == 2:
        data = np.repeat(data[..., None], 3, axis=2)
    if data.shape[2] == 3:
        return np.ascontiguousarray(data[..., ::-1]), None
    ground = {"white": 255.0, "black": 0.0}.get(background)
    if ground is None:
        raise InputError(f"{path} is transparent", expected="--background white or black for pictures with an alpha channel")
    alpha = data[..., 3].astype(np.float32) / 255
    flat = data[..., 2::-1] * alpha[..., None] + ground * (1 - alpha[..., None])
    return (flat + 0.5).astype(np.uint8), alpha


def _mask(folder: str, name: str) -> np.ndarray:
    for path in (Path(folder) / name, *(Path(folder) / f"{Path(name).stem}{suffix}" for suffix in SUFFIXES)):
        if path.is_file():
            found = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
            if found is not None:
                return found.astype(np.float32) / 255
    raise InputError(f"there is no mask of {name} in {folder}", expected="a grey picture of the same name, white where the person is")


def _pictures(folder: Path) -> dict[str, str]:
    """Stem -> file name."""
    if not folder.is_dir():
        return {}
    return {path.stem: path.name for path in sorted(folder.iterdir()) if path.suffix.lower() in SUFFIXES}


def _paired(renders: Path, truth: Path) -> list[tuple[str, str]]:
    ours, theirs = _pictures(renders), _pictures(truth)
    if lone := sorted(ours.keys() ^ theirs.keys()):
        first = lone[0]
        raise InputError(
            f"{len(lone)} pictures have no partner; the first is {(renders if first in ours else truth) / (ours | theirs)[first]}", expected=_PAIRS
        )
    return [(ours[name], theirs[name]) for name in sorted(ours)]
