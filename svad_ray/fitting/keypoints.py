"""Bodies to 2D landmarks and bone directions, all frames at once, on joints and a few surface points only (no mesh)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from svad_ray.body.names import JOINT_INDEX as J
from svad_ray.fitting.landmarks import ARM_BONES, BONES, HAND_BONES, LandmarkModel, bone_targets
from svad_ray.fitting.priors import STRIDE_BALL, PosePrior, balance, one_ground, standing, swing
from svad_ray.fitting.state import BODY_JOINTS, FitState, Posed, pose_body, project_points, relaxed_pose
from svad_ray.fitting.stride import stride_depth
from svad_ray.subject import Perception

SIZE_UNIT = 100.0  # residuals are measured in percent of the person's size in the picture
SOLE_REACH, SOLE_THICKNESS, SOLE_WEIGHT, SOLE_CARRY = (
    0.04,
    0.006,
    2.0,
    1.0,
)  # of the person's size: where a foot's lowest pixel is looked for; its weight
STRIDE_UNIT = 0.1  # metres that count 1
PHOTO_ARMS = 0.3  # how much of their weight the arms' directions keep in a single photo
METRE = 80.0  # a squared metre of deviation from the start counts like this many squared radians: half a millimetre like a quarter of a degree
ROBUST = 64.0  # Geman-McClure scale: a residual of 8 % of the person counts half


@dataclass(frozen=True)
class KeypointWeights:
    """Weights of the keypoint fit; lengths in percent of the person's size.

    ``shape`` is per squared beta; ``stride`` per STRIDE_UNIT squared, ``swing`` per squared decimetre of the arms' depth; ``head`` per squared
    radian (twice) of the head's turn; ``initial`` per squared radian (and METRE times per squared metre) of deviation from the start;
    ``smooth`` per squared acceleration of joints in cm, 0 for single photos.
    """

    points: float = 1.0
    bones: float = 12.0
    prior: float = 1.0
    shape: float = 0.4
    balance: float = 20.0
    ground: float = 200.0
    stride: float = 10.0
    swing: float = 10.0
    head: float = 60.0
    leg_depth: float = 0.35
    initial: float = 0.0
    smooth: float = 0.0


class KeypointTargets:
    """The detector's landmarks of T frames as fit targets.

    Args:
        model: The body's landmark functions.
        perceptions: One per frame.
        leg_depth: See :func:`svad_ray.fitting.landmarks.bone_targets`.
        camera: (3, 3) assumed intrinsics of one photo from a level camera, for the depth of a stride; None = not judged (clips).
        head: (3, 3) the head's world rotation of one photo, where its face tells it.
    """

    def __init__(
        self,
        model: LandmarkModel,
        perceptions: Sequence[Perception],
        *,
        leg_depth: float,
        camera: np.ndarray | None = None,
        head: np.ndarray | None = None,
    ) -> None:
        use = [p.landmark for p in model.points]
        xy = np.stack([p.landmarks for p in perceptions])
        vis = np.nan_to_num(np.stack([p.visibility for p in perceptions]))
        world = np.stack([p.landmarks_world for p in perceptions])
        seen = np.isfinite(xy).all(-1)
        self.xy = torch.tensor(np.nan_to_num(xy[:, use]), dtype=torch.float32)
        self.weights = model.weights * torch.tensor(np.where(seen, vis, 0)[:, use], dtype=torch.float32).clamp_min(0.05)
        self.weights = self.weights * torch.tensor(seen[:, use], dtype=torch.float32)
        box = [_extent(x[w > 0.2]) for x, w in zip(self.xy, self.weights)]
        self.size = torch.tensor(box).clamp_min(1.0)  # (T,) longer side of the landmarks' box, pixels
        strides = [] if camera is None else [stride_depth(p, float(s), camera) for p, s in zip(perceptions, self.size)]
        self.stride = torch.tensor(strides) if strides else None  # (T,) metres that the left ankle is nearer to the camera
        self.head = None if head is None else torch.tensor(head, dtype=torch.float32)
        self._soles(model, perceptions)
        self.bones, self.bone_weights = bone_targets(world, vis * seen, leg_depth=leg_depth)
        if camera is not None:  # one picture: where an arm lies in depth is hardly more than a guess of the network
            self.bone_weights[:, [*ARM_BONES, *HAND_BONES]] *= PHOTO_ARMS
        self.world = torch.tensor(np.nan_to_num(world), dtype=torch.float32)
        self.standing = torch.tensor([float(standing(w)) for w in self.world])

    def _soles(self, model: LandmarkModel, perceptions: Sequence[Perception]) -> None:
        """Toes move to the mask's lowest point at each foot: the network puts both feet at much the same height, the outline does not.

        Seen from behind the heel is nearer to the camera and lowest. Which way the person faces is read from the hips and shoulders: of a foot's ends
        the network says it wrongly.
        """
        for t, seen in enumerate(perceptions):
            if seen.mask.size == 0 or len(perceptions) > 1:
                continue
            reach, size = SOLE_REACH * float(self.size[t]), float(self.size[t])
            world = seen.landmarks_world
            away = bool(world[23, 0] - world[24, 0] + world[11, 0] - world[12, 0] < 0)
            feet = {side: seen.landmarks[list(points)] for side, points in (("left", (27, 29, 31)), ("right", (28, 30, 32)))}
            for side, toe in (("left", 31), ("right", 32)):
                x, other = feet[side][:, 0], feet["right" if side == "left" else "left"][:, 0].mean()
                low = _lowest(seen.mask > 0.5, x.min() - reach, x.max() + reach, x.mean(), other)
                heel = toe - 2
                lead, other_end = (heel, toe) if away else (toe, heel)
                i = model.index[lead]
                if low is not None and abs(low - float(self.xy[t, i, 1])) < 2 * reach:
                    shift = low - SOLE_THICKNESS * size - float(self.xy[t, i, 1])
                    self.xy[t, i, 1] += shift
                    self.weights[t, i] = SOLE_WEIGHT
                    for point in (toe - 4, other_end):  # ankle, and heel or toe
                        self.xy[t, model.index[point], 1] += SOLE_CARRY * shift

    def residual(self, projected: torch.Tensor) -> torch.Tensor:
        """Robust 2D residual, mean over frames; ``projected`` (T, P, 2) pixels."""
        r = ((projected - self.xy) / self.size[:, None, None] * SIZE_UNIT).pow(2).sum(-1)
        return (self.weights * r / (1 + r / ROBUST)).sum(1).mean()

    def bone_error(self, points: torch.Tensor, model: LandmarkModel) -> torch.Tensor:
        """1 - cosine between the bones and the world landmarks', weighted, mean over frames."""
        a, b = [model.index[start] for start, _, _ in BONES], [model.index[end] for _, end, _ in BONES]
        d = points[:, b] - points[:, a]
        d = d / (d.norm(dim=-1, keepdim=True) + 1e-6)
        return (self.bone_weights * (1 - (d * self.bones).sum(-1))).sum(1).mean()

    def pixel_error(self, projected: torch.Tensor) -> torch.Tensor:
        """(T,) weighted mean distance in pixels."""
        return ((projected - self.xy).norm(dim=-1) * self.weights).sum(1) / self.weights.sum(1).clamp_min(1e-6)


