"""Key points by the package mmpose: RTMPose-L whole body, its own pre- and post-processing; people by RTMDet where its checkpoint is there.

The networks are built from the configurations inside the packages, and filled strictly from files that the user brings.
Source: the paper's first variant of DWPose (spec: generation 2a), which runs the same network in mmpose.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from svad_ray.errors import BackendUnavailable, InputError, WeightsMissing
from svad_ray.models.shims import mmcv_compiled

POSE_FILE = "rtmpose-l_simcc-coco-wholebody_pt-aic-coco_270e-384x288-eaeb96c8_20230125.pth"
DWPOSE_FILE = "dw-ll_ucoco_384.pth"  # the same network, distilled by DWPose; taken when the other is not there
DETECTOR_PATTERN = "rtmdet_m*.pth"
SOURCE, LICENCE = "the MMPose project's model zoo", "Apache-2.0"
EXTRA = "mmpose"
PERSON_SCORE = 0.3
_POSE_CONFIG = "configs/wholebody_2d_keypoint/rtmpose/coco-wholebody/rtmpose-l_8xb32-270e_coco-wholebody-384x288.py"
_DETECTOR_CONFIG = "demo/mmdetection_cfg/rtmdet_m_640-8xb32_coco-person.py"
_CLASSES = "bbox_head.rtm_cls.0.weight"
_TENSORS = ("state_dict",)


class MMPose:
    """RTMPose-L on mmpose. The largest person counts.

    Args:
        folder: Holds ``POSE_FILE`` or ``DWPOSE_FILE``, and a file like ``DETECTOR_PATTERN`` where people shall be looked for.
        flip: Average with the mirrored picture, as mmpose's configuration does; twice the time.
        device: Of both networks; None = the GPU where there is one.

    Raises:
        BackendUnavailable: mmpose is not installed. WeightsMissing: No file of key points.
        InputError: A file is damaged, partial, or another network.
    """

    def __init__(self, folder: str | Path, *, flip: bool = True, device: str | None = None) -> None:
        folder = Path(folder)
        pose, detector = pose_file(folder), detector_file(folder)
        device = device or _device()
        self.model = load_pose(pose, flip=flip).to(device)
        self.detector = load_detector(detector).to(device) if detector else None

    def __call__(self, frames: Sequence[np.ndarray], *, boxes: Sequence[np.ndarray | None] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """As ``PoseEstimator``.

        Args:
            frames: T pictures (H, W, 3) uint8 RGB.
            boxes: Where the person is in each, (4,) x1, y1, x2, y2; used where the detector, if any, finds none.
        """
        places = boxes if boxes is not None else [None] * len(frames)
        found = [self.one(frame, box=box) for frame, box in zip(frames, places, strict=True)]
        if not found:
            return np.zeros((0, 133, 2), np.float32), np.zeros((0, 133), np.float32)
        points, scores = (np.stack(part).astype(np.float32) for part in zip(*found))
        return points, np.clip(scores, 0.0, 1.0)

    def one(self, frame: np.ndarray, *, box: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """(133, 2) pixels and (133,) scores of the person in the box; of the whole picture where nothing tells where the person is."""
        from mmpose.apis import inference_topdown

        seen = self.person(frame)
        place = seen if seen is not None else box
        bgr = np.ascontiguousarray(frame[..., ::-1])
        (sample,) = inference_topdown(self.model, bgr, None if place is None else np.asarray(place, np.float32)[None])
        return sample.pred_instances.keypoints[0], sample.pred_instances.keypoint_scores[0]

    def person(self, frame: np.ndarray) -> np.ndarray | None:
        """(4,) box of the largest person that the detector sees; None without a detector or a person."""
        boxes = self.people(frame)
        return boxes[np.prod(boxes[:, 2:] - boxes[:, :2], axis=1).argmax()] if len(boxes) else None

    def people(self, frame: np.ndarray) -> np.ndarray:
        """(N, 4) boxes of the people that the detector sees, best first."""
        if self.detector is None:
            return np.zeros((0, 4), np.float32)
        from mmdet.apis import inference_detector

        found = inference_detector(self.detector, np.ascontiguousarray(frame[..., ::-1])).pred_instances.cpu().numpy()
        height, width = frame.shape[:2]
        boxes = found.bboxes.clip(0, [width, height, width, height])  # one may lie in the border that fills the picture up to a square
        return boxes[(found.labels == 0) & (found.scores > PERSON_SCORE) & (boxes[:, 2:] > boxes[:, :2]).all(1)]


def pose_file(folder: Path) -> Path:
    """The file of key points in a folder. Raises WeightsMissing."""
    for name in (POSE_FILE, DWPOSE_FILE):
        path = folder / name
        if path.exists() or path.with_suffix(".safetensors").exists():
            return path
    raise missing(folder / POSE_FILE)


def detector_file(folder: Path) -> Path | None:
    """RTMDet's file in a folder; None without. Raises InputError where there are several."""
    found = sorted(folder.glob(DETECTOR_PATTERN))
    if len(found) > 1:
        raise InputError(f"{folder} has {len(found)} detectors: {', '.join(path.name for path in found)}", expected="one", remedy="keep one of them")
    return found[0] if found else None


