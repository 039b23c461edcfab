"""MediaPipe's networks, read as files, as the perceive stage's embedded backend: two CPU cores, no other runtime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from svad_ray import models
from svad_ray.backends import Backend
from svad_ray.config import PerceiveConfig
from svad_ray.nets.litert import LiteRTNet
from svad_ray.stages.perceive.crops import Roi
from svad_ray.stages.perceive.detector import PersonDetector
from svad_ray.stages.perceive.landmarkers import (
    BodyLandmarker,
    BodyLandmarks,
    FaceLandmarker,
    FaceLandmarks,
    HandLandmarker,
    HandLandmarks,
    face_roi_from_body,
    hand_roi_from_body,
)
from svad_ray.stages.perceive.masks import person_mask
from svad_ray.stages.perceive.wholebody import wholebody
from svad_ray.subject import Perception, Photo

_PERSON = 0.5  # presence score of the body landmarks
_HAND = 0.5
_FACE = 0.5
_PASSES = 3  # landmark passes from a detector's proposal
_ON_LIMB = 0.3  # of the torso's length: nearer to another's limb than this is on it
_LIMBS = ((11, 12), (23, 24), *((a + s, b + s) for s in (0, 1) for a, b in ((11, 23), (23, 25), (25, 27), (27, 31), (11, 13), (13, 15), (15, 19))))
_BYSTANDER = 0.4  # people smaller than this share of the largest do not count
_MASKED = 0.8  # share of the core landmarks that a person's own mask must cover
_BOX_MARGIN = 0.12  # space left round a person whose surroundings are blacked out, as a share of their size
_CORE = [0, 11, 12, 23, 24, 25, 26]


class MediaPipePerceive:
    """One person of a photo, or of every frame of a clip. ``setup`` once, then call; one object per thread.

    Args:
        config: Stage options.
        threads: CPU threads of each network.
    """

    backend: ClassVar[Backend] = Backend(
        name="mediapipe",
        stage="perceive",
        summary="BlazePose body, hands, 468-point face and masks on LiteRT",
        code_licence="Apache-2.0",
        weights_licence="Apache-2.0",
        commercial=True,
        commercial_reason="Apache-2.0 code and weights",
        models=("mediapipe",),
        memory_gib=0.5,
    )
    version: ClassVar[int] = 1

    def __init__(self, config: PerceiveConfig | None = None, *, threads: int = 1) -> None:
        self.config = config or PerceiveConfig()
        self.threads = threads

    def setup(self) -> None:
        """Load the networks; fetches the model files on first use.

        Raises:
            WeightsMissing: The files are not to be had.
        """
        folder = models.ensure("mediapipe")

        def net(name: str) -> LiteRTNet:
            return LiteRTNet(folder / f"{name}.tflite", threads=self.threads)

        self._detector = PersonDetector(net("pose_detection"))
        self._body = BodyLandmarker(net("pose_landmark_full"))
        self._hand = HandLandmarker(net("hand_landmark_full"))
        self._face = FaceLandmarker(net("face_landmark"))
        self._selfie = net("selfie_segmentation")

    def __call__(self, photo: Photo) -> Perception:
        """Everything about the largest person of a photo. A photo without a person gives ``person_score`` 0 and ``people`` 0."""
        people = self.find_people(photo.image)
        if not people:
            return self._nobody(*photo.image.shape[:2])
        sizes = [extent(person, *photo.image.shape[:2]) for person in people]
        counted = sum(size >= _BYSTANDER * sizes[0] for size in sizes)
        return self._describe(photo.image, self._alone(photo.image, people[0]), people=counted, masks=True, hands=True, face=True)

    def find_people(self, image: np.ndarray) -> list[BodyLandmarks]:
        """Every person seen in an (H, W, 3) uint8 image, largest first.

        The detector proposes on the whole photo and on tiles; a proposal counts when the landmark network and its mask confirm it, and of two that
        end on the same person the better one stays.
        """
        confirmed: list[tuple[float, BodyLandmarks]] = []
        for proposal in self._detector.detect_tiled(image):
            person = self._body(image, proposal.roi, passes=_PASSES)
            if person.score > _PERSON and masked_share(person, *image.shape[:2]) >= _MASKED:
                confirmed.append((proposal.score * person.score, person))
        height, width = image.shape[:2]
        return sorted(distinct(confirmed), key=lambda person: -extent(person, height, width))

    def _alone(self, image: np.ndarray, person: BodyLandmarks) -> BodyLandmarks:
        """A second look at a person with everything beside them blacked out, if the network is surer of its points then.

        Neighbours inside the landmark network's square draw legs together (measured: ankles 80 pixels off on a person 470 pixels high).
        """
        again = self._body(surroundings_black(image, person.points), person.next_roi, passes=2)
        return again if again.score > _PERSON and again.visibility.mean() > person.visibility.mean() else person

    def track(
        self,
        frames: np.ndarray,
        *,
        rois: np.ndarray | Sequence[np.ndarray] | None = None,
        masks: bool = False,
        hands: bool = False,
        face: bool = False,
    ) -> list[Perception]:
        """The same person in every frame of a clip; one pass of the landmark network a frame while the person is not lost.

        Args:
            frames: (T, H, W, 3) uint8.
            rois: (T, 2, 2) pixels, where to look in each frame: hip centre, and a point as far from it as the person reaches, in the direction
                of the head. None = detect once, then follow.
            masks, hands, face: Compute these too; without them ``mask`` is zero, ``hands_world`` NaN and ``face_mesh`` None.

        Returns:
            T perceptions; one without a person has ``person_score`` 0.
        """
        seen: list[Perception] = []
        roi: Roi | None = None
        for index, frame in enumerate(frames):
            given = None if rois is None else Roi.upright_from(rois[index][0], rois[index][1], scale=2.5)
            person = self._follow(frame, given or roi)
            roi = person.next_roi if person is not None else None
            if person is None:
                seen.append(self._nobody(*frame.shape[:2]))
            else:
                seen.append(self._describe(frame, person, people=1, masks=masks, hands=hands, face=face))
        return seen

    def _follow(self, frame: np.ndarray, roi: Roi | None) -> BodyLandmarks | None:
        """The person at ``roi``, else the one whom the detector sees best."""
        if roi is not None:
            person = self._body(frame, roi)
            if person.score > _PERSON:
                return person
        proposals = self._detector.detect(frame)
        if not proposals:
            return None
        person = self._body(frame, max(proposals, key=lambda one: one.score * one.radius).roi, passes=_PASSES)
        return person if person.score > _PERSON else None

    def _describe(self, image: np.ndarray, person: BodyLandmarks, *, people: int, masks: bool, hands: bool, face: bool) -> Perception:
        left, right = (self._one_hand(image, person, right=side) if hands else None for side in (False, True))
        found = self._one_face(image, person) if face else None
        keypoints, scores = wholebody(person.points, person.visibility, found, left, right)
        nothing = np.full((21, 3), np.nan, np.float32)
        return Perception(
            keypoints=keypoints,
            scores=scores,
            mask=person_mask(image, person.points, person.mask, person.roi, second=self._selfie) if masks else _no_mask(*image.shape[:2]),
            landmarks=person.points,
            visibility=person.visibility,
            landmarks_world=person.world,
            face_mesh=None if found is None else found.mesh,
            hands_world=np.stack([nothing if hand is None else hand.world for hand in (left, right)]),
            person_score=person.score,
            people=people,
        )

    def _one_hand(self, image: np.ndarray, person: BodyLandmarks, *, right: bool) -> HandLandmarks | None:
        hand = self._hand(image, hand_roi_from_body(person.points, right=right))
        wrist = person.points[16 if right else 15]
        strayed = np.hypot(*(hand.points[0] - wrist)) > 0.25 * torso_length(person.points)
        return None if hand.score < _HAND or strayed else hand

    def _one_face(self, image: np.ndarray, person: BodyLandmarks) -> FaceLandmarks | None:
        face = self._face(image, face_roi_from_body(person.points))
        return face if face.score > _FACE else None

    @staticmethod
    def _nobody(height: int, width: int) -> Perception:
        keypoints, scores = np.zeros((133, 2), np.float32), np.zeros(133, np.float32)
        blank = np.full((33, 3), np.nan, np.float32)
        hands = np.full((2, 21, 3), np.nan, np.float32)
        return Perception(keypoints, scores, _no_mask(height, width), blank[:, :2], np.zeros(33, np.float32), blank, None, hands, 0.0, 0)


def _no_mask(height: int, width: int) -> np.ndarray:
    return np.broadcast_to(np.zeros((), np.float32), (height, width))  # a clip of hundreds of frames shall not hold empty pixels


def torso_length(points: np.ndarray) -> float:
    """Pixels between the middles of shoulders and hips of (33, 2) landmarks."""
    return max(float(np.hypot(*(points[[11, 12]].mean(0) - points[[23, 24]].mean(0)))), 1.0)


def extent(person: BodyLandmarks, height: int, width: int) -> float:
    """Size of what the photo shows of a person, pixels: the diagonal of the landmarks' box inside the frame."""
    return float(np.hypot(*np.ptp(person.points.clip(0, [width, height]), axis=0)))


