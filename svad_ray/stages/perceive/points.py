"""The perceive stage with another network's 133 key points: masks, face mesh and hands stay those of the embedded networks."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import Any

import numpy as np

from svad_ray.errors import WeightsMissing
from svad_ray.stages.perceive.embedded import MediaPipePerceive
from svad_ray.subject import Perception, Photo


class BroughtPoints(MediaPipePerceive):
    """As ``MediaPipePerceive``, with key points and scores of a network whose files lie in ``perceive.weights``."""

    def setup(self) -> None:
        """Load the networks.

        Raises:
            WeightsMissing: ``perceive.weights`` is not set, or a file is not there. BackendUnavailable: A package is not installed.
            InputError: A file cannot be used.
        """
        if not self.config.weights:
            raise WeightsMissing(
                f"the perceive backend '{self.backend.name}' has no folder of model files",
                expected="; ".join(f"{file.name} from {file.source} ({file.licence})" for file in self.backend.files),
                remedy="--set perceive.weights=FOLDER, or use the embedded backend: --set perceive.backend=mediapipe",
            )
        self.load(self.config.weights)
        super().setup()

    @abstractmethod
    def load(self, folder: str) -> None:
        """The network of the key points."""

    @abstractmethod
    def points(self, image: np.ndarray, seen: Perception) -> tuple[np.ndarray, np.ndarray]:
        """(133, 2) pixels and (133,) scores of the person whom the embedded networks saw in an image."""

    def __call__(self, photo: Photo) -> Perception:
        """Everything about the largest person of a photo."""
        return self._with_points(photo.image, super().__call__(photo))

    def track(self, frames: np.ndarray, **options: Any) -> list[Perception]:
        """The same person in every frame of a clip."""
        return [self._with_points(frame, seen) for frame, seen in zip(frames, super().track(frames, **options))]

    def _with_points(self, image: np.ndarray, seen: Perception) -> Perception:
        if not seen.people:
            return seen
        points, scores = self.points(image, seen)
        return replace(seen, keypoints=points, scores=scores)
