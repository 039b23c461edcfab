"""An avatar in use: pose its Gaussians by a track and render them. Needs neither the body file nor the training code."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from svad_ray.body.lbs import forward_kinematics, rotation_matrices, skin_points
from svad_ray.geometry.rotations import orthonormal, quats_from_matrices
from svad_ray.splat import rasterization
from svad_ray.subject import Avatar, BodyTrack

INFLUENCES = 6  # joints that may move one Gaussian; the open body has no more


@dataclass(frozen=True)
class Gaussians:
    """Posed Gaussians in the world, as ``splat.rasterization`` takes them.

    Attributes:
        means: (N, 3) metres. quats: (N, 4) wxyz. scales: (N, 3) metres. opacities: (N,). colors: (N, 3) in [0, 1].
    """

    means: torch.Tensor
    quats: torch.Tensor
    scales: torch.Tensor
    opacities: torch.Tensor
    colors: torch.Tensor


def rotations_from_quats(q: torch.Tensor) -> torch.Tensor:
    """(N, 4) wxyz to (N, 3, 3)."""
    w, x, y, z = (q / q.norm(dim=1, keepdim=True)).unbind(1)
    rows = [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y), 2 * (x * y + w * z), 1 - 2 * (x * x + z * z)]
    rows += [2 * (y * z - w * x), 2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)]
    return torch.stack(rows, 1).reshape(-1, 3, 3)


class PosableAvatar:
    """Rest-pose Gaussians bound to a skeleton.

    Args:
        avatar: Kind "gaussian", or "exavatar", which is baked to it and needs its body.
    """

    def __init__(self, avatar: Avatar) -> None:
        if avatar.kind != "gaussian":
            from svad_ray.stages.avatar.bake import baked  # its networks and body are needed by that kind alone

            avatar = baked(avatar)
        t = {name: torch.tensor(np.asarray(value, np.float32)) for name, value in avatar.tensors.items() if name not in ("lbs_joints", "parents")}
        joints = torch.tensor(avatar.tensors["lbs_joints"].astype(np.int64))
        self.avatar, self.count = avatar, len(t["means"])
        self.weights = torch.zeros(self.count, len(t["rest_joints"])).scatter_add_(1, joints, t["lbs_weights"])
        self.parents = avatar.tensors["parents"].astype(np.int64)
        self.means, self.scales, self.opacities, self.colors = t["means"], t["scales"], t["opacities"], t["colors"]
        self.rest_joints, self.frames, self.hands_mean = t["rest_joints"], rotations_from_quats(t["quats"]), t["hands_mean"].reshape(1, 30, 3)
        self.expr_dirs, self.expr_index, self.unpose = t.get("expr_dirs"), t.get("expr_index"), t.get("unpose")

    def skin(self, track: BodyTrack, frame: int) -> torch.Tensor:
        """(55, 3, 4) skinning transforms of a frame, translation included."""
        pose = torch.tensor(track.full_pose[frame : frame + 1], dtype=torch.float32)
        pose = torch.cat([pose[:, :25], pose[:, 25:] + self.hands_mean], 1)
        _, _, skin = forward_kinematics(rotation_matrices(pose), self.rest_joints[None], self.parents)
        skin = skin[0].clone() if self.unpose is None else skin[0] @ self.unpose  # Gaussians of a baked avatar lie in its star pose
        skin[..., 3] += torch.tensor(track.transl[frame], dtype=torch.float32)
        return skin

    @torch.no_grad()
    def posed(self, track: BodyTrack, frame: int) -> Gaussians:
        """The Gaussians of one frame of ``track``; its betas and offsets are not used, the avatar keeps its own shape."""
        means = self.means
        if self.expr_dirs is not None and self.expr_index is not None and track.expression.shape[1]:
            count = min(self.expr_dirs.shape[-1], track.expression.shape[1])
            e = torch.tensor(track.expression[frame, :count], dtype=torch.float32)
            means = means.index_add(0, self.expr_index.long(), self.expr_dirs[..., :count] @ e)
        skin = self.skin(track, frame)
        blended = (self.weights @ skin.reshape(len(skin), 12)).reshape(-1, 3, 4)
        x = skin_points(means, self.weights, skin[None])[0]
        quats = quats_from_matrices(orthonormal(blended[..., :3] @ self.frames))
        return Gaussians(x, quats, self.scales, self.opacities, self.colors)

    @torch.no_grad()
    def render(self, track: BodyTrack, frame: int, *, background: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
        """Image (H, W, 3) float32 and alpha (H, W) of one frame with the track's camera."""
        height, width = track.image_size
        g = self.posed(track, frame)
        K, V = (torch.tensor(a[frame : frame + 1], dtype=torch.float32) for a in (track.Ks, track.viewmats))
        ground = torch.full((1, 3), background)
        image, alpha, _ = rasterization(g.means, g.quats, g.scales, g.opacities, g.colors, V, K, width, height, packed=False, backgrounds=ground)
        return image[0].numpy(), alpha[0, ..., 0].numpy()

    def frames_of(self, track: BodyTrack) -> Iterator[np.ndarray]:
        """uint8 (H, W, 3) frames of a whole track, one by one."""
        for i in range(len(track)):
            yield (self.render(track, i)[0].clip(0, 1) * 255 + 0.5).astype(np.uint8)
