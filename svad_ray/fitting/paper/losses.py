"""Every term of the fit. A term is the mean of its weighted tensor, and the loss is their sum.

Source: ExAvatar's fitting stage (SVAD section 3.3); the term ``smooth`` is the paper's equation 25, which no released code has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from svad_ray.body.lbs import rotation_matrices
from svad_ray.body.names import JOINT_INDEX, JOINT_NAMES, LEFT_JOINTS, RIGHT_JOINTS
from svad_ray.fitting.paper.model import FitBodies, Posed, State
from svad_ray.fitting.paper.targets import FACE, HEAD, INDEX, LEFT_HAND, RIGHT_HAND, Targets
from svad_ray.geometry.rotations import axis_angle_of

OVERLAP = 0.5  # of the two hands' boxes, above which the farther hand is not believed
_WIDER = 1.2
_FACING = np.cos(0.75 * np.pi)
_SPINE = [JOINT_INDEX[name] for name in ("spine1", "spine2", "spine3", "neck", "head")]
_FINGERS = slice(25, 55)
_NEIGHBOURS = 10


@dataclass(frozen=True)
class Start:
    """What the fit keeps to: rotations (T, 55, 3, 3) of the first poses; FLAME's first neck, jaw and eyes (T, 4, 3, 3), shape and expression."""

    rotations: torch.Tensor
    head_rotations: torch.Tensor
    head_shape: torch.Tensor
    expr: torch.Tensor

    def frames(self, index: torch.Tensor) -> Start:
        """Some of the frames."""
        return Start(self.rotations[index], self.head_rotations[index], self.head_shape, self.expr[index])


class First(NamedTuple):
    """Of the first poses with the present shape: (T,) bool, whether the face is seen; (T, N, 3) the mesh relative to its pelvis."""

    face_seen: torch.Tensor
    mesh: torch.Tensor


