import numpy as np
import pytest
import torch

from svad_ray.fitting.keypoints import KeypointLoss, KeypointTargets, KeypointWeights, fit_keypoints, initial_state
from svad_ray.fitting.state import FitState, pose_body, project_points

DATA_ONLY = KeypointWeights(prior=0.02, balance=0, ground=0, shape=0.02, leg_depth=1.0)


def fitted(model, state, seen, **options):
    targets = KeypointTargets(model, [seen], leg_depth=DATA_ONLY.leg_depth)
    blank = FitState(torch.zeros(20), torch.zeros(1, 55, 3), torch.zeros(1, 3), state.Ks, state.viewmats, state.image_size)
    start = initial_state(model, targets, blank.betas, blank)
    return targets, start, fit_keypoints(KeypointLoss(model, targets, DATA_ONLY), start, **options)


def test_exact_landmarks_give_back_the_pose(model, standing, exact_perception, posed_of):
    targets, _, found = fitted(model, standing, exact_perception(model, standing), iterations=250)
    (true, _), (got, points) = posed_of(model, standing), posed_of(model, found)
    root = got.joints[0, :22] - got.joints[0, :1] - (true.joints[0, :22] - true.joints[0, :1])
    assert targets.pixel_error(project_points(points, found.Ks, found.viewmats)).item() < 1.5
    assert root.norm(dim=1).mean().item() < 0.03


def test_the_start_has_the_turn_and_the_place(model, standing, exact_perception):
    _, start, _ = fitted(model, standing, exact_perception(model, standing), iterations=1)
    assert abs(start.pose[0, 0, 1].item() - 0.3) < 0.1
    assert torch.allclose(start.transl[0], standing.transl[0], atol=0.35)


def test_a_strong_start_is_kept(model, standing, exact_perception):
    seen = exact_perception(model, standing)
    targets = KeypointTargets(model, [seen], leg_depth=1.0)
    moved = standing.with_parameters(standing.betas, standing.pose, standing.transl + torch.tensor([0.03, 0.0, 0.0]))
    free = KeypointLoss(model, targets, KeypointWeights(prior=0, balance=0, ground=0, shape=0), moved)
    held = KeypointLoss(model, targets, KeypointWeights(prior=0, balance=0, ground=0, shape=0, initial=1e6), moved)
    options = {"iterations": 60, "fixed_shape": True, "root_first": False, "rates": (0.0, 0.003, 0.001)}
    assert (fit_keypoints(held, moved, **options).transl - moved.transl).norm() < 1e-3
    assert (fit_keypoints(free, moved, **options).transl - moved.transl).norm() > 0.01


def test_points_without_a_detection_do_not_pull(model, standing, exact_perception):
    seen = exact_perception(model, standing)
    seen.landmarks[15] = np.nan
    targets = KeypointTargets(model, [seen], leg_depth=1.0)
    i = model.index[15]
    assert targets.weights[0, i] == 0
    uv = targets.xy.clone()
    uv[0, i] += 200
    assert torch.isclose(targets.residual(uv), targets.residual(targets.xy))


@pytest.mark.parametrize("rise", [0.0, 8.0])
def test_toes_take_their_height_from_the_outline(model, standing, exact_perception, rise):
    seen = exact_perception(model, standing)
    toe, size = seen.landmarks[31], np.ptp(seen.landmarks[np.isfinite(seen.landmarks).all(1)], axis=0).max()
    column = int(toe[0])
    seen.mask[: int(toe[1] + rise), column - 3 : column + 4] = 1
    targets = KeypointTargets(model, [seen], leg_depth=1.0)
    assert abs(targets.xy[0, model.index[31], 1].item() - (int(toe[1] + rise) - 0.006 * size)) < 0.01


def test_frames_are_independent_without_smoothing(model, standing, exact_perception):
    two = [exact_perception(model, standing), exact_perception(model, standing)]
    targets = KeypointTargets(model, two, leg_depth=1.0)
    assert torch.equal(targets.xy[0], targets.xy[1]) and len(targets.size) == 2
    posed = pose_body(model.body, model.rest_joints(standing.betas), standing.pose.repeat(2, 1, 1), standing.transl.repeat(2, 1))
    assert torch.allclose(posed.joints[0], posed.joints[1])
