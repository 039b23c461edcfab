"""What all video diffusion backends share: the fitted person, the driving skeletons, the photo as reference, masks of what was generated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

import cv2
import numpy as np

from svad_ray.backends import Backend
from svad_ray.body import load_body
from svad_ray.body.model import Body
from svad_ray.config import AnimateConfig, PerceiveConfig
from svad_ray.conventions import to_uint8
from svad_ray.errors import WeightsMissing
from svad_ray.motion import load_motion, retarget
from svad_ray.pose.align import align
from svad_ray.pose.openpose import HIPS, OpenPose, from_wholebody
from svad_ray.stages.animate.embedded import fit_person, spread
from svad_ray.stages.animate.skeleton import draw_poses, driving_poses
from svad_ray.stages.base import Progress, silent
from svad_ray.stages.perceive.embedded import MediaPipePerceive
from svad_ray.subject import Animation, Clip, Further, Perception, Photo, join_clips

_MARGIN = 0.06  # of the picture's side left free round the person, as ``retarget`` leaves it
_FITTED, _DRAWN, _GENERATED = 0.1, 0.15, 0.95  # shares of the work
BLOCK = 16  # frames that are handed on together
NOBODY = "no person was found in this generated frame; its mask is the driving body's silhouette"


class DrivenAnimate:
    """A diffusion backend of the animate stage. Subclasses load a model (``_load``) and run it (``_generate``)."""

    backend: ClassVar[Backend]

    def __init__(self, config: AnimateConfig | None = None) -> None:
        self.config = config or AnimateConfig()

    def setup(self) -> None:
        """Load the body, the perceive stage for the masks, and the model.

        Raises:
            WeightsMissing: No folder of checkpoints is configured, or files are not in it.
        """
        if not self.config.weights:
            raise WeightsMissing(
                f"the animate backend '{self.backend.name}' has no folder of checkpoints",
                expected="; ".join(f"{file.name} from {file.source} ({file.licence})" for file in self.backend.files),
                remedy="--set animate.weights=FOLDER, or use the embedded backend: --set animate.backend=reprojection",
            )
        self._load()
        self.body: Body = load_body(self.config.body or None)
        self.perceive = MediaPipePerceive(PerceiveConfig())
        self.perceive.setup()

    def __call__(self, photo: Photo, perception: Perception, *, also: Sequence[Further] = (), progress: Progress = silent) -> Animation:
        """The generated clip of the photo's person and the body fitted to the photo, and to further ones.

        The models take one picture, the first photo; further ones shape the body and its clothes here, and colour the avatar later.
        """
        parts = list(self.stream(photo, perception, also=also, progress=progress))
        return Animation(join_clips([part.clip for part in parts]), parts[0].photo_track, parts[0].also_tracks)

    def stream(self, photo: Photo, perception: Perception, *, also: Sequence[Further] = (), progress: Progress = silent) -> Iterator[Animation]:
        """The same in consecutive blocks, each as soon as its frames are decoded; the first decoded frames come after the last denoising step."""
        config, size = self.config, self.config.size
        person, *further = fit_person(self.body, photo, perception, also, config).tracks
        progress(_FITTED)
        track = retarget(spread(load_motion(config.motion, self.body), config.frames), person=person, body=self.body, size=size)
        poses, silhouettes = driving_poses(self.body, track)
        square, transform = framed(photo.image, perception.mask, size)
        poses = self._aligned(poses, perception, transform)
        progress(_DRAWN)
        batches = self._generate(
            square,
            draw_poses(poses, size, size),
            face_crop(square, perception, transform),
            lambda done: progress(_DRAWN + (_GENERATED - _DRAWN) * done),
        )
        for first, frames in blocks(batches, BLOCK):
            part = slice(first, first + len(frames))
            masks, remarks = self._masks(frames, poses[part], silhouettes[part])
            yield Animation(Clip(frames, masks, track.frames(part), remarks, first), person, tuple(further))
        progress(1.0)

    def _aligned(self, poses: list[OpenPose], perception: Perception, transform: np.ndarray) -> list[OpenPose]:
        """The driving skeletons on the photo's own key points, as the original brings every driver onto its photo."""
        how, size = self.config.diffusion.align, self.config.size
        if how == "none":
            return poses
        points = perception.keypoints @ transform[:, :2].T + transform[:, 2]
        reference = from_wholebody(points, perception.scores, width=size, height=size)
        square = (size, size)
        return align(reference, poses, reference_size=square, video_size=square, official=how == "official").poses

    def _load(self) -> None:
        raise NotImplementedError

    def _generate(self, reference: np.ndarray, poses: np.ndarray, face: np.ndarray, progress: Progress) -> Iterator[np.ndarray]:
        """(S, S, 3) photo, (T, S, S, 3) skeletons and the (f, f, 3) face -> T frames (S, S, 3) in batches as they are ready; all uint8 RGB."""
        raise NotImplementedError

    def _masks(self, frames: np.ndarray, poses: list[OpenPose], silhouettes: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
        """(T, H, W) uint8 masks of the person as generated, looked for where the skeleton is, and what is to be said of each frame."""
        seen = self.perceive.track(frames, rois=[whereabouts(pose) * frames.shape[1:3][::-1] for pose in poses], masks=True)
        masks = [to_uint8(one.mask) if one.people else silhouette for one, silhouette in zip(seen, silhouettes)]
        return np.stack(masks), tuple("" if one.people else NOBODY for one in seen)


def blocks(batches: Iterator[np.ndarray], size: int) -> Iterator[tuple[int, np.ndarray]]:
    """(number of the first frame, its block) of frames that come in other batches; every block but the last holds ``size`` of them."""
    first = 0
    waiting: list[np.ndarray] = []
    for batch in batches:
        waiting.extend(batch)
        while len(waiting) >= size:
            yield first, np.stack(waiting[:size])
            first, waiting = first + size, waiting[size:]
    if waiting:
        yield first, np.stack(waiting)


def whereabouts(pose: OpenPose) -> np.ndarray:
    """(2, 2) shares of the picture: middle of the hips, and the point above it that is as far away as the farthest joint."""
    points = pose.body[pose.drawn]
    hips = pose.body[list(HIPS)].mean(0)
    return np.stack((hips, hips - [0.0, np.linalg.norm(points - hips, axis=1).max(initial=0.0)]))


def framed(image: np.ndarray, mask: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The photo as a square that holds the person as the driving frames do; what lies beyond the photo repeats its border.

    Returns:
        (size, size, 3) uint8, and the (2, 3) affine from the photo's pixels to it.
    """
    rows, columns = np.flatnonzero((mask > 0.5).any(1)), np.flatnonzero((mask > 0.5).any(0))
    if not len(rows):
        rows, columns = np.arange(image.shape[0]), np.arange(image.shape[1])
    centre = np.array([columns[0] + columns[-1] + 1, rows[0] + rows[-1] + 1]) / 2
    scale = size * (1 - 2 * _MARGIN) / max(np.ptp(rows) + 1, np.ptp(columns) + 1)
    transform = np.array([[scale, 0, size / 2 - scale * centre[0]], [0, scale, size / 2 - scale * centre[1]]])
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    shift = transform.copy()
    shift[:, 2] += 0.5 * scale - 0.5  # OpenCV counts from the middle of the first pixel
    return cv2.warpAffine(image, shift, (size, size), flags=how, borderMode=cv2.BORDER_REPLICATE), transform


def face_crop(square: np.ndarray, perception: Perception, transform: np.ndarray, *, side: int = 512) -> np.ndarray:
    """(side, side, 3): the photo's face in the framed photo, a third more than its points on every side; black without a face."""
    if perception.face_mesh is None:
        return np.zeros((side, side, 3), np.uint8)
    points = perception.face_mesh[:, :2] @ transform[:, :2].T + transform[:, 2]
    low, high = points.min(0), points.max(0)
    half = max((high - low).max() * 5 / 6, 4.0)
    scale, centre = side / (2 * half), (low + high) / 2
    matrix = np.array([[scale, 0, side / 2 - scale * centre[0]], [0, scale, side / 2 - scale * centre[1]]])
    return cv2.warpAffine(square, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
