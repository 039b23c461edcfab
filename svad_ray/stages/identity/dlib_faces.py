"""What dlib gives: the 68 landmarks of the released fusion script, and an embedding that tells people apart.

Pixels are in OpenCV's counting: the centre of the top left pixel is (0, 0).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from svad_ray import models
from svad_ray.backends import Backend
from svad_ray.errors import BackendUnavailable

_LANDMARKS, _EMBEDDING = "shape_predictor_68_face_landmarks.dat", "dlib_face_recognition_resnet_model_v1.dat"
_BROWS_UP = 0.15  # of the points' height: dlib's frames reach over the brows, where no point is


def package() -> Any:
    """dlib. Raises BackendUnavailable when it is not installed."""
    try:
        import dlib
    except ModuleNotFoundError as error:
        raise BackendUnavailable(
            "faces by dlib need the package 'dlib', which is not installed",
            remedy="pip install svad-ray[face], or --set drift.measure=off --set identity.landmarks=mediapipe",
        ) from error
    return dlib


def with_landmarks(backend: Backend) -> Backend:
    """The descriptor of an identity backend that takes its 68 landmarks from dlib. Raises as ``package``."""
    package()
    terms = models.PACKAGES["dlib"]
    return replace(
        backend,
        models=(*backend.models, "dlib"),
        weights_licence=f"{backend.weights_licence}; dlib's landmarks {terms.licence}",
        commercial=backend.commercial and terms.commercial,
        commercial_reason=terms.commercial_reason if backend.commercial else f"{backend.commercial_reason}; {terms.commercial_reason}",
        extra="face",
    )


class DlibLandmarks:
    """The 68-point predictor. Where a face is, the caller knows: dlib's own detector, which the released script asks first, misses turned ones.

    Raises:
        BackendUnavailable: dlib is not installed. WeightsMissing: Its model package cannot be had.
    """

    def __init__(self) -> None:
        self._dlib = package()
        self._predict = self._dlib.shape_predictor(str(models.ensure("dlib") / _LANDMARKS))

    def __call__(self, image: np.ndarray, about: np.ndarray) -> np.ndarray:
        """(68, 2) landmarks in an (H, W, 3) uint8 RGB picture, of the face whose (N, 2) points are ``about`` there."""
        found = self._predict(np.ascontiguousarray(image), square(self._dlib, about))
        return np.array([(point.x, point.y) for point in found.parts()], np.float64)


class DlibEmbedding:
    """128 numbers of a face; raises as ``DlibLandmarks``."""

    def __init__(self) -> None:
        self._dlib = package()
        self._embed = self._dlib.face_recognition_model_v1(str(models.ensure("dlib") / _EMBEDDING))

    def __call__(self, image: np.ndarray, points: np.ndarray) -> np.ndarray:
        """(128,) of the face with (68, 2) landmarks in an (H, W, 3) uint8 RGB picture."""
        whole = [self._dlib.point(int(x), int(y)) for x, y in np.rint(points)]
        shape = self._dlib.full_object_detection(square(self._dlib, points), self._dlib.points(whole))
        return np.array(self._embed.compute_face_descriptor(np.ascontiguousarray(image), shape))


def square(dlib: Any, points: np.ndarray) -> Any:
    """dlib's rectangle round (N, 2) points, as its face detector draws one: square, from over the brows to the chin."""
    low, high = points.min(0), points.max(0)
    low = low - [0.0, _BROWS_UP * (high[1] - low[1])]
    centre, half = (low + high) / 2, (high - low).max() / 2
    left, top, right, bottom = (round(float(x)) for x in (*(centre - half), *(centre + half)))
    return dlib.rectangle(left, top, right, bottom)
