"""Blend the sorted Gaussians of each tile front to back, and the exact reverse of it.

Gaussian by Gaussian over a tile's framebuffer: each touches only its own rows, and of a row only the span its ellipse covers, eight
pixels a step. Source: 3D Gaussian Splatting (Kerbl et al. 2023), equation 3, with gsplat 1.5.3's rules: alpha below 1/255 does not
count, alpha is at most 0.999, a pixel ends before the Gaussian that would take its transmittance to 1e-4 or less.
Ours: the final transmittance itself is kept (not 1 - alpha, which loses its digits), and a pixel's end is stored once, when it happens.
"""

# mypy: no-check-untyped-defs
# (numba types these functions itself)
from __future__ import annotations

import math

import numpy as np

from svad_ray.splat.kernels.binning import COLOR, TILE
from svad_ray.splat.kernels.jit import kernel
from svad_ray.splat.kernels.simd import (
    any_lane,
    both,
    broadcast,
    ceil_int,
    count_lanes,
    exp2,
    floor_int,
    fma,
    horizontal_sum,
    keep,
    lane_numbers,
    load,
    minimum,
    prefetch,
    store,
)

_f = np.float32
_ZERO, _HALF, _ONE = _f(0), _f(0.5), _f(1)
_ALPHA_MIN, _ALPHA_MAX, _END = _f(1 / 255), _f(0.999), _f(1e-4)
_LOG2_ALPHA_MIN = _f(-7.994353436858858)
_SLACK = _f(0.02)  # pixels added to a span's half width against rounding
_NEVER = _f(2**24)  # beyond every place that float32 can count
WIDTHS = (1, 3, 4, 8)  # channel counts that kernels are compiled for
MOMENTS = 6
_AHEAD = 6  # Gaussians between asking for a row and using it; rows of one tile lie too far apart for the hardware to guess
_STRIDE = TILE + 8  # a step may run seven pixels past the tile
_PLANE = TILE * _STRIDE


@kernel
def _row_span(box_from, box_to, centre, budget, inverse):
    """Pixels of a row within the box where the exponent stays above the threshold; empty where ``budget`` is negative."""
    if budget < _ZERO:
        return box_from, box_from
    reach = math.sqrt(budget * inverse) + _SLACK
    return max(box_from, ceil_int(centre - reach)), min(box_to, floor_int(centre + reach) + 1)


@kernel
def _clear_rest(frame, columns, rows):
    """Transmittance 1 on the tile's real pixels and 0 elsewhere, so that the margin counts as ended."""
    frame[:_PLANE] = _ZERO
    for y in range(rows):
        frame[y * _STRIDE : y * _STRIDE + columns] = _ONE


