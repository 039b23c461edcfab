"""Between tracks and states of the fit: where it starts, what the optimiser keeps to, and what it leaves behind."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from scipy.signal import savgol_filter

from svad_ray.body.lbs import rest_joints, rotation_matrices
from svad_ray.fitting.paper.losses import Start
from svad_ray.fitting.paper.model import FitBodies, State, masked_joint_offset, masked_locator_offset
from svad_ray.fitting.paper.targets import first_head
from svad_ray.geometry.rotations import ORDER, WINDOW, axis_angle_of, rows_of, smooth_rotations
from svad_ray.subject import BodyTrack

SHAPES, EXPRESSIONS = 100, 50


def in_camera(track: BodyTrack, rest: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(T, 3, 3) rotations of the pelvis and its (T, 3) place, both in the camera; ``rest`` (55, 3) the shaped rest joints."""
    views = torch.tensor(np.asarray(track.viewmats, np.float32))
    turn = views[:, :3, :3] @ rotation_matrices(torch.tensor(np.asarray(track.global_orient, np.float32)))
    pelvis = rest[0] + torch.tensor(np.asarray(track.transl, np.float32))
    return turn, (views[:, :3, :3] @ pelvis[..., None])[..., 0] + views[:, :3, 3]


def begin(
    bodies: FitBodies,
    track: BodyTrack,
    *,
    keep_shape: bool,
    trans: np.ndarray | None = None,
    head_shape: np.ndarray | None = None,
    head_expression: np.ndarray | None = None,
    head_jaw: np.ndarray | None = None,
) -> tuple[State, Start]:
    """The first state, and what the fit keeps to, of a track that says how the person stands in every frame.

    Args:
        track: Poses and cameras; of another body than the fitted one its rotations count as they are.
        keep_shape: Begin with the track's shape, which must be of the fitted body; else with the mean shape, as released.
        trans: (T, 3) first places of the pelvis in the camera; None = the track's.
        head_shape, head_expression, head_jaw: FLAME's first (S,) shape, (T, E) expression and (T, 3) jaw; None = zeros.
    """
    frames, body = len(track), bodies.body
    shape = torch.zeros(min(SHAPES, body.shapedirs.shape[-1]))
    if keep_shape:
        count = min(len(shape), len(track.betas))
        shape[:count] = torch.tensor(np.asarray(track.betas[:count], np.float32))
    turn, place = in_camera(track, rest_joints(body, torch.tensor(np.asarray(track.betas, np.float32))) if keep_shape else rest_joints(body, shape))
    rotations = rotation_matrices(torch.tensor(np.asarray(track.full_pose, np.float32)))
    rotations[:, 0] = turn
    place = place if trans is None else torch.tensor(np.asarray(trans, np.float32))
    expr = torch.zeros(frames, min(EXPRESSIONS, body.exprdirs.shape[-1]))
    if head_expression is not None:
        expr = torch.tensor(np.asarray(head_expression, np.float32))
    jaw = rotations[:, 22] if head_jaw is None else rotation_matrices(torch.tensor(np.asarray(head_jaw, np.float32)))
    eye = torch.eye(3).expand(frames, 3, 3)
    head_turn, head_place, of_head, vertices = eye, place, torch.zeros(SHAPES), len(bodies.head)
    if bodies.flame is not None:
        of_head = torch.zeros(min(SHAPES, bodies.flame.shapedirs.shape[-1]))
        if head_shape is not None:
            of_head = torch.tensor(np.asarray(head_shape, np.float32))
        axis_angle, where = first_head(body, bodies.flame, bodies.head, axis_angle_of(turn).numpy(), place.numpy())
        head_turn, head_place = rotation_matrices(torch.tensor(axis_angle)), torch.tensor(where)
    state = State(
        root_pose=rows_of(turn),
        body_pose=rows_of(rotations[:, 1:22]),
        jaw_pose=rows_of(jaw),
        leye_pose=rows_of(eye),
        reye_pose=rows_of(eye),
        lhand_pose=rows_of(rotations[:, 25:40]),
        rhand_pose=rows_of(rotations[:, 40:55]),
        expr=expr,
        trans=place,
        head_root_pose=rows_of(head_turn),
        head_neck_pose=rows_of(eye),
        head_trans=head_place,
        shape=shape,
        head_shape=of_head,
        face_offset=torch.zeros(vertices, 3),
        joint_offset=torch.zeros(55, 3),
        locator_offset=torch.zeros(55, 3),
    )
    head = torch.stack([eye, jaw, eye, eye], 1)
    return state, Start(rotations, head, of_head.clone(), expr.clone())


@torch.no_grad()
def to_track(bodies: FitBodies, state: State, like: BodyTrack) -> BodyTrack:
    """The fitted body in the world of ``like``, whose cameras and frame rate it keeps; with its offsets ``Body.forward`` makes what was fitted."""
    rotations, face = state.rotations(), bodies.face_offset(state) if bodies.flame is not None else None
    posed = bodies.pose(state, rotations, face_offset=face)
    views = torch.tensor(np.asarray(like.viewmats, np.float32))
    back = views[:, :3, :3].transpose(1, 2)
    pelvis = (back @ (state.trans - views[:, :3, 3])[..., None])[..., 0]
    rotations[:, 0] = back @ rotations[:, 0]
    track = replace(
        like,
        betas=state.shape.numpy().copy(),
        transl=(pelvis - posed.root).numpy().astype(np.float32),
        expression=state.expr.numpy().copy(),
        face_offset=None if face is None else face.numpy().copy(),
        joint_offset=masked_joint_offset(state.joint_offset).numpy(),
        locator_offset=masked_locator_offset(state.locator_offset).numpy(),
        body_id=bodies.body.id,
        vertex_offset=like.vertex_offset if like.body_id == bodies.body.id else None,
        residual_px=None,
    )
    return track.with_full_pose(axis_angle_of(rotations).numpy())


def smoothed(track: BodyTrack) -> BodyTrack:
    """Savitzky-Golay over time: rotations as sign-continuous quaternions, expression and translation directly; short tracks stay as they are."""
    if len(track) < WINDOW:
        return track
    pose = smooth_rotations(track.full_pose)
    plain = {name: savgol_filter(getattr(track, name), WINDOW, ORDER, axis=0).astype(np.float32) for name in ("transl", "expression")}
    return replace(track.with_full_pose(pose), **plain)
