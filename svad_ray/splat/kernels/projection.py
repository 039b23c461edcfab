"""World Gaussians to image Gaussians through a pinhole camera: EWA splatting's local affine approximation.

Source: EWA Splatting (Zwicker et al. 2001), equations 22-31, with the conventions of gsplat 1.5.3: the Jacobian is taken at a point
clamped to the field of view widened by 30 %, ``eps2d`` is added to the diagonal, and the radius follows the opacity
(StopThePop, Radl et al. 2024, appendix B.2).
"""

# mypy: no-check-untyped-defs
# (numba types these functions itself)
from __future__ import annotations

import math

import numpy as np

from svad_ray.splat.kernels.jit import contracted_kernel

_ZERO, _HALF, _ONE, _TWO = np.float32(0), np.float32(0.5), np.float32(1), np.float32(2)
ALPHA_MIN = np.float32(1 / 255)  # contributions below are dropped
_EXTENT_MAX = np.float32(3.33)  # radius in standard deviations: sqrt(2 ln 255) rounded up
_WIDEN = np.float32(0.3)
_SLACK = np.float32(0.01)  # pixels; rounding must not cost a box its edge pixel
_TINY = np.float32(1e-6)  # keeps the gradient of a vanishing compensation finite, as gsplat does
_INT_MAX = np.float32(1e9)
BLOCK = 1024  # Gaussians per partial sum of the camera's gradient; fixed, so that sums do not depend on the threads


@contracted_kernel
def _camera(viewmat, K, width, height):
    """Focal lengths, centre and the widened field of view as tangents (right, left, bottom, top)."""
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    w, h = np.float32(width), np.float32(height)
    wide_x, wide_y = _WIDEN * _HALF * w / fx, _WIDEN * _HALF * h / fy
    return fx, fy, cx, cy, (w - cx) / fx + wide_x, cx / fx + wide_x, (h - cy) / fy + wide_y, cy / fy + wide_y


@contracted_kernel
def _pixel_range(centre, reach, size):
    """First and one-past-last pixel whose centre lies within ``reach`` of ``centre``, inside the image."""
    first = math.ceil(centre - reach - _HALF - _SLACK)
    last = math.floor(centre + reach - _HALF + _SLACK) + _ONE
    limit = np.float32(size)
    return np.int32(min(max(first, _ZERO), limit)), np.int32(min(max(last, _ZERO), limit))