@kernel
def composite_forward(start, stop, packed, boxes, offsets, ranks, tiles_x, tag, channel, background, image, transmittance, ends):
    """Render tiles ``start:stop``.

    Args:
        packed: [n, ROW] from `binning.pack`; offsets, ranks: from `binning`; boxes: [n, 4] pixel boxes by rank.
        tag: A tuple whose length is the compiled channel count (one of `WIDTHS`).
        channel: First channel of ``image`` to write.
        background: [D].
        image: Filled: [H, W, D], channels from ``channel`` on, as many as the tag is long and as there are.
        transmittance: Filled: [H, W], what is left of the light.
        ends: Filled: [H, W], place in the tile's list of the Gaussian that ended the pixel (exclusive), or 2^24 where nothing did.
    """
    count = len(tag)
    height, width, depth = image.shape
    real = min(count, depth - channel)
    data, spans = packed.reshape(packed.size), boxes.reshape(boxes.size)
    frame = np.empty((3 + count) * _PLANE, np.float32)  # planes: transmittance (0 once ended), final transmittance, end, colours
    lanes = lane_numbers()
    alpha_max, threshold, last, zero = broadcast(_ALPHA_MAX), broadcast(_LOG2_ALPHA_MIN), broadcast(_END), broadcast(_ZERO)
    for tile in range(start, stop):
        left, upper = (tile % tiles_x) * TILE, (tile // tiles_x) * TILE
        right, lower = min(left + TILE, width), min(upper + TILE, height)
        first, behind = offsets[tile], offsets[tile + 1]
        _clear_rest(frame, right - left, lower - upper)
        frame[_PLANE : 2 * _PLANE] = _ZERO
        frame[2 * _PLANE : 3 * _PLANE] = _NEVER
        frame[3 * _PLANE :] = _ZERO
        live = (right - left) * (lower - upper)  # pixels that have not ended
        for place in range(first, behind):
            rank = np.int64(ranks[place])
            row = rank * 16
            x0, y0, half, slope = data[row], data[row + 1], data[row + 2], data[row + 3]
            schur, log_opacity, inverse = data[row + 4], data[row + 5], data[row + 6]
            ahead = np.int64(ranks[min(place + _AHEAD, behind - 1)])
            prefetch(data, ahead * 16)
            prefetch(spans, ahead * 4)
            box_from, box_to = max(left, np.int64(boxes[rank, 0])), min(right, np.int64(boxes[rank, 1]))
            wide = box_to - box_from > 8
            minus_half = broadcast(-half)
            for y in range(max(upper, np.int64(boxes[rank, 2])), min(lower, np.int64(boxes[rank, 3]))):
                dy = y0 - _f(y) - _HALF
                peak = log_opacity - schur * dy * dy
                centre = x0 + slope * dy - _HALF
                x_from, x_to = box_from, box_to
                if wide:
                    x_from, x_to = _row_span(box_from, box_to, centre, peak - _LOG2_ALPHA_MIN, inverse)
                peaks = broadcast(peak)
                for x in range(x_from, x_to, 8):
                    at = (y - upper) * _STRIDE + x - left
                    u = broadcast(centre - _f(x)) - lanes
                    exponent = fma(u * u, minus_half, peaks)
                    alpha = keep(exponent >= threshold, minimum(alpha_max, exp2(exponent)))
                    before = load(frame, at)
                    weight = alpha * before
                    after = before - weight
                    ending = both(last >= after, weight > zero)
                    if any_lane(ending):
                        where = keep(ending, broadcast(_ONE))
                        final = load(frame, at + _PLANE)
                        store(frame, at + _PLANE, fma(where, before, final))
                        store(frame, at + 2 * _PLANE, fma(where, broadcast(_f(place - first) - _NEVER), load(frame, at + 2 * _PLANE)))
                        others = broadcast(_ONE) - where
                        weight = weight * others
                        after = after * others
                        live -= count_lanes(ending)
                    store(frame, at, after)
                    for k in range(count):
                        plane = at + (3 + k) * _PLANE
                        store(frame, plane, fma(weight, broadcast(data[row + COLOR + k]), load(frame, plane)))
            if live == 0:
                break
        for y in range(upper, lower):
            for x in range(left, right):
                at = (y - upper) * _STRIDE + x - left
                final = frame[at] + frame[at + _PLANE]  # one of the two is 0
                for k in range(real):
                    image[y, x, channel + k] = frame[at + (3 + k) * _PLANE] + final * background[channel + k]
                transmittance[y, x] = final
                ends[y, x] = frame[at + 2 * _PLANE]


@kernel
def composite_backward(start, stop, packed, boxes, offsets, ranks, slot_of, tiles_x, tag, channel, background,
                       transmittance, ends, v_image, v_alpha, slots):  # fmt: skip
    """Fill the gradient slots of every pair in tiles ``start:stop``, walking each tile's list from the back.

    A pixel needs two numbers: its transmittance, recovered by division, and the sum R of what lies behind, already multiplied with the
    pixel's gradient. dL/dalpha = T (c . v) - R / (1 - alpha).

    Args:
        v_image: [H, W, D]; v_alpha: [H, W].
        slots: Filled: [M, MOMENTS + D]; see `binning.reduce_slots` (colours of this group only).
    """
    count = len(tag)
    height, width, depth = v_image.shape
    real = min(count, depth - channel)
    data, spans = packed.reshape(packed.size), boxes.reshape(boxes.size)
    frame = np.empty((3 + count) * _PLANE, np.float32)  # planes: transmittance, R, end, gradient of the image
    sums = np.empty(count * 8, np.float32)
    lanes = lane_numbers()
    alpha_max, threshold, one, zero = broadcast(_ALPHA_MAX), broadcast(_LOG2_ALPHA_MIN), broadcast(_ONE), broadcast(_ZERO)
    for tile in range(start, stop):
        first, behind = offsets[tile], offsets[tile + 1]
        if first == behind:
            continue
        left, upper = (tile % tiles_x) * TILE, (tile // tiles_x) * TILE
        right, lower = min(left + TILE, width), min(upper + TILE, height)
        frame[:_PLANE] = _ZERO
        frame[_PLANE:] = _ZERO
        latest = _ZERO
        for y in range(upper, lower):
            for x in range(left, right):
                at = (y - upper) * _STRIDE + x - left
                through = _ZERO
                for k in range(real):
                    frame[at + (3 + k) * _PLANE] = v_image[y, x, channel + k]
                    through += background[channel + k] * v_image[y, x, channel + k]
                if channel == 0:
                    through -= v_alpha[y, x]
                frame[at] = transmittance[y, x]
                frame[at + _PLANE] = transmittance[y, x] * through
                frame[at + 2 * _PLANE] = ends[y, x]
                latest = max(latest, ends[y, x])
        used = first + np.int64(min(latest, _f(behind - first)))
        for place in range(used, behind):
            slots[slot_of[place], :] = _ZERO
        for place in range(used - 1, first - 1, -1):
            rank = np.int64(ranks[place])
            row = rank * 16
            x0, y0, half, slope = data[row], data[row + 1], data[row + 2], data[row + 3]
            schur, log_opacity, inverse = data[row + 4], data[row + 5], data[row + 6]
            ahead = np.int64(ranks[max(place - _AHEAD, first)])
            prefetch(data, ahead * 16)
            prefetch(spans, ahead * 4)
            box_from, box_to = max(left, np.int64(boxes[rank, 0])), min(right, np.int64(boxes[rank, 1]))
            wide = box_to - box_from > 8
            minus_half, index = broadcast(-half), broadcast(_f(place - first))
            g, gu, guu, gy, guy, gyy = zero, zero, zero, zero, zero, zero
            for k in range(count):
                store(sums, k * 8, zero)
            for y in range(max(upper, np.int64(boxes[rank, 2])), min(lower, np.int64(boxes[rank, 3]))):
                dy = y0 - _f(y) - _HALF
                peak = log_opacity - schur * dy * dy
                centre = x0 + slope * dy - _HALF
                x_from, x_to = box_from, box_to
                if wide:
                    x_from, x_to = _row_span(box_from, box_to, centre, peak - _LOG2_ALPHA_MIN, inverse)
                peaks, dys = broadcast(peak), broadcast(dy)
                for x in range(x_from, x_to, 8):
                    at = (y - upper) * _STRIDE + x - left
                    u = broadcast(centre - _f(x)) - lanes
                    exponent = fma(u * u, minus_half, peaks)
                    counted = both(exponent >= threshold, load(frame, at + 2 * _PLANE) > index)
                    falloff = keep(counted, exp2(exponent))  # opacity times the Gaussian, not yet clamped
                    alpha = minimum(alpha_max, falloff)
                    rest = one / (one - alpha)
                    before = load(frame, at) * rest
                    behind_sum = load(frame, at + _PLANE)
                    weight = alpha * before
                    along = zero
                    for k in range(count):
                        pixel = load(frame, at + (3 + k) * _PLANE)
                        along = fma(pixel, broadcast(data[row + COLOR + k]), along)
                        store(sums, k * 8, fma(weight, pixel, load(sums, k * 8)))
                    v_sigma = keep(alpha_max >= falloff, falloff * (rest * behind_sum - before * along))
                    store(frame, at, before)
                    store(frame, at + _PLANE, fma(weight, along, behind_sum))
                    with_u, with_y = v_sigma * u, v_sigma * dys
                    g = g + v_sigma
                    gu = gu + with_u
                    guu = fma(with_u, u, guu)
                    gy = gy + with_y
                    guy = fma(with_y, u, guy)
                    gyy = fma(with_y, dys, gyy)
            slot = slot_of[place]
            slots[slot, 0], slots[slot, 1], slots[slot, 2] = horizontal_sum(g), horizontal_sum(gu), horizontal_sum(guu)
            slots[slot, 3], slots[slot, 4], slots[slot, 5] = horizontal_sum(gy), horizontal_sum(guy), horizontal_sum(gyy)
            for k in range(count):
                slots[slot, 6 + k] = horizontal_sum(load(sums, k * 8))
