"""The data that flows: Photo -> Perception -> Clip -> Clip (identity) -> Clip (restored) -> BodyTrack -> Avatar.

Plain frozen dataclasses of NumPy arrays; how they are stored is the business of ``svad_ray.store``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Photo:
    """One decoded, upright photo.

    Attributes:
        name: File stem, used for output names only.
        image: (H, W, 3) uint8 RGB.
        sha256: Hash of the file's bytes as given.
        notes: What reading changed: "EXIF rotation applied", "alpha flattened onto white", "downscaled from 7728x5368".
        origin: Of a picture that a model drew or edited: its prompt, the model and its terms, for provenance; empty for a photo.
    """

    name: str
    image: np.ndarray
    sha256: str
    notes: tuple[str, ...] = ()
    origin: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Perception:
    """What a photo (or a frame) shows of one person.

    Attributes:
        keypoints: (133, 2) float32 pixels, COCO-WholeBody order.
        scores: (133,) float32 in [0, 1]; 0 where the backend has no such point.
        mask: (H, W) float32 in [0, 1], the person.
        landmarks: (33, 2) float32 pixels, the BlazePose body points (NaN where the backend has none).
        visibility: (33,) float32 in [0, 1], of ``landmarks``.
        landmarks_world: (33, 3) float32 metres, body axes (y up, z to the camera), origin at the hips' centre.
        face_mesh: (468, 3) float32, x and y in pixels and z in pixels relative to the head (negative = nearer); None without a face.
        hands_world: (2, 21, 3) float32 metres, left then right, body axes, origin at the hand's centre; NaN where not seen.
        person_score: Detection score in [0, 1].
        people: How many people the detector saw.
        warnings: Quality remarks that do not refuse the photo.
        depth: (H, W) float32, larger = nearer, up to scale and shift; None where the backend measures none.
    """

    keypoints: np.ndarray
    scores: np.ndarray
    mask: np.ndarray
    landmarks: np.ndarray
    visibility: np.ndarray
    landmarks_world: np.ndarray
    face_mesh: np.ndarray | None
    hands_world: np.ndarray
    person_score: float
    people: int
    warnings: tuple[str, ...] = ()
    depth: np.ndarray | None = None


@dataclass(frozen=True)
class TexturedFace:
    """The face's mesh on the body, and the mean colours that a clip shows on it.

    Attributes:
        image: (S, S, 3) uint8 RGB, black outside ``mask``, which is (S, S) bool: the texels that count.
        rows: (F,) int64, the body's vertex of each vertex of the face. faces: (N, 3) int64 numbers of ``rows``.
        uv: (M, 2) float32 in [0, 1], v downwards from the picture's upper border. uv_faces: (N, 3) int64 numbers of ``uv``.
        source: Whose map it is: "flame", unwrapped from the fitted FLAME, or "body", from the body's own face.
    """

    image: np.ndarray
    mask: np.ndarray
    rows: np.ndarray
    faces: np.ndarray
    uv: np.ndarray
    uv_faces: np.ndarray
    source: str


@dataclass(frozen=True)
class BodyTrack:
    """SMPL-X parameters over T frames, with the cameras that saw them: the project's one motion format.

    Rotations are axis-angle, relative to the parent joint; the world is the body's (y up) unless ``viewmats`` say otherwise.

    Attributes:
        betas: (B,) shape coefficients of ``body_id``.
        global_orient, transl: (T, 3). body_pose: (T, 21, 3). left_hand_pose, right_hand_pose: (T, 15, 3), hand mean NOT included.
        jaw_pose, leye_pose, reye_pose: (T, 3). expression: (T, E).
        viewmats: (T, 4, 4) world to camera. Ks: (T, 3, 3) pixels. image_size: (height, width).
        fps: Frames per second.
        body_id: Which body file the numbers belong to (``Body.id``); betas are meaningless on another body.
        vertex_offset: (V, 3) metres, clothing and hair on the shaped rest surface, felt by no joint; None = naked body.
        face_offset: (V, 3) metres, ExAvatar's: the face's own shape, zero off the head; joints are regressed with it. None = zero.
        joint_offset, locator_offset: (55, 3) metres, ExAvatar's offsets (spec 3.4); None = zero.
        residual_px: (T,) weighted mean landmark residual of the fit that made the track, pixels; None when it was not fitted.
        face: The texture of the clip's face, where the fit unwrapped it.
    """

    betas: np.ndarray
    global_orient: np.ndarray
    body_pose: np.ndarray
    left_hand_pose: np.ndarray
    right_hand_pose: np.ndarray
    jaw_pose: np.ndarray
    leye_pose: np.ndarray
    reye_pose: np.ndarray
    expression: np.ndarray
    transl: np.ndarray
    viewmats: np.ndarray
    Ks: np.ndarray
    image_size: tuple[int, int]
    fps: float
    body_id: str
    vertex_offset: np.ndarray | None = None
    face_offset: np.ndarray | None = None
    joint_offset: np.ndarray | None = None
    locator_offset: np.ndarray | None = None
    residual_px: np.ndarray | None = None
    face: TexturedFace | None = None

    def __len__(self) -> int:
        return len(self.transl)

    @property
    def full_pose(self) -> np.ndarray:
        """(T, 55, 3) axis-angle in SMPL-X joint order."""
        one = [self.global_orient[:, None], self.body_pose, self.jaw_pose[:, None], self.leye_pose[:, None], self.reye_pose[:, None]]
        return np.concatenate([*one, self.left_hand_pose, self.right_hand_pose], axis=1)

    @property
    def surface_offset(self) -> np.ndarray | None:
        """(V, 3) metres: everything that lies on the shaped rest surface."""
        worn = [offset for offset in (self.vertex_offset, self.face_offset) if offset is not None]
        return np.sum(worn, axis=0) if worn else None

    def with_full_pose(self, pose: np.ndarray) -> BodyTrack:
        """This track with (T, 55, 3) axis-angle rotations in SMPL-X joint order."""
        return replace(
            self,
            global_orient=pose[:, 0],
            body_pose=pose[:, 1:22],
            jaw_pose=pose[:, 22],
            leye_pose=pose[:, 23],
            reye_pose=pose[:, 24],
            left_hand_pose=pose[:, 25:40],
            right_hand_pose=pose[:, 40:55],
        )

    def frames(self, index: slice | np.ndarray) -> BodyTrack:
        """The frames ``index`` of this track."""
        per_frame = [f.name for f in fields(self) if f.name not in _WHOLE_TRACK]
        return replace(self, **{name: getattr(self, name)[index] for name in per_frame})


OFFSETS = ("vertex_offset", "face_offset", "joint_offset", "locator_offset")
SHARED = ("betas", "image_size", "fps", "body_id", *OFFSETS)  # by all frames of a track
_WHOLE_TRACK = {*SHARED, "residual_px", "face"}


@dataclass(frozen=True)
class Clip:
    """A turn-around clip of one person on a plain background, or a slice of it.

    Attributes:
        frames: (T, H, W, 3) uint8 RGB. masks: (T, H, W) uint8, 255 = person.
        track: The motion that drove the generator, frame by frame (cameras included).
        remarks: T strings; what a stage says of a frame ("fusion refused: disparity 0.031"), "" when nothing.
        first: Index of ``frames[0]`` in the whole clip.
    """

    frames: np.ndarray
    masks: np.ndarray
    track: BodyTrack
    remarks: tuple[str, ...]
    first: int = 0

    def __len__(self) -> int:
        return len(self.frames)

    def slice(self, start: int, stop: int) -> Clip:
        """Frames [start, stop) as a clip of their own."""
        return Clip(
            self.frames[start:stop], self.masks[start:stop], self.track.frames(slice(start, stop)), self.remarks[start:stop], self.first + start
        )


@dataclass(frozen=True)
class Animation:
    """What the animate stage gives: the generated clip and the body fitted to the photo itself (one frame, the photo's camera)."""

    clip: Clip
    photo_track: BodyTrack


def join_clips(shards: list[Clip]) -> Clip:
    """One clip from consecutive shards (any order given)."""
    shards = sorted(shards, key=lambda shard: shard.first)
    tracks = [shard.track for shard in shards]
    per_frame = [f.name for f in fields(BodyTrack) if f.name not in _WHOLE_TRACK]
    joined: dict[str, Any] = {name: np.concatenate([getattr(t, name) for t in tracks]) for name in per_frame}
    track = replace(tracks[0], **joined)
    frames, masks = np.concatenate([s.frames for s in shards]), np.concatenate([s.masks for s in shards])
    return Clip(frames, masks, track, tuple(r for s in shards for r in s.remarks), shards[0].first)


@dataclass(frozen=True)
class Avatar:
    """An animatable 3D Gaussian avatar: Gaussians bound to a body by skinning weights, in the shaped rest pose.

    Attributes:
        kind: "gaussian" (flat Gaussians on the clothed surface) or "exavatar".
        tensors: Named float32/int arrays. For "gaussian": means (N, 3) rest space, quats (N, 4) wxyz, scales (N, 3) metres,
            opacities (N,), colors (N, 3) in [0, 1], lbs_weights (N, 55), expr_dirs (N, 3, E).
        track: One frame: betas, rest pose and display camera of the person.
        facts: Provenance and training figures, JSON values only.
    """

    kind: str
    tensors: dict[str, np.ndarray]
    track: BodyTrack
    facts: dict = field(default_factory=dict)
