"""The paper's fit on the open body: it finds people whose truth is known, and says what it cannot use."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from svad_ray.body import load_body
from svad_ray.body.names import WHOLEBODY_TO_OUTPUT
from svad_ray.config import FitConfig
from svad_ray.errors import InputError, QualityRejected, WeightsMissing
from svad_ray.fitting.paper.model import FitBodies
from svad_ray.fitting.paper.solve import EXAVATAR, SVAD_RELEASE, fit
from svad_ray.fitting.paper.targets import make_targets
from svad_ray.fitting.paper.tracks import begin, head_of, to_track
from svad_ray.fitting.state import project_points
from svad_ray.motion import load_motion, retarget
from svad_ray.stages.fit.paper import PaperFit

pytestmark = pytest.mark.models
FRAMES = 10


@pytest.fixture(scope="module")
def body():
    return load_body()


@pytest.fixture(scope="module")
def truth(body):
    """A person of some shape who turns from the front to the side."""
    turn = load_motion("turn", body)
    turn = turn.frames(np.linspace(0, len(turn) / 4, FRAMES).astype(int))
    betas = np.zeros(body.shapedirs.shape[-1], np.float32)
    betas[:4] = [0.5, -0.7, 0.4, 0.3]
    return retarget(turn, person=replace(turn.frames(slice(0, 1)), betas=betas), body=body, size=512)


def joints(body, track):
    names = ("global_orient", "body_pose", "left_hand_pose", "right_hand_pose", "jaw_pose", "leye_pose", "reye_pose", "transl")
    pose = {name: torch.tensor(np.asarray(getattr(track, name), np.float32)) for name in names}
    offsets = {name: torch.tensor(getattr(track, name)) for name in ("joint_offset", "locator_offset") if getattr(track, name) is not None}
    return body.forward(betas=torch.tensor(track.betas)[None], expression=torch.tensor(track.expression), **pose, **offsets).joints.detach()


def seen(body, track, *, noise=1.5, missing=0.1):
    """(T, 133, 2) key points with noise, some of them missing, and their scores."""
    rng = np.random.default_rng(0)
    points = joints(body, track)[:, list(WHOLEBODY_TO_OUTPUT)]
    flat = project_points(points, torch.tensor(track.Ks), torch.tensor(track.viewmats)).numpy()
    scores = np.where(rng.random(flat.shape[:2]) < missing, 0.0, 0.9)
    return flat + rng.normal(0, noise, flat.shape), scores, flat


def turned(track, degrees):
    """The track with every body joint turned by some degrees, another way in every frame, and moved by centimetres."""
    rng = np.random.default_rng(1)
    pose = track.full_pose.copy()
    off = Rotation.from_rotvec(rng.normal(0, np.radians(degrees), (len(track) * 22, 3)))
    pose[:, :22] = (Rotation.from_rotvec(pose[:, :22].reshape(-1, 3)) * off).as_rotvec().reshape(-1, 22, 3)
    moved = track.transl + rng.normal(0, 0.03, track.transl.shape)
    return replace(track.with_full_pose(pose.astype(np.float32)), transl=moved.astype(np.float32))


def stage(body, **settings) -> PaperFit:
    made = PaperFit(FitConfig(backend="smplx-exavatar", flame="off", **settings))
    made.bodies = made._bodies(body, None)
    return made


def test_a_track_goes_in_and_comes_out(body, truth):
    """Into the camera, to rows of matrices and back into the world: the same joints, with cameras that are not the world."""
    turn = np.eye(4, dtype=np.float32)
    turn[:3, :3] = Rotation.from_euler("xy", [20, 50], degrees=True).as_matrix()
    turn[:3, 3] = [0.1, -0.2, 0.5]
    moved = replace(truth, viewmats=truth.viewmats @ turn)
    bodies = FitBodies(body, mesh_rows=np.arange(3))
    state, _ = begin(bodies, moved, keep_shape=True)
    again = to_track(bodies, state, moved)
    np.testing.assert_allclose(joints(body, again), joints(body, moved), atol=2e-5)
    points = bodies.pose(state, state.rotations()).points
    camera = joints(body, moved)[:, :1] @ torch.tensor(moved.viewmats[:, :3, :3]).transpose(1, 2) + torch.tensor(moved.viewmats[:, None, :3, 3])
    torch.testing.assert_close(points[:, :1], camera, atol=2e-5, rtol=0)
    assert head_of(state).jaw_pose.shape == (FRAMES, 3)


@pytest.mark.slow
def test_key_points_bring_a_person_back(body, truth):
    """A sixth of the schedule: the points fall within three pixels, although a tenth of them is missing; joints come nearer in space."""
    points, scores, clean = seen(body, truth)
    begun = turned(truth, 6)
    found = stage(body, share=0.15).fit_track(begun, points, scores)
    flat = project_points(joints(body, found)[:, list(WHOLEBODY_TO_OUTPUT)], torch.tensor(truth.Ks), torch.tensor(truth.viewmats)).numpy()
    assert np.linalg.norm(flat - clean, axis=-1).mean() < 3
    before, after = (
        np.linalg.norm(
            (joints(body, t) - joints(body, t)[:, :1])[:, :22] - (joints(body, truth) - joints(body, truth)[:, :1])[:, :22], axis=-1
        ).mean()
        for t in (begun, found)
    )
    assert after < 0.75 * before and after < 0.06, (before, after)
    assert found.residual_px.shape == (FRAMES,) and found.body_id == body.id
    turns = Rotation.from_rotvec(found.full_pose[:, :22].reshape(-1, 3)) * Rotation.from_rotvec(truth.full_pose[:, :22].reshape(-1, 3)).inv()
    assert np.degrees(turns.magnitude()).max() < 60  # no limb is flipped


def test_frames_that_show_nobody_follow_their_start(body, truth):
    points, scores, _ = seen(body, truth)
    scores[2:4] = 0
    points[5, 3] = np.nan
    scores[6, 7] = np.nan
    targets, square = make_targets(points, scores, np.tile([500.0, 500, 256, 256], (FRAMES, 1)), scores[:, 23:91].max(1) > 0)
    assert list(targets.found.numpy()) == [True, True, False, False, *[True] * 6] and np.isfinite(square).all()
    assert torch.isfinite(targets.points).all() and targets.valid[5].sum() > 0
    found = stage(body, share=0.01).fit_track(truth, points, scores)
    assert np.isfinite(found.full_pose).all() and np.isnan(found.residual_px[2]) and np.isfinite(found.residual_px[4])
    one = stage(body, share=0.01).fit_track(truth.frames(slice(0, 1)), points[:1], scores[:1])
    assert len(one) == 1 and np.isfinite(one.full_pose).all()


def test_batches_are_fitted_one_after_the_other_with_shared_shapes(body, truth):
    from svad_ray.fitting.paper.losses import Losses

    points, scores, _ = seen(body, truth)
    cameras = np.stack([truth.Ks[:, 0, 0], truth.Ks[:, 1, 1], truth.Ks[:, 0, 2], truth.Ks[:, 1, 2]], 1)
    targets, _ = make_targets(points, scores, cameras, np.ones(FRAMES, bool))
    bodies = FitBodies(body, mesh_rows=np.arange(0, 13000, 100))
    state, start = begin(bodies, truth, keep_shape=False)
    short = EXAVATAR.scaled(0.01)
    apart = fit(Losses(bodies), state, targets, start, replace(short, batch=4))
    assert len(apart) == FRAMES and not torch.equal(apart.body_pose[9], state.body_pose[9]) and apart.shape.abs().max() > 0
    released = fit(Losses(bodies), state, targets, start, SVAD_RELEASE.scaled(0.01))
    assert released.shape.abs().max() == 0 and released.joint_offset.abs().max() == 0  # what the release leaves out


def test_what_cannot_be_used_is_said(body, truth, tmp_path):
    points, scores, _ = seen(body, truth)
    with pytest.raises(InputError, match="no key point is seen"):
        stage(body).fit_track(truth, points, scores * 0)
    other = points + np.where(np.arange(FRAMES)[:, None, None] % 2, 150, -150)  # somebody else, elsewhere in every frame
    shuffled = other[:, np.random.default_rng(0).permutation(133)]
    with pytest.raises(QualityRejected, match="misses the clip's key points"):
        stage(body, share=0.01).fit_track(truth, shuffled, scores)
    with pytest.raises(WeightsMissing, match="head model"):
        PaperFit(FitConfig(backend="smplx-exavatar", flame="require", weights=str(tmp_path)))._bodies(body, tmp_path)
