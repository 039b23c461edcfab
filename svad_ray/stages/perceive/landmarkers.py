"""Body, hand and face landmark networks: each looks at a turned square of the image and moves that square to where its subject is.

Source: input ranges and outputs follow MediaPipe's network files; the regions are MediaPipe's (body: hip to circle point, 2.5 times; hand: wrist to
knuckles; face: eye line), the number of passes and the hands' and face's first regions from body landmarks are ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from svad_ray.nets.litert import LiteRTNet
from svad_ray.stages.perceive.crops import Roi, sigmoid

_TO_BODY_AXES = np.array([1.0, -1.0, -1.0], np.float32)  # image axes (y down, z away) to the body's (y up, z to the camera)
_PALM = [5, 9, 13, 17]


@dataclass(frozen=True)
class BodyLandmarks:
    """score in [0, 1]; points (33, 2) pixels; visibility (33,) in [0, 1]; world (33, 3) metres, body axes; mask (256, 256) of ``roi`` in [0, 1];
    next_roi: where the person is, for the next pass or frame."""

    score: float
    points: np.ndarray
    visibility: np.ndarray
    world: np.ndarray
    mask: np.ndarray
    roi: Roi
    next_roi: Roi


@dataclass(frozen=True)
class HandLandmarks:
    """score and right-handedness in [0, 1]; points (21, 2) pixels; world (21, 3) metres, body axes."""

    score: float
    right: float
    points: np.ndarray
    world: np.ndarray


@dataclass(frozen=True)
class FaceLandmarks:
    """score in [0, 1]; mesh (468, 3): x, y pixels, z pixels relative to the head (negative = nearer)."""

    score: float
    mesh: np.ndarray


class BodyLandmarker:
    """pose_landmark_full.tflite."""

    def __init__(self, net: LiteRTNet) -> None:
        self.net = net

    def __call__(self, image: np.ndarray, roi: Roi, *, passes: int = 1) -> BodyLandmarks:
        """Landmarks of the person in ``roi``; every further pass looks where the previous one found the person."""
        found = self._once(image, roi)
        for _ in range(passes - 1):
            found = self._once(image, found.next_roi)
        return found

    def _once(self, image: np.ndarray, roi: Roi) -> BodyLandmarks:
        size = self.net.size
        out = self.net(roi.crop(image, size))
        raw = out["Identity"].reshape(39, 5)
        points = roi.to_image(raw[:, :2], size)
        world = roi.rotate_back(out["Identity_4"].reshape(39, 3)[:33]) * _TO_BODY_AXES
        following = Roi.upright_from(points[33], points[34], scale=2.5)
        visibility, mask = sigmoid(raw[:33, 3]), sigmoid(out["Identity_2"].reshape(size, size))
        score = float(out["Identity_1"].reshape(-1)[0])
        return BodyLandmarks(score, points[:33].astype(np.float32), visibility, world.astype(np.float32), mask, roi, following)


class HandLandmarker:
    """hand_landmark_full.tflite."""

    def __init__(self, net: LiteRTNet) -> None:
        self.net = net

    def __call__(self, image: np.ndarray, roi: Roi, *, passes: int = 2) -> HandLandmarks:
        """Landmarks of the hand in ``roi``."""
        for step in range(passes):
            found = self._once(image, roi)
            if step + 1 < passes:
                roi = hand_roi_from_points(found.points)
        return found

    def _once(self, image: np.ndarray, roi: Roi) -> HandLandmarks:
        size = self.net.size
        out = self.net(roi.crop(image, size))
        points = roi.to_image(out["Identity"].reshape(21, 3)[:, :2], size)
        world = roi.rotate_back(out["Identity_3"].reshape(21, 3)) * _TO_BODY_AXES
        world = world - world.mean(0)
        score, right = float(out["Identity_1"].reshape(-1)[0]), float(out["Identity_2"].reshape(-1)[0])
        return HandLandmarks(score, right, points.astype(np.float32), world.astype(np.float32))


def hand_roi_from_body(points: np.ndarray, *, right: bool) -> Roi:
    """First region of a hand from body landmarks (33, 2): wrist, index and little finger knuckles."""
    wrist, index, pinky = points[[16, 20, 18] if right else [15, 19, 17]]
    reach = (index + pinky) / 2 - wrist
    return Roi.upright_from(wrist + 1.2 * reach, wrist + 2.2 * reach, scale=4.2)


def hand_roi_from_points(points: np.ndarray) -> Roi:
    """Region of a hand from its own (21, 2) points."""
    up = points[_PALM].mean(0) - points[0]
    low, high = points.min(0), points.max(0)
    return Roi((low + high) / 2, max(1.9 * float((high - low).max()), 1.0), float(np.arctan2(up[0], -up[1])))


class FaceLandmarker:
    """face_landmark.tflite."""

    def __init__(self, net: LiteRTNet) -> None:
        self.net = net

    def __call__(self, image: np.ndarray, roi: Roi, *, passes: int = 2) -> FaceLandmarks:
        """Mesh of the face in ``roi``."""
        for step in range(passes):
            found = self._once(image, roi)
            if step + 1 < passes:
                roi = face_roi_from_mesh(found.mesh)
        return found

    def _once(self, image: np.ndarray, roi: Roi) -> FaceLandmarks:
        size = self.net.size
        out = self.net(roi.crop(image, size))
        raw = out["conv2d_21"].reshape(468, 3)
        mesh = np.column_stack([roi.to_image(raw[:, :2], size), raw[:, 2] * (roi.side / size)])
        return FaceLandmarks(float(sigmoid(out["conv2d_31"].reshape(-1))[0]), mesh.astype(np.float32))


def face_roi_from_body(points: np.ndarray) -> Roi:
    """First region of a face from body landmarks (33, 2): eyes and mouth corners."""
    left, right, mouth = points[2], points[5], points[[9, 10]].mean(0)
    eyes, across = (left + right) / 2, left - right
    side = 3.4 * max(float(np.hypot(*(mouth - eyes))), 0.6 * float(np.hypot(*across)), 1.0)
    return Roi((eyes + mouth) / 2, side, float(np.arctan2(across[1], across[0])))


def face_roi_from_mesh(mesh: np.ndarray) -> Roi:
    """Region of a face from its own (468, 3) mesh; 263 and 33 are the outer corners of the left and right eye."""
    across = mesh[263, :2] - mesh[33, :2]
    low, high = mesh[:, :2].min(0), mesh[:, :2].max(0)
    return Roi((low + high) / 2, max(1.5 * float((high - low).max()), 1.0), float(np.arctan2(across[1], across[0])))
