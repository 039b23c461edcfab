"""Test poses refined on the test pictures, as InstantAvatar's evaluation does: a flag, never a default, since it looks at the truth."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from svad_ray.body.lbs import forward_kinematics, rotation_matrices
from svad_ray.geometry.rotations import orthonormal, quats_from_matrices
from svad_ray.splat import rasterization
from svad_ray.stages.avatar.asset import PosableAvatar, rotations_from_quats
from svad_ray.subject import BodyTrack

STEPS, RATE = 20, 0.002
_ALPHA = 2.0  # weight of the outline beside the colours' L1, as in training


@dataclass(frozen=True)
class Refinement:
    """How test poses are refined: Adam on root, place and body pose of each frame by itself.

    Source: InstantAvatar's evaluation refines for 20 epochs at a rate of 1e-5 on its own loss; steps and rate here are ours.
    """

    steps: int = STEPS
    rate: float = RATE

    def __str__(self) -> str:
        return f"refined on each test picture ({self.steps} steps of Adam at {self.rate:g}, colours and outline)"


def refined(posable: PosableAvatar, track: BodyTrack, images: np.ndarray, masks: np.ndarray, how: Refinement) -> BodyTrack:
    """``track`` with every frame's pose drawn towards its picture.

    Args:
        images: (T, H, W, 3) float32 on white. masks: (T, H, W) float32.
    """
    pose, transl = track.full_pose.copy(), track.transl.copy()
    for frame in range(len(track)):
        pose[frame], transl[frame] = _one(posable, track.frames(slice(frame, frame + 1)), images[frame], masks[frame], how)
    return replace(track.with_full_pose(pose), transl=transl)


def _one(posable: PosableAvatar, one: BodyTrack, image: np.ndarray, mask: np.ndarray, how: Refinement) -> tuple[np.ndarray, np.ndarray]:
    """(55, 3) pose and (3,) place of one frame."""
    pose = torch.tensor(one.full_pose[0], dtype=torch.float32)
    body, place = pose[:22].clone().requires_grad_(True), torch.tensor(one.transl[0], dtype=torch.float32).requires_grad_(True)
    truth, outline = torch.from_numpy(np.ascontiguousarray(image, np.float32)), torch.from_numpy(np.ascontiguousarray(mask, np.float32))
    adam = torch.optim.Adam([body, place], lr=how.rate)
    best, kept = float("inf"), (pose[:22].clone(), place.detach().clone())
    for step in range(how.steps + 1):
        drawn, alpha = draw(posable, torch.cat([body, pose[22:]]), place, one)
        loss = 10 * (drawn - truth).abs().mean() + _ALPHA * (alpha - outline).square().mean()
        if float(loss.detach()) < best:
            best, kept = float(loss.detach()), (body.detach().clone(), place.detach().clone())
        if step < how.steps:
            adam.zero_grad()
            loss.backward()
            adam.step()
    return torch.cat([kept[0], pose[22:]]).numpy(), kept[1].numpy()


def draw(posable: PosableAvatar, pose: torch.Tensor, place: torch.Tensor, one: BodyTrack) -> tuple[torch.Tensor, torch.Tensor]:
    """Image (H, W, 3) on white and alpha (H, W), differentiable in the pose (55, 3) and the place (3,); else as ``PosableAvatar.render``."""
    turned = torch.cat([pose[:25], pose[25:] + posable.hands_mean[0]])
    _, _, skin = forward_kinematics(rotation_matrices(turned[None]), posable.rest_joints[None], posable.parents)
    skin = (skin if posable.unpose is None else skin @ posable.unpose)[0]
    joints, weights = torch.from_numpy(posable.avatar.tensors["lbs_joints"].astype(np.int64)), torch.tensor(posable.avatar.tensors["lbs_weights"])
    blended = (weights[..., None] * skin.reshape(len(skin), 12)[joints]).sum(1).reshape(-1, 3, 4)
    points = torch.tensor(posable.avatar.tensors["means"])
    means = (blended[..., :3] @ points[..., None])[..., 0] + blended[..., 3] + place
    frames = rotations_from_quats(torch.tensor(posable.avatar.tensors["quats"]))
    quats = quats_from_matrices(orthonormal(blended[..., :3] @ frames))
    height, width = one.image_size
    K, V = (torch.tensor(values[:1], dtype=torch.float32) for values in (one.Ks, one.viewmats))
    ground = torch.ones((1, 3))
    image, alpha, _ = rasterization(
        means, quats, posable.scales, posable.opacities, posable.colors, V, K, width, height, packed=False, backgrounds=ground
    )
    return image[0], alpha[0, ..., 0]
