"""The learned depth of joints: mirror symmetry, the committee against a plain loop, trust, and what it does to a fit."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.limb_depth import Samples, covariance, left_out
from svad_ray.body.names import JOINT_INDEX as J
from svad_ray.fitting.keypoints import KeypointLoss, KeypointTargets, KeypointWeights, fit_keypoints, initial_state, person_size
from svad_ray.fitting.limb_depth import (
    JOINTS,
    MIRRORED,
    DepthTable,
    LimbDepth,
    depth_error,
    depth_table,
    features,
    load_table,
    mirrored,
    relative_depth,
    unit_length,
)
from svad_ray.fitting.state import pose_body, relaxed_pose

FOCAL = 1.4 * 512
OTHER_SIDE = [0, 4, 5, 6, 1, 2, 3, 8, 7, 10, 9, *(i + 1 if i % 2 else i - 1 for i in range(11, 33))]


def in_a_mirror(seen):
    """What the detector would say of the mirrored picture."""
    xy, world = seen.landmarks[OTHER_SIDE] * [-1, 1] + np.array([seen.mask.shape[1], 0]), seen.landmarks_world[OTHER_SIDE] * [-1, 1, 1]
    return replace(seen, landmarks=xy, landmarks_world=world, visibility=seen.visibility[OTHER_SIDE], mask=seen.mask[:, ::-1])


@pytest.fixture
def walking(model, standing, exact_perception):
    pose = relaxed_pose()[None].clone()
    pose[0, J["left_hip"], 0], pose[0, J["right_hip"], 0] = -0.3, 0.2
    state = replace(standing, pose=pose, betas=torch.zeros(20))
    seen = exact_perception(model, state)
    mask = np.zeros(state.image_size, np.float32)
    for point in (27, 28):  # two bars for legs, the right one thinner
        x, y = seen.landmarks[point].astype(int)
        mask[y - 120 : y + 15, x - 14 : x + (14 if point == 27 else 10)] = 1
    return state, replace(seen, mask=mask)


def small_table(rng, *, strange=5.0):
    """Two members, one hidden layer, random numbers."""
    layers = tuple((rng.normal(0, 0.1, (2, i, o)), rng.normal(0, 0.1, (2, o))) for i, o in ((111, 4), (4, 16)))
    numbers = {"mean": rng.normal(0, 1, 111), "spread": rng.uniform(0.5, 2, 111), "target_mean": rng.normal(0, 1, 16)}
    cov = np.stack([np.eye(16), 2 * np.eye(16)])
    return DepthTable(
        layers=layers, target_spread=rng.uniform(0.5, 2, 16), covariance=cov, basis=rng.normal(0, 0.1, (111, 3)), limit=strange, **numbers
    )


def test_features_of_a_mirrored_picture_are_the_mirrored_features(walking):
    _, seen = walking
    x = features(seen, 400.0)
    assert x[-6:].any()
    assert np.allclose(features(in_a_mirror(seen), 400.0), mirrored(x[None])[0], atol=0.01)
    assert np.array_equal(mirrored(mirrored(x[None]))[0], x)


def test_features_do_not_depend_on_place_and_size(walking):
    _, seen = walking
    wide = np.pad(seen.mask, ((30, 0), (40, 0)))
    moved = replace(seen, landmarks=seen.landmarks + np.array([40, 30]), mask=wide)
    assert np.allclose(features(moved, 400.0), features(seen, 400.0), atol=1e-5)
    double = replace(seen, landmarks=2 * seen.landmarks, mask=np.kron(seen.mask, np.ones((2, 2), np.float32)))
    assert np.allclose(features(double, 800.0), features(seen, 400.0), atol=0.05)


def test_nothing_is_said_of_what_is_not_seen(walking):
    _, seen = walking
    seen.landmarks[29] = np.nan
    assert features(seen, 400.0) is None and depth_table()(seen, 400.0) is None


def test_the_committee_is_the_mean_of_its_members():
    rng = np.random.default_rng(0)
    table, x = small_table(rng), rng.normal(0, 1, (5, 111))
    members = []
    for m in range(2):
        (a, b), (c, d) = table.layers
        h = np.tanh((x - table.mean) / table.spread @ a[m] + b[m])
        members.append((h @ c[m] + d[m]) * table.target_spread + table.target_mean)
    assert np.allclose(table.predict(x), (members[0] + members[1]) / 2)


def test_a_saved_table_says_the_same(tmp_path):
    rng = np.random.default_rng(1)
    table, x = small_table(rng), rng.normal(0, 1, (5, 111))
    table.save(tmp_path / "t.npz")
    again = load_table(tmp_path / "t.npz")
    assert np.allclose(again.predict(x), table.predict(x), atol=0.02)
    assert np.allclose(again.strangeness(x), table.strangeness(x), rtol=0.01)
    assert np.allclose(again.covariance, table.covariance)


def test_a_mirrored_picture_tells_the_mirrored_depths(walking):
    _, seen = walking
    table = depth_table()
    told, other = table(seen, 400.0), table(in_a_mirror(seen), 400.0)
    assert torch.allclose(other.depth, told.depth[list(MIRRORED)], atol=2e-3)


def test_what_is_unlike_all_pictures_is_not_judged(walking):
    _, seen = walking
    rng = np.random.default_rng(2)
    assert small_table(rng, strange=100.0)(seen, 400.0).trust == 1
    assert small_table(rng, strange=0.001)(seen, 400.0) is None
    upside_down = replace(
        seen, landmarks=seen.landmarks * [1, -1] + np.array([0, 512]), landmarks_world=seen.landmarks_world * [1, -1, 1], mask=seen.mask[::-1]
    )
    assert depth_table()(upside_down, 400.0) is None


def test_where_legs_are_one_the_other_covariance_counts(walking):
    _, seen = walking
    table = small_table(np.random.default_rng(3), strange=100.0)
    assert torch.allclose(table(seen, 400.0).precision, torch.eye(16) / 2)
    assert torch.allclose(table(replace(seen, mask=np.ones_like(seen.mask)), 400.0).precision, torch.eye(16))


def test_the_error_is_half_the_squared_deviations(model, walking):
    state, _ = walking
    rest = model.rest_joints(state.betas)
    joints, unit = pose_body(model.body, rest, state.pose, state.transl).joints[0], unit_length(rest)
    depth = relative_depth(joints) / unit
    i = JOINTS.index(J["left_wrist"])
    depth[i] += 0.2
    told = LimbDepth(depth, torch.diag(torch.full((16,), 25.0)), 0.5)
    assert torch.isclose(depth_error(joints, unit, told), torch.tensor(0.5 * 0.5 * 25 * 0.04), rtol=1e-4)
    assert torch.isclose(unit, (rest[15] - rest[0]).norm())


def test_a_fit_goes_where_it_is_told(model, standing, exact_perception):
    """The same landmarks, told once that the left wrist is before the body and once that it is behind."""
    seen = exact_perception(model, standing)
    weights = KeypointWeights()
    targets = KeypointTargets(model, [seen], leg_depth=weights.leg_depth, focal=FOCAL)
    found = []
    for ahead in (0.3, -0.2):
        depth = torch.zeros(16)
        depth[JOINTS.index(J["left_wrist"])] = ahead
        precision = torch.zeros(16, 16)
        precision[(JOINTS.index(J["left_wrist"]),) * 2] = 400.0
        targets.depth = LimbDepth(depth, precision, 1.0)
        start = initial_state(model, targets, torch.zeros(20), standing)
        state = fit_keypoints(KeypointLoss(model, targets, weights), start, iterations=60)
        rest = model.rest_joints(state.betas)
        joints = pose_body(model.body, rest, state.pose, state.transl).joints[0]
        found.append(float(((joints[J["left_wrist"], 2] - joints[0, 2]) / unit_length(rest)).detach()))
    assert abs(found[0] - 0.3) < 0.1 and found[1] < found[0] - 0.25


def test_size_is_the_longer_side_of_the_landmarks_box(model, standing, exact_perception):
    seen = exact_perception(model, standing)
    used = seen.landmarks[[p.landmark for p in model.points]]
    assert np.isclose(person_size(seen), np.ptp(used, axis=0).max(), rtol=1e-5)


def test_what_is_learned_is_told_of_others_and_how_surely():
    """Depths that follow from one feature, with noise of a tenth: people left out are told about as well as noise allows."""
    rng = np.random.default_rng(4)
    x, noise = np.zeros((150, 111)), rng.normal(0, 0.1, (150, 16))
    x[:, :6] = rng.normal(0, 1, (150, 6))
    y = np.repeat(x[:, 1:2] + x[:, 3:4], 16, axis=1) + noise  # heights of both ears: the mirror leaves their sum
    error, strange = left_out(Samples(x, y, np.arange(150) // 3), steps=200, members=2)
    assert error.std() < 0.35 and y.std() > 1.2
    assert (strange > 0).all()
    c = covariance(noise)
    assert np.allclose(np.diag(c), 0.01, rtol=0.35) and np.allclose(c, c.T) and np.linalg.eigvalsh(c).min() > 0
