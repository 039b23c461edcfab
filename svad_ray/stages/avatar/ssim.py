"""Structural dissimilarity as a training term, window 11 and sigma 1.5: compiled loops on a CPU, torch's convolutions elsewhere.

Only the first image gets a gradient; the second is the truth.
"""

# mypy: no-check-untyped-defs
# (numba types the kernels itself)
from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numba import njit

from svad_ray.splat.threads import run_ranges

WINDOW, SIGMA = 11, 1.5
C1, C2 = 0.01**2, 0.03**2
_f = np.float32


def dissimilarity(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Mean of 1 - SSIM of (1, C, H, W) images with zeros outside, a scalar; the gradient reaches ``a`` alone."""
    if a.device.type == "cpu" and a.dtype == torch.float32:
        out: torch.Tensor = _Dissimilarity.apply(a, b)  # type: ignore[no-untyped-call]
        return out
    return 1 - ssim_map(a, b.detach()).mean()


def ssim_map(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """(1, C, H, W) structural similarity with zeros outside the image (window 11, sigma 1.5), of any device and type."""
    stacked = torch.cat([a, b, a * a, b * b, a * b], 1)
    count, window = stacked.shape[1], _window(a.dtype, a.device)
    rows = F.conv2d(stacked, window.view(1, 1, -1, 1).expand(count, 1, -1, 1), padding=(WINDOW // 2, 0), groups=count)
    blurred = F.conv2d(rows, window.view(1, 1, 1, -1).expand(count, 1, 1, -1), padding=(0, WINDOW // 2), groups=count)
    mean_a, mean_b, aa, bb, ab = blurred.chunk(5, 1)
    top = (2 * mean_a * mean_b + C1) * (2 * (ab - mean_a * mean_b) + C2)
    return top / ((mean_a.square() + mean_b.square() + C1) * (aa - mean_a.square() + bb - mean_b.square() + C2))


@lru_cache(maxsize=8)
def _window(dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """(11,) Gaussian weights that sum to one."""
    reach = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    weights = torch.exp(-reach.square() / (2 * SIGMA**2))
    return (weights / weights.sum()).to(device, dtype)


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def _weighted(w, p0, p1, p2, p3, p4, p5, p6, p7, p8, p9, p10, out):
    """Eleven runs of pixels summed with symmetric weights: one pass over memory, eight pixels at a time."""
    w0, w1, w2, w3, w4, w5 = w[0], w[1], w[2], w[3], w[4], w[5]
    for x in range(len(out)):
        near = w5 * p5[x] + w4 * (p4[x] + p6[x]) + w3 * (p3[x] + p7[x])
        out[x] = near + w2 * (p2[x] + p8[x]) + w1 * (p1[x] + p9[x]) + w0 * (p0[x] + p10[x])


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def _blur(source, w, middle, wide, out):
    """(H, W) blurred into ``out``, zeros outside; ``middle`` (H + 10, W), zero in its first and last five rows, and ``wide`` (W + 10,), likewise."""
    height, n = source.shape
    for y in range(height):
        for x in range(n):
            wide[x + 5] = source[y, x]
        p = wide
        _weighted(w, p[0:n], p[1 : n + 1], p[2 : n + 2], p[3 : n + 3], p[4 : n + 4], p[5 : n + 5], p[6 : n + 6], p[7 : n + 7], p[8 : n + 8],
                  p[9 : n + 9], p[10 : n + 10], middle[y + 5])  # fmt: skip
    for y in range(height):
        m = middle
        _weighted(w, m[y], m[y + 1], m[y + 2], m[y + 3], m[y + 4], m[y + 5], m[y + 6], m[y + 7], m[y + 8], m[y + 9], m[y + 10], out[y])


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def _channel(a, b, window, c1, c2, room, gradient):
    """Sum of the similarity of two (H, W) planes, and its gradient to ``a`` into ``gradient``; ``room`` (8, H, W) is overwritten."""
    height, width = a.shape
    middle, wide = np.zeros((height + 10, width), np.float32), np.zeros(width + 10, np.float32)
    for y in range(height):
        for x in range(width):
            room[0, y, x], room[1, y, x], room[2, y, x] = a[y, x] * a[y, x], b[y, x] * b[y, x], a[y, x] * b[y, x]
    for k in range(3):
        _blur(room[k], window, middle, wide, room[3 + k])
    _blur(a, window, middle, wide, room[6])
    _blur(b, window, middle, wide, room[7])
    total = 0.0
    two = _f(2)
    for y in range(height):
        line = _f(0)
        for x in range(width):
            u, v = room[6, y, x], room[7, y, x]
            a1, a2 = two * u * v + c1, two * (room[5, y, x] - u * v) + c2
            b1, b2 = u * u + v * v + c1, room[3, y, x] - u * u + room[4, y, x] - v * v + c2
            share = _f(1) / (b1 * b2)
            s = a1 * a2 * share
            line += s
            room[0, y, x] = two * v * (a2 - a1) * share - two * u * s * (_f(1) / b1 - _f(1) / b2)
            room[1, y, x] = -s / b2
            room[2, y, x] = two * a1 * share
        total += line
    for k in range(3):
        _blur(room[k], window, middle, wide, room[3 + k])
    for y in range(height):
        for x in range(width):
            gradient[y, x] = room[3, y, x] + two * a[y, x] * room[4, y, x] + b[y, x] * room[5, y, x]
    return total


class _Dissimilarity(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        first, second = (x.detach()[0].contiguous().numpy() for x in (a, b))
        window = _window(torch.float32, torch.device("cpu")).numpy()
        gradient, totals = np.empty_like(first), np.zeros(len(first))

        def work(start: int, stop: int) -> None:
            room = np.empty((8, *first.shape[1:]), np.float32)
            for k in range(start, stop):
                totals[k] = _channel(first[k], second[k], window, _f(C1), _f(C2), room, gradient[k])

        run_ranges(work, [(k, k + 1) for k in range(len(first))])
        ctx.gradient = gradient
        return torch.tensor(1 - totals.sum() / first.size, dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        share = -float(gradients[0]) / ctx.gradient.size
        return torch.from_numpy(ctx.gradient * _f(share))[None], None
