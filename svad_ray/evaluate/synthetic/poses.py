"""Poses as named axis-angle rotations, and plain float64 forward kinematics and skinning.

The zero pose is the SMPL-X zero pose: arms along +-x. This file shares no code with ``svad_ray.body`` on purpose: the ground truth must not
inherit a mistake of the layer that is scored with it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.spatial.transform import Rotation

from svad_ray.body.names import JOINT_NAMES, PARENTS
from svad_ray.errors import InputError

Pose = Mapping[str, tuple[float, float, float]] | np.ndarray

A_POSE: dict[str, tuple[float, float, float]] = {
    "left_shoulder": (0, 0, -0.95),
    "right_shoulder": (0, 0, 0.95),
    "left_elbow": (0, -0.25, 0),
    "right_elbow": (0, 0.25, 0),
}


def _arm(lower: float, swing: float) -> tuple[float, float, float]:
    """A shoulder that first lowers the arm about z, then swings it about x (positive = backwards), radians."""
    turn = Rotation.from_rotvec([swing, 0, 0]) * Rotation.from_rotvec([0, 0, lower])
    x, y, z = turn.as_rotvec()
    return float(x), float(y), float(z)


WALK: dict[str, tuple[float, float, float]] = {
    "left_hip": (-0.22, 0, 0),
    "right_hip": (0.12, 0, 0),
    "left_knee": (0.10, 0, 0),
    "right_knee": (0.22, 0, 0),
    "left_ankle": (0.10, 0, 0),
    "right_ankle": (-0.05, 0, 0),
    "spine2": (0, -0.05, 0),
    "spine3": (0, -0.05, 0),
    "head": (0, 0.08, 0),
    "left_shoulder": _arm(-1.12, 0.22),
    "right_shoulder": _arm(1.12, -0.22),
    "left_elbow": (0, -0.20, 0),
    "right_elbow": (0, 0.40, 0),
}
# WALK's front foot stands 4 to 5 cm above the rear one's toes, as nobody's does. Here the rear foot stands on its ball, level with the front one.
STEP: dict[str, tuple[float, float, float]] = {**WALK, "right_knee": (0.47, 0, 0), "right_foot": (-0.47, 0, 0)}
ARMS_OUT: dict[str, tuple[float, float, float]] = {
    "left_shoulder": (0, 0, -0.20),
    "right_shoulder": (0, 0, 0.20),
    "left_elbow": (0, -0.10, 0),
    "right_elbow": (0, 0.10, 0),
}


def axis_angles(pose: Pose) -> np.ndarray:
    """(55, 3) axis-angle rotations relative to the parent joint, from names or from such an array."""
    if isinstance(pose, np.ndarray):
        if pose.shape != (len(JOINT_NAMES), 3):
            raise InputError(f"A pose of shape {pose.shape}.", expected=f"({len(JOINT_NAMES)}, 3) axis-angle rotations")
        return pose.astype(np.float64)
    unknown = sorted(set(pose) - set(JOINT_NAMES))
    if unknown:
        raise InputError(f"A pose names the joints {unknown}.", expected=f"names out of {', '.join(JOINT_NAMES)}")
    return np.array([pose.get(name, (0.0, 0.0, 0.0)) for name in JOINT_NAMES], np.float64)


def joint_transforms(pose: Pose, joints: np.ndarray) -> np.ndarray:
    """(55, 4, 4) world transforms that carry the rest pose to ``pose``; ``joints`` (55, 3) metres at rest."""
    local = Rotation.from_rotvec(axis_angles(pose)).as_matrix()
    world = np.zeros((len(joints), 4, 4))
    for j, parent in enumerate(PARENTS):
        step = np.eye(4)
        step[:3, :3] = local[j]
        step[:3, 3] = joints[j] - local[j] @ joints[j]
        world[j] = step if parent < 0 else world[parent] @ step
    return world


def skin(vertices: np.ndarray, weights: np.ndarray, transforms: np.ndarray) -> np.ndarray:
    """Linear blend skinning: (V, 3) rest vertices, (V, 55) weights, (55, 4, 4) transforms -> (V, 3)."""
    blended = (weights @ transforms[:, :3].reshape(len(transforms), 12)).reshape(-1, 3, 4)
    return np.einsum("vij,vj->vi", blended[:, :, :3], vertices) + blended[:, :, 3]


def move_joints(joints: np.ndarray, transforms: np.ndarray) -> np.ndarray:
    """Posed joints (55, 3) of the rest ``joints``."""
    return np.einsum("jik,jk->ji", transforms[:, :3, :3], joints) + transforms[:, :3, 3]
