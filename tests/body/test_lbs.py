"""Skinning arithmetic against closed forms, SciPy and a plain loop over the chain."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from svad_ray.body.lbs import blend_transforms, forward_kinematics, rest_joints, rotation_matrices, skin_points
from svad_ray.body.model import Body
from svad_ray.body.names import PARENTS


@settings(max_examples=60, deadline=None)
@given(st.tuples(*[st.floats(-6, 6)] * 3), st.sampled_from([1.0, 1e-2, 1e-3, 1e-5, 1e-12, 0.0]))
def test_rotations_equal_scipy(vector: tuple[float, float, float], scale: float) -> None:
    r = np.array(vector) * scale
    np.testing.assert_allclose(rotation_matrices(torch.tensor(r)), Rotation.from_rotvec(r).as_matrix(), atol=1e-13)


def test_rotations_equal_the_recorded_ones(recorded: dict[str, np.ndarray]) -> None:
    got = rotation_matrices(torch.tensor(recorded["rodrigues_in"]))
    np.testing.assert_allclose(got, recorded["rodrigues_out"], atol=1e-6)


@pytest.mark.parametrize("size", [0.0, 1e-9, 3.1e-3, 3.2e-3, 1.0, 3.1])
def test_rotations_are_smooth(size: float) -> None:
    r = (torch.tensor([0.6, -0.64, 0.48], dtype=torch.float64) * size).requires_grad_()
    assert torch.autograd.gradcheck(rotation_matrices, (r,), eps=1e-6, atol=1e-8)
    assert torch.autograd.gradgradcheck(rotation_matrices, (r,), eps=1e-6, atol=1e-7)


def test_derivative_at_zero_is_the_skew_matrix() -> None:
    jacobian = torch.autograd.functional.jacobian(rotation_matrices, torch.zeros(3, dtype=torch.float64))
    levi_civita = np.zeros((3, 3, 3))
    for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        levi_civita[i, j, k], levi_civita[j, i, k] = -1, 1
    np.testing.assert_array_equal(jacobian, levi_civita)


def chain(rotations: np.ndarray, joints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Homogeneous matrices multiplied joint by joint in float64."""
    world = np.zeros((55, 4, 4))
    for j, parent in enumerate(PARENTS):
        local = np.eye(4)
        local[:3, :3], local[:3, 3] = rotations[j], joints[j] - (joints[parent] if parent >= 0 else 0)
        world[j] = local if parent < 0 else world[parent] @ local
    return world, np.stack([w @ np.block([[np.eye(3), -p[:, None]], [np.zeros((1, 3)), np.ones((1, 1))]]) for w, p in zip(world, joints)])


def test_kinematics_equal_a_plain_chain() -> None:
    rng = np.random.default_rng(0)
    joints, pose = rng.normal(size=(2, 55, 3)), rng.normal(size=(2, 55, 3))
    rotations = rotation_matrices(torch.tensor(pose))
    world, posed, skin = forward_kinematics(rotations, torch.tensor(joints), PARENTS)
    for b in range(2):
        expected, transform = chain(Rotation.from_rotvec(pose[b]).as_matrix(), joints[b])
        np.testing.assert_allclose(world[b], expected[:, :3, :3], atol=1e-12)
        np.testing.assert_allclose(posed[b], expected[:, :3, 3], atol=1e-12)
        np.testing.assert_allclose(skin[b], transform[:, :3], atol=1e-12)


def test_one_rest_serves_a_batch_of_poses() -> None:
    rotations, joints = rotation_matrices(torch.randn(3, 55, 3)), torch.randn(1, 55, 3)
    one = forward_kinematics(rotations, joints, torch.tensor(PARENTS))
    many = forward_kinematics(rotations, joints.expand(3, -1, -1), np.array(PARENTS))
    assert all(torch.equal(a, b) for a, b in zip(one, many))


def test_skinning_equals_a_plain_sum() -> None:
    rng = np.random.default_rng(1)
    points, skin, weights = rng.normal(size=(7, 3)), rng.normal(size=(2, 55, 3, 4)), rng.dirichlet(np.ones(55), 7)
    got = skin_points(torch.tensor(points), torch.tensor(weights), torch.tensor(skin))
    expected = sum(weights[None, :, j, None] * (points @ skin[:, j, :, :3].transpose(0, 2, 1) + skin[:, None, j, :, 3]) for j in range(55))
    np.testing.assert_allclose(got, expected, atol=1e-12)
    per_frame = skin_points(torch.tensor(np.stack([points, points])), torch.tensor(weights), torch.tensor(skin))
    assert torch.equal(got, per_frame)
    np.testing.assert_allclose(blend_transforms(torch.tensor(weights), torch.tensor(skin)), np.einsum("nj,bjrc->bnrc", weights, skin), atol=1e-12)


def test_rest_joints_equal_the_regressed_mesh(golden_body: Body) -> None:
    body, generator = golden_body.to(torch.float64), torch.Generator().manual_seed(0)
    betas, expression = torch.randn(2, 30, generator=generator).double(), torch.randn(2, 10, generator=generator).double()
    mesh = body.v_template + (body.shapedirs[..., :30] @ betas.T + body.exprdirs[..., :10] @ expression.T).permute(2, 0, 1)
    got = rest_joints(body, betas, expression)
    np.testing.assert_allclose(got, body.J_regressor @ mesh, atol=1e-12)
    np.testing.assert_allclose(rest_joints(body, betas[0], expression[0]), got[0], atol=1e-14)
