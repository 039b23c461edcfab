"""The head tracker: the recorded smoothing, its losses against the formula, and heads found again from their own landmarks."""

import pickle

import numpy as np
import pytest
import torch
from rules import golden_or_skip
from scipy.spatial.transform import Rotation

from svad_ray.body.flame import flame_from_arrays
from svad_ray.errors import InputError
from svad_ray.fitting.heads import (
    HeadTargets,
    landmarks_of,
    landmarks_only,
    posed_vertices,
    project,
    start_from_landmarks,
    track_heads,
    tracking_losses,
)
from svad_ray.motion.heads import HeadTrack, between, load_head_track, running_average, save_head_track, smoothed

FRAMES = 7


@pytest.fixture(scope="module")
def flame(golden_avatar):
    if not (golden_avatar / "body_flame.npz").exists():
        pytest.skip("no recorded head")
    with np.load(golden_avatar / "body_flame.npz") as head, np.load(golden_avatar / "body_companions.npz") as more:
        return flame_from_arrays(dict(head), {key: more[key] for key in more.files if "lmk" in key})


@pytest.fixture(scope="module")
def truth(flame):
    """A head that turns from one side to the other before the crop's camera, and speaks."""
    rng = np.random.default_rng(0)
    shape = np.zeros(flame.shapedirs.shape[-1], np.float32)
    shape[:20] = rng.normal(0, 1, 20)
    expression = np.zeros((FRAMES, flame.exprdirs.shape[-1]), np.float32)
    expression[:, :5] = rng.normal(0, 0.7, (FRAMES, 5))
    pose = np.zeros((FRAMES, 6), np.float32)
    pose[:, 3] = np.abs(rng.normal(0, 0.1, FRAMES))
    turn = Rotation.from_euler("yx", np.stack([180 + np.linspace(-40, 40, FRAMES), rng.normal(0, 8, FRAMES)], 1), degrees=True).as_matrix()
    transforms = np.concatenate([turn, np.tile([[0.05], [-0.9], [13.0]], (FRAMES, 1, 1))], 2).astype(np.float32)
    return HeadTrack(shape, expression, pose, np.zeros((FRAMES, 6), np.float32), transforms, np.ones(FRAMES, bool))


@pytest.fixture(scope="module")
def seen(flame, truth):
    return project(landmarks_of(flame, posed_vertices(flame, truth)), torch.tensor(truth.transforms))


def test_cameras_are_pytorch3ds():
    """A point one unit to the left and one up, before a camera without rotation: 256 - 256 * 12 / z in both directions."""
    points, camera = torch.tensor([[[1.0, 1.0, 0.0]]]), torch.eye(3, 4)[None].clone()
    camera[0, 2, 3] = 16.0
    torch.testing.assert_close(project(points, camera), torch.full((1, 1, 2), 256 - 256 * 12 / 16))


def test_smoothing_equals_the_recording(golden_generation):
    golden = golden_or_skip(golden_generation / "track_smoothing.npz")
    frames = len(golden["rotation"])
    transforms = np.concatenate([golden["rotation"], golden["translation"][..., None]], 2)
    track = HeadTrack(np.zeros(3), np.zeros((frames, 3)), np.zeros((frames, 6)), golden["eyecode"], transforms, np.ones(frames, bool))
    ours = smoothed(track)
    np.testing.assert_allclose(ours.transforms, golden["smoothed_transform"], atol=1e-5)
    np.testing.assert_allclose(ours.eyes, golden["smoothed_eyecode"], atol=1e-6)
    np.testing.assert_allclose(running_average(golden["bbox"], 0.03), golden["bbox_ema003"], rtol=1e-5)
    paper = smoothed(track, "savgol")
    quaternions = Rotation.from_matrix(golden["rotation"])
    assert np.degrees((Rotation.from_matrix(paper.transforms[:, :, :3]) * quaternions.inv()).magnitude()).max() < 90
    np.testing.assert_allclose(np.linalg.det(paper.transforms[:, :, :3]), 1, atol=1e-5)


def test_savgol_of_a_steady_turn_is_that_turn(truth):
    """A quadratic in time passes the filter unchanged, and a constant turn is nearly one in quaternions; the sign jump at 180 degrees is no jump."""
    frames = 30
    turn = Rotation.from_rotvec(np.linspace(150, 210, frames)[:, None] * [0, 1, 0], degrees=True)
    moved = np.stack([np.linspace(0, 1, frames), np.linspace(0, 1, frames) ** 2, np.full(frames, 13.0)], 1)
    transforms = np.concatenate([turn.as_matrix(), moved[..., None]], 2).astype(np.float32)
    track = HeadTrack(truth.shape, np.zeros((frames, 3)), np.zeros((frames, 6)), np.zeros((frames, 6)), transforms, np.ones(frames, bool))
    ours = smoothed(track, "savgol").transforms
    np.testing.assert_allclose(ours[:, :, 3], moved, atol=1e-5)
    assert np.degrees((Rotation.from_matrix(ours[:, :, :3]) * turn.inv()).magnitude()).max() < 0.1


