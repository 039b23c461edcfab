"""Points spread evenly on a surface: none near another, no gap wider than need be."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from svad_ray.geometry.mesh import normals_np, scatter

PROBES = 6  # random points for each wanted one, of which the wanted ones are chosen
ROUNDS = 3
TURNED = 0.5  # of a spacing: how far apart two sides of a thin part are held that look opposite ways


def scatter_evenly(
    vertices: np.ndarray, faces: np.ndarray, count: int, *, density: np.ndarray | None = None, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """As :func:`scatter`, without its clumps and gaps: a few rounds of Lloyd's relaxation among random points of the surface.

    Returns:
        Face numbers (N,), barycentrics (N, 3), spacing (N,) metres, and reach (N,) metres: to the farthest place that has no nearer point.
    """
    face, bary, spacing = scatter(vertices, faces, count * PROBES, density=density, seed=seed)
    spacing = spacing * np.float32(np.sqrt(PROBES))
    normal = normals_np(vertices, faces)
    corners = faces[face]
    at = np.einsum("nk,nkc->nc", bary, vertices[corners])
    facing = np.einsum("nk,nkc->nc", bary, normal[corners])
    place = np.concatenate([at, TURNED * spacing[:, None] * facing], 1)
    tree = cKDTree(place)
    chosen = np.arange(len(at))[::PROBES]
    for _ in range(ROUNDS):
        _, owner = cKDTree(place[chosen]).query(place)
        number = np.maximum(np.bincount(owner, minlength=len(chosen)), 1)[:, None]
        middle = np.stack([np.bincount(owner, place[:, k], len(chosen)) for k in range(place.shape[1])], 1) / number
        chosen = np.unique(tree.query(middle)[1])
    far, owner = cKDTree(at[chosen]).query(at)
    reach = np.zeros(len(chosen))
    np.maximum.at(reach, owner, far)
    return face[chosen], bary[chosen], spacing[chosen], reach.astype(np.float32)
