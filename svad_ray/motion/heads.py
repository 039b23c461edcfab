"""The motion of a head as GAGAvatar's tracker records it: FLAME's codes and a camera for every frame; smoothing, files, and heads between frames.

Source: GAGAvatar's tracker (SVAD section 3.2 and its released configuration).
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from scipy.signal import savgol_filter
from scipy.spatial.transform import Rotation, Slerp

from svad_ray.body.pickled import Record, arrays_of, read_pickle
from svad_ray.errors import InputError
from svad_ray.export.atomic import atomic_path
from svad_ray.geometry.rotations import ORDER, WINDOW, matrices_of_rows, smooth_rotations

VERSION = 1
SCALE = 5.0  # of FLAME's metres in the tracker's space
KEEP_ROTATION, KEEP_TRANSLATION, KEEP_EYES = 0.6, 0.6, 0.7  # share of the new frame in the running average
_HEADER = "svad_ray_head_track"
_CODES = {"shape": "shapecode", "expression": "expcode", "pose": "posecode", "eyes": "eyecode", "transforms": "transform_matrix"}


@dataclass(frozen=True)
class HeadTrack:
    """A head over T frames.

    Attributes:
        shape: (S,) FLAME's betas. expression: (T, E). pose: (T, 6) axis-angle of the whole head (zeros: the camera turns instead) and of the jaw.
        eyes: (T, 6) axis-angle, left then right. transforms: (T, 3, 4) cameras, see ``svad_ray.nets.gagavatar.geometry``.
        seen: (T,) bool; where False the frame showed no face and lies between its neighbours.
        fps: Frames per second. source: What it was tracked in and by.
    """

    shape: np.ndarray
    expression: np.ndarray
    pose: np.ndarray
    eyes: np.ndarray
    transforms: np.ndarray
    seen: np.ndarray
    fps: float = 25.0
    source: str = ""

    def __len__(self) -> int:
        return len(self.transforms)

    def at(self, index: int) -> HeadTrack:
        """One frame; numbers past the end begin again, as a clip longer than its driver does."""
        rows = slice(index % len(self), index % len(self) + 1)
        return replace(self, **{name: getattr(self, name)[rows] for name in ("expression", "pose", "eyes", "transforms", "seen")})


def smoothed(track: HeadTrack, how: Literal["ema", "savgol", "none"] = "ema") -> HeadTrack:
    """The track smoothed over time; expression and jaw stay as they are.

    Args:
        how: "ema" = the released tracker's running averages (rotation by its first two rows, translation, eyes: 0.6, 0.6, 0.7); "savgol" = the
            paper's: Savitzky-Golay 9/2 on sign-continuous quaternions and on the translation; shorter clips stay as they are.
    """
    rotation, translation = track.transforms[:, :, :3], track.transforms[:, :, 3]
    if how == "none" or (how == "savgol" and len(track) < WINDOW):
        return track
    if how == "ema":
        rows = running_average(rotation[:, :2].reshape(len(track), 6), KEEP_ROTATION)
        turned, moved = matrices_of_rows(torch.from_numpy(rows)).numpy(), running_average(translation, KEEP_TRANSLATION)
        eyes = running_average(track.eyes, KEEP_EYES)
    else:
        turned = Rotation.from_rotvec(smooth_rotations(Rotation.from_matrix(rotation).as_rotvec())).as_matrix()
        moved = savgol_filter(translation, WINDOW, ORDER, axis=0)
        eyes = savgol_filter(track.eyes, WINDOW, ORDER, axis=0)
    transforms = np.concatenate([turned, moved[..., None]], 2).astype(np.float32)
    return replace(track, transforms=transforms, eyes=eyes.astype(np.float32))


def running_average(values: np.ndarray, keep: float) -> np.ndarray:
    """(T, C): ``keep`` of each row and the rest of the average so far; the first row is itself."""
    out = np.array(values, np.float64)
    for i in range(1, len(out)):
        out[i] = keep * out[i] + (1 - keep) * out[i - 1]
    return out


def between(track: HeadTrack) -> HeadTrack:
    """Frames without a face lie between their neighbours: codes in proportion, rotations on the shortest arc, ends held.

    Raises:
        InputError: No frame shows a face.
    """
    known = np.flatnonzero(track.seen)
    if not len(known):
        raise InputError("no frame shows a face", expected="a face in at least one frame of the driving clip", remedy="use another clip")
    if len(known) == len(track):
        return track
    when = np.clip(np.arange(len(track)), known[0], known[-1])

    def linear(values: np.ndarray) -> np.ndarray:
        return np.stack([np.interp(when, known, column[known]) for column in values.T], 1).astype(np.float32)

    rotations = Rotation.from_matrix(track.transforms[known, :, :3])
    turned = rotations[np.zeros(len(track), int)] if len(known) == 1 else Slerp(known, rotations)(when)
    transforms = np.concatenate([turned.as_matrix(), linear(track.transforms[:, :, 3])[..., None]], 2).astype(np.float32)
    codes: dict[str, Any] = {name: linear(getattr(track, name)) for name in ("expression", "pose", "eyes")}
    return replace(track, transforms=transforms, **codes)


def save_head_track(track: HeadTrack, path: str | Path) -> None:
    """One ``.npz``; it appears whole or not at all."""
    arrays: dict[str, Any] = {_HEADER: np.asarray(VERSION), **{f.name: np.asarray(getattr(track, f.name)) for f in fields(track)}}
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **arrays)


def load_head_track(path: str | Path) -> HeadTrack:
    """A head track of this project, or the tracker's own ``smoothed.pkl`` or ``optim.pkl``, of which nothing is run.

    Raises:
        InputError: No such file, damaged, or of a newer version.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise InputError(f"there is no head track {path}", expected="an .npz of `svad-ray track-head`, or the tracker's smoothed.pkl")
    if path.suffix == ".pkl":
        return _foreign(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            data = {key: file[key] for key in file.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path.name} cannot be read as a head track ({error})", remedy="track the clip again") from error
    if int(data.pop(_HEADER, 0)) != VERSION:
        raise InputError(f"{path.name} is no head track of version {VERSION}", remedy="track the clip again with this version")
    return _checked(HeadTrack(**{**data, "fps": float(data["fps"]), "source": str(data["source"])}), path)


def _foreign(path: Path) -> HeadTrack:
    """``{"name_12": {"shapecode": ..., ...}, ...}``; frames in the order of their numbers."""
    frames = {key: _codes(value, path) for key, value in _entries(path).items()}
    order = sorted(frames, key=lambda key: int(key.rpartition("_")[2]) if key.rpartition("_")[2].isdigit() else 0)
    if not order:
        raise InputError(f"{path.name} holds no frames", expected="the tracker's smoothed.pkl")
    stacked: dict[str, Any] = {name: np.stack([frames[key][name] for key in order]).astype(np.float32) for name in _CODES}
    shape = stacked.pop("shape").mean(0)
    return _checked(HeadTrack(shape=shape, **stacked, seen=np.ones(len(order), bool), source=f"GAGAvatar's tracker ({path.name})"), path)


def _entries(path: Path) -> dict[str, Any]:
    return {key: value for key, value in read_pickle(path).items() if isinstance(value, (Mapping, Record))}


def _codes(value: Any, path: Path) -> dict[str, np.ndarray]:
    codes = arrays_of(value, path)
    if missing := [name for name in _CODES.values() if name not in codes]:
        raise InputError(f"a frame of {path.name} lacks {', '.join(missing)}", expected="the tracker's smoothed.pkl")
    return {name: np.asarray(codes[theirs], np.float32) for name, theirs in _CODES.items()}


def _checked(track: HeadTrack, path: Path) -> HeadTrack:
    frames = len(track.transforms)
    wanted = {"pose": (frames, 6), "eyes": (frames, 6), "transforms": (frames, 3, 4), "seen": (frames,)}
    wrong = [f"{name} {np.shape(getattr(track, name))}" for name, shape in wanted.items() if np.shape(getattr(track, name)) != shape]
    if wrong or len(track.expression) != frames or not frames or not np.isfinite(track.transforms).all():
        raise InputError(f"{path.name} is no whole head track: {', '.join(wrong) or 'frames of different number, or not finite'}")
    return track
