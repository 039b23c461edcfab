"""The light of a photo against a light that is known."""

import numpy as np

from svad_ray.stages.animate.shading import fit_shading


def lit(log_light, *, seed=0, count=6000):
    """Points that face the camera, half of them one cloth and half another with stripes, under exp(log_light(normals))."""
    rng = np.random.default_rng(seed)
    normals = rng.normal(size=(count, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    normals[:, 2] = -np.abs(normals[:, 2])
    part = np.arange(count) % 2
    albedo = np.where(part[:, None] == 0, [0.5, 0.2, 0.2], [0.2, 0.3, 0.55])
    albedo = albedo * np.where((part == 1) & (rng.random(count) < 0.3), 0.6, 1.0)[:, None]
    return albedo * np.exp(log_light(normals))[:, None], normals, part


def side(normals):
    return 0.45 * normals[:, 0] - 0.1 * normals[:, 1] - 0.15 * normals[:, 0] ** 2


def test_a_light_from_the_side_is_found_through_the_clothes():
    color, normals, part = lit(side)
    found = fit_shading(color, normals, part, np.ones(len(part)))(normals)
    want = side(normals)
    assert np.abs((found - found.mean()) - (want - want.mean())).max() < 0.12
    assert np.corrcoef(found, want)[0, 1] > 0.99


def test_the_back_is_lit_as_the_front_beside_it():
    color, normals, part = lit(side)
    light = fit_shading(color, normals, part, np.ones(len(part)))
    assert np.allclose(light(normals), light(normals * [1, 1, -1]))


def test_stripes_under_even_light_are_no_light():
    color, normals, part = lit(lambda n: 0 * n[:, 0], seed=1)
    assert np.abs(fit_shading(color, normals, part, np.ones(len(part)))(normals)).max() < 0.03


def test_too_little_to_see_changes_nothing():
    color, normals, part = lit(side, count=100)
    assert not fit_shading(color, normals, part, np.ones(100))(normals).any()
    assert not fit_shading(color * 0, normals, part, np.ones(100))(normals).any()
