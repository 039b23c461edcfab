"""How far the face has moved from the photo's: distances of a face embedding before and after identity and restoration.

Source: dlib's face recognition network (128 numbers a face; two pictures of one person lie below 0.6 of each other, by its own notes). It is a
measure and no stage: it changes no frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from svad_ray.backends import Backend
from svad_ray.body import load_body
from svad_ray.config import DriftConfig, PerceiveConfig
from svad_ray.errors import QualityRejected
from svad_ray.stages.identity.dlib_faces import DlibEmbedding
from svad_ray.stages.identity.head import facing_deg, head_transforms
from svad_ray.stages.perceive.embedded import MediaPipePerceive
from svad_ray.stages.perceive.wholebody import face_68
from svad_ray.subject import Clip, Perception, Photo

FRONTAL_DEG = 40.0  # of the head from the camera; the embedding was trained on faces that look about there
FRAMES_AT_MOST = 9
CLIPS = ("generated", "identity", "restored")


@dataclass(frozen=True)
class FaceDrift:
    """Distances from the photo's face.

    Attributes:
        frames: Numbers of the K frames that were looked at. generated, identity, restored: (K,) float64, NaN where no face was found.
    """

    frames: tuple[int, ...]
    generated: np.ndarray
    identity: np.ndarray
    restored: np.ndarray

    def median(self, name: str) -> float:
        """Over the frames with a face; NaN without any."""
        found = getattr(self, name)
        found = found[np.isfinite(found)]
        return float(np.median(found)) if len(found) else float("nan")

    def check(self, config: DriftConfig) -> None:
        """Raises QualityRejected when the configuration asks for a gate and the restored face is not the photo's."""
        if config.measure != "gate" or self.median("restored") <= config.max_distance:
            return
        seen = "no face was found in the restored frames" if np.isnan(self.median("restored")) else f"its distance is {self.median('restored'):.2f}"
        raise QualityRejected(
            f"the face of the restored clip is not the photo's: {seen} (generated: {self.median('generated'):.2f})",
            expected=f"a median distance of at most {config.max_distance:g}",
            remedy="use a sharper photo with a larger face, or --set drift.measure=report",
        )


class DriftGauge:
    """Measures ``FaceDrift``; has what a runner asks of a stage."""

    version: ClassVar[int] = 1
    backend: ClassVar[Backend] = Backend(
        name="dlib-face",
        stage="identity",
        summary="dlib's face embedding, on the frames that face the camera",
        code_licence="BSL-1.0",
        weights_licence="CC0-1.0",
        commercial=True,
        commercial_reason="CC0-1.0 weights; it measures and changes nothing",
        models=("mediapipe", "dlib"),
        extra="face",
        memory_gib=0.5,
    )

    def __init__(self, config: DriftConfig | None = None, *, body: str = "") -> None:
        self.config, self._body = config or DriftConfig(), body

    def setup(self) -> None:
        """Load the networks and the body.

        Raises:
            BackendUnavailable: dlib is not installed. WeightsMissing: Its model package cannot be had.
        """
        self._embed = DlibEmbedding()
        self.body = load_body(self._body or None)
        self.perceive = MediaPipePerceive(PerceiveConfig())
        self.perceive.setup()

    def __call__(self, photo: Photo, perception: Perception, clips: dict[str, Clip]) -> FaceDrift:
        """Distances of the frames of ``CLIPS`` that face the camera best."""
        angles = facing_deg(head_transforms(self.body, clips[CLIPS[0]].track))
        order = [int(i) for i in np.argsort(angles, kind="stable")[:FRAMES_AT_MOST] if angles[i] <= FRONTAL_DEG]
        frames = tuple(sorted(order))
        own = None if perception.face_mesh is None else self.embedding(photo.image, perception.face_mesh)
        return FaceDrift(frames, **{name: self._distances(own, clips[name].frames[list(frames)]) for name in CLIPS})

    def embedding(self, image: np.ndarray, face_mesh: np.ndarray) -> np.ndarray:
        """(128,) of the face with that (468, 3) mesh in an (H, W, 3) uint8 RGB picture."""
        return self._embed(image, face_68(face_mesh)[:, :2] - 0.5)

    def _distances(self, own: np.ndarray | None, frames: np.ndarray) -> np.ndarray:
        out = np.full(len(frames), np.nan)
        if own is None or not len(frames):
            return out
        for i, (frame, seen) in enumerate(zip(frames, self.perceive.track(frames, face=True))):
            if seen.face_mesh is not None:
                out[i] = np.linalg.norm(self.embedding(frame, seen.face_mesh) - own)
        return out
