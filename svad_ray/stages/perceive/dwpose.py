"""The perceive stage with the paper's key points: DWPose's two ONNX files; masks, face mesh and hands from the embedded networks."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from svad_ray.backends import Backend, ModelFile
from svad_ray.pose.estimators import DETECTOR_FILE, LICENCE, POSE_FILE, SOURCE, DWPose
from svad_ray.stages.perceive.points import BroughtPoints
from svad_ray.subject import Perception


class DWPosePerceive(BroughtPoints):
    """As ``MediaPipePerceive``, with the 133 key points and scores of DWPose."""

    backend: ClassVar[Backend] = Backend(
        name="dwpose",
        stage="perceive",
        summary="DWPose (RTMPose-L whole body) key points on onnxruntime; masks, face and hands as mediapipe",
        code_licence="Apache-2.0",
        weights_licence="Apache-2.0",
        commercial=True,
        commercial_reason="Apache-2.0 code and weights",
        models=("mediapipe",),
        files=tuple(ModelFile(name, SOURCE, LICENCE) for name in (DETECTOR_FILE, POSE_FILE)),
        extra="onnx",
        memory_gib=1.5,
    )
    version: ClassVar[int] = 1

    def load(self, folder: str) -> None:
        """Both networks."""
        self.estimate = DWPose(folder, threads=self.threads)

    def points(self, image: np.ndarray, seen: Perception) -> tuple[np.ndarray, np.ndarray]:
        """Of the largest person that DWPose's own detector finds."""
        points, scores = self.estimate([image])
        return points[0], scores[0]
