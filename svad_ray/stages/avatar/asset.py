"""An avatar in use: pose its Gaussians by a track and render them. Needs neither the body file nor the training code."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from svad_ray.body.lbs import forward_kinematics, rotation_matrices
from svad_ray.conventions import to_uint8
from svad_ray.errors import InputError
from svad_ray.splat import rasterization
from svad_ray.splat.threads import even_ranges, in_order, run_ranges
from svad_ray.subject import Avatar, BodyTrack

INFLUENCES = 6  # joints that may move one Gaussian; the open body has no more
_BLOCK = 1024  # Gaussians posed at a time by one thread


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
    """Rest-pose Gaussians bound to a skeleton. What no pose changes is kept ready; a frame costs skinning and rasterising alone.

    Args:
        avatar: Kind "gaussian", or "exavatar", which is baked to it and needs its body.

    Raises:
        InputError: Tensors are missing or do not fit together.
    """

    def __init__(self, avatar: Avatar) -> None:
        if avatar.kind != "gaussian":
            from svad_ray.stages.avatar.bake import baked  # its networks and body are needed by that kind alone

            avatar = baked(avatar)
        _check(avatar.tensors)
        self.avatar, self.count = avatar, len(avatar.tensors["means"])
        t = {name: torch.tensor(np.asarray(value, np.float32)) for name, value in avatar.tensors.items()}
        self.scales, self.opacities, self.colors = t["scales"], t["opacities"], t["colors"]
        self.rest_joints, self.hands_mean, self.unpose = t["rest_joints"], t["hands_mean"].reshape(1, 30, 3), t.get("unpose")
        self.parents = [int(p) for p in avatar.tensors["parents"]]
        self._points = t["means"].numpy()
        self._axes = rotations_from_quats(t["quats"])[..., [0, 2]].transpose(1, 2).reshape(-1, 6).contiguous().numpy()
        self._joints, self._weights = np.ascontiguousarray(avatar.tensors["lbs_joints"]), t["lbs_weights"].numpy()
        self._moved = avatar.tensors.get("expr_index", np.zeros(0)).astype(np.int64)
        self._moves = t["expr_dirs"].numpy() if len(self._moved) else np.zeros((0, 3, 0), np.float32)

    def skin(self, track: BodyTrack, frames: slice = slice(None)) -> np.ndarray:
        """(T, 55, 3, 4) skinning transforms of ``frames``, translation included.

        Raises:
            InputError: A pose or expression that is not finite.
        """
        chosen = track.frames(frames)
        finite = [np.isfinite(values).reshape(len(chosen), -1).all(1) for values in (chosen.full_pose, chosen.transl, chosen.expression)]
        for number, whole in zip(range(len(track))[frames], np.all(finite, 0)):
            if not whole:
                raise InputError(
                    f"frame {number} of the motion holds values that are not finite", expected="a finite pose", remedy="cut out such frames"
                )
        pose = torch.tensor(chosen.full_pose, dtype=torch.float32)
        pose = torch.cat([pose[:, :25], pose[:, 25:] + self.hands_mean], 1)
        _, _, skin = forward_kinematics(rotation_matrices(pose), self.rest_joints[None], self.parents)
        skin = skin.clone() if self.unpose is None else skin @ self.unpose  # Gaussians of a baked avatar lie in its star pose
        skin[..., 3] += torch.tensor(chosen.transl, dtype=torch.float32)[:, None]
        return skin.numpy()

    def posed(self, track: BodyTrack, frame: int) -> Gaussians:
        """The Gaussians of one frame of ``track``; its betas and offsets are not used, the avatar keeps its own shape."""
        return self._posed(self.skin(track, slice(frame, frame + 1))[0], track.expression[frame])

    def _posed(self, skin: np.ndarray, expression: np.ndarray) -> Gaussians:
        from svad_ray.splat.kernels.posing import pose_gaussians  # numba loads with the first pose

        points, rows = self._expressed(expression), np.ascontiguousarray(skin.reshape(-1, 12))
        means, quats = np.empty_like(points), np.empty((self.count, 4), np.float32)

        def work(a: int, b: int) -> None:
            pose_gaussians(a, b, points, self._axes, self._joints, self._weights, rows, means, quats)

        run_ranges(work, even_ranges(self.count, block=_BLOCK))
        return Gaussians(torch.from_numpy(means), torch.from_numpy(quats), self.scales, self.opacities, self.colors)

    def _expressed(self, expression: np.ndarray) -> np.ndarray:
        """(N, 3) rest centres with an expression (E,) on the face."""
        shared = min(self._moves.shape[2], len(expression))
        if not expression[:shared].any():
            return self._points
        points = self._points.copy()
        points[self._moved] += self._moves[..., :shared] @ expression[:shared].astype(np.float32)
        return points

    def render(self, track: BodyTrack, frame: int, *, background: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
        """Image (H, W, 3) float32 and alpha (H, W) of one frame with the track's camera."""
        return self._drawn(self.posed(track, frame), track, frame, background)

    @torch.no_grad()
    def _drawn(self, g: Gaussians, track: BodyTrack, frame: int, background: float) -> tuple[np.ndarray, np.ndarray]:
        height, width = track.image_size
        K, V = (torch.tensor(a[frame : frame + 1], dtype=torch.float32) for a in (track.Ks, track.viewmats))
        ground = torch.full((1, 3), background)
        image, alpha, _ = rasterization(g.means, g.quats, g.scales, g.opacities, g.colors, V, K, width, height, packed=False, backgrounds=ground)
        return image[0].numpy(), alpha[0, ..., 0].numpy()

    def frames_of(self, track: BodyTrack) -> Iterator[np.ndarray]:
        """uint8 (H, W, 3) frames of a whole track, in order; several are made at once and a few ahead of the reader."""
        skin = self.skin(track)

        def drawn(frame: int) -> np.ndarray:
            return to_uint8(self._drawn(self._posed(skin[frame], track.expression[frame]), track, frame, 1.0)[0])

        return in_order(drawn, len(track))


