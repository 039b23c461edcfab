"""Blend the sorted Gaussians of each tile front to back, and the exact reverse of it.

A tile is cut into blocks of 4 x 2 pixels, one vector of eight lanes each; its framebuffer holds a block's vectors one after the other, so
that every access is aligned with every earlier one (a load that overlaps a recent store without matching it waits for the cache).
A Gaussian first lists the blocks that its ellipse covers, without a branch, then blends into them. The forward pass writes down which
lanes of which block it changed: the backward pass visits those alone and needs no test of its own.
Source: 3D Gaussian Splatting (Kerbl et al. 2023), equation 3, with gsplat 1.5.3's rules: alpha below 1/255 does not
count, alpha is at most 0.999, a pixel ends before the Gaussian that would take its transmittance to 1e-4 or less.
Ours: the final transmittance itself is kept (not 1 - alpha, which loses its digits).
"""

# mypy: no-check-untyped-defs
# (numba types these functions itself)
from __future__ import annotations

import numpy as np

from svad_ray.splat.kernels.binning import BLOCK_HEIGHT, BLOCK_WIDTH, COLOR, ROW, TILE
from svad_ray.splat.kernels.jit import kernel
from svad_ray.splat.kernels.simd import (
    absolute,
    add_to,
    any_lane,
    bits_of,
    both,
    broadcast,
    broadcast_each,
    ceil,
    choose,
    dot_each,
    exp2,
    floor,
    fma,
    fma_each,
    get,
    keep,
    lane_0,
    lane_2,
    lane_4,
    lane_6,
    lane_numbers,
    load,
    load_each,
    mask_of,
    maximum,
    minimum,
    prefetch,
    put,
    put_run,
    sqrt,
    store,
    store_each,
    store_sums,
    swap_neighbours,
    zeros,
)

