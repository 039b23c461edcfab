"""The avatar as a ``.splat`` file: 32 bytes a Gaussian without header, the container of antimatter15's viewer and those after it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from svad_ray.export.atomic import atomic_path
from svad_ray.export.ply import placed
from svad_ray.stages.avatar.bake import baked
from svad_ray.subject import Avatar, BodyTrack

ROW = np.dtype([("position", "<f4", 3), ("scale", "<f4", 3), ("rgba", "u1", 4), ("rotation", "u1", 4)])


def write_splat(avatar: Avatar, path: str | Path, *, pose: BodyTrack | None = None, frame: int = 0, y_up: bool = False) -> None:
    """Write the Gaussians, the largest and most opaque first, as viewers that show a file while it loads expect.

    Args and Raises as :func:`svad_ray.export.ply.write_ply`. Colour, opacity and rotation (wxyz) have 8 bits each.
    """
    avatar = baked(avatar)
    means, quats = placed(avatar, pose, frame, y_up=y_up)
    t = avatar.tensors
    rows = np.empty(len(means), ROW)
    rows["position"], rows["scale"] = means, t["scales"]
    rows["rgba"] = np.rint(np.column_stack([t["colors"], t["opacities"]]).clip(0, 1) * 255)
    rows["rotation"] = np.rint(quats / np.linalg.norm(quats, axis=1, keepdims=True) * 128 + 128).clip(0, 255)
    order = np.argsort(-t["scales"].astype(np.float64).prod(1) * t["opacities"], kind="stable")
    with atomic_path(path) as temporary:
        temporary.write_bytes(rows[order].tobytes())
