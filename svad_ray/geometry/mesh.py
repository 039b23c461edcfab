"""Triangle meshes: normals, edges, the graph Laplacian, midpoint subdivision, points scattered by area."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch


def vertex_normals(vertices: torch.Tensor, faces: torch.Tensor) -> torch.Tensor:
    """Unit normals, area weighted: (V, 3) or (B, V, 3) -> the same shape; ``faces`` (F, 3)."""
    a, b, c = (vertices[..., faces[:, k], :] for k in range(3))
    n = torch.linalg.cross(b - a, c - a, dim=-1)
    out = torch.zeros_like(vertices)
    for k in range(3):
        out = out.index_add(-2, faces[:, k], n)
    return out / (out.norm(dim=-1, keepdim=True) + 1e-12)


def normals_np(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """:func:`vertex_normals` for (V, 3) NumPy arrays."""
    return vertex_normals(torch.as_tensor(np.ascontiguousarray(vertices, np.float32)), torch.as_tensor(faces)).numpy()


def unique_edges(faces: np.ndarray) -> np.ndarray:
    """(E, 2) undirected edges, each once, low index first, sorted."""
    e = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    return np.unique(e, axis=0)


def adjacency(faces: np.ndarray, count: int) -> sp.csr_matrix:
    """(V, V) symmetric 0/1 vertex adjacency."""
    i, j = unique_edges(faces).T
    a = sp.coo_matrix((np.ones(len(i)), (i, j)), (count, count))
    return (a + a.T).tocsr()


def laplacian(faces: np.ndarray, count: int) -> sp.csc_matrix:
    """(V, V) uniform graph Laplacian D - A."""
    a = adjacency(faces, count)
    return (sp.diags(np.asarray(a.sum(1)).ravel()) - a).tocsc()


def mean_edge(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(V,) mean length of the edges at each vertex, metres (0 where a vertex has none)."""
    e = unique_edges(faces)
    length = np.linalg.norm(vertices[e[:, 0]] - vertices[e[:, 1]], axis=1)
    total, count = np.zeros(len(vertices)), np.zeros(len(vertices))
    for k in range(2):
        np.add.at(total, e[:, k], length)
        np.add.at(count, e[:, k], 1)
    return total / np.maximum(count, 1)


def subdivide(faces: np.ndarray, count: int) -> tuple[sp.csr_matrix, np.ndarray]:
    """Midpoint subdivision.

    Returns:
        ((V + E, V) matrix whose rows average the base vertices, (4 F, 3) faces). Old vertices keep their numbers; new ones follow
        in the order of the edges sorted by (low, high) index, as ExAvatar's subdivision does (spec/avatar 4.1).
    """
    e = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    edges, inverse = np.unique(e, axis=0, return_inverse=True)
    m01, m12, m20 = inverse.reshape(3, -1) + count
    rows = np.repeat(np.arange(len(edges)), 2)
    half = sp.coo_matrix((np.full(2 * len(edges), 0.5), (rows, edges.ravel())), (len(edges), count))
    a, b, c = faces.T
    new = [np.stack(t, 1) for t in ((a, m01, m20), (b, m12, m01), (c, m20, m12), (m12, m20, m01))]
    return sp.vstack([sp.eye(count), half]).tocsr(), np.concatenate(new)


def face_areas(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(F,) square metres."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    return np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2


def scatter(
    vertices: np.ndarray, faces: np.ndarray, count: int, *, density: np.ndarray | None = None, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random points on a surface, spread by area (stratified over the faces).

    Args:
        density: (F,) relative density per face; None = uniform.

    Returns:
        Face numbers (N,), barycentrics (N, 3), spacing (N,) metres: the side of the square that each point stands for. N is ``count`` up to one.
    """
    rng = np.random.default_rng(seed)
    area = face_areas(vertices, faces)
    weight = area if density is None else area * density
    edges = np.floor(np.concatenate([[0.0], np.cumsum(weight) / weight.sum() * count]) + rng.random()).astype(np.int64)
    per_face = np.diff(edges)
    face = np.repeat(np.arange(len(faces)), per_face)
    r = rng.random((len(face), 2))
    s = np.sqrt(r[:, :1])
    bary = np.concatenate([1 - s, s * (1 - r[:, 1:]), s * r[:, 1:]], axis=1)
    spacing = np.sqrt(weight.sum() / count / (1 if density is None else density[face]) * np.ones(len(face)))
    return face, bary.astype(np.float32), spacing.astype(np.float32)
