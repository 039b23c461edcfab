"""Gauss-Newton on skeletons: its written derivatives against finite differences, and what it finds."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from svad_ray.body.lbs import rotation_matrices
from svad_ray.body.names import PARENTS
from svad_ray.fitting import newton
from svad_ray.fitting.newton import Estimate, Prior, Rig, Step, Views, solve

FRAMES, POINTS, SHAPES = 5, 70, 4
MOVED = list(range(22))


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def rig():
    """A made-up body: joints and points anywhere, every point on three joints."""
    torch.manual_seed(0)
    joints = torch.randn(1, 55, 3) * 0.3
    weights = torch.zeros(POINTS, 55).scatter(1, torch.stack([torch.randperm(22)[:3] for _ in range(POINTS)]), torch.rand(POINTS, 3))
    weights = weights / weights.sum(1, keepdim=True)
    points = (weights @ joints[0])[None] + torch.randn(1, POINTS, 3) * 0.05
    return Rig(PARENTS, joints, torch.randn(55, 3, SHAPES) * 0.02, points, torch.randn(POINTS, 3, SHAPES) * 0.02, weights)


def somebody(spread=0.3):
    still = torch.randn(1, 55, 3) * spread
    turns = still + torch.linspace(0, 1, FRAMES)[:, None, None] * torch.randn(1, 55, 3) * 0.1
    turns[:, 22:] = 0
    return Estimate(rotation_matrices(turns), torch.tensor([0.0, 0, 5]) + torch.randn(FRAMES, 3) * 0.01, torch.randn(SHAPES) * 0.5)


def views_of(rig, at, *, reach=3.0, noise=0.02):
    camera = torch.eye(3).expand(FRAMES, 3, 3), torch.zeros(FRAMES, 3), torch.full((FRAMES, 2), 8.0), torch.full((FRAMES, 2), 4.0)
    points = newton._points(rig, at)
    flat = points[..., :2] / points[..., 2:] * 8 + 4
    return Views(flat + torch.randn_like(flat) * noise, torch.ones(FRAMES, POINTS), *camera, noise=0.02, reach=reach)


def prior_of(at, *, still=0.0, hold=1.0):
    return Prior(at.rotations, torch.full((55,), hold), torch.full((55,), still), still, 1.0, MOVED)


def test_derivatives_are_those_of_finite_differences(rig):
    """Of the cost, by turns of single joints, places and shapes; without accelerations, whose derivatives are taken for small turns."""
    at = somebody()
    views, prior = views_of(rig, somebody(), reach=1e6), prior_of(at)
    system = newton._linear(rig, (views, None), at, prior)
    size, h = len(MOVED) * 3 + 3, 1e-6

    def cost(frames, betas):
        return newton._cost(rig, (views, None), at.moved(MOVED, Step(frames, betas)), prior)

    for frame, unknown in ((0, 0), (1, 7), (2, 33), (3, 61), (4, size - 1), (2, size - 3)):
        step = torch.zeros(FRAMES, size)
        step[frame, unknown] = h
        slope = (cost(step, torch.zeros(SHAPES)) - cost(-step, torch.zeros(SHAPES))) / (4 * h)
        assert slope == pytest.approx(system.gradient.frames[frame, unknown].item(), rel=1e-5, abs=1e-3)
    for k in range(SHAPES):
        step = torch.zeros(SHAPES)
        step[k] = h
        slope = (cost(torch.zeros(FRAMES, size), step) - cost(torch.zeros(FRAMES, size), -step)) / (4 * h)
        assert slope == pytest.approx(system.gradient.betas[k].item(), rel=1e-5, abs=1e-3)


def test_conjugate_gradients_solve_the_equations(rig, monkeypatch):
    """Run to their end: one dense solve of the whole system, frames, accelerations and shape together."""
    monkeypatch.setattr(newton, "_CG_LEFT", 1e-20)
    monkeypatch.setattr(newton, "_CG_STEPS", 2000)
    at = somebody()
    system = newton._linear(rig, (views_of(rig, somebody()), None), at, prior_of(at, still=50.0)).damped(0.1)
    size = system.block.shape[1]
    count = FRAMES * size + SHAPES
    columns = []
    for k in range(count):
        unit = torch.zeros(count)
        unit[k] = 1
        out = system.times(Step(unit[:-SHAPES].reshape(FRAMES, size), unit[-SHAPES:]))
        columns.append(torch.cat([out.frames.flatten(), out.betas]))
    matrix = torch.stack(columns, 1)
    torch.testing.assert_close(matrix, matrix.T)
    exact = torch.linalg.solve(matrix, -torch.cat([system.gradient.frames.flatten(), system.gradient.betas]))
    found = system.solution()
    got = torch.cat([found.frames.flatten(), found.betas])
    torch.testing.assert_close(got, exact, rtol=1e-5, atol=1e-7)


def test_a_pose_is_found_and_the_cost_never_rises(rig):
    truth = somebody()
    guess = truth.moved(MOVED, Step(torch.randn(FRAMES, len(MOVED) * 3 + 3) * 0.1, torch.zeros(SHAPES)))
    guess = Estimate(guess.rotations, guess.root, torch.zeros(SHAPES))
    views = views_of(rig, truth, noise=0.0)
    found, costs = solve(rig, views, guess, prior_of(guess, hold=0.01), steps=30)
    assert all(b < a for a, b in pairwise(costs)) and costs[-1] < 1e-3 * costs[0]
    seen = views(newton._points(rig, found)).residual
    assert seen.abs().mean() < 0.2  # of a deviation: a 250th of a unit where the person is eight units tall


def test_wrong_and_missing_points_do_not_pull(rig):
    """A tenth of the points lie elsewhere, a frame shows nothing, another has no number: poses stay finite, the rest is met."""
    truth = somebody()
    views = views_of(rig, truth)
    views.xy[:, ::10] += 3.0
    views.weight[2] = 0
    views.xy[3, 5] = torch.nan
    views.weight[3, 5] = 0
    guess = truth.moved(MOVED, Step(torch.randn(FRAMES, len(MOVED) * 3 + 3) * 0.03, torch.zeros(SHAPES)))
    found, _ = solve(rig, views, guess, prior_of(guess, still=100.0, hold=10.0), steps=20)
    far = (newton._points(rig, found) - newton._points(rig, truth)).norm(dim=-1)
    assert torch.isfinite(found.rotations).all()
    begun = (newton._points(rig, guess) - newton._points(rig, truth)).norm(dim=-1)
    assert far.mean() < 0.6 * begun.mean() and far[2].mean() < begun[2].mean(), (far.mean(1), begun.mean(1))


def test_one_frame_is_enough(rig):
    truth = somebody()
    views = views_of(rig, truth, noise=0.0)
    one = Views(views.xy[:1], views.weight[:1], views.turn[:1], views.place[:1], views.focal[:1], views.centre[:1], 0.02)
    guess = Estimate(truth.rotations[:1], truth.root[:1] + 0.05, truth.betas)
    found, costs = solve(rig, one, guess, prior_of(guess, still=5.0))
    assert costs[-1] < costs[0] and np.allclose(found.root, truth.root[:1], atol=0.02)
