"""The four differentiable steps of CPU rasterisation as autograd functions over the compiled kernels.

covariance -> projection -> (spherical harmonics) -> blending. Each takes and gives float32 CPU tensors for one camera.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from svad_ray.splat.kernels import binning, composite, covariance, harmonics, projection
from svad_ray.splat.threads import even_ranges, get_threads, run_ranges

_f = np.float32
_BLOCK = projection.BLOCK


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().numpy()


def _gradient(tensor: Tensor | None, shape: tuple[int, ...]) -> np.ndarray:
    return np.zeros(shape, np.float32) if tensor is None else _array(tensor)


class Covariance(torch.autograd.Function):
    """quats [..., 4], scales [..., 3] -> upper entries of the covariances [..., 6]."""

    @staticmethod
    def forward(ctx: Any, quats: Tensor, scales: Tensor) -> Tensor:
        q, s = _array(quats).reshape(-1, 4), _array(scales).reshape(-1, 3)
        out = np.empty((len(q), 6), np.float32)
        run_ranges(lambda a, b: covariance.covariance_forward(a, b, q, s, out), even_ranges(len(q), block=_BLOCK))
        ctx.inputs = q, s, quats.shape, scales.shape
        return torch.from_numpy(out).view(*quats.shape[:-1], 6)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        q, s, *shapes = ctx.inputs
        v_covars, v_q, v_s = _array(grads[0]).reshape(-1, 6), np.empty_like(q), np.empty_like(s)
        run_ranges(lambda a, b: covariance.covariance_backward(a, b, q, s, v_covars, v_q, v_s), even_ranges(len(q), block=_BLOCK))
        return torch.from_numpy(v_q).view(shapes[0]), torch.from_numpy(v_s).view(shapes[1])


class Projection(torch.autograd.Function):
    """World Gaussians -> means2d [N, 2], conics [N, 3], depths [N], radii [N, 2], boxes [N, 4], compensations [N] for one camera.

    Radii and boxes have no gradient, and the opacities, which only bound the boxes, receive none here. Compensations are [0] where they
    are not asked for.
    """

    @staticmethod
    def forward(ctx: Any, means: Tensor, covars: Tensor, viewmat: Tensor, opacities: Tensor, K: Tensor, size: tuple[int, int],
                planes: tuple[float, float, float, float], antialiased: bool) -> tuple[Tensor, ...]:  # fmt: skip
        """``size`` is (width, height), ``planes`` (eps2d, near, far, radius_clip)."""
        m, c, v, o, k = (_array(t) for t in (means, covars, viewmat, opacities, K))
        count, (width, height) = len(m), size
        means2d, conics, depths = np.empty((count, 2), np.float32), np.empty((count, 3), np.float32), np.empty(count, np.float32)
        radii, boxes, compensations = np.empty((count, 2), np.int32), np.empty((count, 4), np.int32), np.empty(count * antialiased, np.float32)
        limits = tuple(_f(value) for value in planes)

        def work(a: int, b: int) -> None:
            projection.project_forward(a, b, m, c, o, v, k, width, height, *limits, antialiased, means2d, conics, depths, radii, boxes, compensations)

        run_ranges(work, even_ranges(count, block=_BLOCK))
        ctx.inputs = m, c, v, k, size, limits[0], antialiased, conics, radii, compensations
        tensors = tuple(torch.from_numpy(array) for array in (means2d, conics, depths, radii, boxes, compensations))
        ctx.mark_non_differentiable(*tensors[3:5])
        return tensors

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        m, c, v, k, (width, height), eps2d, antialiased, conics, radii, compensations = ctx.inputs
        count = len(m)
        v_means2d, v_conics, v_depths = _gradient(grads[0], (count, 2)), _gradient(grads[1], (count, 3)), _gradient(grads[2], (count,))
        v_compensations = _gradient(grads[5], compensations.shape)
        v_means, v_covars, blocks = np.empty_like(m), np.empty_like(c), np.zeros((-(-count // _BLOCK), 12))

        def work(a: int, b: int) -> None:
            projection.project_backward(a, b, m, c, v, k, width, height, eps2d, antialiased, conics, radii, compensations,
                                        v_means2d, v_conics, v_depths, v_compensations, v_means, v_covars, blocks)  # fmt: skip

        run_ranges(work, even_ranges(count, block=_BLOCK))
        v_view = np.zeros((4, 4), np.float32)
        v_view[:3] = blocks.sum(0).reshape(3, 4)
        return torch.from_numpy(v_means), torch.from_numpy(v_covars), torch.from_numpy(v_view), None, None, None, None, None


class Harmonics(torch.autograd.Function):
    """directions [N, 3], coefficients [N, K, 3] -> colours [N, 3], not negative; 0 where ``radii`` [N, 2] say unseen."""

    @staticmethod
    def forward(ctx: Any, directions: Tensor, coefficients: Tensor, radii: Tensor, degree: int) -> Tensor:
        d, c, r = _array(directions), _array(coefficients), _array(radii)
        out = np.empty((len(d), 3), np.float32)
        run_ranges(lambda a, b: harmonics.harmonics_forward(a, b, degree, d, c, r, out), even_ranges(len(d), block=_BLOCK))
        ctx.inputs = d, c, r, degree, out
        return torch.from_numpy(out)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        d, c, r, degree, out = ctx.inputs
        v_out, v_d, v_c = _array(grads[0]), np.empty_like(d), np.empty_like(c)
        run_ranges(lambda a, b: harmonics.harmonics_backward(a, b, degree, d, c, out, r, v_out, v_d, v_c), even_ranges(len(d), block=_BLOCK))
        return torch.from_numpy(v_d), torch.from_numpy(v_c), None, None


def tile_ranges(offsets: np.ndarray) -> list[tuple[int, int]]:
    """Runs of tiles of about equal work, a few per thread, so that a late thread leaves little to wait for."""
    tiles, pieces = len(offsets) - 1, 1 if get_threads() == 1 else 8 * get_threads()
    cost = offsets + 16 * np.arange(tiles + 1)  # an empty tile is not free
    edges = np.searchsorted(cost, np.linspace(0, cost[-1], pieces + 1))
    edges[0], edges[-1] = 0, tiles
    return [(int(a), int(b)) for a, b in pairwise(edges) if b > a]


def channel_groups(channels: int) -> list[tuple[int, tuple[float, ...]]]:
    """(first channel, tag) of each pass over the image; the tag's length is a compiled channel count that covers the pass."""
    widest = composite.WIDTHS[-1]
    return [(first, (0.0,) * next(w for w in composite.WIDTHS if w >= min(widest, channels - first))) for first in range(0, channels, widest)]