def surroundings_black(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """A copy of the image that is black outside the (33, 2) landmarks' box and a margin."""
    low, high = points.min(0), points.max(0)
    margin = _BOX_MARGIN * (high - low).max()
    (left, top), (right, bottom) = ((corner.clip(0, image.shape[1::-1])).astype(int) for corner in (low - margin, high + margin))
    alone = np.zeros_like(image)
    alone[top:bottom, left:right] = image[top:bottom, left:right]
    return alone


def masked_share(person: BodyLandmarks, height: int, width: int) -> float:
    """Share of the core landmarks (nose, shoulders, hips, knees) inside the frame that the network's own mask covers; 0 when none is inside."""
    core = person.points[_CORE]
    inside = ((core >= 0) & (core < [width, height])).all(1)
    if not inside.any():
        return 0.0
    size = person.mask.shape[0]
    matrix = person.roi.matrix(size)
    x, y = (core[inside] @ matrix[:, :2].T + matrix[:, 2]).clip(0, size - 1).astype(int).T
    return float((person.mask[y, x] > 0.5).mean())


def distinct(scored: list[tuple[float, BodyLandmarks]]) -> list[BodyLandmarks]:
    """Of (score, person), best first, those whose shoulders or nose are not a better one's."""
    kept: list[BodyLandmarks] = []
    for _, person in sorted(scored, key=lambda pair: -pair[0]):
        if not any(_same(person.points, other.points) for other in kept):
            kept.append(person)
    return kept


def _same(points: np.ndarray, other: np.ndarray) -> bool:
    near = 0.5 * max(torso_length(points), torso_length(other))
    shoulders = points[[11, 12]].mean(0) - other[[11, 12]].mean(0)
    return bool(np.hypot(*shoulders) < near or np.hypot(*(points[0] - other[0])) < 0.5 * near or _lies_on(points, other))


def _lies_on(points: np.ndarray, other: np.ndarray) -> bool:
    """Whether head and torso of ``points`` lie on the limbs of ``other``: the network sees small bodies in skirts, sleeves and shoes."""
    near = _ON_LIMB * torso_length(other)
    distance = [min(_to_segment(points[i], other[a], other[b]) for a, b in _LIMBS) for i in (0, 11, 12, 23, 24)]
    return sum(d < near for d in distance) >= 4


def _to_segment(point: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    t = np.clip((point - a) @ (b - a) / max(float((b - a) @ (b - a)), 1e-9), 0, 1)
    return float(np.linalg.norm(point - a - t * (b - a)))
