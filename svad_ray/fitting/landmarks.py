"""Which point of the body each of the detector's 33 landmarks is: a joint or a named surface vertex.

A detector does not mark our joint centres exactly: its knees lie 2 cm lower, its shoulders 2 cm higher. ``SHIFT`` says by how much and where to, as
measured on renders of 16 random dressed people (``svad_ray.evaluate.synthetic.random_person``, seeds 100-115, three poses each), left and right
averaged; the spread over people is 0.5-1.5 cm, more for hips and feet (2 cm).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from svad_ray.body.lbs import rest_joints, skin_points
from svad_ray.body.model import Body
from svad_ray.body.names import JOINT_INDEX

# (landmark number, body point, weight of the 2D residual, step to the right side's number); points not named after a joint are vertices of the
# body's tables
_ONE = [(0, "nose", 0.7)]
_PAIRED = [
    (2, "eye", 0.5, 3),
    (7, "ear", 0.5, 1),
    (11, "shoulder", 1.0, 1),
    (13, "elbow", 1.0, 1),
    (15, "wrist", 1.2, 1),
    (17, "pinky1", 0.3, 1),
    (19, "index1", 0.3, 1),
    (23, "hip", 0.5, 1),
    (25, "knee", 1.0, 1),
    (27, "ankle", 1.2, 1),
    (29, "heel", 0.6, 1),
    (31, "big_toe", 0.8, 1),
]
# Metres from the body's point to the detector's, and the joint in whose axes; for the left side, x is mirrored on the right.
SHIFT = {
    "nose": ((0.0, 0.009, 0.0), "head"),
    "eye": ((0.003, 0.001, 0.0), "head"),
    "ear": ((-0.012, 0.016, 0.0), "head"),
    "shoulder": ((-0.004, 0.021, 0.0), "spine3"),
    "elbow": ((-0.011, -0.003, 0.0), "elbow"),
    "wrist": ((0.010, -0.009, 0.0), "elbow"),
    "pinky1": ((-0.004, 0.007, 0.0), "elbow"),
    "index1": ((-0.006, -0.008, 0.0), "elbow"),
    "hip": ((-0.007, -0.012, 0.0), "pelvis"),
    "knee": ((-0.011, -0.022, 0.0), "knee"),
    "ankle": ((-0.007, 0.011, 0.0), "ankle"),
    "heel": ((-0.020, 0.013, 0.0), "ankle"),
    "big_toe": ((0.019, -0.017, 0.0), "ankle"),
}
# Bones whose direction the detector's world landmarks tell, with their weight: limbs, feet, shoulder and hip axes, hands, ears.
BONES = [(11, 13, 1.0), (13, 15, 1.0), (12, 14, 1.0), (14, 16, 1.0), (23, 25, 1.0), (25, 27, 1.0), (24, 26, 1.0), (26, 28, 1.0)]
BONES += [(29, 31, 0.5), (30, 32, 0.5), (12, 11, 0.7), (24, 23, 0.7), (15, 19, 0.4), (16, 20, 0.4), (8, 7, 0.7)]
ARM_BONES, HAND_BONES, LEG_BONES = range(4), range(12, 14), slice(4, 8)


@dataclass(frozen=True)
class LandmarkPoint:
    """One landmark: its number, the body point and the weight of its residual."""

    landmark: int
    point: str
    weight: float


@cache
def landmark_points() -> tuple[LandmarkPoint, ...]:
    """The landmarks that the fit uses, in order."""
    rows = list(_ONE)
    for number, point, weight, step in _PAIRED:
        rows += [(number, f"left_{point}", weight), (number + step, f"right_{point}", weight)]
    return tuple(LandmarkPoint(*row) for row in rows)


class LandmarkModel:
    """The fit's landmarks as differentiable functions of shape and pose, without building the mesh.

    Args:
        body: Any body in SMPL-X layout.
    """

    def __init__(self, body: Body) -> None:
        self.body, self.points = body, landmark_points()
        self.index = {p.landmark: i for i, p in enumerate(self.points)}
        self.weights = torch.tensor([p.weight for p in self.points])
        is_joint = [p.point in JOINT_INDEX and not p.point.endswith("_eye") for p in self.points]
        self._from_joint = torch.tensor([i for i, j in enumerate(is_joint) if j])
        self._from_vertex = torch.tensor([i for i, j in enumerate(is_joint) if not j])
        self._joint = torch.tensor([JOINT_INDEX[self.points[i].point] for i in self._from_joint.tolist()])
        self._vertex = torch.tensor([body.tables.vertex[self.points[i].point] for i in self._from_vertex.tolist()])
        shifts = [_shift(p.point) for p in self.points]
        self._shift, self._frame = torch.tensor([s for s, _ in shifts]), torch.tensor([j for _, j in shifts])

    def rest_joints(self, betas: torch.Tensor) -> torch.Tensor:
        """(55, 3) joints of the shaped zero pose, for (B,) betas."""
        return rest_joints(self.body, betas)

    def positions(self, betas: torch.Tensor, joints: torch.Tensor, skin: torch.Tensor) -> torch.Tensor:
        """World positions of the landmarks.

        Args:
            betas: (B,). joints: (T, 55, 3) posed joints, translation included.
            skin: (T, 55, 3, 4) skinning transforms, translation included.

        Returns:
            (T, P, 3) metres.
        """
        v = self.body.v_template[self._vertex] + self.body.shapedirs[self._vertex][..., : len(betas)] @ betas
        surface = skin_points(v, self.body.lbs_weights[self._vertex], skin)
        out = joints.new_zeros(len(joints), len(self.points), 3)
        out = out.index_copy(1, self._from_joint, joints[:, self._joint]).index_copy(1, self._from_vertex, surface)
        return out + (skin[:, self._frame, :, :3] @ self._shift[:, :, None])[..., 0]


def _shift(point: str) -> tuple[tuple[float, float, float], int]:
    """Metres from a body point to where the detector marks it, and the joint whose axes they are in."""
    side, _, name = point.partition("_") if point.startswith(("left_", "right_")) else ("", "", point)
    (x, y, z), frame = SHIFT[name]
    joint = JOINT_INDEX[frame if frame in JOINT_INDEX else f"{side}_{frame}"]
    return (-x if side == "right" else x, y, z), joint


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
