"""The person's mask: the landmark network's own mask, sharpened along the photo's edges, without pieces of neighbours and things.

Source: ours. The network's 256-pixel mask follows one person but knows no instances: it swallows a neighbour's hand or a wheel behind the leg.
What lies far from every limb, or hangs together with none, is dropped; a second network (selfie segmentation) must agree away from the limbs.
"""

from __future__ import annotations

import cv2
import numpy as np

from svad_ray.nets.litert import LiteRTNet
from svad_ray.stages.perceive.crops import Roi

# (from, to, reach): limb axes between BlazePose landmarks, and how far the person may extend beside each, in torso lengths.
_LIMBS = (
    (11, 13, 0.34),
    (13, 15, 0.32),
    (15, 19, 0.30),
    (12, 14, 0.34),
    (14, 16, 0.32),
    (16, 20, 0.30),
    (11, 23, 0.45),
    (12, 24, 0.45),
    (11, 12, 0.45),
    (23, 24, 0.50),
    (23, 25, 0.50),
    (24, 26, 0.50),
    (25, 27, 0.45),
    (26, 28, 0.45),
    (29, 31, 0.25),
    (30, 32, 0.25),
    (27, 31, 0.28),
    (28, 32, 0.28),
)
_HEAD_REACH = 0.75  # torso lengths round the ears' middle, hair included
_STEP = 4
_SURE = 0.6  # share of the reach within which the second network is not asked


def limb_distance(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """(height, width) float32: distance to the nearest limb axis over that limb's reach; above 1 no part of the person is expected.

    Args:
        points: (33, 2) pixels.
    """
    torso = max(float(np.hypot(*(points[[11, 12]].mean(0) - points[[23, 24]].mean(0)))), 1.0)
    nearest = np.full((height, width), np.inf, np.float32)
    for start, end, reach in _LIMBS:
        nearest = np.minimum(nearest, _axis_distance(points[start], points[end], height, width) / (reach * torso))
    head = points[[7, 8]].mean(0)
    return np.minimum(nearest, _axis_distance(head, head, height, width) / (_HEAD_REACH * torso))


def _coarse_limb_distance(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """``limb_distance``, computed on every fourth pixel and interpolated: it is smooth, and the full grid would cost more than the networks."""
    rows, columns = -(-height // _STEP), -(-width // _STEP)
    small = limb_distance(points / _STEP, rows, columns)
    return cv2.resize(small, (columns * _STEP, rows * _STEP), interpolation=cv2.INTER_LINEAR)[:height, :width]


def _axis_distance(start: np.ndarray, end: np.ndarray, height: int, width: int) -> np.ndarray:
    """(height, width) distance of every pixel centre to a segment."""
    y, x = np.ogrid[:height, :width]
    px, py = x + 0.5 - float(start[0]), y + 0.5 - float(start[1])
    dx, dy = (float(v) for v in end - start)
    along = np.clip((px * dx + py * dy) / max(dx * dx + dy * dy, 1e-6), 0, 1)
    return np.hypot(px - along * dx, py - along * dy).astype(np.float32)


def guided_upsample(image: np.ndarray, mask: np.ndarray, *, radius: int, epsilon: float = 1e-3) -> np.ndarray:
    """Guided filter: the mask as a locally linear function of the image's brightness, so that its border follows the image's.

    Args:
        image: (H, W, 3) uint8. mask: (H, W) float32 [0, 1].
        radius: Of the window, pixels; about the size of one mask pixel in the image. epsilon: Brightness variance that counts as flat.

    Source: He, Sun and Tang, Guided Image Filtering (ECCV 2010), equations 5, 6 and 8, with a grey guide.
    """
    guide = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    window = (2 * radius + 1, 2 * radius + 1)

    def mean(values: np.ndarray) -> np.ndarray:
        return cv2.blur(values, window)

    mean_guide, mean_mask = mean(guide), mean(mask)
    slope = (mean(guide * mask) - mean_guide * mean_mask) / (mean(guide * guide) - mean_guide**2 + epsilon)
    return (mean(slope) * guide + mean(mean_mask - slope * mean_guide)).clip(0, 1)


def connected_to(mask: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """(H, W) bool: the components of ``mask`` > 0.5 that contain a seed pixel (bool)."""
    count, labels = cv2.connectedComponents((mask > 0.5).astype(np.uint8), connectivity=4)
    good = np.bincount(labels[seeds & (labels > 0)], minlength=count) > 0
    return good[labels]


def selfie_mask(net: LiteRTNet, image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(H, W) float32 [0, 1]: people according to selfie_segmentation.tflite, looked for in the square round ``mask``."""
    height, width = mask.shape
    ys, xs = np.nonzero(mask > 0.5)
    if not len(ys):
        return np.zeros_like(mask)
    low, high = np.array([xs.min(), ys.min()], float), np.array([xs.max(), ys.max()], float) + 1
    roi = Roi((low + high) / 2, 1.15 * float((high - low).max()))
    values = next(iter(net(roi.crop(image, net.size)).values()))
    return roi.paste(values.reshape(net.size, net.size), height, width)


def person_mask(image: np.ndarray, points: np.ndarray, own: np.ndarray, roi: Roi, *, second: LiteRTNet | None = None) -> np.ndarray:
    """The mask of the one person whose landmarks are ``points``.

    Args:
        image: (H, W, 3) uint8. points: (33, 2) pixels.
        own: (n, n) float32 [0, 1], the landmark network's mask over ``roi``.
        second: selfie_segmentation.tflite; None = it is not asked.

    Returns:
        (H, W) float32 in [0, 1].
    """
    height, width = image.shape[:2]
    mask = roi.paste(own, height, width)
    distance = _coarse_limb_distance(points, height, width)
    allowed = distance <= 1
    if second is not None:
        allowed &= (distance <= _SURE) | (selfie_mask(second, image, mask) > 0.3)
    pixel = roi.side / own.shape[0]
    mask = mask * soften(allowed, pixel)
    mask = guided_upsample(image, mask, radius=max(round(1.5 * pixel), 1)) if pixel > 1 else mask
    return mask * soften(connected_to(mask, distance < 0.3), 1.0)


def soften(region: np.ndarray, sigma: float) -> np.ndarray:
    """(H, W) float32: a bool region with a border as wide as ``sigma`` pixels, 1 inside."""
    grown = cv2.dilate(region.astype(np.uint8), np.ones((3, 3), np.uint8), iterations=max(round(sigma), 1))
    return np.maximum(cv2.GaussianBlur(grown.astype(np.float32), (0, 0), max(sigma, 0.5)), region.astype(np.float32))