@contracted_kernel
def project_forward(start, stop, means, covars, opacities, viewmat, K, width, height, eps2d, near, far, radius_clip, antialiased,
                    means2d, conics, depths, radii, boxes, compensations):  # fmt: skip
    """Project Gaussians ``start:stop``; what is culled gets zeros everywhere.

    Args:
        means, covars, opacities: [N, 3], [N, 6] (upper entries), [N].
        viewmat, K: [4, 4], [3, 3].
        antialiased: Whether the opacity is to be multiplied with the compensation.
        means2d, conics, depths: Filled: [N, 2] pixels, [N, 3] (inverse covariance xx, xy, yy), [N].
        radii: Filled: [N, 2] int32, gsplat's bounding radii.
        boxes: Filled: [N, 4] int32, the pixels (x0, x1, y0, y1) where alpha can reach 1/255; the upper ends are exclusive.
        compensations: Filled if ``antialiased``: [N], the square root of the share of the covariance's determinant that is not ``eps2d``'s
            (Mip-Splatting, Yu et al. 2023, equation 10).
    """
    r00, r01, r02, t0 = viewmat[0, 0], viewmat[0, 1], viewmat[0, 2], viewmat[0, 3]
    r10, r11, r12, t1 = viewmat[1, 0], viewmat[1, 1], viewmat[1, 2], viewmat[1, 3]
    r20, r21, r22, t2 = viewmat[2, 0], viewmat[2, 1], viewmat[2, 2], viewmat[2, 3]
    fx, fy, cx, cy, right, left, bottom, top = _camera(viewmat, K, width, height)
    for i in range(start, stop):
        means2d[i, 0], means2d[i, 1], depths[i] = _ZERO, _ZERO, _ZERO
        conics[i, 0], conics[i, 1], conics[i, 2] = _ZERO, _ZERO, _ZERO
        radii[i, 0], radii[i, 1] = 0, 0
        boxes[i, 0], boxes[i, 1], boxes[i, 2], boxes[i, 3] = 0, 0, 0, 0
        if antialiased:
            compensations[i] = _ZERO
        X, Y, Z = means[i, 0], means[i, 1], means[i, 2]
        z = r20 * X + r21 * Y + r22 * Z + t2
        opacity = opacities[i]
        if not (z >= near and z <= far and opacity >= ALPHA_MIN):  # written so that NaN is culled
            continue
        x, y = r00 * X + r01 * Y + r02 * Z + t0, r10 * X + r11 * Y + r12 * Z + t1
        inverse = _ONE / z
        j00, j11 = fx * inverse, fy * inverse
        j02, j12 = -j00 * min(max(x * inverse, -left), right), -j11 * min(max(y * inverse, -top), bottom)
        a0, a1, a2 = j00 * r00 + j02 * r20, j00 * r01 + j02 * r21, j00 * r02 + j02 * r22
        b0, b1, b2 = j11 * r10 + j12 * r20, j11 * r11 + j12 * r21, j11 * r12 + j12 * r22
        xx, xy, xz, yy, yz, zz = covars[i, 0], covars[i, 1], covars[i, 2], covars[i, 3], covars[i, 4], covars[i, 5]
        c0, c1, c2 = xx * a0 + xy * a1 + xz * a2, xy * a0 + yy * a1 + yz * a2, xz * a0 + yz * a1 + zz * a2
        d0, d1, d2 = xx * b0 + xy * b1 + xz * b2, xy * b0 + yy * b1 + yz * b2, xz * b0 + yz * b1 + zz * b2
        sharp_xx, sxy, sharp_yy = a0 * c0 + a1 * c1 + a2 * c2, b0 * c0 + b1 * c1 + b2 * c2, b0 * d0 + b1 * d1 + b2 * d2
        sxx, syy = sharp_xx + eps2d, sharp_yy + eps2d
        determinant = sxx * syy - sxy * sxy
        if not (determinant > _ZERO and determinant < np.inf):
            continue
        if antialiased:
            sharp = np.float64(sharp_xx) * np.float64(sharp_yy) - np.float64(sxy) * np.float64(sxy)
            compensation = np.float32(math.sqrt(max(sharp, 0.0) / np.float64(determinant)))
            opacity *= compensation
            if not opacity >= ALPHA_MIN:
                continue
            compensations[i] = compensation
        threshold = _TWO * math.log(opacity / ALPHA_MIN)
        extent = min(_EXTENT_MAX, math.sqrt(threshold))
        rx, ry = math.ceil(extent * math.sqrt(sxx)), math.ceil(extent * math.sqrt(syy))
        if rx <= radius_clip and ry <= radius_clip:
            continue
        u, v = j00 * x + cx, j11 * y + cy
        if not (u + rx > _ZERO and u - rx < np.float32(width) and v + ry > _ZERO and v - ry < np.float32(height)):
            continue
        means2d[i, 0], means2d[i, 1], depths[i] = u, v, z
        conics[i, 0], conics[i, 1], conics[i, 2] = syy / determinant, -sxy / determinant, sxx / determinant
        radii[i, 0], radii[i, 1] = np.int32(min(rx, _INT_MAX)), np.int32(min(ry, _INT_MAX))
        boxes[i, 0], boxes[i, 1] = _pixel_range(u, math.sqrt(threshold * sxx), width)
        boxes[i, 2], boxes[i, 3] = _pixel_range(v, math.sqrt(threshold * syy), height)


