"""The stride's depth, from pictures of the body itself: masks drawn by the z-buffer, landmarks projected."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from svad_ray.body.names import JOINT_INDEX as J
from svad_ray.fitting.clothed import clothed_surface
from svad_ray.fitting.priors import stride_pose, swing
from svad_ray.fitting.state import photo_camera, pose_body, relaxed_pose
from svad_ray.fitting.stride import HEIGHT, _shanks, stride_depth
from svad_ray.geometry.raster import rasterize_mesh, to_camera

FOCAL, SIZE = 1.4 * 512, 430.0


def walking(body, standing, swing_rad):
    """A state in a stride: the left thigh forward by ``swing_rad``, the right one back by half of it."""
    Ks, viewmats = photo_camera(*standing.image_size, focal_factor=1.4)
    pose = relaxed_pose()[None].clone()
    pose[0, J["left_hip"], 0], pose[0, J["right_hip"], 0] = -swing_rad, swing_rad / 2
    return replace(standing, betas=torch.zeros(20), pose=pose, transl=torch.tensor([[0.0, 0.1, -2.9]]), Ks=Ks, viewmats=viewmats)


def picture(body, model, state, exact_perception):
    seen = exact_perception(model, state)
    surface = clothed_surface(body, state.betas.numpy(), None)
    posed = pose_body(body, model.rest_joints(state.betas), state.pose, state.transl)
    points = to_camera(surface.posed(posed.skin[0]), state.viewmats[0].numpy())
    mask = rasterize_mesh(points, surface.faces, state.Ks[0].numpy(), *state.image_size).mask
    depth = posed.joints[0, J["left_ankle"], 2] - posed.joints[0, J["right_ankle"], 2]
    return replace(seen, mask=mask.astype(np.float32)), float(depth)


def told(seen, state):
    return stride_depth(seen, SIZE, state.Ks[0].numpy())


@pytest.mark.parametrize("swing_rad", [-0.25, 0.0, 0.15, 0.3])
def test_the_nearer_leg_is_found_and_how_near(body, model, standing, exact_perception, swing_rad):
    state = walking(body, standing, swing_rad)
    seen, depth = picture(body, model, state, exact_perception)
    assert abs(told(seen, state) - depth) < 0.13  # both feet leave the ground here
    if swing_rad:
        assert np.sign(told(seen, state)) == np.sign(depth)


def test_a_front_foot_in_the_air_hardly_misleads(body, model, standing, exact_perception):
    """Its sole is level with the rear one's in the picture, which on one ground means no stride; its leg's width tells."""
    state = walking(body, standing, 0.4)
    state.pose[0, J["left_knee"], 0] += 0.3
    state.pose[0, J["left_ankle"], 0] -= 0.3
    seen, depth = picture(body, model, state, exact_perception)
    lowest = [np.flatnonzero(seen.mask[:, columns].any(1))[-1] for columns in (slice(256, None), slice(None, 256))]
    assert abs(lowest[0] - lowest[1]) <= 2 and depth > 0.3
    assert abs(told(seen, state) - depth) < 0.1


def test_rows_that_disagree_count_less(body, model, standing, exact_perception):
    """Half of the left shank looks twice as wide, as by a boot: what the widths tell of it is not believed."""
    state = walking(body, standing, 0.0)
    seen, _ = picture(body, model, state, exact_perception)
    knee, ankle = seen.landmarks[25], seen.landmarks[27]
    mask = seen.mask.copy()
    for row in range(int(0.5 * knee[1] + 0.5 * ankle[1]), int(ankle[1])):
        mask[row, int(ankle[0]) : int(ankle[0]) + 24] = 1
    _, agreed = _shanks(seen.mask, seen.landmarks)
    _, disagreed = _shanks(mask, seen.landmarks)
    assert agreed > 0.9 and disagreed < 0.1
    assert abs(told(replace(seen, mask=mask), state)) < 0.2


def test_legs_that_are_one_in_the_picture_leave_the_ankles_to_tell(body, model, standing, exact_perception):
    state = walking(body, standing, 0.3)
    seen, _ = picture(body, model, state, exact_perception)
    rows = np.arange(seen.mask.shape[0])[:, None] > seen.landmarks[23, 1]
    filled = replace(seen, mask=np.maximum(seen.mask, rows & (np.abs(np.arange(seen.mask.shape[1]) - 256) < 80)).astype(np.float32))
    left, right = seen.landmarks[27, 1], seen.landmarks[28, 1]
    expected = (left - right) / ((left + right) / 2 - 256) * FOCAL / SIZE * HEIGHT
    assert abs(told(filled, state) - expected) < 1e-5
    assert abs(told(seen, state) - expected) > 1e-3


def test_a_camera_at_the_feet_says_nothing_by_rows(body, model, standing, exact_perception):
    """The horizon on the ankles: the ground is a line there, and a pixel would be a metre."""
    state = walking(body, standing, 0.0)
    seen, _ = picture(body, model, state, exact_perception)
    seen.landmarks[27, 1] += 3.0
    K = state.Ks[0].numpy().copy()
    K[1, 2] = seen.landmarks[[27, 28], 1].mean()
    assert abs(stride_depth(seen, SIZE, K)) < 0.2


def test_nothing_is_said_without_feet(model, standing, exact_perception):
    seen = exact_perception(model, standing)
    seen.landmarks[29] = np.nan
    assert stride_depth(seen, SIZE, standing.Ks[0].numpy()) == 0


def test_the_rear_knee_of_a_stride_bends():
    pose = torch.zeros(1, 22, 3)
    pose[0, J["left_hip"], 0], pose[0, J["right_hip"], 0] = -0.3, 0.2
    expected = stride_pose(pose)[0]
    assert torch.isclose(expected[J["right_knee"], 0], torch.tensor(0.24)) and torch.isclose(expected[J["left_knee"], 0], torch.tensor(0.07))
    assert stride_pose(torch.zeros(1, 22, 3)).abs().max() == 0


def test_arms_swing_against_the_legs_of_who_walks():
    joints = torch.zeros(1, 55, 3)
    assert swing(joints) == 0
    joints[0, J["left_wrist"], 2] = 0.3  # who stands may hold an arm out
    assert swing(joints) == 0
    joints[0, J["left_ankle"], 2] = 0.3
    same_side = swing(joints)
    joints[0, J["left_wrist"], 2] = -0.12
    assert swing(joints) < 0.01 < same_side
