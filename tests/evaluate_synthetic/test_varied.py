"""The harder people: what hangs free of the body, light that stands in the world, cameras from above; the simple ones stay as they were."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from svad_ray.evaluate.synthetic import A_POSE, PEOPLE, build, random_person, render
from svad_ray.evaluate.synthetic.render import Light, turntable
from svad_ray.evaluate.synthetic.varied import KINDS, varied_light, varied_person, varied_pose
from svad_ray.geometry.raster import project, to_camera

pytestmark = pytest.mark.models


def test_a_harder_person_is_its_seed_and_no_simple_one():
    assert varied_person(4) == varied_person(4) != varied_person(7)
    assert varied_light(2) == varied_light(2) != varied_light(3) and varied_pose(2) == varied_pose(2) != varied_pose(5)
    assert {varied_person(k).name.split()[0] for k in range(3)} == set(KINDS)
    assert all(p.coat is None and p.bottom.flare == 0 and p.hair.volume == 1 for p in (*PEOPLE, random_person(5)))


@pytest.fixture(scope="module")
def dressed():
    return {kind: build(varied_person(k)) for k, kind in enumerate(KINDS)}


@pytest.mark.slow
def test_a_flared_skirt_stands_off_the_legs(dressed):
    flat = build(replace(varied_person(1), bottom=replace(varied_person(1).bottom, flare=0.0, folds=0.0)))
    skirt, plain = (next(m.vertices for m in c.meshes if m.name == "bottom") for c in (dressed["dress"], flat))
    low = plain[:, 1] < np.quantile(plain[:, 1], 0.1)
    assert skirt.shape == plain.shape
    off = np.linalg.norm((skirt - plain)[low], axis=1)
    assert 0.02 < off.min() < off.max() < 0.25 and off.std() > 0.002, "out everywhere at the hem, in folds"


@pytest.mark.slow
def test_a_coat_hangs_open_below_the_waist(dressed):
    coat = next(m for m in dressed["coat"].meshes if m.name == "coat")
    front = (np.abs(coat.vertices[:, 0]) < 0.03) & (coat.vertices[:, 2] > 0.05)
    assert not front.any() and coat.vertices[:, 1].min() < -0.35
    np.testing.assert_allclose(coat.lbs_weights.sum(1), 1, atol=1e-9)


@pytest.mark.slow
def test_big_hair_widens_the_outline():
    person = varied_person(2)
    big, small = (render(build(replace(person, hair=replace(person.hair, volume=v))), A_POSE, size=(128, 128), supersample=1) for v in (3.5, 1.0))
    head = slice(0, int(big.keypoints2d[15, 1]))  # above the head's joint
    assert big.mask[head].sum() > 1.25 * small.mask[head].sum()


@pytest.mark.slow
def test_a_fixed_lamp_stays_while_the_camera_goes_round(dressed):
    above = render(dressed["hair"], A_POSE, pitch=0.5, size=(64, 64), supersample=1)
    np.testing.assert_allclose(project(to_camera(above.joints3d, above.viewmat), above.K), above.keypoints2d)
    lamp = Light((1.0, 0.0, 0.0), power=0.8, ambient=0.2)  # on the person's left
    character = dressed["hair"]
    left, right = (render(character, A_POSE, yaw=yaw, size=(96, 96), supersample=1, light=lamp) for yaw in (-np.pi / 2, np.pi / 2))
    bright, dark = (v.image[v.mask > 0.5].mean() for v in (left, right))
    assert bright > 1.5 * dark
    with_camera = Light((0.0, 0.0, -1.0), power=0.8, ambient=0.2, fixed=False)
    a, b = (
        v.image[v.mask > 0.5].mean() for v in (render(character, A_POSE, yaw=y, size=(96, 96), supersample=1, light=with_camera) for y in (0, np.pi))
    )
    assert abs(a - b) < 0.25 * a


def test_a_camera_from_above_keeps_the_middle_and_the_truth():
    level, above = turntable(0.4, 1.0), turntable(0.4, 1.0, pitch=0.5)
    middle = np.array([[0.0, 1.0, 0.0]])
    np.testing.assert_allclose(to_camera(middle, level), [[0, 0, 3.4]], atol=1e-12)
    np.testing.assert_allclose(to_camera(middle, above), [[0, 0, 3.4]], atol=1e-12)
    centre = -above[:3, :3].T @ above[:3, 3]
    assert centre[1] == pytest.approx(1.0 + 3.4 * np.sin(0.5)) and np.linalg.det(above[:3, :3]) == pytest.approx(1)
    np.testing.assert_array_equal(turntable(0.4, 1.0, pitch=0.0), level)
