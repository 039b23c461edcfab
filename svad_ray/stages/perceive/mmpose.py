"""The perceive stage with key points of the package mmpose; masks, face mesh and hands from the embedded networks."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from svad_ray.backends import Backend, ModelFile
from svad_ray.pose.mmpose import DWPOSE_FILE, EXTRA, LICENCE, POSE_FILE, SOURCE, MMPose
from svad_ray.stages.perceive.points import BroughtPoints
from svad_ray.subject import Perception

_MARGIN = 0.1  # of the landmarks' larger side: they end at eyes and ankles


class MMPosePerceive(BroughtPoints):
    """As ``MediaPipePerceive``, with the 133 key points and scores of RTMPose-L on mmpose."""

    backend: ClassVar[Backend] = Backend(
        name="mmpose",
        stage="perceive",
        summary="RTMPose-L whole-body key points on mmpose, RTMDet's people where its file is there; masks, face and hands as mediapipe",
        code_licence="Apache-2.0",
        weights_licence="Apache-2.0",
        commercial=True,
        commercial_reason="Apache-2.0 code and weights",
        models=("mediapipe",),
        files=(ModelFile(POSE_FILE, SOURCE, LICENCE, or_else=DWPOSE_FILE),),
        extra=EXTRA,
        memory_gib=2.0,
    )
    version: ClassVar[int] = 1

    def load(self, folder: str) -> None:
        """RTMPose-L, and RTMDet where its file is there."""
        self.estimate = MMPose(folder)

    def points(self, image: np.ndarray, seen: Perception) -> tuple[np.ndarray, np.ndarray]:
        """Of the largest person that RTMDet finds; without it, of the person whom the embedded networks saw."""
        points, scores = self.estimate([image], boxes=[landmark_box(seen.landmarks, image.shape[0], image.shape[1])])
        return points[0], scores[0]


def landmark_box(landmarks: np.ndarray, height: int, width: int) -> np.ndarray:
    """(4,) x1, y1, x2, y2 round (33, 2) landmarks with a margin, inside the picture."""
    low, high = landmarks.min(0), landmarks.max(0)
    margin = _MARGIN * (high - low).max()
    return np.concatenate((low - margin, high + margin)).clip(0, [width, height, width, height]).astype(np.float32)
