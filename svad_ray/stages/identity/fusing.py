"""From a rendered head to a fused frame: the gates, the landmarks of both pictures, and the fusion. Shared by all identity backends."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from svad_ray import models
from svad_ray.config import IdentityConfig
from svad_ray.nets.litert import LiteRTNet
from svad_ray.stages.identity.dlib_faces import DlibLandmarks
from svad_ray.stages.identity.fusion import fuse_head
from svad_ray.stages.perceive.crops import Roi
from svad_ray.stages.perceive.landmarkers import FaceLandmarker
from svad_ray.stages.perceive.wholebody import face_68
from svad_ray.subject import Clip

FACE_SCORE = 0.5
OFFICIAL_LAST_FRAME = 138  # the released script fuses no frame after this one of its 189
FACING_AWAY_DEG = 75.0  # beyond this turn from the photo its face is seen edge-on or from behind
_BROWS_TO_CHIN = 1.25  # a whole face over its 68 points, which end at the brows
_EYES = (36, 45)  # outer corners of the right and left eye among the 68


@dataclass(frozen=True)
class HeadView:
    """A head rendered for one frame.

    Attributes:
        image: (H, W, 3) uint8 RGB, of the frame's size.
        roi, frame_roi: Where its face lies, and where the frame's own face must be.
        eyes_seen: Both eyes are turned to the camera with nothing in front of them.
        turn_deg: Angle between this view and the photo's.
    """

    image: np.ndarray
    roi: Roi
    frame_roi: Roi
    eyes_seen: bool
    turn_deg: float


class FaceFuser:
    """Fuses one frame at a time; loads its landmark networks when made.

    Raises:
        BackendUnavailable: dlib is asked for and not installed. WeightsMissing: Its model package cannot be had.
    """

    def __init__(self, config: IdentityConfig) -> None:
        self.config = config
        self.landmarker = FaceLandmarker(LiteRTNet(models.ensure("mediapipe") / "face_landmark.tflite", threads=1))
        self.dlib = DlibLandmarks() if config.landmarks == "dlib" else None

    def refused(self, number: int, *, turn_deg: float, eyes_seen: bool = True) -> str:
        """Why a frame is not even tried; "" to try."""
        if turn_deg > FACING_AWAY_DEG:
            return f"head turned {turn_deg:.0f} degrees from the photo"
        if self.config.gate == "official" and number > OFFICIAL_LAST_FRAME:
            return f"frame {number} after {OFFICIAL_LAST_FRAME}"
        if self.config.gate == "paper" and not eyes_seen:
            return "not both eyes visible"
        return ""

    def fuse(self, frame: np.ndarray, number: int, head: HeadView) -> tuple[np.ndarray, str]:
        """The frame with the face of ``head``, or as it was; and what became of it."""
        if reason := self.refused(number, turn_deg=head.turn_deg, eyes_seen=head.eyes_seen):
            return frame, f"fusion refused: {reason}"
        seen, rendered = self.landmarks(frame, head.frame_roi), self.landmarks(head.image, head.roi)
        if seen is None or rendered is None:
            return frame, f"fusion refused: no face in the {'frame' if seen is None else 'head render'}"
        result = fuse_head(frame, head.image, seen, rendered, max_disparity=self.config.max_disparity, mask_value=self.config.strength)
        return result.image, f"fusion refused: {result.reason}" if result.reason else f"fused, disparity {result.disparity:.4f}"

    def landmarks(self, image: np.ndarray, roi: Roi) -> np.ndarray | None:
        """(68, 2) landmarks in OpenCV's pixel counting, looked for in ``roi``; None without a face."""
        found = self.landmarker(image, roi)
        if found.score <= FACE_SCORE:
            return None
        points = face_68(found.mesh)[:, :2] - 0.5
        return points if self.dlib is None else self.dlib(image, points)


def with_frames(shard: Clip, made: list[tuple[np.ndarray, str]]) -> Clip:
    """The shard with other frames, and what became of each of them added to its remarks."""
    remarks = ["; ".join(part for part in (before, said) if part) for before, (_, said) in zip(shard.remarks, made)]
    return replace(shard, frames=np.stack([frame for frame, _ in made]), remarks=tuple(remarks))


def roi_of_68(points: np.ndarray) -> Roi:
    """Region of a face from its (68, 2) points; they reach from the chin to the brows only."""
    across = points[_EYES[1]] - points[_EYES[0]]
    angle = float(np.arctan2(across[1], across[0]))
    low, high = points.min(0), points.max(0)
    side = float((high - low).max())
    up = np.array([np.sin(angle), -np.cos(angle)]) * side * (_BROWS_TO_CHIN - 1) / 2
    return Roi((low + high) / 2 + up, max(1.5 * _BROWS_TO_CHIN * side, 1.0), angle)
