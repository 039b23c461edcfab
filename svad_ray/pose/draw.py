"""The skeleton as MusePose's pose guider was trained on it.

Source: spec generation 2, "Skeleton drawing". Colours differ from other skeletons of this kind: the network sees the tables below with red and blue
exchanged. Limbs get wider with their length in pixels.
"""

from __future__ import annotations

import colorsys
import math

import cv2
import numpy as np

from svad_ray.pose.openpose import OpenPose

LIMBS = (
    (1, 2),
    (1, 5),
    (2, 3),
    (3, 4),
    (5, 6),
    (6, 7),
    (1, 8),
    (8, 9),
    (9, 10),
    (1, 11),
    (11, 12),
    (12, 13),
    (1, 0),
    (0, 14),
    (14, 16),
    (0, 15),
    (15, 17),
)
COLOURS = (
    *((255, green, 0) for green in (0, 85, 170)),
    *((red, 255, 0) for red in (255, 170, 85, 0)),
    *((0, 255, blue) for blue in (85, 170, 255)),
    *((0, green, 255) for green in (170, 85, 0)),
    *((red, 0, 255) for red in (85, 170, 255)),
    *((255, 0, blue) for blue in (170, 85)),
)
FINGERS = tuple((0 if joint == 0 else 4 * finger + joint, 4 * finger + joint + 1) for finger in range(5) for joint in range(4))
_WIDTHS = ((5, 1), (10, 2), (20, 3), (40, 4), (80, 5), (160, 6), (320, 7))  # below so many pixels of length; 8 above
_LIMB_SHADE = 0.6
_JOINT, _HAND_JOINT, _FACE_POINT = 4, 3, 3  # radii, pixels
_INSIDE = 0.01  # hand points nearer to the border, in pixels, are not drawn


def draw_pose(pose: OpenPose, height: int, width: int, *, face: bool = False) -> np.ndarray:
    """(height, width, 3) uint8 RGB, black where nothing is.

    Args:
        face: Draw the 68 face points too; the network was trained without them.
    """
    canvas = np.zeros((height, width, 3), np.uint8)
    _limbs(canvas, pose)
    canvas[:] = (canvas * _LIMB_SHADE).astype(np.uint8)
    _joints(canvas, pose)
    for hand in pose.hands:
        _hand(canvas, hand)
    if face:
        for x, y in _pixels(canvas, pose.face):
            if x > _INSIDE and y > _INSIDE:
                cv2.circle(canvas, (x, y), _FACE_POINT, (255, 255, 255), thickness=-1)
    return np.ascontiguousarray(canvas[:, :, ::-1])


def limb_width(length: float) -> int:
    """Half width of a body limb and width of a finger bone of so many pixels."""
    return next((width for below, width in _WIDTHS if length < below), 8)


def _limbs(canvas: np.ndarray, pose: OpenPose) -> None:
    size = np.array(canvas.shape[1::-1], float)
    for (a, b), colour in zip(LIMBS, COLOURS):
        if not (pose.drawn[a] and pose.drawn[b]):
            continue
        (x1, y1), (x2, y2) = pose.body[a] * size, pose.body[b] * size
        length = math.hypot(x1 - x2, y1 - y2)
        angle = math.degrees(math.atan2(y1 - y2, x1 - x2))
        centre, axes = (int((x1 + x2) / 2), int((y1 + y2) / 2)), (int(length / 2), limb_width(length))
        outline = np.asarray(cv2.ellipse2Poly(centre, axes, int(angle), 0, 360, 1), np.int32)
        cv2.fillConvexPoly(canvas, outline, colour)


def _joints(canvas: np.ndarray, pose: OpenPose) -> None:
    for (x, y), drawn, colour in zip(_pixels(canvas, pose.body), pose.drawn, COLOURS):
        if drawn:
            cv2.circle(canvas, (x, y), _JOINT, colour, thickness=-1)


def _hand(canvas: np.ndarray, hand: np.ndarray) -> None:
    points = _pixels(canvas, hand)
    for i, (a, b) in enumerate(FINGERS):
        (x1, y1), (x2, y2) = points[a], points[b]
        if min(x1, y1, x2, y2) > _INSIDE:
            colour = [255 * channel for channel in colorsys.hsv_to_rgb(i / len(FINGERS), 1.0, 1.0)]
            cv2.line(canvas, (x1, y1), (x2, y2), colour, thickness=limb_width(math.hypot(x1 - x2, y1 - y2)))
    for x, y in points:
        if x > _INSIDE and y > _INSIDE:
            cv2.circle(canvas, (x, y), _HAND_JOINT, (0, 0, 255), thickness=-1)


def _pixels(canvas: np.ndarray, points: np.ndarray) -> list[tuple[int, int]]:
    height, width = canvas.shape[:2]
    return [(int(x * width), int(y * height)) for x, y in points]
