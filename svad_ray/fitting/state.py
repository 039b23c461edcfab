"""The parameters that a fit moves, and the body they make."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from svad_ray.body.lbs import forward_kinematics, rotation_matrices
from svad_ray.body.model import Body
from svad_ray.body.names import JOINT_INDEX
from svad_ray.conventions import BODY_TO_CAMERA
from svad_ray.subject import BodyTrack

JOINTS = 55
BODY_JOINTS = 22  # pelvis, legs, spine, arms up to the wrists, head: what keypoints can tell


@dataclass(frozen=True)
class Posed:
    """World rotations (T, 55, 3, 3), joints (T, 55, 3) and skinning transforms (T, 55, 3, 4), translation included."""

    rotations: torch.Tensor
    joints: torch.Tensor
    skin: torch.Tensor


@dataclass(frozen=True)
class FitState:
    """Shape, poses and cameras of T frames.

    Attributes:
        betas: (B,). pose: (T, 55, 3) axis-angle. transl: (T, 3) metres.
        Ks: (T, 3, 3) pixels. viewmats: (T, 4, 4) world to camera.
        image_size: (height, width).
    """

    betas: torch.Tensor
    pose: torch.Tensor
    transl: torch.Tensor
    Ks: torch.Tensor
    viewmats: torch.Tensor
    image_size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.transl)

    def with_parameters(self, betas: torch.Tensor, pose: torch.Tensor, transl: torch.Tensor) -> FitState:
        """This state with other (detached) parameters."""
        return replace(self, betas=betas.detach(), pose=pose.detach(), transl=transl.detach())

    def to_track(self, body: Body, *, fps: float = 25.0, vertex_offset: np.ndarray | None = None) -> BodyTrack:
        """The stored form."""
        z = np.zeros((len(self), 1), np.float32)
        track = BodyTrack(
            betas=self.betas.numpy().copy(),
            global_orient=z,
            body_pose=z,
            left_hand_pose=z,
            right_hand_pose=z,
            jaw_pose=z,
            leye_pose=z,
            reye_pose=z,
            expression=np.zeros((len(self), body.exprdirs.shape[-1]), np.float32),
            transl=self.transl.numpy().copy(),
            viewmats=self.viewmats.numpy().copy(),
            Ks=self.Ks.numpy().copy(),
            image_size=self.image_size,
            fps=fps,
            body_id=body.id,
            vertex_offset=vertex_offset,
        )
        return track.with_full_pose(self.pose.numpy().copy())


def state_of(track: BodyTrack) -> FitState:
    """The fit's form of a stored track."""
    t = {name: torch.tensor(np.asarray(getattr(track, name), np.float32)) for name in ("betas", "transl", "Ks", "viewmats")}
    return FitState(pose=torch.tensor(np.asarray(track.full_pose, np.float32)), image_size=track.image_size, **t)


def photo_camera(height: int, width: int, *, focal_factor: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The level camera assumed for a photo: focal = factor x longer side, principal point in the middle -> (Ks, viewmats), one frame."""
    f = focal_factor * max(height, width)
    K = torch.tensor([[f, 0, width / 2], [0, f, height / 2], [0, 0, 1]], dtype=torch.float32)
    return K[None], torch.tensor(BODY_TO_CAMERA)[None]


def pose_body(body: Body, rest: torch.Tensor, pose: torch.Tensor, transl: torch.Tensor) -> Posed:
    """Pose (55, 3) rest joints by (T, 55, 3) axis-angle (hand mean not included) and (T, 3) translation."""
    pose = torch.cat([pose[:, :25], pose[:, 25:] + body.hands_mean.reshape(1, 30, 3)], 1)
    rotations, joints, skin = forward_kinematics(rotation_matrices(pose), rest[None].expand(len(pose), -1, -1), body.parents)
    skin = torch.cat([skin[..., :3], skin[..., 3:] + transl[:, None, :, None]], -1)
    return Posed(rotations, joints + transl[:, None], skin)


def project_points(points: torch.Tensor, Ks: torch.Tensor, viewmats: torch.Tensor) -> torch.Tensor:
    """(T, P, 3) world points to (T, P, 2) pixels."""
    c = points @ viewmats[:, :3, :3].transpose(1, 2) + viewmats[:, None, :3, 3]
    uv = c[..., :2] / c[..., 2:].clamp_min(0.05)
    return uv * torch.stack([Ks[:, 0, 0], Ks[:, 1, 1]], -1)[:, None] + Ks[:, None, :2, 2]


def relaxed_pose() -> torch.Tensor:
    """(55, 3): arms hanging a hand's breadth from the body, elbows and fingers slightly bent: where a standing person's prior lies."""
    pose = torch.zeros(JOINTS, 3)
    for side, sign in (("left", -1.0), ("right", 1.0)):
        pose[JOINT_INDEX[f"{side}_shoulder"], 2] = sign * 1.0
        pose[JOINT_INDEX[f"{side}_elbow"], 1] = sign * 0.25
        for finger in ("index", "middle", "ring", "pinky"):
            for k in (1, 2, 3):
                pose[JOINT_INDEX[f"{side}_{finger}{k}"], 2] = sign * 0.25
    return pose
