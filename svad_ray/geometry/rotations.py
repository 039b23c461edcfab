"""Rotations: matrices, quaternions (wxyz) and their smoothing over time. Pure arrays."""

from __future__ import annotations

import numpy as np
import torch
from scipy.signal import savgol_filter
from scipy.spatial.transform import Rotation

WINDOW, ORDER = 9, 2  # of the paper's Savitzky-Golay filter over time (spec/avatar 3.9)


def quats_from_matrices(m: torch.Tensor) -> torch.Tensor:
    """(N, 3, 3) rotation matrices to (N, 4) unit quaternions wxyz, stable for every rotation (largest component first)."""
    m00, m01, m02, m10, m11, m12, m20, m21, m22 = m.reshape(-1, 9).unbind(1)
    square = torch.stack([1 + m00 + m11 + m22, 1 + m00 - m11 - m22, 1 - m00 + m11 - m22, 1 - m00 - m11 + m22], 1)
    rows = torch.stack(
        [
            torch.stack([square[:, 0], m21 - m12, m02 - m20, m10 - m01], 1),
            torch.stack([m21 - m12, square[:, 1], m01 + m10, m02 + m20], 1),
            torch.stack([m02 - m20, m01 + m10, square[:, 2], m12 + m21], 1),
            torch.stack([m10 - m01, m02 + m20, m12 + m21, square[:, 3]], 1),
        ],
        1,
    )
    best = rows[torch.arange(len(m), device=m.device), square.argmax(1)]
    return best / best.norm(dim=1, keepdim=True)


def orthonormal(m: torch.Tensor) -> torch.Tensor:
    """(N, 3, 3) to the rotation that keeps the direction of the first column and the plane of the first and third (Gram-Schmidt)."""
    x = m[:, :, 0] / (m[:, :, 0].norm(dim=1, keepdim=True) + 1e-9)
    z = m[:, :, 2] - (m[:, :, 2] * x).sum(1, keepdim=True) * x
    z = z / (z.norm(dim=1, keepdim=True) + 1e-9)
    return torch.stack([x, torch.linalg.cross(z, x), z], 2)


def frames_from_normals(normals: torch.Tensor) -> torch.Tensor:
    """(N, 3) unit normals to (N, 3, 3) rotations whose third column is the normal."""
    helper = torch.where(normals[:, :1].abs() < 0.9, normals.new_tensor([[1.0, 0, 0]]), normals.new_tensor([[0, 1.0, 0]]))
    x = torch.linalg.cross(helper.expand_as(normals), normals)
    x = x / x.norm(dim=1, keepdim=True)
    return torch.stack([x, torch.linalg.cross(normals, x), normals], 2)


def continuous_quats(axis_angle: np.ndarray) -> np.ndarray:
    """(T, ..., 3) axis-angle to (T, ..., 4) quaternions xyzw whose sign never jumps from one frame to the next."""
    q = Rotation.from_rotvec(axis_angle.reshape(-1, 3)).as_quat().reshape(*axis_angle.shape[:-1], 4)
    jump = (q[1:] * q[:-1]).sum(-1) < 0
    sign = np.where(np.cumsum(jump, axis=0) % 2 == 1, -1.0, 1.0)
    q[1:] *= sign[..., None]
    return q


def smooth_rotations(axis_angle: np.ndarray, *, window: int = WINDOW, order: int = ORDER) -> np.ndarray:
    """Savitzky-Golay smoothing over time on sign-continuous quaternions (spec/avatar 3.9).

    Args:
        axis_angle: (T, ..., 3) radians. Fewer than ``window`` frames are returned unchanged.
    """
    if len(axis_angle) < window:
        return axis_angle
    q = savgol_filter(continuous_quats(axis_angle), window, order, axis=0)
    return Rotation.from_quat(q.reshape(-1, 4)).as_rotvec().reshape(axis_angle.shape).astype(axis_angle.dtype)


def matrices_of_rows(rows: torch.Tensor) -> torch.Tensor:
    """(..., 6) two rows -> (..., 3, 3) rotations: the first row's direction, the second made orthogonal to it (Zhou et al. 2019)."""
    first = torch.nn.functional.normalize(rows[..., :3], dim=-1)
    second = rows[..., 3:] - (rows[..., 3:] * first).sum(-1, keepdim=True) * first
    second = torch.nn.functional.normalize(second, dim=-1)
    return torch.stack([first, second, torch.linalg.cross(first, second)], -2)


def rows_of(matrices: torch.Tensor) -> torch.Tensor:
    """(..., 3, 3) rotations -> (..., 6) their first two rows."""
    return matrices[..., :2, :].flatten(-2)


def axis_angle_of(matrices: torch.Tensor) -> torch.Tensor:
    """(..., 3, 3) rotations -> (..., 3) axis-angle of at most half a turn, with finite derivatives at no rotation."""
    quats = quats_from_matrices(matrices.reshape(-1, 3, 3))
    quats = torch.where(quats[:, :1] < 0, -quats, quats)
    w, v = quats[:, :1], quats[:, 1:]
    squared = v.pow(2).sum(1, keepdim=True)
    small = squared < 1e-12
    length = torch.where(small, torch.ones_like(squared), squared).sqrt()  # no root of zero in the graph
    factor = torch.where(small, 2 / w.clamp_min(0.5), 2 * torch.atan2(length, w) / length)
    return (v * factor).reshape(*matrices.shape[:-2], 3)


def aligning_rotations(own: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
    """(..., 3, 3) rotations that turn (N, 3) points the best onto (..., N, 3) others, both taken from their means.

    Source: Umeyama (1991), by the singular value decomposition, without scale.
    """
    spread = (there - there.mean(-2, keepdim=True)).transpose(-1, -2) @ (own - own.mean(-2, keepdim=True))
    left, _, right = torch.linalg.svd(spread)
    flip = torch.ones_like(spread[..., 0])
    flip[..., 2] = torch.linalg.det(left @ right).sign()
    return left @ (flip[..., None] * right)
