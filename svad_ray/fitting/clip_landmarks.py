"""A body to the 33 landmarks of a clip, in the picture and in space, by the Gauss-Newton of ``fitting.newton``: all frames and the shape together.

A clip that nothing is known of begins with inverse kinematics: the relaxed body's bones are turned to where those of the world landmarks point, then
everybody is placed in the picture, then both are explained together. A clip whose motion is known begins with that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from svad_ray.body.lbs import rotation_matrices
from svad_ray.body.names import JOINT_INDEX
from svad_ray.fitting.keypoints import METRE, KeypointTargets, initial_state
from svad_ray.fitting.landmarks import BONES, LEG_BONES, LandmarkModel
from svad_ray.fitting.newton import Directions, Estimate, Prior, Rig, Views, solve
from svad_ray.fitting.priors import pose_weights
from svad_ray.fitting.state import BODY_JOINTS, JOINTS, FitState, relaxed_pose
from svad_ray.geometry.rotations import axis_angle_of

SHAPES = 10  # that landmarks can tell
NOISE = 0.01  # of landmarks in the picture, of the person's size there: two pixels of 200
BONE_NOISE = 0.1  # of a bone's direction in space, radians
REACH = 4.0  # deviations beyond which a landmark counts little
LEVER = 50.0  # centimetres that hang on a joint: how a turn's acceleration compares with a place's
KNEE = 0.5  # per squared radian of a bent knee, which is likely in a clip where it is not in a photo
LEG_DEPTH = 1.0  # of a clip's leg bones, which the network leans less than it leans a photo's
UPRIGHT = 50.0  # per squared radian that a pelvis leans, of people whose knees look straight enough
SHAPE = 0.4  # per squared beta and frame
IK_STEPS = 12
TORSO = [(23, 11), (24, 12)]  # landmarks between which the trunk points, which a photo's fit balances otherwise
_AXES = [10, 11]  # of shoulders and hips among ``BONES``
_MOVED = list(range(BODY_JOINTS))


@dataclass(frozen=True)
class ClipPrior:
    """How a clip is likely to move: ``still`` per squared centimetre of acceleration from frame to frame; ``hold`` per squared radian of deviation
    from a motion that is known (and METRE times that per squared metre), 0 = nothing is known."""

    still: float
    hold: float = 0.0


def rig_of(model: LandmarkModel, betas: torch.Tensor, *, shapes: int) -> Rig:
    """The landmarks of a body with (B,) betas, of which the first ``shapes`` are free and counted from zero."""
    body, points = model.body, model.points
    fixed = betas.clone()
    fixed[:shapes] = 0
    template = body.v_template + body.shapedirs[..., : len(fixed)] @ fixed
    joints = model.rest_joints(fixed)
    at_joint = [p.point in JOINT_INDEX and not p.point.endswith("_eye") for p in points]
    rows = [JOINT_INDEX[p.point] if joint else body.tables.vertex[p.point] for p, joint in zip(points, at_joint)]

    def values(of_joints: torch.Tensor, of_vertices: torch.Tensor) -> torch.Tensor:
        return torch.stack([of_joints[row] if joint else of_vertices[row] for row, joint in zip(rows, at_joint)])

    return Rig(
        parents=tuple(int(p) for p in body.parents),
        joints=joints[None],
        joint_shapedirs=body.joint_shapedirs[..., :shapes],
        points=values(joints, template)[None],
        shapedirs=values(body.joint_shapedirs[..., :shapes], body.shapedirs[..., :shapes]),
        weights=values(torch.eye(JOINTS), body.lbs_weights),
        bones=torch.tensor([[model.index[a], model.index[b]] for a, b in [(a, b) for a, b, _ in BONES] + TORSO]),
    )


@torch.no_grad()
def follow(
    model: LandmarkModel,
    targets: KeypointTargets,
    start: FitState,
    prior: ClipPrior,
    *,
    steps: int,
    progress: Callable[[float], None] = lambda _: None,
) -> FitState:
    """The motion of ``start``, whose shape stays, brought to the landmarks of its frames."""
    rig, at = rig_of(model, start.betas, shapes=0), _estimate(model, start, shapes=0)
    likely = _known(at, prior)
    found, _ = solve(rig, _views(targets, start), at, likely, directions=told_directions(targets, upright=False), steps=steps, progress=progress)
    return _state(model, start, found)


@torch.no_grad()
def track(
    model: LandmarkModel,
    targets: KeypointTargets,
    camera: FitState,
    prior: ClipPrior,
    *,
    steps: int,
    progress: Callable[[float], None] = lambda _: None,
) -> FitState:
    """Shape, poses and places of a person that nothing is known of.

    Args:
        camera: Mean shape and cameras; its poses are not looked at.
    """
    begun = _unwrapped(initial_state(model, targets, camera.betas, camera))
    rig, at = rig_of(model, camera.betas, shapes=SHAPES), _estimate(model, begun, shapes=SHAPES)
    views, told = _views(targets, camera), told_directions(targets, upright=True)
    likely = _relaxed(at, prior, upright=UPRIGHT * float(targets.standing.mean()))
    blind = replace(views, weight=torch.zeros_like(views.weight))
    posed, _ = solve(rig, blind, at, likely, directions=told, steps=IK_STEPS, progress=lambda done: progress(0.4 * done))
    placed = initial_state(model, targets, camera.betas, camera, pose=_pose(model, posed))
    at = replace(_estimate(model, placed, shapes=SHAPES), rotations=posed.rotations)
    found, _ = solve(rig, views, at, likely, directions=told, steps=steps, progress=lambda done: progress(0.4 + 0.6 * done))
    return _state(model, placed, found)


def told_directions(targets: KeypointTargets, *, upright: bool) -> Directions:
    """Where limbs, feet, axes and trunk point in space.

    Args:
        upright: Without the lean that the network gives the legs and the trunks of everybody: in frames of people who stand or walk, hips are above
            ankles and shoulders above hips, in depth.
    """
    start, end = (targets.world[:, [bone[side] for bone in TORSO]] for side in (0, 1))
    bones = torch.cat([targets.bones, torch.nn.functional.normalize(end - start, dim=-1)], 1)
    weight = targets.bone_weights[:, _AXES].amin(1, keepdim=True)
    if upright:
        ankles, hips, shoulders = (targets.world[:, [k, k + 1]].mean(1) for k in (27, 23, 11))
        legs, trunk = (bones @ _righted(up, targets.standing).transpose(1, 2) for up in (hips - ankles, shoulders - hips))
        bones = torch.where(_lower(bones.shape[1]), legs, trunk)
    return Directions(bones, torch.cat([targets.bone_weights, weight, weight], 1), BONE_NOISE, REACH)


def _lower(count: int) -> torch.Tensor:
    """(count, 1) bool: the bones of the legs."""
    out = torch.zeros(count, 1, dtype=torch.bool)
    out[LEG_BONES] = True
    return out


def _righted(up: torch.Tensor, stands: torch.Tensor) -> torch.Tensor:
    """(T, 3, 3) the turns about the picture's horizontal that take the lean in depth from (T, 3) directions; none where (T,) ``stands`` is zero."""
    lean = torch.atan2(up[:, 2], up[:, 1]) * stands
    return rotation_matrices(torch.stack([-lean, lean * 0, lean * 0], 1))


