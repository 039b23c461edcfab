"""MediaPipe's points in COCO-WholeBody order: 17 body, 6 feet, 68 face, 21 + 21 hands.

The 68 face points are those of the iBUG scheme (jaw 0-16, brows 17-26, nose 27-35, eyes 36-47, outer lips 48-59, inner lips 60-67; from the person's
right to left), each looked up in the 468-point face mesh. Source: ours, from the meaning of both schemes; the jaw is the mesh's face oval.
"""

from __future__ import annotations

import numpy as np

from svad_ray.conventions import WHOLEBODY_BODY, WHOLEBODY_FACE, WHOLEBODY_FEET, WHOLEBODY_KEYPOINTS, WHOLEBODY_LEFT_HAND, WHOLEBODY_RIGHT_HAND
from svad_ray.stages.perceive.landmarkers import FaceLandmarks, HandLandmarks

BODY_FROM_BLAZEPOSE = np.array([0, 2, 5, 7, 8, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28])
# big toe, small toe, heel of the left foot, then of the right; the small toe (-1) has no point.
FEET_FROM_BLAZEPOSE = np.array([31, -1, 29, 32, -1, 30])
_JAW = [127, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 356]
_BROWS = [70, 63, 105, 66, 107, 336, 296, 334, 293, 300]
_NOSE = [168, 197, 5, 4, 98, 97, 2, 326, 327]
_EYES = [33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380]
_OUTER_LIPS = [61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181]
_INNER_LIPS = [78, 82, 13, 312, 308, 317, 14, 87]
FACE_68_FROM_MESH = np.array([*_JAW, *_BROWS, *_NOSE, *_EYES, *_OUTER_LIPS, *_INNER_LIPS])


def face_68(mesh: np.ndarray) -> np.ndarray:
    """(68, D) iBUG-68 points of a (468, D) face mesh."""
    return mesh[FACE_68_FROM_MESH]


def wholebody(
    points: np.ndarray, visibility: np.ndarray, face: FaceLandmarks | None, left: HandLandmarks | None, right: HandLandmarks | None
) -> tuple[np.ndarray, np.ndarray]:
    """Join body, face and hands.

    Args:
        points: (33, 2) pixels. visibility: (33,).
        face, left, right: None where not seen.

    Returns:
        keypoints (133, 2) float32 pixels and scores (133,) float32; a missing point is (0, 0) with score 0.
    """
    keypoints = np.zeros((WHOLEBODY_KEYPOINTS, 2), np.float32)
    scores = np.zeros(WHOLEBODY_KEYPOINTS, np.float32)
    keypoints[WHOLEBODY_BODY], scores[WHOLEBODY_BODY] = points[BODY_FROM_BLAZEPOSE], visibility[BODY_FROM_BLAZEPOSE]
    has = FEET_FROM_BLAZEPOSE >= 0
    keypoints[WHOLEBODY_FEET][has], scores[WHOLEBODY_FEET][has] = points[FEET_FROM_BLAZEPOSE[has]], visibility[FEET_FROM_BLAZEPOSE[has]]
    if face is not None:
        keypoints[WHOLEBODY_FACE], scores[WHOLEBODY_FACE] = face_68(face.mesh)[:, :2], face.score
    for part, hand in ((WHOLEBODY_LEFT_HAND, left), (WHOLEBODY_RIGHT_HAND, right)):
        if hand is not None:
            keypoints[part], scores[part] = hand.points, hand.score
    return keypoints, scores
