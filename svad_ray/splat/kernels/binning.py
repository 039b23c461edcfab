"""Order the visible Gaussians by depth and list, for every tile, who touches it.

Ties of depth are in the order of the index, as in gsplat. What compositing needs of a Gaussian lies in one cache line. Every (Gaussian, tile)
pair owns one slot of the gradient buffer; a Gaussian's slots lie together, which makes the final sum independent of the order in which
threads finish.
"""

# mypy: no-check-untyped-defs
# (numba types these functions itself)
from __future__ import annotations

import math

import numpy as np

from svad_ray.splat.kernels.jit import kernel

TILE = 32  # pixels; a tile's framebuffer stays in the first-level cache
BLOCK_WIDTH, BLOCK_HEIGHT = 4, 2  # pixels that compositing takes in one step
ROW = 16  # floats of one packed Gaussian: one cache line
COLOR = 8  # where its colours start
_LOG2E = 1.4426950408889634
_f = np.float32
_DIGITS = 2048  # three passes of 11 bits sort 32-bit keys


@kernel
def depth_order(boxes, depths):
    """Indices [n] int32 of the Gaussians whose box is not empty, nearest first; a stable radix sort of the depths' bits."""
    count = 0
    for i in range(len(boxes)):
        if boxes[i, 1] > boxes[i, 0] and boxes[i, 3] > boxes[i, 2]:
            count += 1
    ids, other_ids = np.empty(count, np.int32), np.empty(count, np.int32)
    values = np.empty(count, np.float32)
    j = 0
    for i in range(len(boxes)):
        if boxes[i, 1] > boxes[i, 0] and boxes[i, 3] > boxes[i, 2]:
            ids[j], values[j] = i, depths[i]
            j += 1
    keys, other_keys = values.view(np.uint32), np.empty(count, np.uint32)
    starts = np.zeros((3, _DIGITS), np.int32)
    for j in range(count):
        key = keys[j]
        key ^= np.uint32(0xFFFFFFFF) if key >> np.uint32(31) else np.uint32(0x80000000)  # order of floats, negative ones included
        keys[j] = key
        starts[0, key & np.uint32(2047)] += 1
        starts[1, (key >> np.uint32(11)) & np.uint32(2047)] += 1
        starts[2, key >> np.uint32(22)] += 1
    for level in range(3):
        total = 0
        for digit in range(_DIGITS):
            here = starts[level, digit]
            starts[level, digit] = total
            total += here
    for level in range(3):
        shift = np.uint32(11 * level)
        for j in range(count):
            key = keys[j]
            digit = (key >> shift) & np.uint32(2047)
            place = starts[level, digit]
            starts[level, digit] = place + 1
            other_keys[place], other_ids[place] = key, ids[j]
        keys, other_keys = other_keys, keys
        ids, other_ids = other_ids, ids
    return ids


