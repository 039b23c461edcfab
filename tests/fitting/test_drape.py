"""The side profile that people usually have: told by rings, learned by least squares, measured by depth maps."""

import numpy as np
import pytest
import torch

from benchmarks.drape import Profile, lacking
from svad_ray.fitting.drape import FARTHEST, SHAPES, Drape, load_drape, usual_drape
from svad_ray.fitting.silhouette import shaped
from svad_ray.geometry.mesh import vertex_normals


@pytest.fixture(scope="module")
def profile(body):
    return Profile(body)


def some_drape(rng, rings):
    return Drape(rng.normal(0, 0.004, (2, rings, 2, 1 + SHAPES)))


def test_the_outline_from_the_front_is_left_alone(profile):
    drape = some_drape(np.random.default_rng(0), profile.rings.shape[1])
    step = drape(profile.rings, profile.normal_z, np.zeros(20), skirt=False)
    rim = np.abs(profile.normal_z) < 0.02
    assert rim.sum() > 100 and np.abs(step[rim]).max() < 0.002 < np.abs(step).max() <= FARTHEST


def test_a_skirt_has_numbers_of_its_own_and_so_have_shapes(profile):
    drape = some_drape(np.random.default_rng(1), profile.rings.shape[1])
    step = [drape(profile.rings, profile.normal_z, betas, skirt=skirt) for betas in (np.zeros(10), np.eye(10)[2]) for skirt in (False, True)]
    assert all(np.abs(a - b).max() > 0.001 for i, a in enumerate(step) for b in step[:i])
    without = np.zeros((2, profile.rings.shape[1], 2, 1 + SHAPES))
    without[1] = drape.coefficients[1]
    assert not Drape(without)(profile.rings, profile.normal_z, np.ones(10), skirt=False).any()


def test_a_ring_moves_its_own_height_to_its_own_side(profile, body):
    coefficients = np.zeros((2, profile.rings.shape[1], 2, 1 + SHAPES))
    ring = int(np.argmax(np.asarray(profile.rings[body.tables.vertex["nose"]].todense()).ravel()))
    coefficients[0, ring, 0, 0] = 0.01
    step = Drape(coefficients)(profile.rings, profile.normal_z, np.zeros(10), skirt=False)
    moved, height = step > 1e-4, body.v_template.numpy()[:, 1]
    assert moved.any() and (profile.normal_z[moved] > 0).all() and np.ptp(height[moved]) < 0.07
    assert (step >= 0).all() and step.max() <= 0.01 + 1e-6


def test_what_was_put_in_is_learned_from_people_of_other_shapes(profile):
    rng = np.random.default_rng(2)
    coefficients, betas = rng.normal(0, 0.003, (profile.rings.shape[1], 2, 1 + SHAPES)), rng.normal(0, 1, (40, 10))
    coefficients[..., 1:] *= 0.3
    steps = profile(coefficients, betas)
    noisy = steps + rng.normal(0, 0.002, steps.shape)
    noisy[rng.random(steps.shape) < 0.2] = np.nan
    learned = profile.fit(noisy[:35], betas[:35])
    left_out = profile(learned, betas[35:]) - steps[35:]
    assert np.sqrt((left_out**2).mean()) < 0.35 * np.sqrt((steps[35:] ** 2).mean())


def test_what_a_fit_lacks_is_read_off_the_depth_maps(body):
    """The truth is the body itself, a centimetre deeper on both sides, larger by a tenth and with longer arms: only the depth is told."""
    betas = np.zeros(20, np.float32)
    rest = shaped(body, torch.tensor(betas)).numpy()
    normal_z = vertex_normals(body.v_template, torch.as_tensor(body.faces)).numpy()[:, 2]
    truth = 1.1 * (rest + np.array([0, 0, 0.01]) * np.sign(normal_z)[:, None])
    joints = 1.1 * (body.J_regressor.numpy() @ rest)
    step = lacking(body, betas, np.zeros_like(rest), (truth, body.faces, joints), 1.1)
    w = body.lbs_weights.numpy()
    torso = (w[:, [0, 3, 6]].sum(1) > 0.9) & (np.abs(normal_z) > 0.8)
    assert torso.sum() > 100
    assert np.nanmedian(np.abs(step[torso] - 0.01 * np.sign(normal_z[torso]))) < 0.003


def test_the_table_is_kept_to_a_tenth_of_a_millimetre(tmp_path, profile):
    drape = some_drape(np.random.default_rng(3), profile.rings.shape[1])
    drape.save(tmp_path / "d.npz")
    assert np.abs(load_drape(tmp_path / "d.npz").coefficients - drape.coefficients).max() < 1e-4


def test_the_packages_table_hangs_trousers_from_the_bottom_past_the_hollow_of_the_knee(profile, body):
    step = usual_drape()(profile.rings, profile.normal_z, np.zeros(20), skirt=False)
    joints, height = (body.J_regressor @ body.v_template).numpy()[:, 1], body.v_template.numpy()[:, 1]
    behind, legs = profile.normal_z < -0.6, body.lbs_weights.numpy()[:, [1, 2, 4, 5]].sum(1) > 0.7
    hollow = behind & legs & (height > joints[4]) & (height < 0.6 * joints[4] + 0.4 * joints[1])
    calf = behind & legs & (height < 0.6 * joints[4] + 0.4 * joints[7]) & (height > joints[7])
    assert hollow.sum() > 20 and step[hollow].mean() < -0.005
    assert calf.sum() > 20 and step[calf].mean() > 0.003
