import math

import torch

from svad_ray.body.names import JOINT_INDEX as J
from svad_ray.fitting.priors import PosePrior, balance, one_ground, standing
from svad_ray.fitting.state import pose_body, relaxed_pose


def joints_of(model, root_pitch=0.0, shift=0.0):
    pose = torch.zeros(1, 55, 3)
    pose[0, 0, 0] = root_pitch
    rest = model.rest_joints(torch.zeros(20))
    return pose_body(model.body, rest, pose, torch.tensor([[0.0, 0.0, shift]])).joints, rest


def test_the_zero_pose_is_balanced_wherever_it_stands(model):
    joints, rest = joints_of(model, shift=-4.0)
    assert balance(joints, rest).item() < 1e-6


def test_leaning_costs_the_squared_depth_between_head_and_feet(model):
    joints, rest = joints_of(model, root_pitch=0.1)
    assert balance(joints, rest).item() > 1.0


def test_who_stands_on_the_ball_of_one_foot_is_balanced_further_ahead(model):
    joints, rest = joints_of(model)
    forward = joints.clone()
    forward[:, :22, 2] += 0.05
    forward[:, [J["left_ankle"], J["right_ankle"]], 2] -= 0.05
    assert balance(forward, rest, 0.05).item() < 1e-6 < 0.4 < balance(forward, rest).item()


def test_one_ground_compares_the_lowest_points_of_the_feet():
    heels = torch.tensor([[[0.0, 0.10, 0.0], [0.0, 0.02, 0.0]]])
    toes = torch.tensor([[[0.0, 0.00, 0.1], [0.0, 0.10, 0.1]]])
    expected = 100 * 0.02**2
    assert math.isclose(one_ground(heels, toes).item(), expected, rel_tol=0.2)
    assert one_ground(heels[:, [0, 0]], toes[:, [0, 0]]).item() == 0


def test_the_relaxed_pose_costs_nothing_and_a_backward_knee_much():
    prior, pose = PosePrior(), relaxed_pose()[None, :22].clone()
    assert prior(pose).item() == 0
    pose[0, J["left_knee"], 0] = -0.2
    bent = pose.clone()
    bent[0, J["left_knee"], 0] = 0.2
    assert prior(pose) > prior(bent) > 0


def test_sitting_is_not_standing():
    w = torch.zeros(33, 3)
    w[[11, 12], 1] = 0.5
    for hip, knee, ankle in ((23, 25, 27), (24, 26, 28)):
        w[hip], w[knee], w[ankle] = torch.tensor([0, 0, 0.0]), torch.tensor([0, -0.4, 0.0]), torch.tensor([0, -0.8, 0.05])
    assert standing(w)
    for knee, ankle in ((25, 27), (26, 28)):
        w[knee], w[ankle] = torch.tensor([0, 0, 0.4]), torch.tensor([0, -0.4, 0.4])
    assert not standing(w)
