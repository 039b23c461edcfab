"""What colours the clothed surface, and how it is drawn with the photo's own pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit

from svad_ray.fitting.clothed import Surface
from svad_ray.geometry.raster import MeshBuffers, rasterize_mesh, sample_bilinear


@dataclass(frozen=True)
class Appearance:
    """What colours a surface: the photos where it was seen, a completed fill elsewhere.

    Attributes:
        photo: (H, W, 3) float32, the K photos below each other, extended outwards from the person so that no background enters.
        uv: (K, N, 2) pixels of each vertex in each photo. seen: (K, N) weights of the photos in [0, 1], together at most 1.
        fill: (N, 3) completed colour. fill_uv: (N, 2) photo pixels that the fill was taken from, NaN where it is a plain colour.
        fill_gain: (N,) by which the photo's pixels at ``fill_uv`` are brighter where they are put; already in ``fill``.
        stretch: Longest step of ``fill_uv`` across a triangle (pixels) that still counts as one place of the photo.
    """

    photo: np.ndarray
    uv: np.ndarray
    seen: np.ndarray
    fill: np.ndarray
    fill_uv: np.ndarray
    fill_gain: np.ndarray
    stretch: float

    @property
    def colors(self) -> np.ndarray:
        """(N, 3) colour of each vertex."""
        shown = np.einsum("kn,knc->nc", self.seen, sample_bilinear(self.photo, self.uv))
        return shown + (1 - self.seen.sum(0)[:, None]) * self.fill


def draw(
    surface: Surface, look: Appearance, camera_points: np.ndarray, K: np.ndarray, height: int, width: int, *, supersample: int = 2, threads: int = 2
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Render the coloured surface on white.

    Args:
        camera_points: (N, 3) posed vertices in camera axes.
        K: (3, 3) pixels.

    Returns:
        image (H, W, 3) float32, coverage (H, W) float32, depth (H, W) float32 metres (inf outside).
    """
    s = supersample
    buffers = rasterize_mesh(camera_points, surface.faces, K * np.array([[s], [s], [1]]), height * s, width * s, threads=threads)
    image, alpha = np.empty((height, width, 3), np.float32), np.empty((height, width), np.float32)
    ok_uv = np.isfinite(look.fill_uv).all(1)
    _shade(
        buffers.face_id,
        buffers.bary,
        surface.faces,
        look.photo,
        look.uv,
        look.seen,
        look.fill,
        np.where(ok_uv[:, None], look.fill_uv, -1e9).astype(np.float32),
        look.fill_gain.astype(np.float32),
        np.float32(look.stretch),
        s,
        image,
        alpha,
    )
    return image, alpha, _nearest_depth(buffers, s)


def _nearest_depth(buffers: MeshBuffers, s: int) -> np.ndarray:
    h, w = buffers.depth.shape
    return buffers.depth.reshape(h // s, s, w // s, s).min((1, 3))


@njit(cache=True, nogil=True, error_model="numpy")
def _texel(photo, x, y, out):  # pragma: no cover - compiled
    height, width, _ = photo.shape
    x = min(max(x - np.float32(0.5), np.float32(0)), np.float32(width - 1.001))
    y = min(max(y - np.float32(0.5), np.float32(0)), np.float32(height - 1.001))
    i, j = int(y), int(x)
    fx, fy = x - j, y - i
    for c in range(3):
        top = (1 - fx) * photo[i, j, c] + fx * photo[i, j + 1, c]
        low = (1 - fx) * photo[i + 1, j, c] + fx * photo[i + 1, j + 1, c]
        out[c] = (1 - fy) * top + fy * low


@njit(cache=True, nogil=True, error_model="numpy")
def _shade(face_id, bary, faces, photo, uv, seen, fill, fill_uv, gain, stretch, s, image, alpha):  # pragma: no cover - compiled
    height, width = alpha.shape
    near, far = np.empty(3, np.float32), np.empty(3, np.float32)
    total = np.empty(3, np.float32)
    for y in range(height):
        for x in range(width):
            total[:] = 0
            hits = 0
            for sub in range(s * s):
                yy, xx = y * s + sub // s, x * s + sub % s
                f = face_id[yy, xx]
                if f < 0:
                    continue
                hits += 1
                a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
                p, q, r = bary[yy, xx, 0], bary[yy, xx, 1], bary[yy, xx, 2]
                rest = np.float32(1)
                for v in range(len(seen)):
                    w = p * seen[v, a] + q * seen[v, b] + r * seen[v, c]
                    if w <= 0:
                        continue
                    ux = p * uv[v, a, 0] + q * uv[v, b, 0] + r * uv[v, c, 0]
                    uy = p * uv[v, a, 1] + q * uv[v, b, 1] + r * uv[v, c, 1]
                    _texel(photo, ux, uy, near)
                    rest -= w
                    for k in range(3):
                        total[k] += near[k] * w
                if rest > np.float32(1e-6):
                    one_place = True
                    for k in range(2):
                        low = min(fill_uv[a, k], fill_uv[b, k], fill_uv[c, k])
                        high = max(fill_uv[a, k], fill_uv[b, k], fill_uv[c, k])
                        if low < -1e8 or high - low > stretch:
                            one_place = False
                    if one_place:
                        ux = p * fill_uv[a, 0] + q * fill_uv[b, 0] + r * fill_uv[c, 0]
                        uy = p * fill_uv[a, 1] + q * fill_uv[b, 1] + r * fill_uv[c, 1]
                        _texel(photo, ux, uy, far)
                        brighter = p * gain[a] + q * gain[b] + r * gain[c]
                        for k in range(3):
                            far[k] = min(far[k] * brighter, np.float32(1))
                    else:
                        for k in range(3):
                            far[k] = p * fill[a, k] + q * fill[b, k] + r * fill[c, k]
                    for k in range(3):
                        total[k] += far[k] * rest
            share = np.float32(hits) / (s * s)
            alpha[y, x] = share
            for k in range(3):
                image[y, x, k] = total[k] / (s * s) + (1 - share)


def smoothstep(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 below ``low``, 1 above ``high``, smooth between."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def odd(pixels: float) -> int:
    """The odd kernel side with the given radius in pixels, at least 3."""
    return 2 * max(1, math.ceil(pixels)) + 1
