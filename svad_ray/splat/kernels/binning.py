"""Order the visible Gaussians by depth and list, for every tile, who touches it.

A Gaussian's rank is its place in depth order (ties by index, as in gsplat). Per-Gaussian data is packed by rank, so that a tile walks
memory forwards. Every (Gaussian, tile) pair owns one slot of the gradient buffer; a Gaussian's slots lie together, which makes the
final sum independent of the order in which threads finish.
"""

# mypy: no-check-untyped-defs
# (numba types these functions itself)
from __future__ import annotations

import numpy as np

from svad_ray.splat.kernels.jit import kernel

TILE = 32  # pixels; a tile's framebuffer stays in the first-level cache
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
        offsets [tiles + 1], ranks [M] and slots [M] (of each pair, sorted by tile), firsts [n + 1] (first slot of each rank); int32.
    """
    count = len(order)
    offsets, firsts = np.zeros(tiles_x * tiles_y + 1, np.int32), np.empty(count + 1, np.int32)
    total = 0
    for rank in range(count):
        i = order[rank]
        firsts[rank] = total
        for ty in range(boxes[i, 2] // TILE, (boxes[i, 3] - 1) // TILE + 1):
            for tx in range(boxes[i, 0] // TILE, (boxes[i, 1] - 1) // TILE + 1):
                offsets[ty * tiles_x + tx + 1] += 1
                total += 1
    firsts[count] = total
    for tile in range(tiles_x * tiles_y):
        offsets[tile + 1] += offsets[tile]
    cursor = offsets[:-1].copy()
    ranks, slots = np.empty(total, np.int32), np.empty(total, np.int32)
    slot = 0
    for rank in range(count):
        i = order[rank]
        for ty in range(boxes[i, 2] // TILE, (boxes[i, 3] - 1) // TILE + 1):
            for tx in range(boxes[i, 0] // TILE, (boxes[i, 1] - 1) // TILE + 1):
                tile = ty * tiles_x + tx
                place = cursor[tile]
                cursor[tile] = place + 1
                ranks[place], slots[place] = rank, slot
                slot += 1
    return offsets, ranks, slots, firsts


@kernel
def pack(start, stop, order, means2d, conics, opacities, colors, channel, width, packed):
    """Fill rows ``start:stop`` of ``packed`` [n, ROW]: what compositing needs, in the form it needs it.

    With sigma = A/2 (dx + slope dy)^2 + S/2 dy^2 (no cancellation, never negative), alpha = 2^(log2 opacity - sigma log2 e).
    Row: mean x, y, A log2(e)/2, slope, S log2(e)/2, log2 opacity, 1 / (A log2(e)/2), opacity, then ``width`` colours from ``channel`` on
    (0 where the colours end).
    """
    for rank in range(start, stop):
        i = order[rank]
        a, b, c = np.float64(conics[i, 0]), np.float64(conics[i, 1]), np.float64(conics[i, 2])
        half = 0.5 * _LOG2E * a
        packed[rank, 0], packed[rank, 1], packed[rank, 2] = means2d[i, 0], means2d[i, 1], _f(half)
        packed[rank, 3], packed[rank, 4] = _f(b / a), _f(0.5 * _LOG2E * max(c - b * b / a, 0.0))
        packed[rank, 5], packed[rank, 6], packed[rank, 7] = _f(np.log2(opacities[i])), _f(1.0 / half), opacities[i]
        for k in range(width):
            packed[rank, COLOR + k] = colors[i, channel + k] if channel + k < colors.shape[1] else _f(0)


@kernel
def reduce_slots(start, stop, order, firsts, slots, packed, channel, count, v_means2d, v_conics, v_opacities, v_colors):
    """Add the slots of ranks ``start:stop`` and turn their moments into the gradients of mean, conic, opacity and colours.

    A slot holds the sums over pixels of g, g u, g u^2, g dy, g u dy, g dy^2 (g = dL/dsigma, u = dx + slope dy) and of each colour.
    The geometry is added to what is there, since several groups of channels may contribute.
    """
    for rank in range(start, stop):
        i = order[rank]
        g, gu, guu, gy, guy, gyy = _f(0), _f(0), _f(0), _f(0), _f(0), _f(0)
        for s in range(firsts[rank], firsts[rank + 1]):
            g += slots[s, 0]
            gu += slots[s, 1]
            guu += slots[s, 2]
            gy += slots[s, 3]
            guy += slots[s, 4]
            gyy += slots[s, 5]
            for k in range(count):
                v_colors[i, channel + k] += slots[s, 6 + k]
        slope, a, schur = packed[rank, 3], packed[rank, 2] * _f(2.0 / _LOG2E), packed[rank, 4] * _f(2.0 / _LOG2E)
        v_means2d[i, 0] += a * gu
        v_means2d[i, 1] += slope * a * gu + schur * gy
        v_conics[i, 0] += _f(0.5) * (guu - _f(2) * slope * guy + slope * slope * gyy)
        v_conics[i, 1] += guy - slope * gyy
        v_conics[i, 2] += _f(0.5) * gyy
        v_opacities[i] -= g / packed[rank, 7]
