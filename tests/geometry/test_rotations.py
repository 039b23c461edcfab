import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import savgol_filter
from scipy.spatial.transform import Rotation

from svad_ray.geometry.rotations import continuous_quats, frames_from_normals, orthonormal, quats_from_matrices, smooth_rotations

angle = st.floats(-3.1, 3.1)


@given(angle, angle, angle)
def test_quaternions_give_back_the_matrix(x, y, z):
    r = Rotation.from_rotvec([x, y, z])
    q = quats_from_matrices(torch.tensor(r.as_matrix()[None])).numpy()[0]
    assert np.allclose(Rotation.from_quat(q[[1, 2, 3, 0]]).as_matrix(), r.as_matrix(), atol=1e-7)


def test_half_turns_are_stable():
    for axis in np.eye(3):
        m = Rotation.from_rotvec(np.pi * axis).as_matrix()
        q = quats_from_matrices(torch.tensor(m[None])).numpy()[0]
        assert np.allclose(Rotation.from_quat(q[[1, 2, 3, 0]]).as_matrix(), m, atol=1e-7)


def test_orthonormal_gives_rotations_and_keeps_them():
    r = torch.tensor(Rotation.random(20, rng=np.random.default_rng(0)).as_matrix())
    assert torch.allclose(orthonormal(r), r, atol=1e-7)
    bent = orthonormal(r + 0.1 * torch.ones(3, 3, dtype=r.dtype))
    assert torch.allclose(bent @ bent.transpose(1, 2), torch.eye(3, dtype=r.dtype).expand(20, 3, 3), atol=1e-7)
    assert torch.allclose(torch.linalg.det(bent), torch.ones(20, dtype=r.dtype))


def test_frames_have_the_normal_as_third_column():
    n = torch.nn.functional.normalize(torch.randn(30, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    f = frames_from_normals(n)
    assert torch.allclose(f[:, :, 2], n) and torch.allclose(torch.linalg.det(f), torch.ones(30), atol=1e-5)


def test_a_full_turn_has_no_sign_jump_and_survives_smoothing():
    yaw = np.linspace(0, 2 * np.pi, 60)
    aa = Rotation.from_rotvec(np.stack([0 * yaw, yaw, 0 * yaw], 1)).as_rotvec()
    q = continuous_quats(aa)
    assert ((q[1:] * q[:-1]).sum(1) > 0.9).all()
    smooth = Rotation.from_rotvec(smooth_rotations(aa)).as_matrix()
    assert np.abs(smooth - Rotation.from_rotvec(aa).as_matrix()).max() < 2e-3


def test_small_rotations_smooth_like_scipy_on_the_vectors():
    noise = np.random.default_rng(1).normal(0, 1e-3, (40, 3))
    assert np.allclose(smooth_rotations(noise), savgol_filter(noise, 9, 2, axis=0), atol=1e-7)


def test_short_tracks_are_returned_unchanged():
    aa = np.random.default_rng(2).normal(size=(5, 4, 3))
    assert smooth_rotations(aa) is aa