class Blending(torch.autograd.Function):
    """Image Gaussians -> image [H, W, D] over the background, alpha [H, W]."""

    @staticmethod
    def forward(ctx: Any, means2d: Tensor, conics: Tensor, colors: Tensor, opacities: Tensor, background: Tensor, depths: Tensor, boxes: Tensor,
                size: tuple[int, int], keep_absolute: Callable[[Tensor], None] | None) -> tuple[Tensor, Tensor]:  # fmt: skip
        """``depths`` only order the Gaussians; ``boxes`` [N, 4] come from `Projection`; ``size`` is (width, height).

        ``keep_absolute`` is given, in the backward pass, the sums [N, 2] over pixels of the absolute gradients of ``means2d``.
        """
        m, c, f, o, bg, d, box = (_array(t) for t in (means2d, conics, colors, opacities, background, depths, boxes))
        width, height = size
        tiles_x, tiles_y = -(-width // binning.TILE), -(-height // binning.TILE)
        lists = binning.tile_lists(binning.depth_order(box, d), box, tiles_x, tiles_y)
        offsets, ids, _, _, room = lists
        image, transmittance = np.empty((height, width, f.shape[1]), np.float32), np.empty((height, width), np.float32)
        counts, changed = np.empty(len(ids), np.int32), np.empty(room[-1], np.uint16)
        ranges, groups, packs = tile_ranges(offsets), channel_groups(f.shape[1]), []
        for channel, tag in groups:
            packed = np.empty((len(m), binning.ROW), np.float32)

            def pack(a: int, b: int, channel=channel, tag=tag, packed=packed) -> None:
                binning.pack(a, b, box, m, c, o, f, channel, len(tag), packed)

            def blend(a: int, b: int, channel=channel, tag=tag, packed=packed) -> None:
                composite.composite_forward(a, b, packed, box, offsets, ids, room, tiles_x, tag, channel, bg, image, transmittance, counts, changed)

            run_ranges(pack, even_ranges(len(m), block=_BLOCK))
            run_ranges(blend, ranges)
            packs.append(packed)
        ctx.inputs = (m, c, f, o, bg, lists, tiles_x, transmittance, counts, changed, ranges, groups, packs)
        ctx.keep_absolute = keep_absolute
        return torch.from_numpy(image), torch.from_numpy(1 - transmittance)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        m, c, f, o, bg, lists, tiles_x, transmittance, counts, changed, ranges, groups, packs = ctx.inputs
        offsets, ids, slot_of, firsts, room = lists
        v_image, v_alpha = _gradient(grads[0], (*transmittance.shape, f.shape[1])), _gradient(grads[1], transmittance.shape)
        v_m, v_c, v_f, v_o = np.zeros_like(m), np.zeros_like(c), np.zeros_like(f), np.zeros_like(o)
        v_absolute, extra = np.zeros_like(m), (0.0, 0.0) if ctx.keep_absolute else ()
        for (channel, tag), packed in zip(groups, packs):
            slots = np.empty((len(ids), composite.MOMENTS + len(extra) + len(tag)), np.float32)
            real = min(len(tag), f.shape[1] - channel)

            def unblend(a: int, b: int, channel=channel, tag=tag, packed=packed, slots=slots) -> None:
                composite.composite_backward(a, b, packed, offsets, ids, slot_of, room, tiles_x, tag, extra, channel, bg, transmittance, counts,
                                             changed, v_image, v_alpha, slots)  # fmt: skip

            def reduce(a: int, b: int, channel=channel, real=real, packed=packed, slots=slots) -> None:
                binning.reduce_slots(a, b, firsts, slots, packed, o, channel, real, len(extra), v_m, v_c, v_o, v_f, v_absolute)

            run_ranges(unblend, ranges)
            run_ranges(reduce, even_ranges(len(m), block=_BLOCK))
        if ctx.keep_absolute:
            ctx.keep_absolute(torch.from_numpy(v_absolute))
        v_bg = np.einsum("yxd,yx->d", v_image, transmittance) if ctx.needs_input_grad[4] else None
        tensors = (torch.from_numpy(array) for array in (v_m, v_c, v_f, v_o))
        return (*tensors, None if v_bg is None else torch.from_numpy(v_bg), None, None, None, None)
