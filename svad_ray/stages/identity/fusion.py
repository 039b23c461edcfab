"""Landmark-guided fusion: a head render is fitted onto a frame's face and blended in by gradients.

Source: SVAD section 3.2 and its released script: Procrustes disparity as the gate, a similarity transform from the
landmarks, the convex hull of the frame's landmarks as mask, OpenCV's seamless cloning. Its blending strength is the mask
value 180: the cloning weighs the gradients of the render by 180 / 255. Where the script loses a frame (a hull that leaves
the image), ours keeps the original and says why.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.spatial import procrustes

from svad_ray.errors import InputError

MAX_DISPARITY = 0.01
MASK_VALUE = 180


@dataclass(frozen=True)
class Fusion:
    """What became of one frame.

    Attributes:
        image: (H, W, 3) uint8; the frame as it was when ``reason`` is given.
        reason: "" when fused, else why the frame was kept.
        disparity: Procrustes distance of the two landmark sets; None when it was not reached.
    """

    image: np.ndarray
    reason: str
    disparity: float | None = None

    @property
    def fused(self) -> bool:
        return not self.reason


def fuse_head(
    frame: np.ndarray,
    head: np.ndarray,
    landmarks: np.ndarray,
    head_landmarks: np.ndarray,
    *,
    max_disparity: float = MAX_DISPARITY,
    mask_value: int = MASK_VALUE,
) -> Fusion:
    """One frame with the face of ``head``.

    Args:
        frame: (H, W, 3) uint8.
        head: (h, w, 3) uint8, resized to the frame first where sizes differ; its landmarks belong to the resized image.
        landmarks, head_landmarks: (N, 2) pixels in OpenCV's counting (centre of the top left pixel = (0, 0)), N >= 3.
        max_disparity: Larger differences of the two shapes refuse the fusion.
        mask_value: 1..255, strength of the blending.
    """
    height, width = frame.shape[:2]
    disparity = shape_disparity(landmarks, head_landmarks)
    if disparity > max_disparity:
        return Fusion(frame, f"disparity {disparity:.4f} above {max_disparity:g}", disparity)
    matrix = head_to_frame(landmarks, head_landmarks)
    if matrix is None:
        return Fusion(frame, "no similarity transform between the landmarks", disparity)
    if head.shape != frame.shape:
        head = cv2.resize(head, (width, height))
    warped = cv2.warpAffine(head, matrix, (width, height))
    points = np.rint(landmarks).astype(np.int32)
    if points.min() < 0 or (points >= [width, height]).any():
        return Fusion(frame, "face hull leaves the image", disparity)
    return _clone(frame, warped, points, disparity, mask_value)


def _clone(frame: np.ndarray, warped: np.ndarray, points: np.ndarray, disparity: float, mask_value: int) -> Fusion:
    mask = face_hull(points, frame.shape[:2], mask_value)
    try:
        image = cv2.seamlessClone(warped, frame, cv2.merge([mask] * 3), hull_centre(points), cv2.NORMAL_CLONE)
    except cv2.error as error:  # its own limits at the border differ between versions
        return Fusion(frame, f"cloning failed: {error.err}", disparity)
    return Fusion(image, "", disparity)


def shape_disparity(a: np.ndarray, b: np.ndarray) -> float:
    """Sum of squared differences of two (N, 2) shapes after position, size and rotation are taken out; 1 for a collapsed shape."""
    try:
        return float(procrustes(a, b)[2])
    except ValueError:  # all points in one place
        return 1.0


def head_to_frame(landmarks: np.ndarray, head_landmarks: np.ndarray) -> np.ndarray | None:
    """(2, 3) similarity transform that brings the head's landmarks onto the frame's (RANSAC, 3 px)."""
    return cv2.estimateAffinePartial2D(head_landmarks.astype(np.float64), landmarks.astype(np.float64))[0]


def face_hull(points: np.ndarray, size: tuple[int, int], value: int) -> np.ndarray:
    """(H, W) uint8 convex hull of (N, 2) int32 points, filled with ``value``."""
    if not 1 <= value <= 255:
        raise InputError(f"The mask value is {value}.", expected="1 to 255")
    mask = np.zeros(size, np.uint8)
    cv2.fillConvexPoly(mask, cv2.convexHull(points), value)
    return mask


def hull_centre(points: np.ndarray) -> tuple[int, int]:
    """Centre of the points' bounding box, in whole pixels: where seamless cloning puts the mask."""
    x, y, w, h = cv2.boundingRect(points)
    return x + w // 2, y + h // 2
