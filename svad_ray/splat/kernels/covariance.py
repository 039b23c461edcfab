"""Quaternion and scales to a 3D covariance, and back through it.

Covariances are stored as the six upper entries (xx, xy, xz, yy, yz, zz).
Source: 3D Gaussian Splatting (Kerbl et al. 2023), equation 6: Sigma = R S S^T R^T.
"""

# mypy: no-check-untyped-defs
# (numba types these functions itself)
from __future__ import annotations

import math

import numpy as np

from svad_ray.splat.kernels.jit import contracted_kernel

_ONE, _TWO = np.float32(1), np.float32(2)


@contracted_kernel
def covariance_forward(start, stop, quats, scales, covars):
    """Fill ``covars[start:stop]`` [N, 6] from ``quats`` [N, 4] (wxyz, any length) and ``scales`` [N, 3]."""
    for i in range(start, stop):
        w, x, y, z = quats[i, 0], quats[i, 1], quats[i, 2], quats[i, 3]
        n = _ONE / math.sqrt(w * w + x * x + y * y + z * z)
        w, x, y, z = w * n, x * n, y * n, z * n
        s0, s1, s2 = scales[i, 0], scales[i, 1], scales[i, 2]
        m00, m01, m02 = (_ONE - _TWO * (y * y + z * z)) * s0, _TWO * (x * y - w * z) * s1, _TWO * (x * z + w * y) * s2
        m10, m11, m12 = _TWO * (x * y + w * z) * s0, (_ONE - _TWO * (x * x + z * z)) * s1, _TWO * (y * z - w * x) * s2
        m20, m21, m22 = _TWO * (x * z - w * y) * s0, _TWO * (y * z + w * x) * s1, (_ONE - _TWO * (x * x + y * y)) * s2
        covars[i, 0] = m00 * m00 + m01 * m01 + m02 * m02
        covars[i, 1] = m00 * m10 + m01 * m11 + m02 * m12
        covars[i, 2] = m00 * m20 + m01 * m21 + m02 * m22
        covars[i, 3] = m10 * m10 + m11 * m11 + m12 * m12
        covars[i, 4] = m10 * m20 + m11 * m21 + m12 * m22
        covars[i, 5] = m20 * m20 + m21 * m21 + m22 * m22


@contracted_kernel
def covariance_backward(start, stop, quats, scales, v_covars, v_quats, v_scales):
    """Fill ``v_quats`` and ``v_scales`` from ``v_covars`` [N, 6], the gradient of the six upper entries.

    With M = R S and G the symmetric matrix of that gradient (half of each off-diagonal entry): dM = 2 G M.
    """
    for i in range(start, stop):
        xx, xy, xz, yy, yz, zz = v_covars[i, 0], v_covars[i, 1], v_covars[i, 2], v_covars[i, 3], v_covars[i, 4], v_covars[i, 5]
        if xx == 0 and xy == 0 and xz == 0 and yy == 0 and yz == 0 and zz == 0:  # unseen: stays 0 even where the quaternion is not finite
            v_quats[i, 0], v_quats[i, 1], v_quats[i, 2], v_quats[i, 3] = xx, xx, xx, xx
            v_scales[i, 0], v_scales[i, 1], v_scales[i, 2] = xx, xx, xx
            continue
        w, x, y, z = quats[i, 0], quats[i, 1], quats[i, 2], quats[i, 3]
        n = _ONE / math.sqrt(w * w + x * x + y * y + z * z)
        w, x, y, z = w * n, x * n, y * n, z * n
        s0, s1, s2 = scales[i, 0], scales[i, 1], scales[i, 2]
        r00, r01, r02 = _ONE - _TWO * (y * y + z * z), _TWO * (x * y - w * z), _TWO * (x * z + w * y)
        r10, r11, r12 = _TWO * (x * y + w * z), _ONE - _TWO * (x * x + z * z), _TWO * (y * z - w * x)
        r20, r21, r22 = _TWO * (x * z - w * y), _TWO * (y * z + w * x), _ONE - _TWO * (x * x + y * y)
        a00, a11, a22 = _TWO * xx, _TWO * yy, _TWO * zz
        d00, d01, d02 = (a00 * r00 + xy * r10 + xz * r20), (a00 * r01 + xy * r11 + xz * r21), (a00 * r02 + xy * r12 + xz * r22)
        d10, d11, d12 = (xy * r00 + a11 * r10 + yz * r20), (xy * r01 + a11 * r11 + yz * r21), (xy * r02 + a11 * r12 + yz * r22)
        d20, d21, d22 = (xz * r00 + yz * r10 + a22 * r20), (xz * r01 + yz * r11 + a22 * r21), (xz * r02 + yz * r12 + a22 * r22)
        v_scales[i, 0] = (d00 * r00 + d10 * r10 + d20 * r20) * s0
        v_scales[i, 1] = (d01 * r01 + d11 * r11 + d21 * r21) * s1
        v_scales[i, 2] = (d02 * r02 + d12 * r12 + d22 * r22) * s2
        q0, q1, q2 = s0 * s0, s1 * s1, s2 * s2
        d00, d10, d20, d01, d11, d21, d02, d12, d22 = d00 * q0, d10 * q0, d20 * q0, d01 * q1, d11 * q1, d21 * q1, d02 * q2, d12 * q2, d22 * q2
        vw = _TWO * (z * (d10 - d01) + y * (d02 - d20) + x * (d21 - d12))
        vx = _TWO * (y * (d01 + d10) + z * (d02 + d20) + w * (d21 - d12) - _TWO * x * (d11 + d22))
        vy = _TWO * (x * (d01 + d10) + z * (d12 + d21) + w * (d02 - d20) - _TWO * y * (d00 + d22))
        vz = _TWO * (x * (d02 + d20) + y * (d12 + d21) + w * (d10 - d01) - _TWO * z * (d00 + d11))
        along = vw * w + vx * x + vy * y + vz * z
        v_quats[i, 0], v_quats[i, 1] = (vw - along * w) * n, (vx - along * x) * n
        v_quats[i, 2], v_quats[i, 3] = (vy - along * y) * n, (vz - along * z) * n
