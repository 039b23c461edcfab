"""States of the fit, and the bodies that they make."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch

from svad_ray.body.flame import CONTOUR, Flame
from svad_ray.body.lbs import forward_kinematics, rest_joints, rotation_matrices, skin_points
from svad_ray.body.model import Body, contour_bins, on_faces
from svad_ray.body.names import JOINT_INDEX
from svad_ray.fitting.paper.companions import Companions
from svad_ray.fitting.paper.targets import OUTPUT
from svad_ray.geometry.rotations import axis_angle_of, matrices_of_rows

_HIPS = [JOINT_INDEX["left_hip"], JOINT_INDEX["right_hip"]]


@dataclass(frozen=True)
class State:
    """All that is moved. Rotations are two rows of a matrix, six numbers.

    Attributes:
        root_pose, jaw_pose, leye_pose, reye_pose: (T, 6); jaw, eyes and expression are both bodies'. body_pose: (T, 21, 6).
        lhand_pose, rhand_pose: (T, 15, 6), without the hand mean. trans: (T, 3) metres of the pelvis in the camera. expr: (T, E).
        head_root_pose, head_neck_pose: (T, 6) FLAME's. head_trans: (T, 3) of its root joint.
        shape: (S,). head_shape: (S',) FLAME's. face_offset: (F, 3) metres. joint_offset, locator_offset: (55, 3) metres.
    """

    root_pose: torch.Tensor
    body_pose: torch.Tensor
    jaw_pose: torch.Tensor
    leye_pose: torch.Tensor
    reye_pose: torch.Tensor
    lhand_pose: torch.Tensor
    rhand_pose: torch.Tensor
    expr: torch.Tensor
    trans: torch.Tensor
    head_root_pose: torch.Tensor
    head_neck_pose: torch.Tensor
    head_trans: torch.Tensor
    shape: torch.Tensor
    head_shape: torch.Tensor
    face_offset: torch.Tensor
    joint_offset: torch.Tensor
    locator_offset: torch.Tensor

    def __len__(self) -> int:
        return len(self.trans)

    def rotations(self) -> torch.Tensor:
        """(T, 55, 3, 3) of SMPL-X's joints, relative to their parents, without the hand mean."""
        face = (self.jaw_pose, self.leye_pose, self.reye_pose)
        rows = [self.root_pose[:, None], self.body_pose, *(part[:, None] for part in face), self.lhand_pose, self.rhand_pose]
        return matrices_of_rows(torch.cat(rows, 1))

    def head_rotations(self) -> torch.Tensor:
        """(T, 5, 3, 3) of FLAME's joints."""
        return matrices_of_rows(torch.stack([self.head_root_pose, self.head_neck_pose, self.jaw_pose, self.leye_pose, self.reye_pose], 1))


SHARED = ("shape", "head_shape", "face_offset", "joint_offset", "locator_offset")
PER_FRAME = tuple(f.name for f in fields(State) if f.name not in SHARED)
OF_HEAD = ("head_root_pose", "head_neck_pose", "head_trans", "head_shape", "face_offset")


def masked_joint_offset(offset: torch.Tensor) -> torch.Tensor:
    """No offset at the pelvis and the hips."""
    keep = torch.ones(len(offset), 1)
    keep[[0, *_HIPS]] = 0
    return offset * keep


def masked_locator_offset(offset: torch.Tensor) -> torch.Tensor:
    """An offset at the hips only."""
    keep = torch.zeros(len(offset), 1)
    keep[_HIPS] = 1
    return offset * keep


@dataclass(frozen=True)
class Posed:
    """A posed body, its pelvis at ``trans``: key points (T, 135, 3), pelvis before it was moved (T, 3), vertices (T, N, 3) that were asked for."""

    points: torch.Tensor
    root: torch.Tensor
    vertices: torch.Tensor


class FitBodies:
    """Both bodies, ready to be posed: SMPL-X's key points need a few hundred of its vertices only.

    Args:
        body: Already with FLAME's expressions on its head where there is a FLAME. flame, companions: None = the body alone.
        mesh_rows: Vertices on which the mesh term is taken; None = all.
    """

    def __init__(self, body: Body, flame: Flame | None = None, companions: Companions | None = None, mesh_rows: np.ndarray | None = None) -> None:
        self.body, self.flame, self.companions = body, flame, companions
        self.head = companions.head if companions is not None else np.flatnonzero(body.tables.regions["face"])
        self.mesh_rows = np.arange(len(body.v_template)) if mesh_rows is None else mesh_rows
        t = body.tables
        corners = [t.vertex_joints, body.faces[t.landmark_faces].ravel(), body.faces[t.contour_faces].ravel()]
        self.point_rows = np.unique(np.concatenate(corners))
        self._at = np.zeros(len(body.v_template), np.int64)
        self._at[self.point_rows] = np.arange(len(self.point_rows))
        self._parts = {name: _Part(body, rows) for name, rows in (("points", self.point_rows), ("mesh", self.mesh_rows), ("head", self.head))}

    def face_offset(self, state: State) -> torch.Tensor:
        """(V, 3) of all vertices."""
        out = self.body.v_template.new_zeros(len(self.body.v_template), 3)
        return out.index_put((torch.as_tensor(self.head),), state.face_offset)

    def pose(
        self, state: State, rotations: torch.Tensor, *, part: str = "", face_offset: torch.Tensor | None = None, free_head: bool = False
    ) -> Posed:
        """SMPL-X posed by (T, 55, 3, 3) rotations (hand mean not included).

        Args:
            part: "mesh" or "head": the vertices to give out; "" = none. face_offset: (V, 3).
            free_head: Let jaw, eyes and expression be moved by what is made here; FLAME moves them otherwise.
        """
        body = self.body
        turned = self._with_hand_mean(rotations if free_head else torch.cat([rotations[:, :22], rotations[:, 22:25].detach(), rotations[:, 25:]], 1))
        expr = state.expr if free_head else state.expr.detach()
        joints = rest_joints(body, state.shape[None], expr)
        if face_offset is not None:
            joints = joints + body.J_regressor @ face_offset
        joints = joints + masked_joint_offset(state.joint_offset)
        world, _, skin = forward_kinematics(turned, joints, body.parents)
        placed = forward_kinematics(turned, joints + masked_locator_offset(state.locator_offset), body.parents)[1]
        points = self._parts["points"](body, state.shape, expr, turned, skin, face_offset)
        output = torch.cat([placed, self._vertex_points(points), self._landmarks(points, world)], 1)[:, OUTPUT]
        move = state.trans - placed[:, 0]
        vertices = self._parts[part](body, state.shape, expr, turned, skin, face_offset) + move[:, None] if part else output[:, :0]
        return Posed(output + move[:, None], placed[:, 0], vertices)

    def _with_hand_mean(self, rotations: torch.Tensor) -> torch.Tensor:
        hands = axis_angle_of(rotations[:, 25:]) + self.body.hands_mean.reshape(1, 30, 3)
        return torch.cat([rotations[:, :25], rotation_matrices(hands)], 1)

    def _vertex_points(self, points: torch.Tensor) -> torch.Tensor:
        return points[:, self._at[self.body.tables.vertex_joints]]

    def _landmarks(self, points: torch.Tensor, world: torch.Tensor) -> torch.Tensor:
        """(T, 68, 3): inner face, then the contour that goes with the neck's turn."""
        t, faces = self.body.tables, self.body.faces
        bins = contour_bins(world[:, JOINT_INDEX["neck"]]).numpy()
        fixed = on_faces(points, self._at[faces[t.landmark_faces]][None], points.new_tensor(t.landmark_bary)[None])
        moving = on_faces(points, self._at[faces[t.contour_faces[bins]]], points.new_tensor(t.contour_bary[bins]))
        return torch.cat([fixed, moving], 1)

    def neutral_head(self, state: State, face_offset: torch.Tensor) -> torch.Tensor:
        """(F, 3) the body's head without pose and expression (hands' mean felt), its pelvis at the origin."""
        still = torch.eye(3).expand(1, 55, 3, 3)
        turned = self._with_hand_mean(still)
        joints = rest_joints(self.body, state.shape[None]) + self.body.J_regressor @ face_offset + masked_joint_offset(state.joint_offset)
        _, placed, skin = forward_kinematics(turned, joints, self.body.parents)
        none = state.expr[:1] * 0
        return (self._parts["head"](self.body, state.shape, none.detach(), turned, skin, face_offset) - placed[:, :1])[0]

    def pose_flame(self, state: State, *, neutral: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        """FLAME's vertices (T, F, 3) and its 75 points (T, 75, 3), root joint at ``head_trans``; ``neutral``: one, without pose and expression."""
        flame, companions = self.flame, self.companions
        if flame is None or companions is None:
            raise ValueError("there is no FLAME in this fit")
        rotations = torch.eye(3).expand(1, 5, 3, 3) if neutral else state.head_rotations()
        posed = flame.forward_rotations(betas=state.head_shape[None], expression=None if neutral else state.expr, rotations=rotations)
        points = self._head_landmarks(flame, posed.vertices, posed.rotations[:, 0])
        ears = posed.vertices[:, list(companions.ears)]
        root = posed.joints[:, :1]
        trans = state.head_trans[:1] if neutral else state.head_trans
        move = trans[:, None] - root
        return posed.vertices + move, torch.cat([posed.joints, points, ears], 1) + move

    def _head_landmarks(self, flame: Flame, vertices: torch.Tensor, root: torch.Tensor) -> torch.Tensor:
        """(T, 68, 3): inner points first."""
        points = flame.landmarks(vertices, root)
        return torch.cat([points[:, CONTOUR:], points[:, :CONTOUR]], 1)


class _Part:
    """Some vertices of a body, posed without the others."""

    def __init__(self, body: Body, rows: np.ndarray) -> None:
        self.rows = torch.as_tensor(rows)
        self.template, self.shapedirs, self.exprdirs = (x[self.rows] for x in (body.v_template, body.shapedirs, body.exprdirs))
        self.weights = body.lbs_weights[self.rows]
        self.posedirs = None if body.posedirs is None else body.posedirs[self.rows].reshape(-1, body.posedirs.shape[-1]).T.contiguous()

    def __call__(
        self, body: Body, shape: torch.Tensor, expr: torch.Tensor, rotations: torch.Tensor, skin: torch.Tensor, face_offset: torch.Tensor | None
    ) -> torch.Tensor:
        """(T, N, 3)."""
        rest = self.template + self.shapedirs[..., : len(shape)] @ shape + torch.einsum("vke,te->tvk", self.exprdirs[..., : expr.shape[1]], expr)
        if face_offset is not None:
            rest = rest + face_offset[self.rows]
        if self.posedirs is not None:
            feature = (rotations[:, 1:] - torch.eye(3)).flatten(1)
            rest = rest + (feature @ self.posedirs).reshape(len(feature), -1, 3)
        return skin_points(rest, self.weights, skin)
