"""A motion on a person: soles on the floor and everything inside the picture, measured on the fully posed body."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from svad_ray.errors import InputError
from svad_ray.motion import arms, blank_track, level_camera, retarget, turn, walk


def vertices(track, body) -> np.ndarray:
    """(T, V, 3) of the whole model, pose correctives left out as in placing."""
    names = ("global_orient", "body_pose", "left_hand_pose", "right_hand_pose", "jaw_pose", "leye_pose", "reye_pose", "transl")
    real = body.v_template.dtype
    pose = {name: torch.as_tensor(getattr(track, name), dtype=real) for name in names}
    betas = torch.as_tensor(track.betas, dtype=real).expand(len(track), -1)
    return replace(body, posedirs=None).forward(betas=betas, **pose).vertices.numpy()


def pixels(points, viewmat, K) -> np.ndarray:
    camera = points @ viewmat[:3, :3].T + viewmat[:3, 3]
    assert (camera[..., 2] > 0).all()
    return (camera @ K.T)[..., :2] / camera[..., 2:]


@pytest.fixture
def person(body):
    rng = np.random.default_rng(0)
    return replace(blank_track(np.zeros((1, 55, 3)), fps=25.0), betas=rng.normal(0, 0.5, 10).astype(np.float32), body_id=body.id)


@pytest.mark.parametrize("motion", [lambda: turn(9), lambda: walk(14), lambda: arms(12)], ids=["turn", "walk", "arms"])
def test_soles_stand_on_the_floor_in_every_frame(motion, person, body):
    placed = retarget(motion(), person=person, body=body)
    lowest = vertices(placed, body)[..., 1].min(1)
    assert np.abs(lowest).max() < 0.02  # a thinned set of points decides
    assert placed.body_id == body.id
    np.testing.assert_array_equal(placed.betas, person.betas)


def test_a_motion_that_leaves_the_floor_keeps_its_jump(person, body):
    height = np.array([0, 0.1, 0.4, 0.1, 0])
    jump = blank_track(np.zeros((5, 55, 3)), transl=np.stack([height * 0, height, height * 0], 1), fps=25.0)
    lowest = vertices(retarget(jump, person=person, body=body), body)[..., 1].min(1)
    assert abs(lowest[0]) < 0.02
    np.testing.assert_allclose(lowest / lowest[2], height / 0.4, atol=0.06)


@pytest.mark.parametrize("size", [256, 640])
def test_the_camera_sees_every_point_with_the_margin(person, body, size):
    margin = 0.08
    placed = retarget(arms(10), person=person, body=body, size=size, margin=margin)
    at = pixels(vertices(placed, body), placed.viewmats[0], placed.Ks[0])
    slack = 0.02 * size  # between the thinned points
    assert at.min() > margin * size - slack and at.max() < size - margin * size + slack
    touched = min(at[..., 1].min() - margin * size, at[..., 0].min() - margin * size)
    assert touched < slack  # the nearest such camera: the person fills the picture
    assert placed.image_size == (size, size) and len(placed.viewmats) == 10


def test_the_camera_is_level_and_the_nearest_that_sees_all():
    points = np.random.default_rng(2).normal(0, [0.4, 0.8, 0.3], (500, 3))
    viewmat, margin = level_camera(points, margin=0.1), 0.1
    np.testing.assert_array_equal(viewmat[:3, :3], np.diag([1, -1, -1]))
    K = np.array([[1.6, 0, 0.5], [0, 1.6, 0.5], [0, 0, 1]])
    at = pixels(points, viewmat.astype(float), K)
    np.testing.assert_allclose([at[:, 1].min(), at[:, 1].max()], [margin, 1 - margin], atol=1e-5)
    assert at[:, 0].min() >= margin and at[:, 0].max() <= 1 - margin


def test_root_paths_scale_with_the_legs(person, body):
    path = np.stack([np.linspace(0, 1, 4), np.zeros(4), np.zeros(4)], 1)
    motion = blank_track(np.zeros((4, 55, 3)), transl=path, fps=25.0)
    joints = body.joint_template + body.joint_shapedirs[..., :10] @ torch.as_tensor(person.betas, dtype=body.v_template.dtype)
    ratio = float((joints[1, 1] - joints[7, 1]) / (body.joint_template[1, 1] - body.joint_template[7, 1]))
    placed = retarget(motion, person=person, body=body)
    np.testing.assert_allclose(placed.transl[:, 0], path[:, 0] * ratio, rtol=1e-4)


def test_a_shape_of_another_body_is_refused(person, body):
    with pytest.raises(InputError, match="other"):
        retarget(turn(2), person=replace(person, body_id="other"), body=body)
