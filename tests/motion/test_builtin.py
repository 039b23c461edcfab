"""The built-in motions: what a joint's rotation does to a T-posed skeleton drawn by hand, and left-right symmetry."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from svad_ray.body.names import JOINT_INDEX, JOINT_NAMES, PARENTS
from svad_ray.motion import MOTIONS, TURN_FPS, TURN_FRAMES, a_pose_turn, arms, turn, walk

# Bones of a person in T-pose: x to the person's left, y up, z forward. Only directions matter.
BONES = {
    **{key: [1, 0, 0] for key in ("shoulder", "elbow", "wrist")},
    **{key: [0, -1, 0] for key in ("knee", "ankle")},
    "hip": [0.3, -0.3, 0],
    "foot": [0, 0, 1],
}


def skeleton(pose: np.ndarray) -> dict[str, np.ndarray]:
    """Joint positions of one (55, 3) pose, root at the origin."""
    turned: list[Rotation] = []
    at = np.zeros((55, 3))
    for j, (name, parent) in enumerate(zip(JOINT_NAMES, PARENTS)):
        local = Rotation.from_rotvec(pose[j])
        side, _, part = name.partition("_")
        bone = np.array(BONES.get(part, [0, 0, 0]), float) * ([-1, 1, 1] if side == "right" else [1, 1, 1])
        bone = np.array([0, 0.5, 0]) if name in ("spine1", "spine2", "spine3", "neck", "head") else bone
        at[j] = 0 if parent < 0 else at[parent] + turned[parent].apply(bone)
        turned.append(local if parent < 0 else turned[parent] * local)
    return dict(zip(JOINT_NAMES, at))


def mirrored(pose: np.ndarray) -> np.ndarray:
    """(T, 55, 3) seen in the plane x = 0: sides change, rotation vectors reflect as pseudo-vectors."""
    swap = {"left": "right", "right": "left"}
    partner = [JOINT_INDEX["_".join([swap.get(n.split("_")[0], n.split("_")[0]), *n.split("_")[1:]])] for n in JOINT_NAMES]
    return pose[:, partner] * [1, -1, -1]


@pytest.mark.parametrize("name", sorted(MOTIONS))
def test_every_motion_is_finite_and_smooth(name):
    track = MOTIONS[name]()
    assert track.body_id == "" and np.isfinite(track.full_pose).all()
    turned = [Rotation.from_rotvec(track.full_pose[:, j]) for j in range(55)]
    step = max((r[1:] * r[:-1].inv()).magnitude().max() for r in turned)
    assert np.degrees(step) < 16  # no joint jumps between two frames


def test_the_driving_clip_is_one_even_turn_that_closes():
    track = turn()
    assert (len(track), track.fps) == (TURN_FRAMES, TURN_FPS) == (189, 25.0)
    root = Rotation.from_rotvec(track.global_orient)
    steps = (root[1:] * root[:-1].inv()).as_rotvec()
    np.testing.assert_allclose(steps, [[0, 2 * np.pi / 188, 0]] * 188, atol=1e-5)
    np.testing.assert_allclose(root[[0, -1]].as_matrix(), [np.eye(3)] * 2, atol=1e-5)
    np.testing.assert_allclose(root[47].apply([0, 0, 1]), [1, 0, 0], atol=1e-5)  # a quarter: the face looks to the picture's right


def test_a_single_frame_faces_the_camera():
    assert not turn(1).global_orient.any()


@pytest.mark.parametrize(("motion", "low", "high"), [(turn, 10, 20), (a_pose_turn, 45, 55)])
def test_arms_hang_as_far_down_as_named(motion, low, high):
    at = skeleton(motion(1).full_pose[0])
    for side, sign in (("left", 1), ("right", -1)):
        arm = at[f"{side}_elbow"] - at[f"{side}_shoulder"]
        assert sign * arm[0] > 0
        assert low < np.degrees(np.arctan2(-arm[1], abs(arm[0]))) < high


@pytest.mark.parametrize("motion", [turn, a_pose_turn])
def test_the_turning_pose_is_its_own_mirror_image(motion):
    pose = motion(3).full_pose.copy()
    pose[:, 0] = 0
    np.testing.assert_allclose(mirrored(pose), pose, atol=1e-6)


def test_the_walk_is_its_mirror_image_half_a_stride_later():
    track = walk(28)  # one stride
    pose = track.full_pose
    moving = [j for j in range(55) if np.ptp(pose[:, j], axis=0).max() > 1e-3]
    assert {"left_hip", "right_knee", "left_shoulder"} <= {JOINT_NAMES[j] for j in moving}
    np.testing.assert_allclose(mirrored(pose)[:, moving], np.roll(pose, 14, 0)[:, moving], atol=2e-2)


def test_the_walk_repeats_every_stride():
    pose = walk(112).full_pose
    np.testing.assert_allclose(pose[28:], pose[:-28], atol=5e-4)


def test_walking_legs_and_arms_alternate_and_knees_bend_backwards():
    for pose in walk(28).full_pose:
        at = skeleton(pose)
        for side in ("left", "right"):
            thigh, shin = at[f"{side}_knee"] - at[f"{side}_hip"], at[f"{side}_ankle"] - at[f"{side}_knee"]
            assert np.cross(shin, thigh)[0] < 0.12  # the shin never swings forward past the thigh
    poses = walk(28).full_pose
    feet = np.array([skeleton(p)["left_ankle"][2] - skeleton(p)["right_ankle"][2] for p in poses])
    hands = np.array([skeleton(p)["left_wrist"][2] - skeleton(p)["right_wrist"][2] for p in poses])
    assert feet.max() > 0.3 and feet.min() < -0.3
    assert np.corrcoef(feet, hands)[0, 1] < -0.7  # the left arm swings with the right leg


def test_the_walker_faces_where_it_is_told():
    ahead, aside = walk(28), walk(28, heading_deg=90)
    front = Rotation.from_rotvec(aside.global_orient).apply([0, 0, 1]).mean(0)
    assert front[0] > 0.98 * np.linalg.norm(front)
    np.testing.assert_allclose(aside.transl[:, 0], ahead.transl[:, 2], atol=1e-6)


def test_both_hands_rise_overhead_and_then_the_right_one_waves():
    poses = arms(150).full_pose
    at = [skeleton(pose) for pose in poses]
    both = np.array([min(a["left_wrist"][1], a["right_wrist"][1]) - a["head"][1] for a in at])
    assert both.max() > 0
    left = np.array([a["left_wrist"][1] - a["left_shoulder"][1] for a in at])
    right = np.array([a["right_wrist"][1] - a["right_shoulder"][1] for a in at])
    waving = (right > 0.2) & (left < -0.5)
    assert waving.sum() > 20 and np.flatnonzero(waving)[0] > both.argmax()
