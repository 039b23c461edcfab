"""The open body, and perceptions made from known poses: exact landmarks, no network."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from svad_ray.body import load_body
from svad_ray.fitting.landmarks import LandmarkModel
from svad_ray.fitting.state import FitState, photo_camera, pose_body, project_points, relaxed_pose
from svad_ray.subject import Perception

SIZE = (512, 512)


@pytest.fixture(scope="session")
def body():
    return load_body()


@pytest.fixture(scope="session")
def model(body):
    return LandmarkModel(body)


@pytest.fixture
def standing(body):
    """A person 3.2 m away, relaxed, slightly turned, not of average shape."""
    Ks, viewmats = photo_camera(*SIZE, focal_factor=1.4)
    pose = relaxed_pose()[None].clone()
    pose[0, 0, 1] = 0.3
    betas = torch.zeros(20)
    betas[:3] = torch.tensor([0.5, -0.6, 0.4])
    return FitState(betas, pose, torch.tensor([[0.05, 0.1, -3.2]]), Ks, viewmats, SIZE)


def _posed_of(model, state):
    posed = pose_body(model.body, model.rest_joints(state.betas), state.pose, state.transl)
    return posed, model.positions(state.betas, posed.joints, posed.skin)


def _exact_perception(model, state) -> Perception:
    """What a perfect detector would say of ``state``'s first frame; points that the fit does not use are NaN."""
    _, points = _posed_of(model, state)
    uv = project_points(points, state.Ks, state.viewmats)[0].numpy()
    xy, world, seen = np.full((33, 2), np.nan, np.float32), np.zeros((33, 3), np.float32), np.zeros(33, np.float32)
    for i, p in enumerate(model.points):
        xy[p.landmark], world[p.landmark], seen[p.landmark] = uv[i], points[0, i].numpy(), 1.0
    world -= world[[23, 24]].mean(0)
    empty = np.zeros((133, 2), np.float32)
    return Perception(empty, np.zeros(133, np.float32), np.zeros(SIZE, np.float32), xy, seen, world, None, np.full((2, 21, 3), np.nan), 1.0, 1)


@pytest.fixture
def posed_of():
    """(model, state) -> the posed body and its landmark positions (T, P, 3)."""
    return _posed_of


@pytest.fixture
def exact_perception():
    """(model, state) -> what a perfect detector would say of the first frame."""
    return _exact_perception
