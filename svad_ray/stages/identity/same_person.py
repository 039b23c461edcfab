"""Several photos, one person: faces are compared where two photos show one, clothes always, and what could not be checked is written down.

A back view has no face. That its clothes are those of the other photos is all that can be said of it, and the avatar needs that anyhow: it can wear
one set of clothes only. Faces: dlib's embedding (``dlib_faces``), where that extra is installed. Clothes: colours of torso and legs. Source: ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, ClassVar

import cv2
import numpy as np
from scipy.spatial import cKDTree

from svad_ray.backends import Backend
from svad_ray.config import PhotosConfig
from svad_ray.errors import BackendUnavailable, QualityRejected
from svad_ray.stages.identity.dlib_faces import DlibEmbedding, package
from svad_ray.stages.perceive.wholebody import face_68
from svad_ray.subject import Perception, Photo

CLEAR_FACE_PX = 40.0  # width of a face from which the embedding is worth comparing
TURNED = 0.35  # symmetry of a face below which it is seen too much from the side for that
SAMPLES = 600  # pixels of a garment
NEAR = 14.0  # distance in CIELAB, lightness counted half, within which two photos show one cloth
DIFFERENT = 0.25  # share of a garment's pixels that the other photo's garment has too, below which it is another one
_TORSO, _LEGS = (11, 12, 24, 23), ((23, 25), (25, 27), (24, 26), (26, 28))
_NOSE, _CHEEKS = 1, (234, 454)


@dataclass(frozen=True)
class SamePerson:
    """What is known of a set of photos, numbered from 1.

    Attributes:
        names: Of the photos. how: In words.
        faces: (first, second, distance) of every pair that shows two clear faces; empty where none was compared.
        clothes: (first, second, share of the torso's colours in common, of the legs').
        unchecked: Photos whose face was compared with no other's.
        max_distance: Of the same person's faces.
    """

    names: tuple[str, ...]
    how: str
    faces: tuple[tuple[int, int, float], ...]
    clothes: tuple[tuple[int, int, float, float], ...]
    unchecked: tuple[int, ...]
    max_distance: float

    def check(self) -> tuple[str, ...]:
        """Warnings. Raises QualityRejected for photos of different people, or of different clothes."""
        for a, b, distance in self.faces:
            if distance > self.max_distance:
                raise QualityRejected(
                    f"{self._pair(a, b)} show different people: their faces are {distance:.2f} apart",
                    expected=f"one person: at most {self.max_distance:g}",
                    remedy="give photos of one person, or one photo alone; --set photos.same_person=off trusts you instead",
                )
        for a, b, torso, legs in self.clothes:
            if max(torso, legs) < DIFFERENT:
                raise QualityRejected(
                    f"{self._pair(a, b)} do not show one person in one set of clothes: neither torso nor legs have colours in common",
                    expected="one person, dressed alike in all photos",
                    remedy="give photos of one person taken together, or one photo alone; --set photos.same_person=off trusts you instead",
                )
        warnings = [
            f"clothes_differ: {self._pair(a, b)} show other colours of the {'torso' if torso < legs else 'legs'}"
            for a, b, torso, legs in self.clothes
            if min(torso, legs) < DIFFERENT
        ]
        if self.unchecked:
            names = ", ".join(f"'{self.names[k - 1]}'" for k in self.unchecked)
            warnings.append(f"same_person_unchecked: that {names} shows the same person could not be checked by the face ({self.how})")
        return tuple(warnings)

    def _pair(self, a: int, b: int) -> str:
        return f"the photos '{self.names[a - 1]}' and '{self.names[b - 1]}'"

    def facts(self) -> dict[str, Any]:
        """For provenance, JSON values only."""
        return {
            "checked": not self.unchecked,
            "how": self.how,
            "pairs": [{"photos": [a, b], "distance": round(distance, 3)} for a, b, distance in self.faces],
            "clothes": [{"photos": [a, b], "torso": round(torso, 2), "legs": round(legs, 2)} for a, b, torso, legs in self.clothes],
            "unchecked": list(self.unchecked),
        }


class PersonCheck:
    """Makes ``SamePerson``; has what a runner asks of a stage.

    Raises:
        BackendUnavailable: Faces shall be compared in any case, and dlib is not installed.
    """

    version: ClassVar[int] = 1
    CLOTHES: ClassVar[Backend] = Backend(
        name="clothes",
        stage="identity",
        summary="Colours of torso and legs; faces were not compared",
        code_licence="Apache-2.0",
        weights_licence="none",
        commercial=True,
        commercial_reason="it measures and changes nothing",
        memory_gib=0.1,
    )
    FACES: ClassVar[Backend] = Backend(
        name="dlib-face",
        stage="identity",
        summary="dlib's face embedding where two photos show a face, colours of torso and legs",
        code_licence="BSL-1.0",
        weights_licence="CC0-1.0",
        commercial=True,
        commercial_reason="CC0-1.0 weights; it measures and changes nothing",
        models=("dlib",),
        extra="face",
        memory_gib=0.3,
    )

    def __init__(self, config: PhotosConfig | None = None) -> None:
        self.config = config or PhotosConfig()
        self.backend = self.FACES
        try:
            package()
        except BackendUnavailable:
            if self.config.same_person == "faces":
                raise
            self.backend = self.CLOTHES

    def setup(self) -> None:
        """Load the embedding where there is one. Raises WeightsMissing when its model package cannot be had."""
        self._embed = DlibEmbedding() if self.backend is self.FACES else None

    def __call__(self, photos: Sequence[Photo], seen: Sequence[Perception]) -> SamePerson:
        """Compare all photos with each other."""
        clear = [k for k, one in enumerate(seen) if clear_face(one)]
        faces: list[tuple[int, int, float]] = []
        if self._embed is not None and len(clear) > 1:
            marks = {k: self._embed(photos[k].image, face_68(mesh)[:, :2] - 0.5) for k in clear if (mesh := seen[k].face_mesh) is not None}
            faces = [(a + 1, b + 1, float(np.linalg.norm(marks[a] - marks[b]))) for a, b in combinations(clear, 2)]
        garments = [(garment(photo, one, "torso"), garment(photo, one, "legs")) for photo, one in zip(photos, seen)]
        clothes = [
            (a + 1, b + 1, in_common(garments[a][0], garments[b][0]), in_common(garments[a][1], garments[b][1]))
            for a, b in combinations(range(len(photos)), 2)
        ]
        compared = {k for a, b, _ in faces for k in (a, b)}
        how = "dlib's face embedding" if self._embed else "faces are compared with the extra 'face' only: pip install svad-ray[face]"
        if self._embed and len(clear) < 2:
            how = "fewer than two photos show a clear face"
        unchecked = tuple(k for k in range(1, len(photos) + 1) if k not in compared)
        return SamePerson(tuple(p.name for p in photos), how, tuple(faces), tuple(clothes), unchecked, self.config.max_face_distance)


def best_face(seen: Sequence[Perception]) -> int:
    """Number (from 0) of the photo with the largest face that looks at the camera; the first one when none shows a face."""
    return int(np.argmax([_face_size(one) * _symmetry(one) for one in seen]))


def clear_face(seen: Perception) -> bool:
    """Is the face large and frontal enough to be told from another?"""
    return _face_size(seen) >= CLEAR_FACE_PX and _symmetry(seen) >= TURNED


def _face_size(seen: Perception) -> float:
    """Geometric mean of the face's width and height, pixels; 0 without a face."""
    return 0.0 if seen.face_mesh is None else float(np.sqrt(np.prod(np.ptp(seen.face_mesh[:, :2], axis=0))))


