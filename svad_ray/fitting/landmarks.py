"""Which point of the body each of the detector's 33 landmarks is: a joint or a named surface vertex, plus a calibrated offset.

A detector does not mark our joint centres: its knee, hip and ankle lie 1-3 cm beside ours. The offsets in ``blazepose_offsets.json``
are least-squares estimates over rendered people with known joints (``benchmarks/calibrate_detector.py``), in the frame of the joint
that carries the point. Source: ours.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
import torch

from svad_ray.body.lbs import rest_joints, skin_points
from svad_ray.body.model import Body
from svad_ray.body.names import JOINT_INDEX

# (landmark number, body point, carrying joint, weight of the 2D residual); points not named after a joint are vertices of the body's tables
_ONE = [(0, "nose", "head", 0.7)]
_PAIRED = [
    (2, "eye", "head", 0.5, 3),
    (7, "ear", "head", 0.5, 1),
    (11, "shoulder", "shoulder", 1.0, 1),
    (13, "elbow", "elbow", 1.0, 1),
    (15, "wrist", "wrist", 1.2, 1),
    (17, "pinky1", "wrist", 0.3, 1),
    (19, "index1", "wrist", 0.3, 1),
    (23, "hip", "pelvis", 0.5, 1),
    (25, "knee", "knee", 1.0, 1),
    (27, "ankle", "ankle", 1.2, 1),
    (29, "heel", "ankle", 0.6, 1),
    (31, "big_toe", "ankle", 0.8, 1),
]
# Bones whose direction the detector's world landmarks tell, with their weight: limbs, feet, shoulder and hip axes, hands, ears.
BONES = [(11, 13, 1.0), (13, 15, 1.0), (12, 14, 1.0), (14, 16, 1.0), (23, 25, 1.0), (25, 27, 1.0), (24, 26, 1.0), (26, 28, 1.0)]
BONES += [(29, 31, 0.5), (30, 32, 0.5), (12, 11, 0.7), (24, 23, 0.7), (15, 19, 0.4), (16, 20, 0.4), (8, 7, 0.7)]
LEG_BONES = slice(4, 8)


@dataclass(frozen=True)
class LandmarkPoint:
    """One landmark: its number, the body point, the carrying joint, the weight of its residual and its offset (metres, joint frame)."""

    landmark: int
    point: str
    joint: str
    weight: float
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)


@cache
def landmark_points() -> tuple[LandmarkPoint, ...]:
    """The landmarks that the fit uses, in order, with their calibrated offsets."""
    table = json.loads(resources.files(__package__).joinpath("blazepose_offsets.json").read_text())["offsets"]
    rows = list(_ONE)
    for number, point, joint, weight, step in _PAIRED:
        for side, index in (("left", number), ("right", number + step)):
            rows.append((index, f"{side}_{point}", joint if joint in ("head", "pelvis") else f"{side}_{joint}", weight))
    return tuple(LandmarkPoint(*row, offset=tuple(table.get(row[1], (0.0, 0.0, 0.0)))) for row in rows)


class LandmarkModel:
    """The fit's landmarks as differentiable functions of shape and pose, without building the mesh.

    Args:
        body: Any body in SMPL-X layout.
        offsets: Use the calibrated offsets (off while calibrating).
    """

    def __init__(self, body: Body, *, offsets: bool = True) -> None:
        self.body, self.points = body, landmark_points()
        self.index = {p.landmark: i for i, p in enumerate(self.points)}
        self.weights = torch.tensor([p.weight for p in self.points])
        self.carrier = torch.tensor([JOINT_INDEX[p.joint] for p in self.points])
        self.offset = torch.tensor([p.offset if offsets else (0.0, 0.0, 0.0) for p in self.points])
        is_joint = [p.point in JOINT_INDEX and not p.point.endswith("_eye") for p in self.points]
        self._from_joint = torch.tensor([i for i, j in enumerate(is_joint) if j])
        self._from_vertex = torch.tensor([i for i, j in enumerate(is_joint) if not j])
        self._joint = torch.tensor([JOINT_INDEX[self.points[i].point] for i in self._from_joint.tolist()])
        self._vertex = torch.tensor([body.tables.vertex[self.points[i].point] for i in self._from_vertex.tolist()])

    def rest_joints(self, betas: torch.Tensor) -> torch.Tensor:
        """(55, 3) joints of the shaped zero pose, for (B,) betas."""
        return rest_joints(self.body, betas)

    def positions(self, betas: torch.Tensor, rotations: torch.Tensor, joints: torch.Tensor, skin: torch.Tensor) -> torch.Tensor:
        """World positions of the landmarks.

        Args:
            betas: (B,). rotations: (T, 55, 3, 3) world rotations. joints: (T, 55, 3) posed joints, translation included.
            skin: (T, 55, 3, 4) skinning transforms, translation included.

        Returns:
            (T, P, 3) metres.
        """
        v = self.body.v_template[self._vertex] + self.body.shapedirs[self._vertex][..., : len(betas)] @ betas
        surface = skin_points(v, self.body.lbs_weights[self._vertex], skin)
        out = joints.new_zeros(len(joints), len(self.points), 3)
        out = out.index_copy(1, self._from_joint, joints[:, self._joint]).index_copy(1, self._from_vertex, surface)
        return out + (rotations[:, self.carrier] @ self.offset[None, :, :, None])[..., 0]


def bone_targets(world: np.ndarray, visibility: np.ndarray, *, leg_depth: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit bone directions that the world landmarks tell, and their weights.

    Args:
        world: (T, 33, 3) metres, body axes. visibility: (T, 33).
        leg_depth: Factor on the depth part of the leg bones: the network leans standing people backwards (1 = trust it).

    Returns:
        (T, len(BONES), 3) unit vectors and (T, len(BONES)) weights.
    """
    w = torch.as_tensor(np.nan_to_num(world), dtype=torch.float32)
    vis = torch.as_tensor(np.nan_to_num(visibility), dtype=torch.float32)
    d = torch.stack([w[:, b] - w[:, a] for a, b, _ in BONES], 1)
    d[:, LEG_BONES, 2] *= leg_depth
    weight = torch.stack([torch.minimum(vis[:, a], vis[:, b]) * k for a, b, k in BONES], 1)
    return d / (d.norm(dim=-1, keepdim=True) + 1e-6), weight
