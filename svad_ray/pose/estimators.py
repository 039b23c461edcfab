"""Who finds the 133 key points of a person in a picture: one interface, several networks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from svad_ray.errors import BackendUnavailable, InputError, WeightsMissing
from svad_ray.pose import detector, simcc

DETECTOR_FILE, POSE_FILE = "yolox_l.onnx", "dw-ll_ucoco_384.onnx"
SOURCE, LICENCE = "the DWPose project", "Apache-2.0"
_DETECTOR_IN, _DETECTOR_OUT = (1, 3, detector.SIZE, detector.SIZE), ((1, detector.ROWS, 85),)
_POSE_IN = (1, 3, simcc.HEIGHT, simcc.WIDTH)
_POSE_OUT = (
    (1, simcc.POINTS, int(simcc.WIDTH * simcc.SPLIT)),
    (1, simcc.POINTS, int(simcc.HEIGHT * simcc.SPLIT)),
)


class PoseEstimator(Protocol):
    """Pictures -> key points of the one person in each."""

    def __call__(self, frames: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """T pictures (H, W, 3) uint8 RGB -> (T, 133, 2) float32 pixels, COCO-WholeBody order, and (T, 133) float32 scores in [0, 1]."""


class DWPose:
    """DWPose's two ONNX files on onnxruntime: YOLOX finds the person, RTMPose-L the points. The largest person counts.

    Args:
        folder: Holds ``yolox_l.onnx`` and ``dw-ll_ucoco_384.onnx``. threads: Of each network.

    Raises:
        BackendUnavailable: onnxruntime is not installed. WeightsMissing: A file is not there. InputError: A file is another network.
    """

    def __init__(self, folder: str | Path, *, threads: int = 1) -> None:
        self._detector = _session(Path(folder) / DETECTOR_FILE, _DETECTOR_IN, _DETECTOR_OUT, threads)
        self._pose = _session(Path(folder) / POSE_FILE, _POSE_IN, _POSE_OUT, threads)

    def __call__(self, frames: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """As ``PoseEstimator``."""
        found = [self.one(frame) for frame in frames]
        points, scores = (np.stack(part).astype(np.float32) for part in zip(*found)) if found else (np.zeros((0, 133, 2)), np.zeros((0, 133)))
        return points, np.clip(scores, 0.0, 1.0)

    def one(self, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(133, 2) pixels and (133,) scores of the largest person; of the whole picture where no person is found.

        The networks see RGB, as in MusePose's caller (spec: generation 2, "Channel order").
        """
        centre, scale = simcc.centre_and_scale(self.person(frame))
        x, y = _run(self._pose, simcc.crop(frame, centre, scale))
        points, scores = simcc.decode(x, y, centre[None], scale[None])
        return points[0], scores[0]

    def person(self, frame: np.ndarray) -> np.ndarray:
        """(4,) box of the largest person; the whole picture without one."""
        tensor, ratio = detector.letterbox(frame)
        boxes = detector.person_boxes(_run(self._detector, tensor)[0][0], ratio)
        if not len(boxes):
            return np.array([0.0, 0.0, frame.shape[1], frame.shape[0]])
        return boxes[np.prod(boxes[:, 2:] - boxes[:, :2], axis=1).argmax()]


class MediaPipePose:
    """The embedded perceive stage's key points: nothing to bring, less exact hands.

    Args:
        perceive: A perceive stage that was set up.
    """

    def __init__(self, perceive: Any) -> None:
        self.perceive = perceive

    def __call__(self, frames: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """As ``PoseEstimator``."""
        from svad_ray.subject import Photo

        seen = [self.perceive(Photo("frame", frame, "")) for frame in frames]
        if not seen:
            return np.zeros((0, 133, 2), np.float32), np.zeros((0, 133), np.float32)
        return np.stack([one.keypoints for one in seen]), np.stack([one.scores for one in seen])


def _session(path: Path, given: tuple[int, ...], wanted: tuple[tuple[int, ...], ...], threads: int) -> Any:
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise BackendUnavailable(
            "DWPose's files run on the package 'onnxruntime', which is not installed", remedy="pip install svad-ray[onnx]"
        ) from error
    if not path.exists():
        raise WeightsMissing(
            f"the pose estimator 'dwpose' needs {path}, which is not there",
            expected=f"{path.name} from {SOURCE} ({LICENCE})",
            remedy="put it there, or use the embedded backend: --set perceive.backend=mediapipe",
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=onnxruntime.get_available_providers())
    except Exception as error:  # onnxruntime's own exceptions share no base class
        raise InputError(f"{path} cannot be read: {error}", expected="a complete ONNX file", remedy="download it again") from error
    has = [tuple(one.shape) for one in session.get_inputs()], [tuple(one.shape) for one in session.get_outputs()]
    if not (_fits(has[0], (given,)) and _fits(has[1], wanted)):
        raise InputError(
            f"{path} takes {has[0]} and gives {has[1]}",
            expected=f"{[given]} and {list(wanted)}",
            remedy="check that the file lies under its own name",
        )
    return session


def _fits(found: Sequence[tuple[Any, ...]], wanted: Sequence[tuple[int, ...]]) -> bool:
    """Same shapes; a named or unknown dimension fits any number."""
    return len(found) == len(wanted) and all(
        len(a) == len(b) and all(not isinstance(x, int) or x == y for x, y in zip(a, b)) for a, b in zip(found, wanted)
    )


def _run(session: Any, tensor: np.ndarray) -> list[np.ndarray]:
    return session.run(None, {session.get_inputs()[0].name: tensor[None]})
