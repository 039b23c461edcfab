"""Posed Gaussians against a float64 twin that shares nothing with the kernel but the definition."""

import numpy as np
from scipy.spatial.transform import Rotation

from svad_ray.splat.kernels.posing import pose_gaussians

COUNT, JOINTS, INFLUENCES = 300, 7, 3


def test_centres_and_orientations_are_those_of_the_blended_transforms() -> None:
    """Rest orientations anywhere, so that each component of the quaternion is the largest of some; a part of the rows is left alone."""
    rng = np.random.default_rng(0)
    skin = np.concatenate([Rotation.random(JOINTS, rng=rng).as_matrix(), rng.normal(0, 1, (JOINTS, 3, 1))], 2)
    skin[:, :, :3] = Rotation.from_rotvec(rng.normal(0, 0.4, (JOINTS, 3))).as_matrix()  # neighbours of a body do not turn against each other
    rest, points = Rotation.random(COUNT, rng=rng), rng.normal(0, 1, (COUNT, 3))
    joints = np.stack([rng.permutation(JOINTS)[:INFLUENCES] for _ in range(COUNT)]).astype(np.uint8)
    weights = rng.dirichlet(np.ones(INFLUENCES), COUNT)
    blended = (weights[..., None, None] * skin[joints]).sum(1)
    centres = np.einsum("nij,nj->ni", blended[..., :3], points) + blended[..., 3]
    turned = blended[..., :3] @ rest.as_matrix()
    x = turned[..., 0] / np.linalg.norm(turned[..., 0], axis=1, keepdims=True)
    z = turned[..., 2] - (turned[..., 2] * x).sum(1, keepdims=True) * x
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    expected = np.stack([x, np.cross(z, x), z], 2)

    axes = rest.as_matrix()[..., [0, 2]].transpose(0, 2, 1).reshape(COUNT, 6)
    given = [np.ascontiguousarray(a, np.float32) for a in (points, axes)]
    rows, shares = np.ascontiguousarray(skin.reshape(JOINTS, 12), np.float32), weights.astype(np.float32)
    means, quats = np.full((COUNT, 3), np.nan, np.float32), np.full((COUNT, 4), np.nan, np.float32)
    pose_gaussians(10, COUNT, *given, joints, shares, rows, means, quats)
    assert np.isnan(means[:10]).all() and np.isnan(quats[:10]).all()
    np.testing.assert_allclose(means[10:], centres[10:], atol=2e-6)
    np.testing.assert_allclose(np.linalg.norm(quats[10:], axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(Rotation.from_quat(quats[10:, [1, 2, 3, 0]]).as_matrix(), expected[10:], atol=5e-6)
    assert set(np.abs(quats[10:]).argmax(1)) == {0, 1, 2, 3}
