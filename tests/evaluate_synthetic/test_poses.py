"""Kinematics against rotations composed by hand."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from svad_ray.body.names import JOINT_INDEX, PARENTS
from svad_ray.errors import InputError
from svad_ray.evaluate.synthetic.poses import A_POSE, WALK, axis_angles, joint_transforms, move_joints, skin

REST = np.random.default_rng(0).normal(size=(55, 3))


def test_the_zero_pose_moves_nothing() -> None:
    np.testing.assert_allclose(move_joints(REST, joint_transforms({}, REST)), REST, atol=1e-12)


def test_bones_keep_their_length_in_any_pose() -> None:
    pose = np.random.default_rng(1).normal(size=(55, 3))
    moved = move_joints(REST, joint_transforms(pose, REST))
    parents = np.array(PARENTS[1:])
    before, after = (np.linalg.norm(j[1:] - j[parents], axis=1) for j in (REST, moved))
    np.testing.assert_allclose(after, before, rtol=1e-9)


def test_a_chain_is_the_product_of_its_rotations() -> None:
    names = ["pelvis", "spine1", "spine2", "spine3", "left_collar", "left_shoulder", "left_elbow", "left_wrist"]
    pose = {name: tuple(np.random.default_rng(i).normal(size=3)) for i, name in enumerate(names)}
    at, turn = REST[0].copy(), Rotation.identity()
    for parent, child in pairwise(names):
        turn = turn * Rotation.from_rotvec(pose[parent])
        at = at + turn.apply(REST[JOINT_INDEX[child]] - REST[JOINT_INDEX[parent]])
    moved = move_joints(REST, joint_transforms(pose, REST))
    np.testing.assert_allclose(moved[JOINT_INDEX["left_wrist"]], at, atol=1e-9)


def test_skinning_blends_the_moved_points() -> None:
    transforms = joint_transforms({"left_hip": (0.7, 0, 0)}, REST)
    weights = np.zeros((1, 55))
    weights[0, [JOINT_INDEX["pelvis"], JOINT_INDEX["left_hip"]]] = 0.25, 0.75
    point = np.array([[0.1, -0.4, 0.2]])
    hip = REST[JOINT_INDEX["left_hip"]]
    turned = Rotation.from_rotvec([0.7, 0, 0]).apply(point[0] - hip) + hip
    np.testing.assert_allclose(skin(point, weights, transforms)[0], 0.25 * point[0] + 0.75 * turned, atol=1e-12)


def test_the_walk_swings_opposite_limbs() -> None:
    rest = np.zeros((55, 3))
    for side, sign in (("left", 1), ("right", -1)):
        for name, at in (
            ("hip", (0.1, 0, 0)),
            ("knee", (0.1, -0.4, 0)),
            ("ankle", (0.1, -0.8, 0)),
            ("shoulder", (0.2, 0.5, 0)),
            ("elbow", (0.45, 0.5, 0)),
            ("wrist", (0.7, 0.5, 0)),
        ):
            rest[JOINT_INDEX[f"{side}_{name}"]] = np.multiply(at, (sign, 1, 1))
    moved = move_joints(rest, joint_transforms(WALK, rest))
    z = {name: moved[JOINT_INDEX[name], 2] for name in ("left_ankle", "right_ankle", "left_wrist", "right_wrist")}
    assert z["left_ankle"] > 0.1 > -0.1 > z["right_ankle"]  # z is forward
    assert z["right_wrist"] > z["left_wrist"] + 0.15
    lowered = move_joints(rest, joint_transforms(A_POSE, rest))
    assert lowered[JOINT_INDEX["left_wrist"], 1] < 0.2


def test_a_pose_names_only_joints() -> None:
    with pytest.raises(InputError, match="left_elbw"):
        axis_angles({"left_elbw": (0, 0, 1)})
    with pytest.raises(InputError, match="55"):
        axis_angles(np.zeros((22, 3)))
