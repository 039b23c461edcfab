"""A triangle z-buffer on the CPU: which face, how deep, and where on the face, for every pixel."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numba import njit

NEAR = 0.05  # metres; triangles with a vertex nearer than this are skipped


@dataclass(frozen=True)
class MeshBuffers:
    """What each pixel sees.

    Attributes:
        depth: (H, W) float32 metres along the camera's z axis, inf where nothing is.
        face_id: (H, W) int32, -1 where nothing is.
        bary: (H, W, 3) float32 perspective-correct barycentric coordinates on the face.
    """

    depth: np.ndarray
    face_id: np.ndarray
    bary: np.ndarray

    @property
    def mask(self) -> np.ndarray:
        """(H, W) bool, where the mesh is."""
        return self.face_id >= 0


def project(points: np.ndarray, K: np.ndarray) -> np.ndarray:
    """Pixels of camera-space points.

    Args:
        points: (..., 3) metres, OpenCV camera axes.
        K: (3, 3) pinhole intrinsics, pixels.

    Returns:
        (..., 2) pixels.
    """
    return points[..., :2] / points[..., 2:] * np.array([K[0, 0], K[1, 1]], points.dtype) + np.asarray(K[:2, 2], points.dtype)


def to_camera(points: np.ndarray, viewmat: np.ndarray) -> np.ndarray:
    """World points (..., 3) in the axes of the camera ``viewmat`` (4, 4)."""
    return points @ np.asarray(viewmat[:3, :3], points.dtype).T + np.asarray(viewmat[:3, 3], points.dtype)


def rasterize_mesh(vertices: np.ndarray, faces: np.ndarray, K: np.ndarray, height: int, width: int, *, threads: int = 2) -> MeshBuffers:
    """Draw a triangle mesh into a z-buffer.

    Args:
        vertices: (V, 3) metres, camera axes (x right, y down, z forward).
        faces: (F, 3) vertex numbers; both windings are drawn.
        K: (3, 3) pinhole intrinsics, pixels; pixel centres at half integers.
        height, width: Size of the buffers.
        threads: Row bands drawn at once; the result does not depend on it.
    """
    v = np.ascontiguousarray(vertices, np.float32)
    f = np.ascontiguousarray(faces, np.int32)
    with np.errstate(divide="ignore", invalid="ignore"):
        p = np.nan_to_num(project(v, np.asarray(K, np.float32)), nan=-1e6, posinf=1e6, neginf=-1e6)
    z = np.ascontiguousarray(v[:, 2])
    depth = np.full((height, width), np.inf, np.float32)
    face_id = np.full((height, width), -1, np.int32)
    bary = np.zeros((height, width, 3), np.float32)
    bands = _bands(p[:, 1], height, threads)
    if len(bands) == 1:
        _draw(p, z, f, 0, height, depth, face_id, bary)
    else:
        with ThreadPoolExecutor(len(bands)) as pool:
            list(pool.map(lambda band: _draw(p, z, f, band[0], band[1], depth, face_id, bary), bands))
    return MeshBuffers(depth, face_id, bary)


def _bands(y: np.ndarray, height: int, threads: int) -> list[tuple[int, int]]:
    """Row bands that hold about the same number of vertices each."""
    if threads <= 1 or len(y) < 2000:
        return [(0, height)]
    cuts = np.clip(np.quantile(y, np.linspace(0, 1, threads + 1)[1:-1]), 0, height).astype(int)
    edges = [0, *cuts.tolist(), height]
    return [(a, b) for a, b in pairwise(edges) if b > a]


@njit(cache=True, nogil=True, error_model="numpy")
def _draw(p, z, faces, row0, row1, depth, face_id, bary):  # pragma: no cover - compiled, where floor gives a float
    width = depth.shape[1]
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        za, zb, zc = z[a], z[b], z[c]
        if za < NEAR or zb < NEAR or zc < NEAR:
            continue
        ax, ay, bx, by, cx, cy = p[a, 0], p[a, 1], p[b, 0], p[b, 1], p[c, 0], p[c, 1]
        y0 = max(row0, math.floor(min(ay, by, cy) - 0.5))
        y1 = min(row1 - 1, math.ceil(max(ay, by, cy)))
        if y1 < y0:
            continue
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if area == 0.0:
            continue
        x0 = max(0, math.floor(min(ax, bx, cx) - 0.5))
        x1 = min(width - 1, math.ceil(max(ax, bx, cx)))
        ia, ra, rb, rc = 1.0 / area, 1.0 / za, 1.0 / zb, 1.0 / zc
        for y in range(y0, y1 + 1):
            py = y + 0.5
            for x in range(x0, x1 + 1):
                px = x + 0.5
                w0 = ((bx - px) * (cy - py) - (by - py) * (cx - px)) * ia
                w1 = ((cx - px) * (ay - py) - (cy - py) * (ax - px)) * ia
                w2 = 1.0 - w0 - w1
                if w0 < 0.0 or w1 < 0.0 or w2 < 0.0:
                    continue
                q0, q1, q2 = w0 * ra, w1 * rb, w2 * rc
                d = 1.0 / (q0 + q1 + q2)
                if d < depth[y, x]:
                    depth[y, x] = d
                    face_id[y, x] = f
                    bary[y, x, 0], bary[y, x, 1], bary[y, x, 2] = q0 * d, q1 * d, q2 * d


def interpolate(buffers: MeshBuffers, faces: np.ndarray, attribute: np.ndarray) -> np.ndarray:
    """Per-vertex values at the pixels that see the mesh.

    Args:
        buffers: From :func:`rasterize_mesh`.
        faces: (F, 3) vertex numbers.
        attribute: (V, C) or (V,).

    Returns:
        (M, C) or (M,) for the M pixels of ``buffers.mask`` in row order.
    """
    m = buffers.mask
    corners = attribute[faces[buffers.face_id[m]]]
    return np.einsum("mk,mk...->m...", buffers.bary[m].astype(attribute.dtype, copy=False), corners)


def sample_bilinear(image: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """Bilinear samples, clamped at the border.

    Args:
        image: (H, W) or (H, W, C) float.
        xy: (..., 2) pixels, pixel centres at half integers.

    Returns:
        (...,) or (..., C).
    """
    flat = image.ndim == 2
    img = np.ascontiguousarray(image[..., None] if flat else image, np.float32)
    pts = np.ascontiguousarray(np.reshape(xy, (-1, 2)), np.float32)
    out = np.empty((len(pts), img.shape[2]), np.float32)
    _sample(img, pts, out)
    return out[:, 0].reshape(xy.shape[:-1]) if flat else out.reshape(*xy.shape[:-1], img.shape[2])


@njit(cache=True, nogil=True, error_model="numpy")
def _sample(img, pts, out):  # pragma: no cover - compiled
    height, width, channels = img.shape
    for i in range(pts.shape[0]):
        x, y = pts[i, 0] - 0.5, pts[i, 1] - 0.5
        x = min(max(x, 0.0), width - 1.0) if x == x else 0.0
        y = min(max(y, 0.0), height - 1.0) if y == y else 0.0
        x0, y0 = min(int(x), max(width - 2, 0)), min(int(y), max(height - 2, 0))
        x1, y1 = min(x0 + 1, width - 1), min(y0 + 1, height - 1)
        fx, fy = x - x0, y - y0
        for c in range(channels):
            top = (1 - fx) * img[y0, x0, c] + fx * img[y0, x1, c]
            low = (1 - fx) * img[y1, x0, c] + fx * img[y1, x1, c]
            out[i, c] = (1 - fy) * top + fy * low
