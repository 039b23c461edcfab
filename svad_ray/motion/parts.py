"""SMPL-X poses as their files hold them: parts under several names, joined in the order of the joints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from svad_ray.errors import InputError

# How SMPL-X parameter files name the parts: first name present wins.
PARTS = {
    "global_orient": ("global_orient", "root_orient", "root_pose"),
    "body_pose": ("body_pose", "pose_body"),
    "left_hand_pose": ("left_hand_pose", "lhand_pose"),
    "right_hand_pose": ("right_hand_pose", "rhand_pose"),
    "jaw_pose": ("jaw_pose", "pose_jaw"),
    "leye_pose": ("leye_pose",),
    "reye_pose": ("reye_pose",),
}
SLICES = {  # of the 55 joints
    "global_orient": slice(0, 1),
    "body_pose": slice(1, 22),
    "jaw_pose": slice(22, 23),
    "leye_pose": slice(23, 24),
    "reye_pose": slice(24, 25),
    "left_hand_pose": slice(25, 40),
    "right_hand_pose": slice(40, 55),
}


def halved(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """The same with AMASS's pairs, left before right, as two parts: pose_hand (T, 90) and pose_eye (T, 6)."""
    out = dict(arrays)
    for pair, names in (("pose_hand", ("left_hand_pose", "right_hand_pose")), ("pose_eye", ("leye_pose", "reye_pose"))):
        if pair in arrays and np.ndim(arrays[pair]) == 2 and np.shape(arrays[pair])[1] % 2 == 0:
            out |= dict(zip(names, np.split(np.asarray(arrays[pair]), 2, axis=1)))
    return out


def joined_parts(arrays: Mapping[str, Any], path: Path, *, frames: int | None = None) -> np.ndarray:
    """(T, 55, 3) from separately named parts; absent parts stay zero.

    Args:
        arrays: The file's content. path: The file, for messages.
        frames: How many there are; None = as many rows as the body's pose has.

    Raises:
        InputError: A part has another number of values.
    """
    body_name = next(name for name in PARTS["body_pose"] if name in arrays)
    count = len(np.asarray(arrays[body_name])) if frames is None else frames
    pose = np.zeros((count, 55, 3))
    for part, names in PARTS.items():
        name = next((n for n in names if n in arrays), None)
        if name is None:
            continue
        joints = SLICES[part].stop - SLICES[part].start
        values = numbers(arrays[name], name, path)
        if values.size != count * joints * 3:
            raise InputError(
                f"{path}: {name} of shape {values.shape}",
                expected=f"{joints} axis-angle rotations for each of {count} frames",
                remedy="export without PCA",
            )
        pose[:, SLICES[part]] = values.reshape(count, joints, 3)
    return pose


def numbers(values: Any, name: str, path: Path) -> np.ndarray:
    """``values`` as float64. Raises ``InputError`` when they are no numbers, or rows of unequal length."""
    try:
        return np.asarray(values, float)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: {name} holds no numbers ({error})", expected="numbers", remedy="repair the file, or write it again") from error


def check_finite(path: Path, *arrays: np.ndarray) -> None:
    """Raises ``InputError`` naming ``path`` when a value is infinite or no number."""
    if not all(np.isfinite(array).all() for array in arrays):
        raise InputError(f"{path} holds values that are not finite", expected="finite rotations and translations", remedy="cut out the broken frames")


def listed(keys: Any) -> str:
    """The first names of a mapping, or the kind of anything else."""
    names = sorted(str(key) for key in keys) if isinstance(keys, Mapping) else [type(keys).__name__]
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "") if names else "nothing"