@contracted_kernel
def project_backward(start, stop, means, covars, viewmat, K, width, height, eps2d, antialiased, conics, radii, compensations,
                     v_means2d, v_conics, v_depths, v_compensations, v_means, v_covars, v_camera):  # fmt: skip
    """Gradients of Gaussians ``start:stop``; ``start`` is a multiple of `BLOCK`.

    Args:
        v_means2d, v_conics, v_depths: Gradients of `project_forward`'s outputs; v_compensations as well if ``antialiased``.
        v_means, v_covars: Filled: [N, 3], [N, 6].
        v_camera: Filled: [blocks, 12] float64, each block's share of the gradient of the view matrix's upper three rows.
    """
    r00, r01, r02, t0 = viewmat[0, 0], viewmat[0, 1], viewmat[0, 2], viewmat[0, 3]
    r10, r11, r12, t1 = viewmat[1, 0], viewmat[1, 1], viewmat[1, 2], viewmat[1, 3]
    r20, r21, r22, t2 = viewmat[2, 0], viewmat[2, 1], viewmat[2, 2], viewmat[2, 3]
    fx, fy, _, _, right, left, bottom, top = _camera(viewmat, K, width, height)
    for i in range(start, stop):
        if i % BLOCK == 0:
            v_camera[i // BLOCK, :] = 0.0
        if radii[i, 0] == 0:
            v_means[i, :] = _ZERO
            v_covars[i, :] = _ZERO
            continue
        X, Y, Z = means[i, 0], means[i, 1], means[i, 2]
        x, y, z = r00 * X + r01 * Y + r02 * Z + t0, r10 * X + r11 * Y + r12 * Z + t1, r20 * X + r21 * Y + r22 * Z + t2
        inverse = _ONE / z
        j00, j11 = fx * inverse, fy * inverse
        px, py = x * inverse, y * inverse
        qx, qy = min(max(px, -left), right), min(max(py, -top), bottom)
        j02, j12 = -j00 * qx, -j11 * qy
        a0, a1, a2 = j00 * r00 + j02 * r20, j00 * r01 + j02 * r21, j00 * r02 + j02 * r22
        b0, b1, b2 = j11 * r10 + j12 * r20, j11 * r11 + j12 * r21, j11 * r12 + j12 * r22
        # Inverse of a symmetric matrix: dSigma = -Q dQ Q, with half of the gradient of the off-diagonal entry on either side.
        A, B, C = conics[i, 0], conics[i, 1], conics[i, 2]
        vA, vB, vC = v_conics[i, 0], _HALF * v_conics[i, 1], v_conics[i, 2]
        h00, h01, h10, h11 = A * vA + B * vB, A * vB + B * vC, B * vA + C * vB, B * vB + C * vC
        g00, g01, g11 = -(h00 * A + h01 * B), -(h00 * B + h01 * C), -(h10 * B + h11 * C)
        if antialiased:
            # compensation^2 = det(S) / det(S + e) with S + e = Q^-1, so its derivative is (1 - compensation^2) Q - e det(Q).
            factor = _HALF * v_compensations[i] / (compensations[i] + _TINY)
            blurred = factor * (_ONE - compensations[i] * compensations[i])
            flat = factor * eps2d * np.float32(np.float64(A) * np.float64(C) - np.float64(B) * np.float64(B))
            g00, g01, g11 = g00 + blurred * A - flat, g01 + blurred * B, g11 + blurred * C - flat
        # Sigma2 = T Sigma3 T^T with T = J R (rows a and b).
        v_covars[i, 0] = g00 * a0 * a0 + _TWO * g01 * a0 * b0 + g11 * b0 * b0
        v_covars[i, 3] = g00 * a1 * a1 + _TWO * g01 * a1 * b1 + g11 * b1 * b1
        v_covars[i, 5] = g00 * a2 * a2 + _TWO * g01 * a2 * b2 + g11 * b2 * b2
        v_covars[i, 1] = _TWO * (g00 * a0 * a1 + g01 * (a0 * b1 + a1 * b0) + g11 * b0 * b1)
        v_covars[i, 2] = _TWO * (g00 * a0 * a2 + g01 * (a0 * b2 + a2 * b0) + g11 * b0 * b2)
        v_covars[i, 4] = _TWO * (g00 * a1 * a2 + g01 * (a1 * b2 + a2 * b1) + g11 * b1 * b2)
        xx, xy, xz, yy, yz, zz = covars[i, 0], covars[i, 1], covars[i, 2], covars[i, 3], covars[i, 4], covars[i, 5]
        c0, c1, c2 = xx * a0 + xy * a1 + xz * a2, xy * a0 + yy * a1 + yz * a2, xz * a0 + yz * a1 + zz * a2
        d0, d1, d2 = xx * b0 + xy * b1 + xz * b2, xy * b0 + yy * b1 + yz * b2, xz * b0 + yz * b1 + zz * b2
        va0, va1, va2 = _TWO * (g00 * c0 + g01 * d0), _TWO * (g00 * c1 + g01 * d1), _TWO * (g00 * c2 + g01 * d2)
        vb0, vb1, vb2 = _TWO * (g01 * c0 + g11 * d0), _TWO * (g01 * c1 + g11 * d1), _TWO * (g01 * c2 + g11 * d2)
        vj00, vj02 = va0 * r00 + va1 * r01 + va2 * r02, va0 * r20 + va1 * r21 + va2 * r22
        vj11, vj12 = vb0 * r10 + vb1 * r11 + vb2 * r12, vb0 * r20 + vb1 * r21 + vb2 * r22
        # j02 = -fx q / z with q = x / z inside the widened view and a constant outside it.
        v_u, v_v = v_means2d[i, 0], v_means2d[i, 1]
        inside_x, inside_y = px >= -left and px <= right, py >= -top and py <= bottom
        vx, vy = j00 * v_u, j11 * v_v
        vz = v_depths[i] - inverse * (j00 * (vj00 - qx * vj02) + j11 * (vj11 - qy * vj12) + vx * x + vy * y)
        if inside_x:
            vx -= j00 * inverse * vj02
            vz += j00 * inverse * qx * vj02
        if inside_y:
            vy -= j11 * inverse * vj12
            vz += j11 * inverse * qy * vj12
        v_means[i, 0] = r00 * vx + r10 * vy + r20 * vz
        v_means[i, 1] = r01 * vx + r11 * vy + r21 * vz
        v_means[i, 2] = r02 * vx + r12 * vy + r22 * vz
        rows = v_camera[i // BLOCK]
        rows[0] += vx * X + j00 * va0
        rows[1] += vx * Y + j00 * va1
        rows[2] += vx * Z + j00 * va2
        rows[3] += vx
        rows[4] += vy * X + j11 * vb0
        rows[5] += vy * Y + j11 * vb1
        rows[6] += vy * Z + j11 * vb2
        rows[7] += vy
        rows[8] += vz * X + j02 * va0 + j12 * vb0
        rows[9] += vz * Y + j02 * va1 + j12 * vb1
        rows[10] += vz * Z + j02 * va2 + j12 * vb2
        rows[11] += vz
