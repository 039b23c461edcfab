"""From a motion's file to Gaussians: faces and fingers move by what the file says, and neighbours stay."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from svad_ray.body.model import Body
from svad_ray.body.names import JOINT_INDEX
from svad_ray.deliver import danced
from svad_ray.motion import blank_track
from svad_ray.stages.avatar.asset import PosableAvatar
from svad_ray.subject import Avatar

INDEX = JOINT_INDEX["left_index1"]
ON = {"face": JOINT_INDEX["head"], "finger": INDEX, "other": JOINT_INDEX["right_index1"]}


@pytest.fixture(scope="module")
def body(golden_body) -> Body:
    return golden_body


@pytest.fixture(scope="module")
def avatar(body) -> Avatar:
    """Three Gaussians, each on one joint: on the face (which expressions move), on a left finger, on a right finger."""
    joints = body.forward(betas=torch.zeros(1, 10), face_contour=False).rest_joints[0].numpy()
    count = len(ON)
    tensors = {
        "means": joints[list(ON.values())] + np.float32([[0, 0.05, 0.08], [0.03, 0, 0], [-0.03, 0, 0]]),
        "quats": np.tile(np.float32([1, 0, 0, 0]), (count, 1)),
        "scales": np.full((count, 3), 0.01, np.float32),
        "opacities": np.full(count, 0.9, np.float32),
        "colors": np.eye(3, dtype=np.float32),
        "lbs_joints": np.array(list(ON.values()), np.uint8)[:, None],
        "lbs_weights": np.ones((count, 1), np.float32),
        "rest_joints": joints,
        "hands_mean": body.hands_mean.numpy(),
        "parents": np.asarray(body.parents, np.int32),
        "expr_index": np.array([0], np.int32),
        "expr_dirs": np.random.default_rng(0).normal(0, 0.01, (1, 3, 10)).astype(np.float32),
    }
    return Avatar("gaussian", tensors, replace(blank_track(np.zeros((1, 55, 3)), fps=25.0), body_id=body.id))


def posed(avatar: Avatar, body: Body, path) -> np.ndarray:
    """(3, 3) centres of the file's first frame, on this person; the pelvis' own path taken out."""
    track = danced(avatar, str(path), body)
    return PosableAvatar(avatar).posed(track, 0).means.numpy() - track.transl[0]


def write(path, **arrays):
    poses = arrays.pop("poses", np.zeros((2, 165)))
    np.savez(path, poses=poses, trans=np.zeros((2, 3)), fps=25.0, **arrays)


def test_an_expression_in_the_file_moves_the_face_by_its_directions(avatar, body, tmp_path):
    coefficients = np.array([1.5, 0, -2, 0, 0, 0.5, 0, 0, 0, 1.0])
    write(tmp_path / "still.npz")
    write(tmp_path / "smile.npz", expression=np.tile(coefficients, (2, 1)))
    moved = posed(avatar, body, tmp_path / "smile.npz") - posed(avatar, body, tmp_path / "still.npz")
    np.testing.assert_allclose(moved[0], avatar.tensors["expr_dirs"][0] @ coefficients, atol=1e-6)  # the head is upright: no turn between
    np.testing.assert_allclose(moved[1:], 0, atol=1e-7)


def test_a_finger_in_the_file_turns_about_its_joint(avatar, body, tmp_path):
    poses = np.zeros((2, 165))
    poses[:, 3 * INDEX : 3 * INDEX + 3] = [0.1, -0.2, -0.9]
    write(tmp_path / "still.npz")
    write(tmp_path / "point.npz", poses=poses)
    still, point = posed(avatar, body, tmp_path / "still.npz"), posed(avatar, body, tmp_path / "point.npz")
    # Without any pose the arm is as at rest, so the finger's Gaussian turns about the finger's own joint by the file's rotation alone.
    expected = avatar.tensors["rest_joints"][INDEX] + Rotation.from_rotvec(poses[0, 3 * INDEX :][:3]).apply([0.03, 0, 0])
    np.testing.assert_allclose(point[1], expected, atol=1e-6)
    assert np.abs(point[1] - still[1]).max() > 0.015
    np.testing.assert_allclose(point[[0, 2]], still[[0, 2]], atol=1e-7)


def test_faces_and_fingers_move_in_the_frames_of_a_video(avatar, body, tmp_path):
    """The red Gaussian lies on the face, the green one on the left finger."""
    poses, expression = np.zeros((2, 165)), np.zeros((2, 10))
    poses[1, 3 * INDEX : 3 * INDEX + 3], expression[1, 2] = [0, 0, -1.4], 12.0
    write(tmp_path / "both.npz", poses=poses, expression=expression)
    track = danced(avatar, str(tmp_path / "both.npz"), body, size=256)
    big = replace(avatar, tensors={**avatar.tensors, "scales": np.full((3, 3), 0.02, np.float32)})
    first, second = (1.0 - frame / 255 for frame in PosableAvatar(big).frames_of(track))  # white ground becomes nothing
    shares = {"red": (1, 2), "green": (0, 2), "blue": (0, 1)}  # a colour's ink is what it takes from the other channels
    for name, others in shares.items():
        ink = [np.minimum(frame[..., others[0]], frame[..., others[1]]) for frame in (first, second)]
        centre = [np.array(np.nonzero(i > 0.2)).mean(1) for i in ink]
        assert (np.linalg.norm(centre[1] - centre[0]) > 1.0) == (name != "blue"), name
