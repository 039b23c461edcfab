"""People-Snapshot's poses on an avatar, and the refinement of test poses, on an avatar of a few hundred Gaussians."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from svad_ray.body.names import PARENTS
from svad_ray.evaluate.snapshot import Sequence, SmplPoses
from svad_ray.geometry.raster import project, to_camera
from svad_ray.protocols.refine import Refinement, draw, refined
from svad_ray.protocols.snapshot import SMPL_PELVIS
from svad_ray.protocols.snapshot import test_track as track_over_test_frames
from svad_ray.stages.avatar.asset import PosableAvatar
from svad_ray.subject import Avatar, BodyTrack

SIDE = 64


def track(count=1) -> BodyTrack:
    zeros = np.zeros((count, 3), np.float32)
    camera = np.diag([1.0, -1.0, -1.0, 1.0]).astype(np.float32)
    camera[:3, 3] = [0.1, 0.3, 3.0]
    K = np.array([[90, 0, 32], [0, 90, 32], [0, 0, 1]], np.float32)
    hands = np.zeros((count, 15, 3), np.float32)
    return BodyTrack(
        np.zeros(10, np.float32), zeros, np.zeros((count, 21, 3), np.float32), hands, hands, zeros, zeros, zeros, np.zeros((count, 10), np.float32),
        zeros + np.float32([0.05, 0.2, 0.0]), np.repeat(camera[None], count, 0), np.repeat(K[None], count, 0), (SIDE, SIDE), 30.0, "b",
    )  # fmt: skip


@pytest.fixture(scope="module")
def avatar() -> Avatar:
    """A skeleton of random bones with a cloud of flat Gaussians round every joint."""
    rng = np.random.default_rng(0)
    joints = np.zeros((55, 3), np.float32)
    for j, parent in enumerate(PARENTS):
        joints[j] = [0, -0.3, 0.02] if parent < 0 else joints[parent] + rng.normal(0, 0.08, 3)
    at = np.repeat(np.arange(55), 8)
    count = len(at)
    tensors = {
        "means": (joints[at] + rng.normal(0, 0.03, (count, 3))).astype(np.float32),
        "quats": rng.normal(0, 1, (count, 4)).astype(np.float32),
        "scales": np.full((count, 3), 0.02, np.float32) * [1, 1, 0.25],
        "opacities": np.full(count, 0.9, np.float32),
        "colors": rng.random((count, 3)).astype(np.float32),
        "lbs_joints": np.stack([at, np.maximum(np.array(PARENTS)[at], 0), *[np.zeros_like(at)] * 4], 1).astype(np.uint8),
        "lbs_weights": np.tile(np.float32([0.8, 0.2, 0, 0, 0, 0]), (count, 1)),
        "rest_joints": joints,
        "hands_mean": rng.normal(0, 0.1, (2, 45)).astype(np.float32),
        "parents": np.asarray(PARENTS, np.int32),
    }
    tensors["scales"] = tensors["scales"].astype(np.float32)
    return Avatar("gaussian", tensors, track())


def sequence(numbers, thetas, transl, turn=(0.0, 0.2, 0.0)) -> Sequence:
    viewmat = np.eye(4)
    viewmat[:3, :3], viewmat[:3, 3] = Rotation.from_rotvec(turn).as_matrix(), [0.0, 0.1, 0.4]
    K = np.array([[70.0, 0, 30], [0, 70, 33], [0, 0, 1]])
    images = np.zeros((len(numbers), SIDE, SIDE, 3), np.uint8)
    return Sequence("s", numbers, images, images[..., 0].astype(np.float32), K, viewmat, SmplPoses(thetas, transl), "poses.npz")


def test_the_root_moves_as_smpls_does(avatar):
    """In the photo's own frame the pelvis is on its pixel with the fit's size; from there it moves by SMPL's steps, in true metres."""
    rng = np.random.default_rng(1)
    thetas, transl = 0.2 * rng.standard_normal((3, 24, 3)), np.array([[0.0, 0.0, 2.5], [0.0, 0.0, 2.5], [0.3, -0.1, 2.9]])
    thetas[1] = thetas[0]
    first = sequence([0], thetas[:1], transl[:1])
    test = sequence([8, 9], thetas[1:], transl[1:])
    made = SimpleNamespace(avatar=avatar, photo_track=track())
    found = track_over_test_frames(made, first, test)
    rest = avatar.tensors["rest_joints"][0].astype(float)
    fit = track()
    seen = to_camera((rest + fit.transl[0])[None].astype(float), fit.viewmats[0].astype(float))[0]
    pixel = project(seen[None], fit.Ks[0].astype(float))[0]
    pelvis = rest + found.transl  # the world is the camera's
    np.testing.assert_allclose(project(pelvis[:1], first.K)[0], pixel, atol=1e-3)
    assert first.K[0, 0] / pelvis[0, 2] == pytest.approx(fit.Ks[0, 0, 0] / seen[2], rel=1e-5), "pixels a metre of the avatar"
    depth = to_camera((transl[0] + SMPL_PELVIS)[None], first.viewmat)[0, 2]
    step = (pelvis[1] - pelvis[0]) * depth / pelvis[0, 2]
    np.testing.assert_allclose(step, first.viewmat[:3, :3] @ (transl[2] - transl[1]), atol=1e-5)
    np.testing.assert_allclose(found.body_pose, thetas[1:, 1:22], atol=1e-6)
    root = Rotation.from_rotvec(found.global_orient[0]).as_matrix()
    np.testing.assert_allclose(root, first.viewmat[:3, :3] @ Rotation.from_rotvec(thetas[1, 0]).as_matrix(), atol=1e-6)


def test_the_differentiable_picture_is_the_avatars(avatar):
    import torch

    posable, one = PosableAvatar(avatar), track()
    pose = one.full_pose[0].copy()
    pose[[0, 3, 16]] = [[0.1, 0.3, 0], [0.2, 0, 0.1], [0, 0.3, 0.4]]
    one = one.with_full_pose(pose[None])
    image, alpha = draw(posable, torch.tensor(pose), torch.tensor(one.transl[0]), one)
    theirs = posable.render(one, 0)
    np.testing.assert_allclose(image.numpy(), theirs[0], atol=2e-3)
    np.testing.assert_allclose(alpha.numpy(), theirs[1], atol=2e-3)
    assert 0.02 < theirs[1].mean() < 0.9


def test_refinement_finds_a_place_that_was_moved(avatar):
    posable, true = PosableAvatar(avatar), track()
    image, alpha = posable.render(true, 0)
    moved = replace(true, transl=true.transl + np.float32([[0.02, -0.015, 0.0]]))
    found = refined(posable, moved, image[None], alpha[None], Refinement(steps=15, rate=0.003))
    before, after = (np.abs(posable.render(t, 0)[0] - image).mean() for t in (moved, found))
    assert after < 0.5 * before
    untouched = refined(posable, moved, image[None], alpha[None], Refinement(steps=0))
    np.testing.assert_allclose(untouched.transl, moved.transl)
    assert "refined on each test picture (15 steps" in str(Refinement(steps=15))