def _lowest(mask: np.ndarray, low: float, high: float, here: float, other: float) -> float | None:
    """Lowest row of the mask in the columns [low, high] that are nearer to ``here`` than to ``other``; None where there is none."""
    x = np.arange(mask.shape[1]) + 0.5
    columns = (x >= low) & (x <= high) & (np.abs(x - here) <= np.abs(x - other))
    rows = np.flatnonzero(mask[:, columns].any(1))
    return float(rows[-1] + 1) if len(rows) else None


def _extent(xy: torch.Tensor) -> float:
    return float((xy.max(0)[0] - xy.min(0)[0]).max()) if len(xy) else 1.0


class KeypointLoss:
    """All terms of the keypoint fit; the silhouette fit adds its own to it."""

    def __init__(self, model: LandmarkModel, targets: KeypointTargets, weights: KeypointWeights, start: FitState | None = None) -> None:
        self.model, self.targets, self.w, self.start, self.prior = model, targets, weights, start, PosePrior()
        self._start_root = None if start is None else start.transl + model.rest_joints(start.betas)[0]
        i = model.index
        self._heels, self._toes = [i[29], i[30]], [i[31], i[32]]

    def __call__(self, state: FitState, betas: torch.Tensor, pose: torch.Tensor, posed: Posed) -> torch.Tensor:
        """The loss of ``pose`` (T, 55, 3) with its ``posed`` body, cameras from ``state``."""
        w, stand = self.w, self.targets.standing.mean()
        points = self.model.positions(betas, posed.joints, posed.skin)
        loss = w.points * self.targets.residual(project_points(points, state.Ks, state.viewmats))
        loss = loss + w.bones * self.targets.bone_error(points, self.model) + w.shape * betas.pow(2).sum()
        if w.prior:
            loss = loss + w.prior * self.prior(pose[:, :BODY_JOINTS])
        if w.balance and stand > 0:
            facing = posed.rotations[:, 0, 2, 2].detach()  # 1 towards the camera, -1 away
            ahead = 0.0 if self.targets.stride is None else STRIDE_BALL * self.targets.stride.abs() * facing
            loss = loss + stand * w.balance * balance(posed.joints, self.model.rest_joints(betas), ahead)
        if self.targets.stride is not None and stand > 0:
            loss = loss + stand * (w.stride * _stride_error(posed.joints, self.targets.stride) + w.swing * swing(posed.joints))
        if self.targets.head is not None:
            loss = loss + w.head * (posed.rotations[:, J["head"]] - self.targets.head).pow(2).sum((1, 2)).mean()
        if w.ground and stand > 0:
            loss = loss + stand * w.ground * one_ground(points[:, self._heels], points[:, self._toes])
        if w.initial and self.start is not None and self._start_root is not None:
            loss = loss + w.initial * (pose[:, :BODY_JOINTS] - self.start.pose[:, :BODY_JOINTS]).pow(2).sum((1, 2)).mean()
            loss = loss + METRE * w.initial * (posed.joints[:, 0] - self._start_root).pow(2).sum(1).mean()
        if w.smooth and len(pose) > 2:
            acceleration = posed.joints[2:] - 2 * posed.joints[1:-1] + posed.joints[:-2]
            loss = loss + w.smooth * (100 * acceleration[:, :BODY_JOINTS]).pow(2).sum(-1).mean()
        return loss