_f = np.float32
_ZERO, _QUARTER, _HALF, _ONE = _f(0), _f(0.25), _f(0.5), _f(1)
_ALPHA_MAX, _END = _f(0.999), _f(1e-4)
_LOG2_ALPHA_MIN = _f(-7.994353436858858)
_SLACK = _f(0.02)  # pixels added to a span's half width against rounding
_FAR = _f(1e9)  # pixels squared; a wider Gaussian is flat within any image
_OUTSIDE = _f(99)  # a column beyond every tile
WIDTHS = (1, 3, 4, 8)  # channel counts that kernels are compiled for
MOMENTS = 6
_CHUNK = 64  # Gaussians whose blocks are listed before any is blended, so that no branch waits for the arithmetic
_AHEAD = 20  # Gaussians between asking for a row and using it; rows of one tile lie too far apart for the hardware to guess
_ACROSS = TILE // BLOCK_WIDTH  # blocks side by side; `put_run` writes eight at once
_BLOCKS = _ACROSS * (TILE // BLOCK_HEIGHT)


@kernel
def _lane_places():
    """Pixel columns in the tile of the lanes of each column of blocks, and pixel rows of each row of blocks, both flat."""
    columns, rows = np.empty(8 * _ACROSS, np.float32), np.empty(8 * (TILE // BLOCK_HEIGHT), np.float32)
    for j in range(len(columns)):
        columns[j] = _f(j // 8 * BLOCK_WIDTH + j % BLOCK_WIDTH)
    for j in range(len(rows)):
        rows[j] = _f(j // 8 * BLOCK_HEIGHT + j % 8 // BLOCK_WIDTH)
    return columns, rows


@kernel
def _covered(listed, n, x0, y0, half, slope, schur, budget, x_from, x_to, y_from, y_to):
    """List the blocks of a tile in which the exponent can stay above the threshold, eight rows of pixels at a time.

    Args:
        listed: Bytes, filled from ``n`` on; up to seven more than there are blocks are written.
        x0, y0: Centre in pixels of the tile, 0 at the centre of its first pixel.
        budget: What the exponent may lose.
        x_from, x_to, y_from, y_to: The Gaussian's box in pixels of the tile, upper ends exclusive.

    Returns:
        Where the list ends now.
    """
    lanes, none = lane_numbers(), broadcast(_OUTSIDE)
    row_pairs = floor(lanes * broadcast(_HALF)) * broadcast(_f(_ACROSS))
    inverse, slopes, minus_schur, budgets = broadcast(_ONE / half), broadcast(slope), broadcast(-schur), broadcast(budget)
    first_row, last_row = broadcast(_f(y_from)), broadcast(_f(y_to - 1))
    first_column, last_column = broadcast(_f(x_from)), broadcast(_f(x_to - 1))
    for y in range(y_from // 2 * 2, y_to, 8):
        row = broadcast(_f(y)) + lanes
        dy = broadcast(y0) - row
        left_over = fma(dy * dy, minus_schur, budgets)
        inside = both(left_over >= broadcast(_ZERO), both(row >= first_row, last_row >= row))
        reach = sqrt(minimum(left_over * inverse, broadcast(_FAR))) + broadcast(_SLACK)
        centre = fma(slopes, dy, broadcast(x0))
        low = choose(inside, minimum(maximum(ceil(centre - reach), first_column), none), none)
        high = choose(inside, minimum(maximum(floor(centre + reach), broadcast(-_ONE)), last_column), broadcast(-_ONE))
        low, high = minimum(low, swap_neighbours(low)), maximum(high, swap_neighbours(high))
        first = floor(low * broadcast(_QUARTER))
        count = keep(high >= low, floor(high * broadcast(_QUARTER)) - first + broadcast(_ONE))
        block = first + row_pairs + broadcast(_f(y // 2 * _ACROSS))
        put_run(listed, n, lane_0(block))
        n += lane_0(count)
        put_run(listed, n, lane_2(block))
        n += lane_2(count)
        put_run(listed, n, lane_4(block))
        n += lane_4(count)
        put_run(listed, n, lane_6(block))
        n += lane_6(count)
    return n


@kernel
def _any_alive(frame, width_of_block):
    """Whether any pixel of the tile has not ended."""
    most = broadcast(_ZERO)
    for block in range(_BLOCKS):
        most = maximum(most, load(frame, block * width_of_block))
    return any_lane(most > broadcast(_ZERO))


@kernel
def _fill_empty(left, right, upper, lower, channel, real, background, image, transmittance):
    """A tile that no Gaussian touches."""
    for y in range(upper, lower):
        for x in range(left, right):
            for k in range(real):
                image[y, x, channel + k] = background[channel + k]
        transmittance[y, left:right] = _ONE


@kernel
def composite_forward(start, stop, packed, boxes, offsets, ids, room, tiles_x, tag, channel, background, image, transmittance, counts, changed):
    """Render tiles ``start:stop``.

    Args:
        packed: [N, ROW] from `binning.pack`; offsets, ids, room: from `binning`; boxes: [N, 4] pixel boxes.
        tag: A tuple whose length is the compiled channel count (one of `WIDTHS`).
        channel: First channel of ``image`` to write.
        background: [D].
        image: Filled: [H, W, D], channels from ``channel`` on, as many as the tag is long and as there are.
        transmittance: Filled: [H, W], what is left of the light.
        counts: Filled: [M] int32, how many blocks each pair changed.
        changed: Filled: uint16, from ``room[tile]`` on one entry per changed block, in the order of the list: block + 256 x mask of lanes.
    """
    width_of_block = 8 * (1 + len(tag))
    height, width, depth = image.shape
    real = min(len(tag), depth - channel)
    data, spans = packed.reshape(packed.size), boxes.reshape(boxes.size)
    frame = np.empty(_BLOCKS * width_of_block, np.float32)  # per block: transmittance (negative once ended), colours
    listed, ends = np.empty(_CHUNK * _BLOCKS + 8, np.uint8), np.empty(_CHUNK, np.int64)
    columns, rows = _lane_places()
    alpha_max, threshold, last, zero = broadcast(_ALPHA_MAX), broadcast(_LOG2_ALPHA_MIN), broadcast(_END), broadcast(_ZERO)
    for tile in range(start, stop):
        left, upper = (tile % tiles_x) * TILE, (tile // tiles_x) * TILE
        right, lower = min(left + TILE, width), min(upper + TILE, height)
        first, behind = offsets[tile], offsets[tile + 1]
        if behind == first:
            _fill_empty(left, right, upper, lower, channel, real, background, image, transmittance)
            continue
        for block in range(_BLOCKS):
            at = block * width_of_block
            x, y = load(columns, block % _ACROSS * 8), load(rows, block // _ACROSS * 8)
            within = both(broadcast(_f(right - left)) > x, broadcast(_f(lower - upper)) > y)
            store(frame, at, keep(within, broadcast(_ONE)))  # what lies outside the image counts as ended
            store_each(frame, at + 8, zeros(tag))
        written, place = room[tile], first
        while place < behind and _any_alive(frame, width_of_block):
            chunk = min(_CHUNK, behind - place)
            n = 0
            for j in range(chunk):
                i = get(ids, place + j)
                row, box = i * ROW, i * 4
                ahead = get(ids, min(place + j + _AHEAD, behind - 1))
                prefetch(data, ahead * ROW)
                prefetch(spans, ahead * 4)
                x_from, x_to = max(0, get(spans, box) - left), min(TILE, get(spans, box + 1) - left)
                y_from, y_to = max(0, get(spans, box + 2) - upper), min(TILE, get(spans, box + 3) - upper)
                n = _covered(listed, n, get(data, row) - (_f(left) + _HALF), get(data, row + 1) - (_f(upper) + _HALF), get(data, row + 2),
                             get(data, row + 3), get(data, row + 4), get(data, row + 5) - _LOG2_ALPHA_MIN, x_from, x_to, y_from, y_to)  # fmt: skip
                ends[j] = n
            n = 0
            for j in range(chunk):
                row = get(ids, place) * ROW
                xs, ys = broadcast(get(data, row) - (_f(left) + _HALF)), broadcast(get(data, row + 1) - (_f(upper) + _HALF))
                minus_half, slopes, minus_schur = broadcast(-get(data, row + 2)), broadcast(get(data, row + 3)), broadcast(-get(data, row + 4))
                peak, colors = broadcast(get(data, row + 5)), broadcast_each(data, row + COLOR, tag)
                before_this = written
                for m in range(n, get(ends, j)):
                    block = get(listed, m)
                    at = block * width_of_block
                    dy = ys - load(rows, block // _ACROSS * 8)
                    u = fma(slopes, dy, xs - load(columns, block % _ACROSS * 8))
                    exponent = fma(u * u, minus_half, fma(dy * dy, minus_schur, peak))
                    before = load(frame, at)
                    seen = both(exponent >= threshold, before > zero)
                    taken = minimum(alpha_max, exp2(exponent)) * before
                    counted = both(seen, before - taken > last)
                    weight = keep(counted, taken)
                    store(frame, at, before - choose(counted, taken, keep(seen, before + before)))  # a selected store would become a masked one
                    store_each(frame, at + 8, fma_each(weight, colors, load_each(frame, at + 8, tag)))
                    lanes = bits_of(counted)
                    put(changed, written, block + 256 * lanes)
                    written += min(lanes, 1)
                n = get(ends, j)
                counts[place] = written - before_this
                place += 1
        counts[place:behind] = 0
        for y in range(upper, lower):
            for x in range(left, right):
                at = ((y - upper) // BLOCK_HEIGHT * _ACROSS + (x - left) // BLOCK_WIDTH) * width_of_block
                at += (y - upper) % BLOCK_HEIGHT * BLOCK_WIDTH + (x - left) % BLOCK_WIDTH
                final = abs(get(frame, at))
                for k in range(real):
                    image[y, x, channel + k] = get(frame, at + 8 + 8 * k) + final * background[channel + k]
                transmittance[y, x] = final


@kernel
def composite_backward(start, stop, packed, offsets, ids, slot_of, room, tiles_x, tag, extra, channel, background, transmittance,
                       counts, changed, v_image, v_alpha, slots):  # fmt: skip
    """Fill the gradient slots of every pair in tiles ``start:stop``, walking each tile's list from the back.

    A pixel needs two numbers: its transmittance, recovered by division, and the sum R of what lies behind, already multiplied with the
    pixel's gradient. dL/dalpha = T (c . v) - R / (1 - alpha).

    Args:
        extra: A tuple of length 0, or 2 for the sums of absolute gradients of the mean.
        counts, changed: From `composite_forward`.
        v_image: [H, W, D]; v_alpha: [H, W].
        slots: Filled: [M, MOMENTS + extra + D]; see `binning.reduce_slots` (colours of this group only).
    """
    width_of_block = 8 * (2 + len(tag))
    height, width, depth = v_image.shape
    real = min(len(tag), depth - channel)
    data, sums = packed.reshape(packed.size), slots.reshape(slots.size)
    frame = np.empty(_BLOCKS * width_of_block, np.float32)  # per block: transmittance, R, gradient of the image
    frame[:] = _ZERO
    columns, rows = _lane_places()
    alpha_max, one, zero = broadcast(_ALPHA_MAX), broadcast(_ONE), broadcast(_ZERO)
    for tile in range(start, stop):
        left, upper = (tile % tiles_x) * TILE, (tile // tiles_x) * TILE
        right, lower = min(left + TILE, width), min(upper + TILE, height)
        first, behind = offsets[tile], offsets[tile + 1]
        if behind == first:
            continue
        for y in range(upper, lower):
            for x in range(left, right):
                at = ((y - upper) // BLOCK_HEIGHT * _ACROSS + (x - left) // BLOCK_WIDTH) * width_of_block
                at += (y - upper) % BLOCK_HEIGHT * BLOCK_WIDTH + (x - left) % BLOCK_WIDTH
                through = _ZERO
                for k in range(real):
                    frame[at + 16 + 8 * k] = v_image[y, x, channel + k]
                    through += background[channel + k] * v_image[y, x, channel + k]
                if channel == 0:
                    through -= v_alpha[y, x]
                frame[at] = transmittance[y, x]
                frame[at + 8] = transmittance[y, x] * through
        read = room[tile]
        for place in range(first, behind):
            read += counts[place]
        for place in range(behind - 1, first - 1, -1):
            i, n = get(ids, place), get(counts, place)
            row = i * ROW
            prefetch(data, get(ids, max(place - _AHEAD, first)) * ROW)
            xs, ys = broadcast(get(data, row) - (_f(left) + _HALF)), broadcast(get(data, row + 1) - (_f(upper) + _HALF))
            minus_half, slopes, minus_schur = broadcast(-get(data, row + 2)), broadcast(get(data, row + 3)), broadcast(-get(data, row + 4))
            peak, colors = broadcast(get(data, row + 5)), broadcast_each(data, row + COLOR, tag)
            g, gu, guu, gy, guy, gyy = zero, zero, zero, zero, zero, zero
            v_colors, absolutes = zeros(tag), zeros(extra)
            read -= n
            for j in range(read, read + n):
                entry = get(changed, j)
                block = entry % 256
                at = block * width_of_block
                dy = ys - load(rows, block // _ACROSS * 8)
                u = fma(slopes, dy, xs - load(columns, block % _ACROSS * 8))
                exponent = fma(u * u, minus_half, fma(dy * dy, minus_schur, peak))
                falloff = keep(mask_of(entry // 256), exp2(exponent))  # opacity times the Gaussian, not yet clamped
                alpha = minimum(alpha_max, falloff)
                rest = one / (one - alpha)
                before = load(frame, at) * rest
                behind_sum = load(frame, at + 8)
                weight = alpha * before
                pixel = load_each(frame, at + 16, tag)
                along = dot_each(pixel, colors)
                v_colors = fma_each(weight, pixel, v_colors)
                v_sigma = keep(alpha_max >= falloff, falloff * (rest * behind_sum - before * along))
                store(frame, at, before)
                store(frame, at + 8, fma(weight, along, behind_sum))
                with_u, with_y = v_sigma * u, v_sigma * dy
                g = g + v_sigma
                gu = gu + with_u
                guu = fma(with_u, u, guu)
                gy = gy + with_y
                guy = fma(with_y, u, guy)
                gyy = fma(with_y, dy, gyy)
                along_x = with_u * minus_half  # gradient of the mean, up to a factor; dropped by the compiler where not asked for
                absolutes = add_to(absolutes, absolute(along_x), absolute(fma(along_x, slopes, with_y * minus_schur)))
            store_sums(sums, slot_of[place] * slots.shape[1], (g, gu, guu, gy, guy, gyy) + absolutes + v_colors)  # noqa: RUF005  (numba)
