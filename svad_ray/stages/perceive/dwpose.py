"""The perceive stage with the paper's key points: DWPose's two ONNX files; masks, face mesh and hands from the embedded networks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from svad_ray.backends import Backend, ModelFile
from svad_ray.errors import WeightsMissing
from svad_ray.pose.estimators import DETECTOR_FILE, LICENCE, POSE_FILE, SOURCE, DWPose
from svad_ray.stages.perceive.embedded import MediaPipePerceive
from svad_ray.subject import Perception, Photo


class DWPosePerceive(MediaPipePerceive):
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

    def setup(self) -> None:
        """Load the networks.

        Raises:
            WeightsMissing: ``perceive.weights`` is not set, or a file is not there. BackendUnavailable: onnxruntime is not installed.
        """
        if not self.config.weights:
            raise WeightsMissing(
                "the perceive backend 'dwpose' has no folder of model files",
                expected="; ".join(f"{file.name} from {file.source} ({file.licence})" for file in self.backend.files),
                remedy="--set perceive.weights=FOLDER, or use the embedded backend: --set perceive.backend=mediapipe",
            )
        self.estimate = DWPose(self.config.weights, threads=self.threads)
        super().setup()

    def __call__(self, photo: Photo) -> Perception:
        """Everything about the largest person of a photo."""
        return self._with_points(photo.image, super().__call__(photo))

    def track(self, frames: np.ndarray, **options: Any) -> list[Perception]:
        """The same person in every frame of a clip."""
        return [self._with_points(frame, seen) for frame, seen in zip(frames, super().track(frames, **options))]

    def _with_points(self, image: np.ndarray, seen: Perception) -> Perception:
        if not seen.people:
            return seen
        points, scores = self.estimate([image])
        return replace(seen, keypoints=points[0], scores=scores[0])
