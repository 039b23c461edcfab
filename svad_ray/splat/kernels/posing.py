"""Linear blend skinning of whole Gaussians: centre and orientation in one pass, from the few joints that move each.

Source: SVAD 3.4 for the binding. The orientation is the blended 3 x 3 times the rest frame, made a rotation again by Gram-Schmidt on its
first and third columns, as `geometry.rotations.orthonormal` does, and read out as a quaternion by its largest component.
"""

# mypy: no-check-untyped-defs
# (numba types these functions itself)
from __future__ import annotations

import math

import numpy as np

from svad_ray.splat.kernels.jit import contracted_kernel

_ZERO, _HALF, _ONE = np.float32(0), np.float32(0.5), np.float32(1)
_TINY = np.float32(1e-9)  # transforms that cancel give a small vector, not one without a direction


@contracted_kernel
def _quat(x, y, z):
    """wxyz of the rotation with the columns ``x``, ``y``, ``z``; the component whose square is largest comes first (ties: the earlier one)."""
    a, b, c = x[0], y[1], z[2]
    w2, x2, y2, z2 = _ONE + a + b + c, _ONE + a - b - c, _ONE - a + b - c, _ONE - a - b + c
    if w2 >= x2 and w2 >= y2 and w2 >= z2:
        f = _HALF / math.sqrt(w2)
        return w2 * f, (y[2] - z[1]) * f, (z[0] - x[2]) * f, (x[1] - y[0]) * f
    if x2 >= y2 and x2 >= z2:
        f = _HALF / math.sqrt(x2)
        return (y[2] - z[1]) * f, x2 * f, (x[1] + y[0]) * f, (z[0] + x[2]) * f
    if y2 >= z2:
        f = _HALF / math.sqrt(y2)
        return (z[0] - x[2]) * f, (x[1] + y[0]) * f, y2 * f, (y[2] + z[1]) * f
    f = _HALF / math.sqrt(z2)
    return (x[1] - y[0]) * f, (z[0] + x[2]) * f, (y[2] + z[1]) * f, z2 * f


@contracted_kernel
def _turned(m, v):
    """The upper 3 x 3 of ``m`` (12 numbers, rows of a 3 x 4) times ``v``, made a unit vector."""
    a = m[0] * v[0] + m[1] * v[1] + m[2] * v[2]
    b = m[4] * v[0] + m[5] * v[1] + m[6] * v[2]
    c = m[8] * v[0] + m[9] * v[1] + m[10] * v[2]
    n = _ONE / (math.sqrt(a * a + b * b + c * c) + _TINY)
    return a * n, b * n, c * n


@contracted_kernel
def pose_gaussians(start, stop, points, axes, joints, weights, skin, means, quats):
    """Fill ``means`` [N, 3] and ``quats`` [N, 4] (wxyz) of Gaussians ``start:stop``.

    Args:
        points: [N, 3] rest centres, metres.
        axes: [N, 6] first and third column of the rest orientation.
        joints, weights: [N, K] uint8 and float32, the joints that move each and how much.
        skin: [J, 12] rows of the joints' 3 x 4 transforms, rest to posed.
    """
    m = np.empty(12, np.float32)
    for i in range(start, stop):
        m[:] = _ZERO
        for k in range(joints.shape[1]):
            w, j = weights[i, k], joints[i, k]
            for e in range(12):
                m[e] += w * skin[j, e]
        px, py, pz = points[i, 0], points[i, 1], points[i, 2]
        means[i, 0] = m[0] * px + m[1] * py + m[2] * pz + m[3]
        means[i, 1] = m[4] * px + m[5] * py + m[6] * pz + m[7]
        means[i, 2] = m[8] * px + m[9] * py + m[10] * pz + m[11]
        x = _turned(m, axes[i, 0:3])
        z = _turned(m, axes[i, 3:6])
        along = x[0] * z[0] + x[1] * z[1] + x[2] * z[2]
        zx, zy, zz = z[0] - along * x[0], z[1] - along * x[1], z[2] - along * x[2]
        n = _ONE / (math.sqrt(zx * zx + zy * zy + zz * zz) + _TINY)
        zx, zy, zz = zx * n, zy * n, zz * n
        y = (zy * x[2] - zz * x[1], zz * x[0] - zx * x[2], zx * x[1] - zy * x[0])
        quats[i, 0], quats[i, 1], quats[i, 2], quats[i, 3] = _quat(x, y, (zx, zy, zz))