def missing(path: Path) -> WeightsMissing:
    """The error that names the file and where it comes from."""
    return WeightsMissing(
        f"the pose estimator 'mmpose' needs {path}, which is not there",
        expected=f"{POSE_FILE} from {SOURCE} ({LICENCE}), or {DWPOSE_FILE} from the DWPose project (Apache-2.0)",
        remedy="put it there, or use the embedded backend: --set perceive.backend=mediapipe",
    )


def build_pose(*, flip: bool = True) -> Any:
    """RTMPose-L whole body, 384 x 288, as the package configures it; weights at random. Raises BackendUnavailable."""
    config = _config("mmpose", _POSE_CONFIG)
    from mmpose.apis import init_model

    config.model.test_cfg.flip_test = flip
    config.model.backbone.init_cfg = None  # its training started from a file that the package would fetch
    return init_model(config, None, device="cpu")


def build_detector(classes: int) -> Any:
    """RTMDet-m for ``classes`` kinds of things, the first of which are people; weights at random. Raises BackendUnavailable."""
    config = _config("mmpose", _DETECTOR_CONFIG)
    from mmdet.apis import init_detector
    from mmpose.utils import adapt_mmdet_pipeline

    config.model.backbone.init_cfg = None
    config.model.bbox_head.num_classes = classes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of no checkpoint: it is read below
        model = init_detector(config, None, device="cpu")
    model.cfg = adapt_mmdet_pipeline(model.cfg)
    return model


def load_pose(path: Path, *, flip: bool = True) -> Any:
    """``build_pose`` filled from a file, every tensor by name and shape."""
    from svad_ray.nets.checkpoint import fill, read_state

    model = build_pose(flip=flip)
    state = read_state(path, missing=lambda: missing(path), inside=_TENSORS, beside=True)
    return fill(model, state, path, what="RTMPose-L whole body of 384 x 288").eval()


def load_detector(path: Path) -> Any:
    """``build_detector`` filled from a file; how many classes it tells apart is read off its shapes."""
    from svad_ray.nets.checkpoint import fill, foreign, read_state

    state = read_state(path, missing=lambda: missing(path), inside=_TENSORS, beside=True)
    if _CLASSES not in state:
        raise foreign(path, sorted(state), "RTMDet-m")
    return fill(build_detector(len(state[_CLASSES])), state, path, what="RTMDet-m").eval()


def _config(package: str, name: str) -> Any:
    """A configuration that lies in an installed package."""
    try:
        mmcv_compiled()
        import mmpose  # noqa: F401
        from mmengine.config import Config
        from mmengine.utils import get_installed_path
    except ModuleNotFoundError as error:
        raise BackendUnavailable(
            f"the perceive backend 'mmpose' needs the package '{error.name}', which is not installed",
            remedy=f"pip install svad-ray[{EXTRA}], as docs/extras.md says",
        ) from error
    return Config.fromfile(str(Path(get_installed_path(package)) / ".mim" / name))


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
