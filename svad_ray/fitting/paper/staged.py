"""The fit's first stage: where everybody stands, by Gauss-Newton on all frames at once (``fitting.newton``), before every term takes over.

What it finds is also what the terms then keep to, in the place of the first poses: those may be far off, and the terms would pull back to them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from svad_ray.body.flame import Flame
from svad_ray.body.lbs import rotation_matrices
from svad_ray.body.model import on_faces
from svad_ray.fitting.newton import Estimate, Prior, Rig, Views, solve
from svad_ray.fitting.paper.losses import Start, face_weights, hand_weights, project
from svad_ray.fitting.paper.model import FitBodies, State
from svad_ray.fitting.paper.targets import NAMES, OUTPUT, Targets
from svad_ray.fitting.state import BODY_JOINTS
from svad_ray.geometry.rotations import aligning_rotations, axis_angle_of, rows_of

CONTOUR = 17  # the last points: they wander over the face with its turn, so they are left to the terms
POINTS = len(NAMES) - CONTOUR
SHAPES = 10  # that key points can tell
NOISE = 0.02  # of key points, in units of the crops: 1.6 px where the person is 400 px tall
BODY_HOLD, FINGER_HOLD, ROOT_HOLD = 0.2, 0.3, 100.0  # radians that joints may be expected to be away from where they begin
STILL, ROOT_STILL = 12.5, 6.25  # accelerations to expect: radians and metres per squared second
AFTER = (0.1, 1e-3, 3e-4, 1e-4)  # learning rates of the schedule after it
SHARES = {"staged": 0.1, "released": 1.0}  # of the schedule's steps that each solver takes
_BODY, _FINGERS = list(range(BODY_JOINTS)), list(range(25, 55))


def rig_of(bodies: FitBodies, expr: torch.Tensor) -> Rig:
    """The body's key points but the contour of the face, with (T, E) expressions."""
    body, t, shapes = bodies.body, bodies.body.tables, SHAPES
    at, corners = t.vertex_joints, body.faces[t.landmark_faces]
    bary = torch.as_tensor(np.asarray(t.landmark_bary), dtype=torch.float32)

    def rows(joints: torch.Tensor, vertices: torch.Tensor) -> torch.Tensor:
        """(POINTS, K) of values (55, K) at joints and (V, K) at vertices."""
        inner = on_faces(vertices[None], corners[None], bary[None])[0]
        return torch.cat([joints, vertices[at], inner])[OUTPUT[:POINTS]]

    def flat(dirs: torch.Tensor, count: int) -> torch.Tensor:
        return dirs[..., :count].flatten(1)

    faces = expr.shape[1]
    moved = rows(flat(body.joint_exprdirs, faces), flat(body.exprdirs, faces)).unflatten(1, (3, faces))
    posedirs = None
    if body.posedirs is not None:
        posedirs = rows(torch.zeros(55, 3 * body.posedirs.shape[-1]), body.posedirs.flatten(1)).reshape(POINTS * 3, -1).T.contiguous()
    return Rig(
        parents=tuple(int(p) for p in body.parents),
        joints=body.joint_template + torch.einsum("jke,te->tjk", body.joint_exprdirs[..., :faces], expr),
        joint_shapedirs=body.joint_shapedirs[..., :shapes],
        points=rows(body.joint_template, body.v_template) + torch.einsum("nke,te->tnk", moved, expr),
        shapedirs=rows(flat(body.joint_shapedirs, shapes), flat(body.shapedirs, shapes)).unflatten(1, (3, shapes)),
        weights=rows(torch.eye(55), body.lbs_weights),
        posedirs=posedirs,
    )


@torch.no_grad()
def staged(
    bodies: FitBodies,
    state: State,
    start: Start,
    targets: Targets,
    face_seen: torch.Tensor,
    *,
    fps: float,
    progress: Callable[[float], None] = lambda _: None,
) -> tuple[State, Start]:
    """The settled state, FLAME laid on its head, and what the terms keep to from here on; arguments as of ``settle``."""
    state = settle(bodies, state, targets, face_seen, fps=fps, progress=progress)
    start = replace(start, rotations=state.rotations())
    return (state if bodies.flame is None else _with_flame_on_head(bodies, bodies.flame, state)), start


def _with_flame_on_head(bodies: FitBodies, flame: Flame, state: State) -> State:
    """FLAME's root turned and moved so that its template lies on the head of the posed body, frame by frame."""
    there = bodies.pose(state, state.rotations(), part="head").vertices
    turn = aligning_rotations(flame.v_template, there)
    place = there.mean(1) - turn @ (flame.v_template.mean(0) - flame.joint_space.template[0])
    return replace(state, head_root_pose=rows_of(turn), head_trans=place)


@torch.no_grad()
def settle(
    bodies: FitBodies, state: State, targets: Targets, face_seen: torch.Tensor, *, fps: float, progress: Callable[[float], None] = lambda _: None
) -> State:
    """The state with its turns, places and first shapes solved for; offsets, expressions, jaw and eyes stay.

    Args:
        face_seen: (T,) bool, whether the face looks at the camera. fps: Frames per second, which accelerations are measured by.
    """
    rig = rig_of(bodies, state.expr)
    mean = bodies.body.hands_mean.reshape(1, 30, 3)
    rotations = state.rotations()
    rotations = torch.cat([rotations[:, :25], rotation_matrices(axis_angle_of(rotations[:, 25:]) + mean)], 1)
    points = bodies.pose(state, state.rotations()).points
    weight = targets.valid * face_weights(face_seen, len(state)) * hand_weights(project(points, targets), points, targets)
    still = torch.eye(3).expand(len(state), 3, 3), torch.zeros(len(state), 3)
    views = Views(targets.points[:, :POINTS], weight[:, :POINTS, 0], *still, targets.focal, targets.centre, NOISE)
    found, _ = solve(rig, views, Estimate(rotations, state.trans, state.shape[:SHAPES]), _prior(rotations, fps), progress=progress)
    plain = rotation_matrices(axis_angle_of(found.rotations[:, 25:]) - mean)
    shape = state.shape.clone()
    shape[:SHAPES] = found.betas
    return replace(
        state,
        root_pose=rows_of(found.rotations[:, 0]),
        body_pose=rows_of(found.rotations[:, 1:22]),
        lhand_pose=rows_of(plain[:, :15]),
        rhand_pose=rows_of(plain[:, 15:]),
        trans=found.root,
        shape=shape,
    )


def _prior(rotations: torch.Tensor, fps: float) -> Prior:
    hold = torch.full((55,), FINGER_HOLD**-2)
    hold[_BODY] = BODY_HOLD**-2
    hold[0] = ROOT_HOLD**-2
    still, root_still = ((limit / fps**2) ** -2 for limit in (STILL, ROOT_STILL))
    return Prior(rotations, hold, torch.full((55,), still), root_still, 1.0, _BODY + _FINGERS)
