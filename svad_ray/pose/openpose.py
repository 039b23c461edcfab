"""133 COCO-WholeBody key points -> the OpenPose body of 18, hands and face that the skeleton is drawn from.

Source: DWPose as MusePose uses it (spec: generation 2; generation_proven 4).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

MISSING = -1.0
BODY_SEEN = 0.3  # a body point is drawn above this score; below it, it keeps its place
HAND_SEEN = 0.3  # a hand or face point below this score is missing
_NECK = 17  # where the neck goes among the 134
_SHOULDERS = (5, 6)
_TARGETS = (1, 2, 3, 4, 6, 7, 8, 9, 10, 12, 13, 14, 15, 16, 17)
_SOURCES = (17, 6, 8, 10, 7, 9, 12, 14, 16, 13, 15, 2, 1, 4, 3)
BODY, FACE = slice(0, 18), slice(24, 92)
HANDS = (slice(92, 113), slice(113, 134))  # the one at joint 7, the one at joint 4
WRISTS, HIPS = (7, 4), (8, 11)
SIZE_STEP = 64  # the detector's input is a multiple of this


@dataclass(frozen=True)
class OpenPose:
    """One person's pose in one picture.

    Attributes:
        body: (18, 2) OpenPose order. drawn: (18,) bool, which of them are drawn.
        hands: (2, 21, 2), the hand at joint 7 first. face: (68, 2).
    """

    body: np.ndarray
    drawn: np.ndarray
    hands: np.ndarray
    face: np.ndarray

    def scaled(self, x: float) -> OpenPose:
        """Every x multiplied."""
        by = np.array([x, 1.0])
        return replace(self, body=self.body * by, hands=self.hands * by, face=self.face * by)


def with_neck(keypoints: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(133, 2) and (133,) -> (134, 2) and (134,) in OpenPose order.

    The neck is the middle of the shoulders, seen for certain when both are.
    """
    left, right = _SHOULDERS
    neck = keypoints[[left, right]].mean(0)
    seen = float(scores[left] > BODY_SEEN and scores[right] > BODY_SEEN)
    points, sure = np.insert(keypoints, _NECK, neck, axis=0), np.insert(scores.astype(np.float64), _NECK, seen)
    points[list(_TARGETS)], sure[list(_TARGETS)] = points[list(_SOURCES)], sure[list(_SOURCES)]
    return points, sure


def from_ordered(points: np.ndarray, scores: np.ndarray, *, width: float, height: float) -> OpenPose:
    """(134, 2) pixels and (134,) scores in OpenPose order -> ``OpenPose``; body points of low score keep their place but are not drawn."""
    points = points / np.array([width, height])
    masked = np.where(scores[:, None] < HAND_SEEN, MISSING, points)
    return OpenPose(points[BODY].copy(), scores[BODY] > BODY_SEEN, np.stack([masked[hand] for hand in HANDS]), masked[FACE].copy())


def from_wholebody(keypoints: np.ndarray, scores: np.ndarray, *, width: float, height: float) -> OpenPose:
    """(133, 2) pixels and (133,) scores in COCO-WholeBody order -> ``OpenPose``."""
    return from_ordered(*with_neck(np.asarray(keypoints, np.float64), scores), width=width, height=height)


def network_size(height: int, width: int, resolution: int) -> tuple[int, int]:
    """(height, width) at which a picture is looked at: the shorter side at ``resolution``, both sides multiples of 64."""
    share = resolution / min(height, width)
    rounded = [int(np.round(side * share / SIZE_STEP)) * SIZE_STEP for side in (height, width)]
    return rounded[0], rounded[1]


def to_network_size(image: np.ndarray, resolution: int) -> np.ndarray:
    """The picture at that size; Lanczos up, area averages down."""
    height, width = network_size(image.shape[0], image.shape[1], resolution)
    up = resolution > min(image.shape[:2])
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LANCZOS4 if up else cv2.INTER_AREA)