def _estimate(model: LandmarkModel, state: FitState, *, shapes: int) -> Estimate:
    pose = torch.cat([state.pose[:, :25], state.pose[:, 25:] + model.body.hands_mean.reshape(1, 30, 3)], 1)
    root = state.transl + model.rest_joints(state.betas)[0]
    return Estimate(rotation_matrices(pose), root, state.betas[:shapes].clone())


def _pose(model: LandmarkModel, found: Estimate) -> torch.Tensor:
    """(T, 55, 3) axis-angle, without the hand mean."""
    pose = axis_angle_of(found.rotations)
    return torch.cat([pose[:, :25], pose[:, 25:] - model.body.hands_mean.reshape(1, 30, 3)], 1)


def _state(model: LandmarkModel, like: FitState, found: Estimate) -> FitState:
    betas = torch.cat([found.betas, like.betas[len(found.betas) :]])
    pose = torch.cat([_pose(model, found)[:, :BODY_JOINTS], like.pose[:, BODY_JOINTS:]], 1)
    return like.with_parameters(betas, pose, found.root - model.rest_joints(betas)[0])


def _views(targets: KeypointTargets, camera: FitState) -> Views:
    """The picture's landmarks in units of the person's size in each frame, so that one noise fits all."""
    size = targets.size[:, None]
    focal = torch.stack([camera.Ks[:, 0, 0], camera.Ks[:, 1, 1]], 1) / size
    turn, place = camera.viewmats[:, :3, :3], camera.viewmats[:, :3, 3]
    return Views(targets.xy / size[..., None], targets.weights, turn, place, focal, camera.Ks[:, :2, 2] / size, NOISE, REACH)


def _known(at: Estimate, prior: ClipPrior) -> Prior:
    """Round a motion that is known."""
    still, root_still = _stillness(prior)
    return Prior(at.rotations, torch.full((JOINTS,), prior.hold), still, root_still, 0.0, _MOVED, at.root, METRE * prior.hold)


def _relaxed(at: Estimate, prior: ClipPrior, *, upright: float) -> Prior:
    """Round the relaxed pose, anywhere, turned about the vertical as it is now."""
    still, root_still = _stillness(prior)
    hold = torch.ones(JOINTS, 3)
    hold[:BODY_JOINTS] = pose_weights()
    hold[[JOINT_INDEX["left_knee"], JOINT_INDEX["right_knee"]], 0] = KNEE
    hold[0] = torch.tensor([upright, 0.0, upright])
    centre = rotation_matrices(relaxed_pose())[None].repeat(len(at.root), 1, 1, 1)
    centre[:, 0] = at.rotations[:, 0]
    return Prior(centre, hold, still, root_still, SHAPE * len(at.root), _MOVED)


def _stillness(prior: ClipPrior) -> tuple[torch.Tensor, float]:
    """(55,) of the joints' turns, and of the pelvis' place in metres."""
    return torch.full((JOINTS,), prior.still * LEVER**2), prior.still * 100.0**2


def _unwrapped(state: FitState) -> FitState:
    """The first yaw estimates without jumps of a full turn between frames."""
    pose = state.pose.clone()
    pose[:, 0, 1] = torch.from_numpy(np.unwrap(pose[:, 0, 1].numpy()).astype(np.float32))
    return replace(state, pose=pose)