def _symmetry(seen: Perception) -> float:
    """1 when the nose lies midway between the cheeks, 0 when it lies on one."""
    if seen.face_mesh is None:
        return 0.0
    nose, left, right = (seen.face_mesh[k, :2].astype(float) for k in (_NOSE, *_CHEEKS))
    across = right - left
    t = (nose - left) @ across / max(float(across @ across), 1e-9)
    return float(np.clip(1 - abs(2 * t - 1), 0, 1))


def garment(photo: Photo, seen: Perception, which: str) -> np.ndarray:
    """(M, 3) CIELAB colours, lightness halved, of the torso or the legs; M = 0 when it cannot be found."""
    marks = seen.landmarks
    where = np.zeros(seen.mask.shape, np.uint8)
    torso = marks[list(_TORSO)]
    if not np.isfinite(marks[[11, 12, 23, 24, 25, 26, 27, 28]]).all():
        return np.empty((0, 3))
    width = max(2, round(0.12 * float(np.linalg.norm(torso[0] + torso[1] - torso[2] - torso[3]) / 2)))
    if which == "torso":
        cv2.fillConvexPoly(where, np.rint(torso).astype(np.int32), 1)
        cv2.polylines(where, [np.rint(torso).astype(np.int32)], True, 1, width)
    else:
        for a, b in _LEGS:
            start = marks[a] + 0.25 * (marks[b] - marks[a])
            cv2.line(where, tuple(np.rint(start).astype(int).tolist()), tuple(np.rint(marks[b]).astype(int).tolist()), 1, width)
    pixels = photo.image[(where > 0) & (seen.mask > 0.9)]
    if len(pixels) < 30:
        return np.empty((0, 3))
    pixels = pixels[np.linspace(0, len(pixels) - 1, min(SAMPLES, len(pixels))).astype(int)]
    lab = cv2.cvtColor(pixels[None].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[0]
    return lab * np.array([0.5, 1, 1])


def in_common(a: np.ndarray, b: np.ndarray) -> float:
    """Share of one garment's colours that the other has, whichever is larger (an open coat's back shows the coat alone); 1 when one is unknown."""
    if not len(a) or not len(b):
        return 1.0
    return float(max((cKDTree(b).query(a)[0] < NEAR).mean(), (cKDTree(a).query(b)[0] < NEAR).mean()))