def _stride_error(joints: torch.Tensor, stride: torch.Tensor) -> torch.Tensor:
    """Squared error of the ankles' depth in STRIDE_UNITs, mean over frames."""
    apart = joints[:, J["left_ankle"], 2] - joints[:, J["right_ankle"], 2]
    return ((apart - stride) / STRIDE_UNIT).pow(2).mean()


def initial_state(
    model: LandmarkModel, targets: KeypointTargets, betas: torch.Tensor, camera: FitState, *, pose: torch.Tensor | None = None
) -> FitState:
    """Depth from the size in the picture, frame by frame, of (T, 55, 3) poses; None = the relaxed pose, turned as the axes of hips and shoulders."""
    frames = len(targets.xy)
    if pose is None:
        axis = targets.bones[:, 10] + targets.bones[:, 11]
        pose = relaxed_pose()[None].repeat(frames, 1, 1)
        pose[:, 0, 1] = torch.atan2(-axis[:, 2], axis[:, 0])
    posed = pose_body(model.body, model.rest_joints(betas), pose, torch.zeros(frames, 3))
    points = model.positions(betas, posed.joints, posed.skin)
    transl = [_place(points[t], targets, t, model, camera) for t in range(frames)]
    return camera.with_parameters(betas, pose, torch.stack(transl))


def _place(points: torch.Tensor, targets: KeypointTargets, t: int, model: LandmarkModel, camera: FitState) -> torch.Tensor:
    """World translation that gives the points the landmarks' size and centre in the picture of frame ``t``."""
    use = targets.weights[t] > 0.2
    if use.sum() < 4:
        use = torch.ones_like(use)
    world = targets.world[t][[p.landmark for p in model.points]][use]
    spread3 = (world - world.mean(0))[:, :2].norm(dim=1).mean()
    xy = targets.xy[t][use]
    spread2 = (xy - xy.mean(0)).norm(dim=1).mean().clamp_min(1e-3)
    K, V = camera.Ks[t], camera.viewmats[t]
    depth = K[0, 0] * spread3 / spread2
    centre = torch.stack([(xy.mean(0)[0] - K[0, 2]) * depth / K[0, 0], (xy.mean(0)[1] - K[1, 2]) * depth / K[1, 1], depth])
    return V[:3, :3].T @ (centre - V[:3, 3]) - points[use].mean(0)


def fit_keypoints(
    loss: KeypointLoss,
    state: FitState,
    *,
    iterations: int = 150,
    shape_count: int = 10,
    fixed_shape: bool = False,
    rates: tuple[float, float, float] = (0.03, 0.03, 0.02),
    root_first: bool = True,
    progress: Callable[[float], None] | None = None,
) -> FitState:
    """Adam over shape, body pose and translation of all frames.

    Args:
        loss: The terms.
        state: Start; its cameras stay.
        iterations: Steps; the first sixth moves the root only when ``root_first``.
        shape_count: How many betas move.
        fixed_shape: Keep the betas.
        rates: Learning rates of betas, pose and translation (x0.3 after 60 %, x0.1 after 85 %).
        progress: Called with the fraction done.
    """
    model = loss.model
    head, tail = state.betas[:shape_count].clone().requires_grad_(not fixed_shape), state.betas[shape_count:]
    pose, fingers = state.pose[:, :BODY_JOINTS].clone().requires_grad_(True), state.pose[:, BODY_JOINTS:]
    transl = state.transl.clone().requires_grad_(True)
    moving_rates = [(p, r) for p, r in zip((head, pose, transl), rates) if p.requires_grad]
    adam = torch.optim.Adam([{"params": [p], "lr": r} for p, r in moving_rates])
    for i in range(iterations):
        factor = 1.0 if i < 0.6 * iterations else 0.3 if i < 0.85 * iterations else 0.1
        for group, (_, rate) in zip(adam.param_groups, moving_rates):
            group["lr"] = rate * factor
        betas = torch.cat([head, tail])
        moving = torch.cat([pose[:, :1], pose[:, 1:].detach()], 1) if root_first and i < iterations // 6 else pose
        full = torch.cat([moving, fingers], 1)
        posed = pose_body(model.body, model.rest_joints(betas), full, transl)
        adam.zero_grad()
        loss(state, betas, full, posed).backward()
        adam.step()
        if progress is not None:
            progress((i + 1) / iterations)
    return state.with_parameters(torch.cat([head, tail]), torch.cat([pose, fingers], 1), transl)
