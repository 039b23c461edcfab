"""First colours of the Gaussians: what the frames themselves show of the surface, best views first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.spatial import cKDTree

from svad_ray.fitting.clothed import Surface
from svad_ray.geometry.mesh import normals_np
from svad_ray.geometry.raster import project, rasterize_mesh, sample_bilinear, to_camera

BEHIND = 0.012  # metres behind the z-buffer's surface from which a point counts as hidden


@dataclass(frozen=True)
class View:
    """One training view.

    Attributes:
        image: (H, W, 3) float32 on white. alpha: (H, W) float32.
        skin: (55, 3, 4) skinning transforms of its pose. viewmat (4, 4), K (3, 3).
        weight: How much it counts.
    """

    image: torch.Tensor
    alpha: torch.Tensor
    skin: torch.Tensor
    viewmat: torch.Tensor
    K: torch.Tensor
    weight: float = 1.0

    def to(self, device: torch.device | str) -> View:
        """This view on a device."""
        return replace(self, **{name: getattr(self, name).to(device) for name in ("image", "alpha", "skin", "viewmat", "K")})


@dataclass(frozen=True)
class SurfacePoints:
    """Points on a surface.

    Attributes:
        face: (N,). bary: (N, 3). rest: (N, 3) metres. normal: (N, 3). lbs_weights: (N, 55).
        spacing: (N,) metres, side of the square that each stands for. reach: (N,) metres to the farthest place that has no nearer point.
    """

    face: np.ndarray
    bary: np.ndarray
    rest: np.ndarray
    normal: np.ndarray
    spacing: np.ndarray
    lbs_weights: np.ndarray
    reach: np.ndarray


def colors_from_views(surface: Surface, points: SurfacePoints, views: Sequence[View]) -> np.ndarray:
    """(N, 3) colours: mean over the views that see a point, weighted by the fourth power of the cosine of sight.

    Points that no view shows take the colour of the nearest seen point in the rest pose.
    """
    total, weight = np.zeros((len(points.face), 3)), np.zeros(len(points.face))
    for view in views:
        color, w = _one_view(surface, points, view)
        total += color * w[:, None]
        weight += w
    seen = weight > 1e-4
    out = np.full((len(weight), 3), 0.5)
    out[seen] = total[seen] / weight[seen, None]
    if seen.any() and not seen.all():
        _, i = cKDTree(points.rest[seen]).query(points.rest[~seen])
        out[~seen] = out[seen][i]
    return out.astype(np.float32)


def _one_view(surface: Surface, points: SurfacePoints, view: View) -> tuple[np.ndarray, np.ndarray]:
    vertices = to_camera(surface.posed(view.skin), view.viewmat.numpy())
    height, width = view.alpha.shape
    K = view.K.numpy()
    buffers = rasterize_mesh(vertices, surface.faces, K, height, width)
    corners = surface.faces[points.face]
    x = np.einsum("nk,nkc->nc", points.bary, vertices[corners])
    normal = np.einsum("nk,nkc->nc", points.bary, normals_np(vertices, surface.faces)[corners])
    facing = np.clip(-(normal * x).sum(1) / (np.linalg.norm(x, axis=1) * np.linalg.norm(normal, axis=1) + 1e-9), 0, 1)
    uv = project(x, K)
    depth = sample_bilinear(np.where(buffers.mask, buffers.depth, 0).astype(np.float32), uv)
    covered = sample_bilinear(view.alpha.numpy(), uv)
    w = facing**4 * (x[:, 2] < depth + BEHIND) * (facing > 0.15) * (covered > 0.98) * view.weight
    return sample_bilinear(view.image.numpy(), uv), w