@kernel
def tile_lists(order, boxes, tiles_x, tiles_y):
    """Who touches each tile, nearest first.

    Args:
        order: [n] int32 from `depth_order`.
        boxes: [N, 4] int32 pixel boxes.

    Returns:
        offsets [tiles + 1], ids [M] and slots [M] (of each pair, sorted by tile), firsts [N + 1] (first slot of each Gaussian); int32.
        room [tiles + 1] int64: where a tile's changed blocks begin, if every pair changed all that its box touches.
    """
    tiles = tiles_x * tiles_y
    offsets, firsts, room = np.zeros(tiles + 1, np.int32), np.empty(len(boxes) + 1, np.int32), np.zeros(tiles + 1, np.int64)
    total = 0
    for i in range(len(boxes)):
        firsts[i] = total
        x0, x1, y0, y1 = np.int64(boxes[i, 0]), np.int64(boxes[i, 1]), np.int64(boxes[i, 2]), np.int64(boxes[i, 3])
        if x1 <= x0 or y1 <= y0:
            continue
        for ty in range(y0 // TILE, (y1 - 1) // TILE + 1):
            down = (min(y1, ty * TILE + TILE) - 1) // BLOCK_HEIGHT - max(y0, ty * TILE) // BLOCK_HEIGHT + 1
            for tx in range(x0 // TILE, (x1 - 1) // TILE + 1):
                across = (min(x1, tx * TILE + TILE) - 1) // BLOCK_WIDTH - max(x0, tx * TILE) // BLOCK_WIDTH + 1
                offsets[ty * tiles_x + tx + 1] += 1
                room[ty * tiles_x + tx + 1] += across * down
                total += 1
    firsts[len(boxes)] = total
    for tile in range(tiles):
        offsets[tile + 1] += offsets[tile]
        room[tile + 1] += room[tile] + 1  # one more: a block that turns out unchanged is written and overwritten
    cursor = offsets[:-1].copy()
    ids, slots = np.empty(total, np.int32), np.empty(total, np.int32)
    for j in range(len(order)):
        i = np.int64(order[j])
        slot = firsts[i]
        x0, x1, y0, y1 = np.int64(boxes[i, 0]), np.int64(boxes[i, 1]), np.int64(boxes[i, 2]), np.int64(boxes[i, 3])
        for ty in range(y0 // TILE, (y1 - 1) // TILE + 1):
            for tx in range(x0 // TILE, (x1 - 1) // TILE + 1):
                place = cursor[ty * tiles_x + tx]
                cursor[ty * tiles_x + tx] = place + 1
                ids[place], slots[place] = i, slot
                slot += 1
    return offsets, ids, slots, firsts, room


@kernel
def pack(start, stop, boxes, means2d, conics, opacities, colors, channel, width, packed):
    """Fill rows ``start:stop`` of ``packed`` [N, ROW] where something is visible: what compositing needs, in the form it needs it.

    With sigma = A/2 (dx + slope dy)^2 + S/2 dy^2 (no cancellation, never negative), alpha = 2^(log2 opacity - sigma log2 e).
    Row: mean x, y, A log2(e)/2, slope, S log2(e)/2, log2 opacity, two unused, then ``width`` colours from ``channel`` on
    (0 where the colours end).
    """
    real = min(width, colors.shape[1] - channel)
    for i in range(start, stop):
        if boxes[i, 1] <= boxes[i, 0] or boxes[i, 3] <= boxes[i, 2]:
            continue
        a, b, c = np.float64(conics[i, 0]), np.float64(conics[i, 1]), np.float64(conics[i, 2])
        slope = b / a
        packed[i, 0], packed[i, 1], packed[i, 2] = means2d[i, 0], means2d[i, 1], _f(0.5 * _LOG2E * a)
        packed[i, 3], packed[i, 4], packed[i, 5] = _f(slope), _f(0.5 * _LOG2E * max(c - b * slope, 0.0)), math.log2(opacities[i])
        for k in range(real):
            packed[i, COLOR + k] = colors[i, channel + k]
        packed[i, COLOR + real : COLOR + width] = _f(0)


@kernel
def reduce_slots(start, stop, firsts, slots, packed, opacities, channel, count, absolutes, v_means2d, v_conics, v_opacities, v_colors, v_absolute):
    """Add the slots of Gaussians ``start:stop`` and turn their moments into the gradients of mean, conic, opacity and colours.

    A slot holds the sums over pixels of g, g u, g u^2, g dy, g u dy, g dy^2 (g = dL/dsigma, u = dx + slope dy), ``absolutes`` (0 or 2)
    sums of the absolute gradient of the mean, and ``count`` colours.
    The geometry is added to what is there, since several groups of channels may contribute.
    """
    behind = 6 + absolutes
    for i in range(start, stop):
        if firsts[i] == firsts[i + 1]:
            continue
        g, gu, guu, gy, guy, gyy = _f(0), _f(0), _f(0), _f(0), _f(0), _f(0)
        for s in range(firsts[i], firsts[i + 1]):
            g += slots[s, 0]
            gu += slots[s, 1]
            guu += slots[s, 2]
            gy += slots[s, 3]
            guy += slots[s, 4]
            gyy += slots[s, 5]
            for k in range(absolutes):
                v_absolute[i, k] += slots[s, 6 + k] * _f(2.0 / _LOG2E)
            for k in range(count):
                v_colors[i, channel + k] += slots[s, behind + k]
        slope, a, schur = packed[i, 3], packed[i, 2] * _f(2.0 / _LOG2E), packed[i, 4] * _f(2.0 / _LOG2E)
        v_means2d[i, 0] += a * gu
        v_means2d[i, 1] += slope * a * gu + schur * gy
        v_conics[i, 0] += _f(0.5) * (guu - _f(2) * slope * guy + slope * slope * gyy)
        v_conics[i, 1] += guy - slope * gyy
        v_conics[i, 2] += _f(0.5) * gyy
        v_opacities[i] -= g / opacities[i]
