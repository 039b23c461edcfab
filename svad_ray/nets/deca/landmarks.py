"""DECA's own landmarks on FLAME and its weak-perspective camera.

Source: DECA's FLAME layer (spec: avatar 3.2, proven 7): the contour follows neck and root together and looks up the other sign of the yaw.
"""

from __future__ import annotations

import torch
from torch import Tensor

from svad_ray.body.flame import Flame, FlameOutput


def deca_landmarks(flame: Flame, posed: FlameOutput) -> Tensor:
    """(N, 68, 3) landmarks of a posed batch, the 17 moving ones of the contour first."""
    mirrored = posed.rotations[:, 1].clone()  # joint 1, the neck, carries the root's turn
    mirrored[:, 2, 0] *= -1  # the only entry that gives the yaw its sign
    return flame.landmarks(posed.vertices, mirrored)


def project(points: Tensor, camera: Tensor) -> Tensor:
    """(N, L, 2) places in a crop that spans [-1, 1], y down, of (N, L, 3) points under (N, 3) scale and shift."""
    flat = (points[..., :2] + camera[:, None, 1:]) * camera[:, None, :1]
    return flat * torch.tensor([1.0, -1.0], dtype=flat.dtype)
