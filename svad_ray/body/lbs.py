"""Linear blend skinning as small pure functions: rotations, joints, the kinematic chain and skinned points.

All are batched and differentiable, and keep the dtype they are given (float32 or float64).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from svad_ray.body.model import Body

_SMALL = 1e-5  # squared radians: below, the series of sin(t)/t and (1 - cos t)/t^2 are exact to double rounding (next terms 1e-18)


def rotation_matrices(axis_angle: torch.Tensor) -> torch.Tensor:
    """Rotation matrices of axis-angle vectors, with finite derivatives of every order at zero.

    Args:
        axis_angle: (..., 3) radians.

    Returns:
        (..., 3, 3).

    Source: Rodrigues' formula, R = I + sin(t)/t K + (1 - cos t)/t^2 K^2.
    """
    x, y, z = axis_angle.unbind(-1)
    squared = x * x + y * y + z * z
    small = squared < _SMALL
    angle = torch.where(small, torch.ones_like(squared), squared).sqrt()  # no root of zero in the graph
    sine = torch.where(small, 1 - squared / 6 * (1 - squared / 20), torch.sin(angle) / angle)
    half = torch.sin(angle / 2) / angle
    cosine = torch.where(small, 0.5 - squared / 24 * (1 - squared / 30), 2 * half * half)
    skew = torch.stack([torch.zeros_like(x), -z, y, z, torch.zeros_like(x), -x, -y, x, torch.zeros_like(x)], -1).unflatten(-1, (3, 3))
    eye = torch.eye(3, dtype=axis_angle.dtype, device=axis_angle.device)
    outer = axis_angle[..., :, None] * axis_angle[..., None, :]
    return eye + sine[..., None, None] * skew + cosine[..., None, None] * (outer - squared[..., None, None] * eye)


def rest_joints(body: Body, betas: torch.Tensor, expression: torch.Tensor | None = None) -> torch.Tensor:
    """Joints of the shaped rest body, without building its mesh (the regressor is applied to the shape space once, at load).

    Args:
        betas: (b,) or (B, b), any b up to the body's.
        expression: (e,) or (B, e), any e up to the body's.

    Returns:
        (55, 3) or (B, 55, 3) metres.
    """
    joints = body.joint_template + torch.einsum("...b,jkb->...jk", betas, body.joint_shapedirs[..., : betas.shape[-1]])
    if expression is not None:
        joints = joints + torch.einsum("...e,jke->...jk", expression, body.joint_exprdirs[..., : expression.shape[-1]])
    return joints


@lru_cache(maxsize=16)
def _levels(parents: tuple[int, ...], device: torch.device) -> tuple[list[tuple[torch.Tensor, torch.Tensor]], torch.Tensor, torch.Tensor]:
    """Joints by depth, each level with its parents' places in the level above, the order that undoes the sorting, and every joint's parent but
    the root's: index tensors on ``device``, because a list would be copied there, and waited for, at every use."""
    depth = [0] * len(parents)
    for joint, parent in enumerate(parents):
        depth[joint] = depth[parent] + 1 if parent >= 0 else 0
    rows: list[list[int]] = [[j for j, d in enumerate(depth) if d == level] for level in range(max(depth) + 1)]
    plan = [(row, [rows[level - 1].index(parents[j]) for j in row] if level else []) for level, row in enumerate(rows)]
    flat = [joint for row in rows for joint in row]

    def held(numbers: Iterable[int]) -> torch.Tensor:
        return torch.tensor(list(numbers), dtype=torch.int64, device=device)

    with torch.inference_mode(False):  # kept for callers that differentiate
        levels = [(held(row), held(above)) for row, above in plan]
        return levels, held(flat.index(joint) for joint in range(len(parents))), held(parents[1:])


def forward_kinematics(rotations: torch.Tensor, joints: torch.Tensor, parents: Iterable[int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pose a skeleton; the chain is walked by depth (11 steps for SMPL-X's 55 joints).

    Args:
        rotations: (B, 55, 3, 3) relative to the parent.
        joints: (B, 55, 3) or (1, 55, 3) rest, metres.
        parents: 55 parent numbers, -1 for the root; parents come before their children.

    Returns:
        (B, 55, 3, 3) world rotations; (B, 55, 3) posed joints; (B, 55, 3, 4) skinning transforms, rest to posed.
    """
    parents = tuple(int(p) for p in parents)
    plan, order, others = _levels(parents, rotations.device)
    joints = joints.expand(len(rotations), -1, -1)
    bones = joints - torch.cat([joints.new_zeros(len(joints), 1, 3), joints[:, others]], 1)
    world, posed = [rotations[:, plan[0][0]]], [bones[:, plan[0][0]]]
    for row, above in plan[1:]:
        base = world[-1][:, above]
        posed.append(posed[-1][:, above] + (base @ bones[:, row, :, None])[..., 0])
        world.append(base @ rotations[:, row])
    rotations_world, joints_posed = torch.cat(world, 1)[:, order], torch.cat(posed, 1)[:, order]
    shift = joints_posed - (rotations_world @ joints[..., None])[..., 0]
    return rotations_world, joints_posed, torch.cat([rotations_world, shift[..., None]], -1)


def blend_transforms(weights: torch.Tensor, skin: torch.Tensor) -> torch.Tensor:
    """(B, N, 3, 4) mixtures of the transforms ``skin`` (B, 55, 3, 4) by ``weights`` (N, 55), in one matrix product."""
    flat = skin.transpose(0, 1).flatten(1)
    return (weights @ flat).reshape(len(weights), len(skin), 3, 4).transpose(0, 1)


def skin_points(points: torch.Tensor, weights: torch.Tensor, skin: torch.Tensor) -> torch.Tensor:
    """Linear blend skinning of any points.

    Args:
        points: (N, 3) or (B, N, 3) rest, metres.
        weights: (N, 55), rows sum to 1.
        skin: (B, 55, 3, 4) rest-to-posed transforms.

    Returns:
        (B, N, 3) metres; use :func:`blend_transforms` where the blended 3 x 3 is wanted too.
    """
    blended = blend_transforms(weights, skin)
    points = points if points.dim() == 3 else points[None]
    return (blended[..., :3] @ points[..., None])[..., 0] + blended[..., 3]
