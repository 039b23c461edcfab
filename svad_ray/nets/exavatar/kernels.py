"""Compiled loops of the networks on a CPU: a group normalisation of rows with its rectifier, forward and backward, in one pass over memory each."""

# mypy: no-check-untyped-defs
# (numba types these functions itself)
from __future__ import annotations

import numpy as np
from numba import njit

BLOCK = 512  # rows whose sums are made together: they do not depend on the number of threads
_f = np.float32


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def norm_forward(start, stop, groups, eps, y, gain, shift, inverse, out):
    """Rows [start, stop): ``y`` (N, C) becomes normalised, ``inverse`` (N, G) one over its deviations, ``out`` (N, C) scaled, shifted, rectified."""
    size = y.shape[1] // groups
    share = _f(1) / _f(size)
    for n in range(start, stop):
        for g in range(groups):
            row, result = y[n, g * size : (g + 1) * size], out[n, g * size : (g + 1) * size]
            gains, shifts = gain[g * size : (g + 1) * size], shift[g * size : (g + 1) * size]
            mean = _f(0)
            for c in range(size):
                mean += row[c]
            mean *= share
            square = _f(0)
            for c in range(size):
                row[c] -= mean
                square += row[c] * row[c]
            scale = _f(1) / np.sqrt(square * share + eps)
            inverse[n, g] = scale
            for c in range(size):
                row[c] *= scale
                result[c] = max(row[c] * gains[c] + shifts[c], _f(0))


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def norm_backward(start, stop, groups, y, gain, inverse, out, grad, v_y, sums):
    """Rows [start, stop): gradients ``grad`` (N, C) of ``out`` to ``v_y`` (N, C) before normalising, and to ``sums`` (blocks, 3, C): of gain, shift
    and bias."""
    size = y.shape[1] // groups
    share = _f(1) / _f(size)
    for n in range(start, stop):
        block = sums[n // BLOCK]
        for g in range(groups):
            a, b = g * size, (g + 1) * size
            row, result, given, found, gains, inv = y[n, a:b], out[n, a:b], grad[n, a:b], v_y[n, a:b], gain[a:b], inverse[n, g]
            v_gain, v_shift, v_bias = block[0, a:b], block[1, a:b], block[2, a:b]
            first, second = _f(0), _f(0)
            for c in range(size):
                v = given[c] if result[c] > _f(0) else _f(0)
                v_gain[c] += v * row[c]
                v_shift[c] += v
                v *= gains[c]
                found[c] = v
                first += v
                second += v * row[c]
            first *= share
            second *= share
            for c in range(size):
                v = inv * (found[c] - first - row[c] * second)
                found[c] = v
                v_bias[c] += v
