"""The embedded identity backend: the photo's head lifted to 3D, rendered for every frame, and fused as the paper fuses its head renders."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch

from svad_ray.backends import Backend
from svad_ray.body import load_body
from svad_ray.body.model import Body
from svad_ray.config import IdentityConfig
from svad_ray.errors import QualityRejected
from svad_ray.geometry.raster import to_camera
from svad_ray.stages.identity.dlib_faces import with_landmarks
from svad_ray.stages.identity.fusing import FaceFuser, HeadView, with_frames
from svad_ray.stages.identity.head import head_transforms
from svad_ray.stages.identity.lift import HeadReference, lift_head, render_head
from svad_ray.stages.perceive.landmarkers import face_roi_from_mesh
from svad_ray.stages.perceive.wholebody import face_68
from svad_ray.subject import BodyTrack, Clip, Perception, Photo

_INNER = slice(76, 144)  # smplx joints: 51 inner face landmarks, then 17 of the contour


class LiftedHeadIdentity:
    """The identity stage's embedded backend: ``setup``, ``reference`` once a person, then blocks of frames."""

    version: ClassVar[int] = 1
    backend: ClassVar[Backend] = Backend(
        name="lifted-head",
        stage="identity",
        summary="The photo's 468-point face, textured and turned with the head, blended into each frame by landmarks",
        code_licence="Apache-2.0",
        weights_licence="Apache-2.0",
        commercial=True,
        commercial_reason="Apache-2.0 weights",
        models=("mediapipe", "makehuman"),
        memory_gib=1.0,
        batch=16,
    )

    @classmethod
    def described(cls, config: IdentityConfig) -> Backend:
        """With the terms of the configured landmarks."""
        return with_landmarks(cls.backend) if config.landmarks == "dlib" else cls.backend

    def __init__(self, config: IdentityConfig | None = None) -> None:
        self.config = config or IdentityConfig()

    def setup(self) -> None:
        """Load the body and the face landmark network."""
        self.body: Body = load_body(self.config.body or None)
        self.fuser = FaceFuser(self.config)

    def reference(self, photo: Photo, perception: Perception, photo_track: BodyTrack) -> HeadReference:
        """The photo's head in 3D, in the axes of the fitted body's head.

        Raises:
            QualityRejected: The photo shows no face.
        """
        if perception.face_mesh is None:
            raise QualityRejected("no face was found in the photo", expected="a face turned to the camera", remedy="use a photo that shows the face")
        track = photo_track.frames(slice(0, 1))
        return lift_head(
            photo.image,
            perception.mask,
            perception.face_mesh,
            track.Ks[0],
            head_transforms(self.body, track)[0],
            depth=self._mesh_depth(perception.face_mesh, track),
        )

    def __call__(self, shard: Clip, reference: HeadReference) -> Clip:
        """The frames with the photo's face where it can be seen; the same number in the same order."""
        heads = head_transforms(self.body, shard.track)
        return with_frames(
            shard, [self._frame(frame, shard.first + i, reference, heads[i], shard.track.Ks[i]) for i, frame in enumerate(shard.frames)]
        )

    def _frame(self, frame: np.ndarray, number: int, reference: HeadReference, head_to_camera: np.ndarray, K: np.ndarray) -> tuple[np.ndarray, str]:
        head = render_head(reference, head_to_camera, K, (frame.shape[0], frame.shape[1]), background=_background(frame))
        roi = face_roi_from_mesh(head.points)
        return self.fuser.fuse(frame, number, HeadView(head.image, roi, roi, head.eyes_seen, head.turn_deg))

    def _mesh_depth(self, face_mesh: np.ndarray, track: BodyTrack) -> float:
        """Metres at the face mesh's z = 0, such that its 68 points lie as deep as the fitted body's on average."""
        pose: dict[str, Any] = {
            name: torch.tensor(np.asarray(getattr(track, name), np.float32))
            for name in ("global_orient", "body_pose", "left_hand_pose", "right_hand_pose", "jaw_pose", "leye_pose", "reye_pose", "transl")
        }
        offset = None if track.vertex_offset is None else torch.tensor(track.vertex_offset)
        posed = self.body.forward(betas=torch.tensor(track.betas)[None], vertex_offset=offset, **pose)
        body_z = to_camera(posed.joints[0, _INNER].detach().numpy(), track.viewmats[0])[:, 2].mean()
        return float(body_z / (1 + face_68(face_mesh)[:, 2].mean() / track.Ks[0, 0, 0]))


def _background(frame: np.ndarray) -> np.ndarray:
    """(3,) the plain colour round the person, in [0, 1]."""
    border = np.concatenate([frame[0], frame[-1], frame[:, 0], frame[:, -1]])
    return np.median(border, axis=0).astype(np.float32) / 255
