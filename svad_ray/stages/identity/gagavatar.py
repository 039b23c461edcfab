"""The paper's identity backend: a GAGAvatar head of the person, posed for every frame and blended in by landmarks (SVAD section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import torch
from scipy.spatial.transform import Rotation

from svad_ray.backends import Backend, ModelFile
from svad_ray.body import load_body
from svad_ray.body.model import Body
from svad_ray.config import IdentityConfig
from svad_ray.errors import InputError, QualityRejected, WeightsMissing
from svad_ray.fitting.heads import SIDE, HeadTargets, landmarks_of, posed_vertices, project, start_from_landmarks, track_heads
from svad_ray.fitting.state import project_points
from svad_ray.geometry.raster import rasterize_mesh
from svad_ray.motion.heads import SCALE, HeadTrack, load_head_track
from svad_ray.stages.identity.dlib_faces import with_landmarks
from svad_ray.stages.identity.fusing import FaceFuser, HeadView, roi_of_68, with_frames
from svad_ray.stages.identity.head import head_transforms
from svad_ray.stages.identity.lift import MARGIN, points_seen
from svad_ray.stages.perceive.wholebody import face_68
from svad_ray.subject import BodyTrack, Clip, Perception, Photo

BATCH = 8  # heads rendered at once
_MARGIN = 1.65  # side of the crop over the head's
_HEAD_OVER_FACE = (1.3, 1.35)  # width and height of a head over its face mesh's
_HEAD_UP = 0.15  # of the face mesh's height: how far the head's middle lies over the mesh's
_RIGHT_EYE, _LEFT_EYE = slice(36, 42), slice(42, 48)
_CONTOUR, _INNER = slice(127, 144), slice(76, 127)  # smplx joints that are face landmarks
_FLIP = np.diag([-1.0, -1.0, 1.0])  # OpenCV's camera axes to the tracker's


@dataclass(frozen=True)
class HeadIdentity:
    """One person's head, once and for all frames.

    Attributes:
        gaussians: Named float32 arrays of ``HeadGaussians``.
        track: One frame: FLAME's codes of the photo and its camera.
        looked_at: (3, 3) the body's head joint in the photo, as a camera turned to it sees it (OpenCV's axes).
        crop: (512, 512, 3) uint8, the head on black that the network saw.
    """

    gaussians: dict[str, np.ndarray]
    track: HeadTrack
    looked_at: np.ndarray
    crop: np.ndarray


class GAGAvatarIdentity:
    """``setup``, ``reference`` once a person, then blocks of frames."""

    version: ClassVar[int] = 1
    backend: ClassVar[Backend] = Backend(
        name="gagavatar",
        stage="identity",
        summary="GAGAvatar head, its FLAME tracked from the face mesh's landmarks, blended into each frame",
        code_licence="MIT",
        weights_licence="GAGAvatar weights as its project states; FLAME non-commercial research; MediaPipe Apache-2.0",
        commercial=False,
        commercial_reason="FLAME is licensed for non-commercial research",
        models=("mediapipe", "makehuman"),
        files=(
            ModelFile("GAGAvatar.pt", "the GAGAvatar project", "as its project states"),
            ModelFile("FLAME_with_eye.pt", "the GAGAvatar project", "FLAME licence, non-commercial research", or_else="FLAME_NEUTRAL.pkl"),
        ),
        memory_gib=8,
        device="cuda",
        batch=8,
    )

    @classmethod
    def described(cls, config: IdentityConfig) -> Backend:
        """With the terms of the configured landmarks."""
        return with_landmarks(cls.backend) if config.landmarks == "dlib" else cls.backend

    def __init__(self, config: IdentityConfig | None = None) -> None:
        self.config = config or IdentityConfig()

    def setup(self) -> None:
        """Load the network, the head model, the body and the landmark networks.

        Raises:
            WeightsMissing: No folder is configured, or files are not in it. InputError: A file is damaged, of another model, or they do not fit.
        """
        from svad_ray.body.flame import load_flame
        from svad_ray.nets.device import device_and_dtype
        from svad_ray.nets.gagavatar.load import load_gagavatar

        if not self.config.weights:
            raise WeightsMissing(
                "the identity backend 'gagavatar' has no folder of checkpoints",
                expected="; ".join(f"{file.name} from {file.source} ({file.licence})" for file in self.backend.files),
                remedy="--set identity.weights=FOLDER, or use the embedded backend: --set identity.backend=lifted-head",
            )
        self.network = load_gagavatar(self.config.weights, device=device_and_dtype("float32")[0])
        self.flame = load_flame(Path(self.config.weights))
        if len(self.flame.v_template) != self.network.sizes.vertices:
            raise InputError(
                f"the head model in {self.config.weights} has {len(self.flame.v_template)} vertices",
                expected=f"{self.network.sizes.vertices}, as GAGAvatar.pt was trained on",
                remedy="use FLAME 2020 (FLAME_with_eye.pt or FLAME_NEUTRAL.pkl)",
            )
        self.driver = load_head_track(self.config.driver) if self.config.driver else None
        self.body: Body = load_body(self.config.body or None)
        self.fuser = FaceFuser(self.config)

    def reference(self, photo: Photo, perception: Perception, photo_track: BodyTrack) -> HeadIdentity:
        """The photo's head: cropped, put on black, tracked, and lifted to Gaussians.

        Raises:
            QualityRejected: The photo shows no face.
        """
        if perception.face_mesh is None:
            raise QualityRejected("no face was found in the photo", expected="a face turned to the camera", remedy="use a photo that shows the face")
        crop, to_crop = head_crop(photo.image, perception.mask, perception.face_mesh)
        points = face_68(perception.face_mesh)[:, :2] @ to_crop[:, :2].T + to_crop[:, 2]
        targets = HeadTargets(torch.tensor(points, dtype=torch.float32)[None], torch.ones(1, dtype=torch.bool))
        track = track_heads(self.flame, start_from_landmarks(self.flame, targets, source="the photo, by its own landmarks"), targets)
        head = self._lift(crop, track.transforms[0])
        seen = looked_at(head_transforms(self.body, photo_track.frames(slice(0, 1))))[0]
        return HeadIdentity(head, track, seen.astype(np.float32), crop)

    def _lift(self, crop: np.ndarray, transform: np.ndarray) -> dict[str, np.ndarray]:
        side, device = self.network.sizes.dino.image, self.network.head_base.device
        image = torch.tensor(crop, dtype=torch.float32, device=device).permute(2, 0, 1)[None] / 255
        image = torch.nn.functional.interpolate(image, (side, side), mode="bilinear", antialias=True, align_corners=False)[0]
        head = self.network.identity(image, torch.tensor(transform, device=device))
        parts = {name: getattr(head.gaussians, name) for name in ("colors", "opacities", "scales", "quats")}
        parts |= {"planes": head.planes, "covariances": head.covariances}
        return {name: value.float().cpu().numpy() for name, value in parts.items()}

    def __call__(self, shard: Clip, reference: HeadIdentity) -> Clip:
        """The frames with the photo's face where it can be seen; the same number in the same order."""
        heads = head_transforms(self.body, shard.track)
        tracks = [self.posed_for(shard.first + i, reference, heads[i], shard.track.jaw_pose[i]) for i in range(len(shard))]
        turns = [turn_deg(reference.track.transforms[0], track.transforms[0]) for track in tracks]
        why = [self._refused(shard.first + i, track, turns[i]) for i, track in enumerate(tracks)]
        wanted = [i for i, reason in enumerate(why) if not reason]
        pictures = dict(zip(wanted, self.render(reference, [tracks[i] for i in wanted], [shard.first + i for i in wanted])))
        expected = self._face_points(shard.track)
        made = []
        for i, frame in enumerate(shard.frames):
            if i not in pictures:
                made.append((frame, f"fusion refused: {why[i]}"))
                continue
            image, to_frame = on_canvas(pictures[i], (frame.shape[0], frame.shape[1]))
            points = self._landmarks(tracks[i]) @ to_frame[:, :2].T + to_frame[:, 2]
            view = HeadView(image, roi_of_68(points), roi_of_68(expected[i]), True, turns[i])
            made.append(self.fuser.fuse(frame, shard.first + i, view))
        return with_frames(shard, made)

    def _refused(self, number: int, track: HeadTrack, turn: float) -> str:
        """Why a frame is not even tried; the eyes are looked for only where nothing else speaks against it."""
        reason = self.fuser.refused(number, turn_deg=turn)
        return reason or self.fuser.refused(number, turn_deg=turn, eyes_seen=self._eyes_seen(track))

    def posed_for(self, number: int, reference: HeadIdentity, head_to_camera: np.ndarray, jaw: np.ndarray) -> HeadTrack:
        """The head of one frame: the driver's codes and camera where there is a driver, else turned as the body's head is.

        Args:
            number: Of the frame in its clip. head_to_camera: (4, 4). jaw: (3,) axis-angle of the body's.
        """
        own = reference.track
        if self.driver is not None:
            driven = self.driver.at(number)
            return HeadTrack(own.shape, driven.expression, driven.pose, driven.eyes, driven.transforms, driven.seen, source=driven.source)
        turn = _FLIP @ (looked_at(head_to_camera[None])[0] @ reference.looked_at.T) @ _FLIP
        rotation = own.transforms[0, :, :3] @ turn.T
        transform = np.concatenate([rotation, own.transforms[0, :, 3:]], 1)[None].astype(np.float32)
        pose = own.pose + np.concatenate([np.zeros(3), jaw])[None].astype(np.float32)
        return HeadTrack(own.shape, own.expression, pose, own.eyes, transform, own.seen, source="the body's motion")

    def render(self, reference: HeadIdentity, tracks: list[HeadTrack], numbers: list[int]) -> list[np.ndarray]:
        """uint8 RGB pictures of the head under each track; the noise follows from the frame's number, so a batch equals a loop."""
        from svad_ray.nets.gagavatar.generators import Gaussians
        from svad_ray.nets.gagavatar.network import HeadGaussians

        device = self.network.head_base.device
        arrays = {name: torch.tensor(value, device=device) for name, value in reference.gaussians.items()}
        planes, covariances = arrays.pop("planes"), arrays.pop("covariances")
        head = HeadGaussians(Gaussians(**arrays), planes, covariances)
        out: list[np.ndarray] = []
        for start in range(0, len(tracks), BATCH):
            some = tracks[start : start + BATCH]
            vertices = torch.cat([posed_vertices(self.flame, track) for track in some]).to(device)
            transforms = torch.tensor(np.concatenate([track.transforms for track in some]), device=device)
            seeds = [self.config.seed * 1_000_003 + number for number in numbers[start : start + BATCH]]
            images = self.network.render(head, vertices, transforms, seeds=seeds).clamp(0, 1)
            out += list((images.permute(0, 2, 3, 1).float().cpu().numpy() * 255 + 0.5).astype(np.uint8))
        return out

    def _landmarks(self, track: HeadTrack) -> np.ndarray:
        """(68, 2) pixels of the 512-pixel crop."""
        points = landmarks_of(self.flame, posed_vertices(self.flame, track))[:, :68]
        return project(points, torch.tensor(track.transforms))[0].numpy()

    def _eyes_seen(self, track: HeadTrack) -> bool:
        """Whether both eyes lie in front in the head's own z-buffer."""
        from svad_ray.nets.gagavatar.geometry import intrinsics, view_matrices

        vertices = posed_vertices(self.flame, track)
        view, K = view_matrices(torch.tensor(track.transforms))[0], intrinsics(SIDE).numpy().astype(np.float64)
        camera = (vertices[0] @ view[:3, :3].T + view[:3, 3]).numpy()
        points = (landmarks_of(self.flame, vertices)[0, :68] @ view[:3, :3].T + view[:3, 3]).numpy()
        if (camera[:, 2] <= 0).any():
            return False
        buffers = rasterize_mesh(camera, self.flame.faces.astype(np.int32), K, SIDE, SIDE, threads=1)
        return all(points_seen(points[eye], K, buffers, margin=SCALE * MARGIN) >= 4 for eye in (_RIGHT_EYE, _LEFT_EYE))

    def _face_points(self, track: BodyTrack) -> np.ndarray:
        """(T, 68, 2) pixels where the body's face lies in the frames."""
        names = ("global_orient", "body_pose", "left_hand_pose", "right_hand_pose", "jaw_pose", "leye_pose", "reye_pose", "transl")
        pose: dict[str, Any] = {name: torch.tensor(np.asarray(getattr(track, name), np.float32)) for name in names}
        posed = self.body.forward(betas=torch.tensor(track.betas)[None], **pose).joints.detach()
        points = torch.cat([posed[:, _CONTOUR], posed[:, _INNER]], 1)
        return project_points(points, *(torch.tensor(np.asarray(x, np.float32)) for x in (track.Ks, track.viewmats))).numpy()