def _check(tensors: dict[str, np.ndarray]) -> None:
    """Refuse an avatar whose arrays are missing, disagree about their number or hold joints that it has not."""
    needed = ("means", "quats", "scales", "opacities", "colors", "lbs_joints", "lbs_weights", "rest_joints", "parents", "hands_mean")
    remedy = "copy the avatar's folder again, or make it again with `svad-ray create`"
    if lacking := [name for name in needed if name not in tensors]:
        raise InputError(f"the avatar lacks {', '.join(lacking)}", expected=", ".join(needed), remedy=remedy)
    count, joints = len(tensors["means"]), len(tensors["rest_joints"])
    influences = tensors["lbs_weights"].shape[1:]
    shapes = {"means": (count, 3), "quats": (count, 4), "scales": (count, 3), "opacities": (count,), "colors": (count, 3), "parents": (joints,)}
    shapes |= {"lbs_joints": (count, *influences), "lbs_weights": (count, *influences[:1])}
    wrong = [f"{name} {tensors[name].shape}" for name, shape in shapes.items() if tensors[name].shape != shape]
    if wrong or joints != 55 or not count:
        raise InputError(f"the avatar's {', '.join(wrong) or f'{count} Gaussians on {joints} joints'} do not fit together", remedy=remedy)
    moved, moves = tensors.get("expr_index", np.zeros(0)), tensors.get("expr_dirs", np.zeros((0, 3, 0)))
    if len(moved) and (moves.ndim != 3 or moves.shape[:2] != (len(moved), 3)):
        raise InputError(f"the avatar's expr_dirs {moves.shape} do not fit its {len(moved)} expr_index", remedy=remedy)
    numbers = ("means", "quats", "scales", "opacities", "colors", "lbs_weights", "rest_joints", "hands_mean")
    beyond = tensors["lbs_joints"].max() >= joints or (len(moved) and not 0 <= moved.min() <= moved.max() < count)
    if beyond or not all(np.isfinite(tensors[name]).all() for name in numbers) or not np.isfinite(moves).all():
        raise InputError("the avatar's arrays hold values that cannot be", expected="finite numbers, joints below 55", remedy=remedy)