def test_losses_are_the_documented_ones(flame, truth, seen):
    vertices, cameras = posed_vertices(flame, truth), torch.tensor(truth.transforms)
    off = seen + torch.tensor([3.0, 4.0])  # 25 squared pixels in two coordinates: a mean of 12.5
    lost = torch.ones(FRAMES, dtype=torch.bool)
    terms = tracking_losses(flame, vertices, cameras, HeadTargets(off, lost, vertices=project(vertices, cameras) + 1))
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(
        {"inner": 10 * 12.5 / 512, "mesh": 80 * 12.5 / 512, "vertices": 25 / 512}, rel=1e-3
    )
    far = tracking_losses(flame, vertices, cameras, HeadTargets(off + 20, lost, mesh_landmarks=off))
    assert far["inner"] == 0 and far["mesh"] > 0  # landmarks that lie 28 px from the head mesh's are not believed
    nobody = tracking_losses(flame, vertices, cameras, HeadTargets(off, ~lost))
    assert sum(nobody.values()) == 0


def test_a_head_is_found_again_from_noisy_landmarks(flame, truth, seen):
    noise = torch.randn(seen.shape, generator=torch.Generator().manual_seed(0))
    shown = torch.ones(FRAMES, dtype=torch.bool)
    shown[3] = False
    targets = HeadTargets(seen + noise, shown)
    found = track_heads(flame, start_from_landmarks(flame, targets, source="test"), targets)
    again = project(landmarks_of(flame, posed_vertices(flame, found)), torch.tensor(found.transforms))
    error = (again - seen).norm(dim=-1).mean(1).numpy()
    assert error[shown.numpy()].max() < 1.25  # the mean length of the noise; the fit averages it away
    turned = Rotation.from_matrix(found.transforms[:, :, :3]) * Rotation.from_matrix(truth.transforms[:, :, :3]).inv()
    assert np.degrees(turned.magnitude())[shown.numpy()].max() < 10
    assert list(found.seen) == [True, True, True, False, True, True, True] and found.source == "test"
    middle = Rotation.from_matrix(found.transforms[[2, 4], :, :3]).mean()
    assert np.degrees((Rotation.from_matrix(found.transforms[3, :, :3]) * middle.inv()).magnitude()) < 0.1


def test_a_part_of_a_head_is_posed_as_the_whole(flame, truth):
    small, moved = landmarks_only(flame), HeadTrack(truth.shape, truth.expression, truth.pose, truth.pose + 0.1, truth.transforms, truth.seen)
    assert len(small.v_template) < len(flame.v_template)
    ours, whole = (landmarks_of(head, posed_vertices(head, moved)) for head in (small, flame))
    torch.testing.assert_close(ours, whole, atol=1e-5, rtol=0)
    torch.testing.assert_close(
        landmarks_of(small.to(torch.float64), small.to(torch.float64).v_template[None])[0].float(), small.landmarks(small.v_template[None])[0]
    )


def test_gaps_are_filled_and_no_face_at_all_is_said(truth):
    from dataclasses import replace

    gaps = replace(truth, seen=np.array([False, True, False, False, True, False, False]))
    filled = between(gaps)
    for i in (0, 1):
        np.testing.assert_allclose(filled.transforms[i], truth.transforms[1], atol=1e-6)
    np.testing.assert_allclose(filled.expression[2], (2 * truth.expression[1] + truth.expression[4]) / 3, atol=1e-6)
    np.testing.assert_allclose(filled.transforms[6], truth.transforms[4], atol=1e-6)
    with pytest.raises(InputError, match="no frame shows a face"):
        between(replace(truth, seen=np.zeros(FRAMES, bool)))


def test_files(truth, tmp_path):
    save_head_track(truth, tmp_path / "head.npz")
    read = load_head_track(tmp_path / "head.npz")
    np.testing.assert_array_equal(read.transforms, truth.transforms)
    assert len(read.at(FRAMES + 2)) == 1 and (read.at(FRAMES + 2).expression[0] == truth.expression[2]).all()
    names = ("shapecode", "expcode", "posecode", "eyecode", "transform_matrix")
    frames = {
        f"clip_{i}": dict(zip(names, (truth.shape, truth.expression[i], truth.pose[i], truth.eyes[i], truth.transforms[i])))
        for i in reversed(range(FRAMES))
    }
    (tmp_path / "smoothed.pkl").write_bytes(pickle.dumps(frames))
    theirs = load_head_track(tmp_path / "smoothed.pkl")
    np.testing.assert_array_equal(theirs.transforms, truth.transforms)
    np.testing.assert_allclose(theirs.shape, truth.shape, atol=1e-6)
    (tmp_path / "bad.npz").write_bytes((tmp_path / "head.npz").read_bytes()[:200])
    (tmp_path / "other.pkl").write_bytes(pickle.dumps({"clip_0": {"shapecode": truth.shape}}))
    for name, said in (("bad.npz", "cannot be read"), ("other.pkl", "lacks expcode"), ("none.npz", "no head track")):
        with pytest.raises(InputError, match=said):
            load_head_track(tmp_path / name)