def head_box(face_mesh: np.ndarray) -> np.ndarray:
    """(3,) pixels: left and top corner and side of the square that the tracker looks at.

    The original asks a head detector for the head's box; here it follows from the face mesh (ours).
    """
    low, high = face_mesh[:, :2].min(0), face_mesh[:, :2].max(0)
    width, height = (high - low) * _HEAD_OVER_FACE
    side = max(float(np.sqrt(width * height)) * _MARGIN, 2.0)
    return np.array([*((low + high) / 2 - [0, _HEAD_UP * (high - low)[1]] - side / 2), side])


def map_to_crop(box: np.ndarray) -> np.ndarray:
    """(2, 3) map from the picture's pixels to those of the crop of a ``head_box``."""
    scale = SIDE / box[2]
    return np.array([[scale, 0, -box[0] * scale], [0, scale, -box[1] * scale]])


def head_crop(image: np.ndarray, mask: np.ndarray, face_mesh: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The square round a head, 512 pixels wide, the person on black, black outside the photo; and the (2, 3) map from the photo's pixels to it."""
    to_crop = map_to_crop(head_box(face_mesh))
    scale = to_crop[0, 0]
    person = image * np.clip(mask, 0, 1)[..., None]
    if scale < 1:  # averaged first, or the crop would alias
        reduced = max(round(1 / scale), 1)
        person = cv2.blur(person, (reduced, reduced))
    index = to_crop.copy()  # OpenCV counts from pixel centres
    index[:, 2] += 0.5 * scale - 0.5
    crop = cv2.warpAffine(person.astype(np.float32), index, (SIDE, SIDE), flags=cv2.INTER_LINEAR)
    return (np.clip(crop, 0, 255) + 0.5).astype(np.uint8), to_crop


def on_canvas(picture: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A square picture in the middle of a black (height, width) one, as large as fits, and the (2, 3) map of the crop's 512 pixels to it."""
    side = min(size)
    top, left = (size[0] - side) // 2, (size[1] - side) // 2
    out = np.zeros((*size, 3), np.uint8)
    resized = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA if side < len(picture) else cv2.INTER_LINEAR)
    out[top : top + side, left : left + side] = resized
    return out, np.array([[side / SIDE, 0, left], [0, side / SIDE, top]])


def looked_at(head_to_camera: np.ndarray) -> np.ndarray:
    """(T, 3, 3) rotations of (T, 4, 4) heads as cameras turned to each of them see them: a head beside the picture's middle is seen from its side."""
    ray = head_to_camera[:, :3, 3] / np.linalg.norm(head_to_camera[:, :3, 3], axis=1, keepdims=True)
    axis = np.cross(ray, [0.0, 0.0, 1.0])
    sine = np.linalg.norm(axis, axis=1, keepdims=True)
    turn = Rotation.from_rotvec(axis / np.maximum(sine, 1e-9) * np.arctan2(sine, ray[:, 2:])).as_matrix()
    return turn @ head_to_camera[:, :3, :3]


def turn_deg(a: np.ndarray, b: np.ndarray) -> float:
    """Angle between the viewing directions of two (3, 4) cameras in the head's space."""
    return float(np.degrees(np.arccos(np.clip(a[:, 2] @ b[:, 2], -1, 1))))
