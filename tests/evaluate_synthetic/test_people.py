"""Whole characters: determinism, dress without holes, and the truth that comes with a picture."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import binary_fill_holes, label

from svad_ray.body.names import JOINT_INDEX
from svad_ray.evaluate.synthetic import A_POSE, PEOPLE, STEP, VIEWS, WALK, build, random_person, render
from svad_ray.evaluate.synthetic.mannequin import makehuman

pytestmark = pytest.mark.models


def test_the_cast_is_varied() -> None:
    assert len(PEOPLE) >= 6
    assert len({p.name for p in PEOPLE}) == len(PEOPLE)
    assert {p.bottom.kind for p in PEOPLE} == {"trousers", "skirt"}
    assert np.ptp([sum(p.skin) for p in PEOPLE]) > 1


def test_a_random_person_is_its_seed() -> None:
    assert random_person(5) == random_person(5)
    assert len({random_person(seed).skin for seed in range(20)}) == 20


def test_building_is_deterministic(characters) -> None:
    again = build(PEOPLE[0])
    np.testing.assert_array_equal(again.posed(WALK), characters[0].posed(WALK))
    np.testing.assert_array_equal(render(again, WALK, size=(96, 96)).image, render(characters[0], WALK, size=(96, 96)).image)


def test_weights_and_coordinates_are_whole(characters) -> None:
    for character in characters:
        for mesh in character.meshes:
            np.testing.assert_allclose(mesh.lbs_weights.sum(1), 1, atol=1e-9)
            assert mesh.faces.max() < len(mesh.vertices) and mesh.coord_faces.max() < len(mesh.coords)
            assert np.isfinite(mesh.coords).all() and np.isfinite(mesh.vertices).all()


@pytest.mark.parametrize("pose", [A_POSE, WALK], ids=["a", "walk"])
@pytest.mark.parametrize("yaw", VIEWS.values(), ids=VIEWS)
def test_a_person_is_one_piece_inside_the_picture(characters, pose, yaw) -> None:
    for character in characters:
        mask = render(character, pose, yaw=yaw, size=(256, 256), supersample=2).mask > 0.5
        assert label(mask, np.ones((3, 3)))[1] == 1
        assert not (mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())
        rows = np.flatnonzero(mask.any(1))
        assert 0.75 < (rows[-1] - rows[0] + 1) / 256 < 0.92
        assert (binary_fill_holes(mask) & ~mask).sum() < 0.03 * mask.sum()  # only what limbs enclose


def test_a_step_has_both_feet_on_one_ground(characters) -> None:
    for character in characters:
        feet = []
        for pose in (STEP, WALK):
            x, y, _ = character.posed(pose).T
            feet.append(abs(y[x > 0.03].min() - y[x < -0.03].min()))
        assert feet[0] < 0.015 and feet[1] > 0.02  # WALK's front foot is in the air


def test_no_skin_shows_inside_the_shirt(characters) -> None:
    """The chest and belly of person 0 are red or white stripes: no pixel has the skin's hue."""
    view = render(characters[0], A_POSE)
    left, right = (view.keypoints2d[JOINT_INDEX[f"{side}_shoulder"]] for side in ("left", "right"))
    hip = view.keypoints2d[JOINT_INDEX["pelvis"]]
    patch = view.image[int(left[1]) + 8 : int(hip[1]) - 2, int(right[0]) + 8 : int(left[0]) - 8].reshape(-1, 3).astype(float)
    red, green, blue = patch.T
    skin = (np.abs(green / red - 0.68 / 0.87) < 0.06) & (np.abs(blue / red - 0.56 / 0.87) < 0.06)
    assert len(patch) > 1500
    assert skin.mean() < 0.02  # where a stripe's edge is averaged


def test_joints_project_inside_the_limbs(characters) -> None:
    view = render(characters[0], A_POSE)
    for name in ("left_elbow", "right_knee", "left_ankle", "spine2", "head"):
        x, y = view.keypoints2d[JOINT_INDEX[name]].astype(int)
        assert view.mask[y, x] > 0.9
    assert view.keypoints2d[JOINT_INDEX["left_wrist"], 0] > 256 > view.keypoints2d[JOINT_INDEX["right_wrist"], 0]


def test_depth_is_a_little_nearer_than_the_joints(characters) -> None:
    view = render(characters[0], A_POSE)
    z = (view.joints3d @ view.viewmat[:3, :3].T + view.viewmat[:3, 3])[:, 2]
    for name in ("spine2", "left_knee", "right_elbow"):
        x, y = view.keypoints2d[JOINT_INDEX[name]].astype(int)
        assert 0 < z[JOINT_INDEX[name]] - view.depth[y, x] < 0.25
    assert np.isinf(view.depth[0, 0])


def test_turning_shows_the_named_sides(characters) -> None:
    """From the left view the left shoulder is nearer than the right one; from behind, x is mirrored."""
    left = render(characters[0], A_POSE, yaw=VIEWS["left"], size=(64, 64))
    z = (left.joints3d @ left.viewmat[:3, :3].T + left.viewmat[:3, 3])[:, 2]
    assert z[JOINT_INDEX["left_shoulder"]] < z[JOINT_INDEX["right_shoulder"]] - 0.2
    back = render(characters[0], A_POSE, yaw=VIEWS["back"], size=(64, 64))
    assert back.keypoints2d[JOINT_INDEX["left_wrist"], 0] < 32


def test_the_mask_is_the_picture_on_another_ground(characters) -> None:
    """Alpha from two backgrounds (image = a c + (1 - a) b) equals the mask."""
    white, black = (render(characters[1], WALK, size=(128, 128), background=(b, b, b)) for b in (1.0, 0.0))
    alpha = 1 - (white.image.astype(float) - black.image).mean(2) / 255
    np.testing.assert_allclose(alpha, white.mask, atol=2 / 255)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(PEOPLE) + 4))
def test_every_person_can_be_built_and_fits(number: int) -> None:
    character = build(PEOPLE[number] if number < len(PEOPLE) else random_person(number), data=makehuman())
    for yaw in VIEWS.values():
        mask = render(character, WALK, yaw=yaw, size=(256, 256), supersample=2).mask > 0.5
        assert label(mask, np.ones((3, 3)))[1] == 1
        assert not (mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())
