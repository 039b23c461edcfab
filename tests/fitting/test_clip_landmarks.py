"""The embedded fit of clips: people whose landmarks are known, from nothing and from a motion that is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from svad_ray.evaluate.synthetic.tracks import drifted, joint_error_mm, largest_turn_deg, turning_person
from svad_ray.fitting import newton
from svad_ray.fitting.clip_landmarks import ClipPrior, follow, rig_of, track
from svad_ray.fitting.keypoints import KeypointTargets
from svad_ray.fitting.newton import Directions, Estimate, Prior, Step, Views
from svad_ray.fitting.state import FitState, pose_body, project_points, state_of
from svad_ray.stages.fit.embedded import spread_gaps
from svad_ray.subject import Perception

FRAMES = 24


@pytest.fixture(scope="module")
def person(body):
    return turning_person(body, 1, FRAMES)


def seen_of(model, motion, *, noise_px=0.0, noise_m=0.0, seed=0):
    """What a detector says of every frame: landmarks in the picture and in space, with noise."""
    rng, state = np.random.default_rng(seed), state_of(motion)
    posed = pose_body(model.body, model.rest_joints(state.betas), state.pose, state.transl)
    points = model.positions(state.betas, posed.joints, posed.skin)
    flat = project_points(points, state.Ks, state.viewmats).numpy()
    out = []
    for t in range(len(motion)):
        xy, world, visible = np.full((33, 2), np.nan, np.float32), np.zeros((33, 3), np.float32), np.zeros(33, np.float32)
        for i, p in enumerate(model.points):
            xy[p.landmark] = flat[t, i] + rng.normal(0, noise_px, 2) if noise_px else flat[t, i]
            world[p.landmark], visible[p.landmark] = points[t, i].numpy() + rng.normal(0, 1, 3) * noise_m, 1.0
        world -= world[[23, 24]].mean(0)
        empty = np.zeros((133, 2), np.float32)
        hands = np.full((2, 21, 3), np.nan, np.float32)
        out.append(Perception(empty, np.zeros(133, np.float32), np.zeros((1, 1), np.float32), xy, visible, world, None, hands, 1.0, 1))
    return out


def fitted(model, motion, seen, found=None):
    cameras = state_of(motion)
    blank = FitState(torch.zeros(20), cameras.pose * 0, cameras.transl * 0, cameras.Ks, cameras.viewmats, cameras.image_size)
    found = np.ones(len(seen), bool) if found is None else found
    targets = KeypointTargets(model, spread_gaps(seen, found), leg_depth=1.0)
    state = track(model, targets, blank, ClipPrior(still=0.05), steps=30)
    return state.to_track(model.body, fps=motion.fps)


def test_a_person_is_found_from_nothing_through_a_full_turn(body, model, person):
    """The back included; 2 px and 2 cm of noise. The start knows a relaxed body alone."""
    found = fitted(model, person, seen_of(model, person, noise_px=2.0, noise_m=0.02))
    assert joint_error_mm(body, found, person) <= 30
    assert largest_turn_deg(found, person) < 60  # no limb is flipped, nobody turned round


def test_frames_without_a_person_lie_between_their_neighbours(body, model, person):
    there = np.ones(FRAMES, bool)
    there[8:11] = False
    seen = seen_of(model, person, noise_px=1.0, noise_m=0.01)
    nothing = [replace(one, landmarks=one.landmarks * np.nan, visibility=one.visibility * 0) for one in seen]
    found = fitted(model, person, [one if good else none for one, none, good in zip(seen, nothing, there)], there)
    assert np.isfinite(found.full_pose).all() and joint_error_mm(body, found, person) <= 45


def test_one_frame_is_fitted(body, model, person):
    one = person.frames(slice(0, 1))
    assert joint_error_mm(body, fitted(model, one, seen_of(model, one)), one) <= 45


def test_a_known_motion_is_followed_as_firmly_as_it_is_held(body, model, person):
    """Firmly held it stays; loosely held it goes to the landmarks."""
    targets = KeypointTargets(model, seen_of(model, person), leg_depth=1.0)
    begun = replace(drifted(person, jitter=0.0), betas=person.betas)
    start = state_of(begun)
    held, free = (follow(model, targets, start, ClipPrior(still=0.05, hold=hold), steps=20) for hold in (1e7, 1.0))
    assert (held.pose[:, :22] - start.pose[:, :22]).abs().max() < 0.01 and (held.transl - start.transl).abs().max() < 1e-3
    before, after = joint_error_mm(body, begun, person), joint_error_mm(body, free.to_track(body), person)
    assert after < 0.5 * before, (before, after)
    assert torch.equal(free.betas, start.betas) and torch.equal(free.pose[:, 22:], start.pose[:, 22:])


def test_derivatives_of_bones_and_places_are_those_of_finite_differences(body, model, person):
    """Points in the picture, directions in space and held places together, by turns, places and shape."""
    torch.set_default_dtype(torch.float64)
    try:
        torch.manual_seed(0)
        some = state_of(person.frames(slice(0, 3)))
        rig = rig_of(model, some.betas, shapes=4)
        rig = replace(rig, **{name: getattr(rig, name).double() for name in ("joints", "joint_shapedirs", "points", "shapedirs", "weights")})
        from svad_ray.body.lbs import rotation_matrices

        at = Estimate(rotation_matrices(some.pose.double()), torch.randn(3, 3) * 0.1 + torch.tensor([0.0, 0, 4]), torch.randn(4) * 0.3)
        points, bones = len(model.points), len(rig.bones)
        still = torch.eye(3).expand(3, 3, 3), torch.zeros(3, 3)
        views = Views(torch.randn(3, points, 2), torch.rand(3, points), *still, torch.full((3, 2), 8.0), torch.full((3, 2), 4.0), 0.1, 1e6)
        told = Directions(torch.nn.functional.normalize(torch.randn(3, bones, 3), dim=-1), torch.rand(3, bones), 0.3, 1e6)
        moved = list(range(22))
        prior = Prior(at.rotations, torch.rand(55, 3), torch.zeros(55), 0.0, 1.0, moved, at.root + 0.1, 7.0)
        sights = (views, told)
        system, size, h = newton._linear(rig, sights, at, prior), len(moved) * 3 + 3, 1e-6

        def cost(frames, betas):
            return newton._cost(rig, sights, at.moved(moved, Step(frames, betas)), prior)

        # A direction's residual is taken along the sphere, as its cost is: exact at any distance.
        for frame, unknown in ((0, 1), (1, 5), (2, 50), (0, size - 1), (1, size - 3)):
            step = torch.zeros(3, size)
            step[frame, unknown] = h
            slope = (cost(step, torch.zeros(4)) - cost(-step, torch.zeros(4))) / (4 * h)
            assert slope == pytest.approx(system.gradient.frames[frame, unknown].item(), rel=1e-4, abs=1e-2)
        step = torch.tensor([0, h, 0, 0])
        slope = (cost(torch.zeros(3, size), step) - cost(torch.zeros(3, size), -step)) / (4 * h)
        assert slope == pytest.approx(system.gradient.betas[1].item(), rel=1e-4, abs=1e-2)
    finally:
        torch.set_default_dtype(torch.float32)