class Losses:
    """The terms on one pair of bodies.

    Args:
        smooth: Weight of squared differences of the joints' rotations from frame to frame, the root's left out, which turns; 0 = none, as released.
    """

    def __init__(self, bodies: FitBodies, *, smooth: float = 0.0) -> None:
        self.bodies, self.smooth = bodies, smooth
        flame = bodies.flame
        if flame is not None:
            self._neck = torch.as_tensor(flame.neck_vertices)[:, None].float()
            self._ring, self._ring_weights = neighbours(len(flame.v_template), flame.faces)
            self._edges = torch.as_tensor(np.concatenate([flame.faces[:, [0, 1]], flame.faces[:, [0, 2]], flame.faces[:, [1, 2]]]))

    def warm_up(self, state: State, targets: Targets) -> dict[str, torch.Tensor]:
        """Both bodies' points, and FLAME on the body's head."""
        terms, _ = self._points(state, targets, None)
        if self.bodies.flame is not None:
            posed, flame = self._body(state, part="head"), self.bodies.pose_flame(state)
            terms |= {"flame_kpt_proj": self._flame_points(flame[1], targets, None).mean()}
            terms |= {"flame_to_smplx_v2v": (flame[0] - posed.vertices.detach()).abs().mean()}
        return terms

    def main(self, state: State, targets: Targets, start: Start, *, relaxed: bool, first: First | None = None) -> dict[str, torch.Tensor]:
        """All terms of the main part.

        Args:
            relaxed: The fingers' joint offsets are held no more than the others. first: What ``first`` gives, where it is known already.
        """
        seen, first_mesh = first or self.first(state, targets, start)
        terms, mesh = self._points(state, targets, seen, with_mesh=True)
        rotations = state.rotations()
        terms |= {
            "smplx_shape_reg": 0.01 * state.shape.pow(2).mean(),
            "smplx_mesh": 0.1 * (mesh - first_mesh).abs().mean(),
            "smplx_pose": 0.1 * (rotations - start.rotations).abs().mean(),
            "smplx_pose_reg": axis_angle_of(rotations[:, _SPINE])[..., 0].pow(2).mean(),
        }
        if self.bodies.flame is None:
            terms["expr_reg"] = 0.1 * state.expr.abs().mean()
        else:
            terms |= self._flame_terms(state, targets, start, seen) | self._face_offsets(state)
        terms |= self._offsets(state, relaxed=relaxed)
        if self.smooth and len(state) > 1:
            terms["smooth"] = self.smooth * (rotations[1:, 1:] - rotations[:-1, 1:]).pow(2).mean()
        return terms

    def _body(self, state: State, part: str = "") -> Posed:
        """Posed with its face offset."""
        offset = self.bodies.face_offset(state) if self.bodies.flame is not None else None
        return self.bodies.pose(state, state.rotations(), part=part, face_offset=offset, free_head=self.bodies.flame is None)

    def _points(
        self, state: State, targets: Targets, seen: torch.Tensor | None, *, with_mesh: bool = False
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Both terms of the body's key points, and the mesh without face offset relative to its pelvis."""
        plain = self.bodies.pose(state, state.rotations(), part="mesh" if with_mesh else "", free_head=self.bodies.flame is None)
        posed = plain if self.bodies.flame is None else self._body(state)
        believed, where = face_weights(seen, len(state)) * targets.valid, posed.points.detach()
        weight = believed * hand_weights(project(posed.points, targets).detach(), where, targets)
        plain_weight = believed * hand_weights(project(plain.points, targets).detach(), where, targets)
        terms = {
            "smplx_kpt_proj": ((project(posed.points, targets) - targets.points).abs() * weight).mean(),
            "smplx_kpt_proj_wo_fo": ((project(plain.points, targets) - targets.points).abs() * plain_weight).mean(),
        }
        return terms, plain.vertices - plain.points[:, :1] if with_mesh else plain.vertices

    def first(self, state: State, targets: Targets, start: Start) -> First:
        """What the first poses make of the present shape; it changes little from step to step."""
        return First(self.face_seen(state, targets, start), self._first_mesh(state, start))

    @torch.no_grad()
    def face_seen(self, state: State, targets: Targets, start: Start) -> torch.Tensor:
        """(T,) bool: the face of the body in its first pose looks to the camera, and a face was found."""
        posed = self.bodies.pose(state, start.rotations, part="head")
        eyes = (posed.points[:, INDEX["left_eye_vertex"]] + posed.points[:, INDEX["right_eye_vertex"]]) / 2
        middle = posed.vertices.mean(1)
        ahead, away = (torch.nn.functional.normalize(v[:, [0, 2]], dim=1) for v in (eyes - middle, middle))
        return ((ahead * away).sum(1) < _FACING) & targets.head_valid

    @torch.no_grad()
    def _first_mesh(self, state: State, start: Start) -> torch.Tensor:
        posed = self.bodies.pose(state, start.rotations, part="mesh")
        return posed.vertices - posed.points[:, :1]

    def _flame_points(self, points: torch.Tensor, targets: Targets, seen: torch.Tensor | None) -> torch.Tensor:
        weight = face_weights(seen, len(points))[:, HEAD] * targets.valid[:, HEAD]
        return (project(points, targets) - targets.points[:, HEAD]).abs() * weight

    def _flame_terms(self, state: State, targets: Targets, start: Start, seen: torch.Tensor) -> dict[str, torch.Tensor]:
        _, points = self.bodies.pose_flame(state)
        return {
            "flame_kpt_proj": self._flame_points(points, targets, seen).mean(),
            "flame_pose": 0.1 * (state.head_rotations()[:, 1:] - start.head_rotations).abs().mean(),
            "flame_shape": 0.1 * (state.head_shape - start.head_shape).abs().mean(),
            "flame_expr": 0.1 * (state.expr - start.expr).abs().mean(),
        }

    def _face_offsets(self, state: State) -> dict[str, torch.Tensor]:
        """What makes the body's head FLAME's head."""
        own = self.bodies.neutral_head(state, self.bodies.face_offset(state))
        with torch.no_grad():
            goal = self.bodies.pose_flame(state, neutral=True)[0][0]
        free = 1 - self._neck
        edges = [(m[self._edges[:, 0]] - m[self._edges[:, 1]]).norm(dim=1) for m in (own, goal)]
        edge_free = (free[self._edges[:, 0]] * free[self._edges[:, 1]])[:, 0]
        return {
            "smplx_to_flame_v2v_wo_pose_expr": 10 * (((own - own.mean(0)) - (goal - goal.mean(0))).abs() * free).mean(),
            "smplx_to_flame_lap": 1e5 * ((self._laplacian(own) - self._laplacian(goal)).pow(2) * free).mean(),
            "smplx_to_flame_edge_length": ((edges[0] - edges[1]).abs() * edge_free).mean(),
            "face_offset_reg": 1000 * (state.face_offset.pow(2) * self._neck).mean(),
            "face_offset_sym_reg": self._mirrored_face(state).mean(),
        }

    def _laplacian(self, vertices: torch.Tensor) -> torch.Tensor:
        return vertices + (vertices[self._ring] * self._ring_weights[..., None]).sum(1)

    def _mirrored_face(self, state: State) -> torch.Tensor:
        companions = self.bodies.companions
        if companions is None:
            raise ValueError("there is no FLAME in this fit")
        offset = self.bodies.face_offset(state)
        corners, bary = companions.mirror[companions.head], companions.mirror_bary[companions.head]
        return _asymmetry(state.face_offset, (offset[torch.as_tensor(corners)] * torch.as_tensor(bary)[..., None]).sum(1))

    def _offsets(self, state: State, *, relaxed: bool) -> dict[str, torch.Tensor]:
        hold = torch.ones(len(JOINT_NAMES), 1)
        if not relaxed:
            hold[_FINGERS] = 10
        joint, locator = state.joint_offset, state.locator_offset
        return {
            "joint_offset_reg": 100 * (joint.pow(2) * hold).mean(),
            "locator_offset_reg": locator.pow(2).mean(),
            "joint_offset_sym_reg": _asymmetry(joint[list(RIGHT_JOINTS)], joint[list(LEFT_JOINTS)]).mean(),
            "locator_offset_sym_reg": _asymmetry(locator[list(RIGHT_JOINTS)], locator[list(LEFT_JOINTS)]).mean(),
        }


def _asymmetry(offset: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """(N,) how far offsets of one side are from the mirrored ones of the other."""
    return (offset[:, 0] + other[:, 0]).abs() + (offset[:, 1:] - other[:, 1:]).abs().sum(1)


def project(points: torch.Tensor, targets: Targets) -> torch.Tensor:
    """(T, N, 3) metres in the camera -> (T, N, 2) in the units of the crops."""
    return points[..., :2] / points[..., 2:] * targets.focal[:, None] + targets.centre[:, None]


def face_weights(seen: torch.Tensor | None, frames: int) -> torch.Tensor:
    """(T, 135, 1): zero for the points of faces that are not seen; all one in the warm-up."""
    weight = torch.ones(frames, len(INDEX), 1)
    if seen is not None:
        weight[:, FACE] = seen.float()[:, None, None]
    return weight


@torch.no_grad()
def hand_weights(flat: torch.Tensor, points: torch.Tensor, targets: Targets) -> torch.Tensor:
    """(T, 135, 1): zero for the farther hand and its wrist where the two hands cover each other: detectors mistake them there.

    Args:
        flat: (T, 135, 2) projected. points: (T, 135, 3) in the camera.
    """
    valid = targets.valid[..., 0] > 0
    low, high = zip(*(_hand_box(flat[:, hand], valid[:, hand]) for hand in (LEFT_HAND, RIGHT_HAND)))
    shared = (torch.minimum(*high) - torch.maximum(*low)).clamp_min(0).prod(1)
    areas = [(b - a).prod(1) for a, b in zip(low, high)]
    both = valid[:, LEFT_HAND].any(1) & valid[:, RIGHT_HAND].any(1)
    covered = both & (shared / (areas[0] + areas[1] - shared + 1e-5) > OVERLAP)
    left_behind = points[:, LEFT_HAND, 2].mean(1) > points[:, RIGHT_HAND, 2].mean(1)
    weight = torch.ones(len(flat), flat.shape[1], 1)
    for hand, wrist, dropped in ((LEFT_HAND, "left_wrist", covered & left_behind), (RIGHT_HAND, "right_wrist", covered & ~left_behind)):
        rows = torch.cat([torch.as_tensor(hand), torch.tensor([INDEX[wrist]])])
        weight[:, rows] = torch.where(dropped[:, None, None], 0.0, 1.0)
    return weight


def _hand_box(flat: torch.Tensor, valid: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(T, 2) low and high corners round the seen points, 1.2 times as large."""
    low = torch.where(valid[..., None], flat, torch.inf).amin(1)
    high = torch.where(valid[..., None], flat, -torch.inf).amax(1)
    none = ~valid.any(1)
    low[none], high[none] = 0, 0
    middle, half = (low + high) / 2, (high - low) / 2 * _WIDER
    return middle - half, middle + half


def neighbours(vertices: int, faces: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """(V, 10) neighbours of each vertex and (V, 10) their weights of the uniform Laplacian; the first ten of those that have more.

    Which ten those are follows from the order of a Python set, as in the original.
    """
    around: list[set[int]] = [set() for _ in range(vertices)]
    for triangle in faces.tolist():
        for corner in triangle:
            around[corner] |= set(triangle) - {corner}
    ring = np.tile(np.arange(vertices)[:, None], (1, _NEIGHBOURS))
    weights = np.zeros((vertices, _NEIGHBOURS), np.float32)
    for i, others in enumerate(around):
        some = list(others)[:_NEIGHBOURS]
        if some:
            ring[i, : len(some)], weights[i, : len(some)] = some, -1 / len(some)
    return torch.as_tensor(ring), torch.as_tensor(weights)


def rotations_of(axis_angle: np.ndarray) -> torch.Tensor:
    """(..., 3) -> (..., 3, 3)."""
    return rotation_matrices(torch.tensor(np.asarray(axis_angle, np.float32)))
