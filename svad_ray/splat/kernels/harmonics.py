"""Real spherical harmonics up to degree 3: colour seen from a direction.

Source: Efficient Spherical Harmonic Evaluation (Sloan, JCGT 2013), in the basis order and signs of 3D Gaussian Splatting.
"""

# mypy: no-check-untyped-defs
# (numba types these functions itself)
from __future__ import annotations

import math

import numpy as np

from svad_ray.splat.kernels.jit import contracted_kernel

_f = np.float32
_ONE, _TWO, _THREE, _ZERO = _f(1), _f(2), _f(3), _f(0)
_C0, _C1 = _f(0.2820947917738781), _f(0.48860251190292)
_C2A, _C2B, _C2C, _C2D = _f(1.092548430592079), _f(0.9461746957575601), _f(0.3153915652525201), _f(0.5462742152960395)
_C3A, _C3B, _C3C, _C3D = _f(2.285228997322329), _f(0.4570457994644658), _f(1.445305721320277), _f(0.5900435899266435)
_C3E, _C3F = _f(1.865881662950577), _f(1.119528997770346)


@contracted_kernel
def _basis(degree, x, y, z, basis):
    """Fill ``basis`` [16] at the unit direction (x, y, z)."""
    basis[0] = _C0
    if degree > 0:
        basis[1], basis[2], basis[3] = -_C1 * y, _C1 * z, -_C1 * x
    if degree > 1:
        cosine, sine = x * x - y * y, _TWO * x * y
        basis[4], basis[5], basis[6] = _C2D * sine, -_C2A * z * y, _C2B * z * z - _C2C
        basis[7], basis[8] = -_C2A * z * x, _C2D * cosine
        if degree > 2:
            planar = _C3B - _C3A * z * z
            basis[9], basis[15] = -_C3D * (x * sine + y * cosine), -_C3D * (x * cosine - y * sine)
            basis[10], basis[14] = _C3C * z * sine, _C3C * z * cosine
            basis[11], basis[13] = planar * y, planar * x
            basis[12] = z * (_C3E * z * z - _C3F)


@contracted_kernel
def harmonics_forward(start, stop, degree, directions, coefficients, radii, colors):
    """Fill ``colors`` [N, 3] = max(sum of basis x coefficients + 0.5, 0) for the visible (``radii`` > 0), 0 for the others.

    Args:
        directions: [N, 3] from the camera to the Gaussian, any length.
        coefficients: [N, K, 3] with K >= (degree + 1)^2.
    """
    basis = np.zeros(16, np.float32)
    count = (degree + 1) * (degree + 1)
    for i in range(start, stop):
        colors[i, 0], colors[i, 1], colors[i, 2] = _ZERO, _ZERO, _ZERO
        if radii[i, 0] == 0:
            continue
        x, y, z = directions[i, 0], directions[i, 1], directions[i, 2]
        inverse = _ONE / math.sqrt(x * x + y * y + z * z)
        _basis(degree, x * inverse, y * inverse, z * inverse, basis)
        red, green, blue = _f(0.5), _f(0.5), _f(0.5)
        for k in range(count):
            red += basis[k] * coefficients[i, k, 0]
            green += basis[k] * coefficients[i, k, 1]
            blue += basis[k] * coefficients[i, k, 2]
        colors[i, 0], colors[i, 1], colors[i, 2] = max(red, _ZERO), max(green, _ZERO), max(blue, _ZERO)


@contracted_kernel
def harmonics_backward(start, stop, degree, directions, coefficients, colors, radii, v_colors, v_directions, v_coefficients):
    """Fill ``v_directions`` [N, 3] and ``v_coefficients`` [N, K, 3]; a channel clamped at 0 passes nothing."""
    basis, s = np.zeros(16, np.float32), np.zeros(16, np.float32)
    count = (degree + 1) * (degree + 1)
    for i in range(start, stop):
        v_directions[i, 0], v_directions[i, 1], v_directions[i, 2] = _ZERO, _ZERO, _ZERO
        v_coefficients[i, :, :] = _ZERO
        if radii[i, 0] == 0:
            continue
        x, y, z = directions[i, 0], directions[i, 1], directions[i, 2]
        inverse = _ONE / math.sqrt(x * x + y * y + z * z)
        x, y, z = x * inverse, y * inverse, z * inverse
        _basis(degree, x, y, z, basis)
        red = v_colors[i, 0] if colors[i, 0] > _ZERO else _ZERO
        green = v_colors[i, 1] if colors[i, 1] > _ZERO else _ZERO
        blue = v_colors[i, 2] if colors[i, 2] > _ZERO else _ZERO
        for k in range(count):
            v_coefficients[i, k, 0], v_coefficients[i, k, 1], v_coefficients[i, k, 2] = basis[k] * red, basis[k] * green, basis[k] * blue
            s[k] = coefficients[i, k, 0] * red + coefficients[i, k, 1] * green + coefficients[i, k, 2] * blue
        if degree == 0:
            continue
        vx, vy, vz = -_C1 * s[3], -_C1 * s[1], _C1 * s[2]
        if degree > 1:
            cosine, sine = x * x - y * y, _TWO * x * y
            vx += _TWO * _C2D * (y * s[4] + x * s[8]) - _C2A * z * s[7]
            vy += _TWO * _C2D * (x * s[4] - y * s[8]) - _C2A * z * s[5]
            vz += _TWO * _C2B * z * s[6] - _C2A * (y * s[5] + x * s[7])
            if degree > 2:
                planar = _C3B - _C3A * z * z
                vx += -_THREE * _C3D * (sine * s[9] + cosine * s[15]) + _TWO * _C3C * z * (y * s[10] + x * s[14]) + planar * s[13]
                vy += -_THREE * _C3D * (cosine * s[9] - sine * s[15]) + _TWO * _C3C * z * (x * s[10] - y * s[14]) + planar * s[11]
                vz += _C3C * (sine * s[10] + cosine * s[14]) - _TWO * _C3A * z * (y * s[11] + x * s[13]) + (_THREE * _C3E * z * z - _C3F) * s[12]
        along = vx * x + vy * y + vz * z
        v_directions[i, 0], v_directions[i, 1], v_directions[i, 2] = (
            (vx - along * x) * inverse,
            (vy - along * y) * inverse,
            (vz - along * z) * inverse,
        )
