"""How far two pictures' faces are apart by dlib's embedding: 0 = the same, below 0.6 by its own notes one person."""

from __future__ import annotations

import cv2
import numpy as np

from svad_ray.conventions import to_uint8
from svad_ray.stages.identity.dlib_faces import DlibEmbedding
from svad_ray.stages.perceive.embedded import MediaPipePerceive
from svad_ray.stages.perceive.wholebody import face_68

LEAST_SIDE = 1024  # a smaller picture is enlarged first: a full-length person's face is few pixels


class FaceDistance:
    """``FaceDistance()(a, b)``; NaN where either picture shows no face, which is right for a view from behind.

    Raises:
        BackendUnavailable: dlib is not installed. WeightsMissing: Its model package cannot be had.
    """

    name = "dlib face_recognition_resnet_model_v1 on MediaPipe's landmarks"

    def __init__(self) -> None:
        self._embed = DlibEmbedding()
        self._perceive = MediaPipePerceive()
        self._perceive.setup()

    def __call__(self, a: np.ndarray, b: np.ndarray) -> float:
        """a, b: (H, W, 3) float RGB in [0, 1]."""
        first = self.embedding(a)
        second = None if first is None else self.embedding(b)
        return float("nan") if first is None or second is None else float(np.linalg.norm(first - second))

    def embedding(self, image: np.ndarray) -> np.ndarray | None:
        """(128,) of the face in an (H, W, 3) float picture; None without one."""
        picture = to_uint8(image)
        factor = LEAST_SIDE / max(picture.shape[:2])
        if factor > 1:
            picture = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
        mesh = next(iter(self._perceive.track(picture[None], face=True))).face_mesh
        return None if mesh is None else self._embed(picture, face_68(mesh)[:, :2] - 0.5)
