"""Planes of Gaussians in front of the photo's camera, cameras in both conventions, and covariances of unnormalised quaternions.

A ``transform`` is the tracker's (3, 4) camera: a row vector ``x`` of the head's space is at ``x R + T`` in axes with x to the left, y up and
z forward.
"""

from __future__ import annotations

import torch
from torch import Tensor

from svad_ray.nets.gagavatar.sizes import FOCAL, HARMONICS

NEAR, FAR = 0.2, 100.0  # the trained model's rasteriser drops what is nearer than 0.2


def plane_points(transform: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """The grid through the head's origin, parallel to the photo's picture.

    Args:
        transform: (3, 4) camera of the photo.
        side: Points along one side of the grid; columns first, from the picture's top left.

    Returns:
        (side * side, 3) points and the (3,) viewing direction, both in the head's space.

    Source: GAGAvatar's dual lifting: rays of focal length 12, cut at the camera's distance from the origin.
    """
    rotation, shift = transform[:, :3], transform[:, 3]
    line = torch.linspace(1, -1, side, dtype=transform.dtype, device=transform.device)
    y, x = torch.meshgrid(line, line, indexing="ij")
    rays = torch.stack((x / FOCAL, y / FOCAL, torch.ones_like(x)), -1).reshape(-1, 3) @ rotation.T
    direction, origin = rotation[:, 2], -(rotation @ shift)
    return origin + (origin @ direction).abs() * rays, direction


def encode_direction(directions: Tensor) -> Tensor:
    """(B, 3) directions -> (B, 27): sines and cosines of 1, 2, 4 and 8 times each component, then the component itself."""
    powers = 2.0 ** torch.arange(HARMONICS, dtype=directions.dtype, device=directions.device)
    angles = (directions[..., None] * powers).flatten(-2)
    return torch.cat((angles.sin(), angles.cos(), directions), -1)


def view_matrices(transforms: Tensor) -> Tensor:
    """(B, 3, 4) tracker's cameras -> (B, 4, 4) world to camera in OpenCV's axes."""
    flip = transforms.new_tensor((-1.0, -1.0, 1.0))
    view = torch.zeros(len(transforms), 4, 4, dtype=transforms.dtype, device=transforms.device)
    view[:, :3, :3] = transforms[:, :, :3].transpose(1, 2) * flip[:, None]
    view[:, :3, 3] = transforms[:, :, 3] * flip
    view[:, 3, 3] = 1
    return view


def intrinsics(side: int, *, device: torch.device | None = None) -> Tensor:
    """(3, 3) pixels of a square picture."""
    half = side / 2
    return torch.tensor([[FOCAL * half, 0, half], [0, FOCAL * half, half], [0, 0, 1]], device=device)


def covariances(quats: Tensor, scales: Tensor) -> Tensor:
    """(N, 3, 3) covariances by the formula for unit quaternions, applied to quaternions of any length.

    The trained model counts on that: its global branch gives quaternions of length 2 / sqrt(5023), which act as no rotation at all.

    Args:
        quats: (N, 4) wxyz, not normalised here. scales: (N, 3).
    """
    w, x, y, z = quats.unbind(-1)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    scaled = torch.stack([torch.stack(row, -1) for row in rows], -2) * scales[:, None]
    return scaled @ scaled.transpose(1, 2)
