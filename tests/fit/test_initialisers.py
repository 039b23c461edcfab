"""First poses from the frames: networks of rule-made weights, whose answers must arrive in the fit, frame by frame."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from rules import avatar_rule
from scipy.spatial.transform import Rotation

from svad_ray.body import load_body
from svad_ray.config import FitConfig
from svad_ray.errors import WeightsMissing
from svad_ray.fitting.paper.targets import boxes
from svad_ray.motion import load_motion, retarget
from svad_ray.nets import deca, hand4whole
from svad_ray.stages.fit.initialisers import Initialiser, between
from svad_ray.stages.fit.paper import PaperFit

FRAMES = 4


def made(net, prefix=""):
    return {
        prefix + key: torch.from_numpy(avatar_rule(key, list(value.shape), 1.5))
        for key, value in net.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("initialisers")
    with torch.device("meta"):
        people, faces = hand4whole.Hand4Whole(), deca.DecaEncoder()
    torch.save({"network": made(people, "module.")}, folder / hand4whole.FILE)
    torch.save({"E_flame": made(faces)}, folder / deca.FILE)
    return folder


@pytest.fixture(scope="module")
def clip():
    """A track with turned cameras, frames of noise, and key points of people who stand elsewhere in every frame."""
    body, rng = load_body(), np.random.default_rng(0)
    turn = load_motion("turn", body).frames(slice(0, FRAMES))
    track = retarget(turn, person=turn.frames(slice(0, 1)), body=body, size=128)
    view = track.viewmats.copy()
    view[:, :3, :3] = Rotation.from_euler("xyz", [20, 30, 40], degrees=True).as_matrix() @ view[:, :3, :3]
    frames = rng.integers(0, 255, (FRAMES, 128, 128, 3), np.uint8)
    points = rng.uniform(30, 90, (1, 133, 2)) + np.arange(FRAMES)[:, None, None] * 4
    return replace(track, viewmats=view), frames, points, np.full((FRAMES, 133), 0.9)


def test_frames_between_are_turned_evenly():
    pose = np.zeros((5, 2, 3))
    pose[1, :, 1], pose[3, :, 1], pose[4] = 0.2, 0.8, np.nan
    found = np.array([False, True, False, True, False])
    np.testing.assert_allclose(between(pose, found)[:, 0, 1], [0.2, 0.2, 0.5, 0.8, 0.8], atol=1e-6)
    np.testing.assert_allclose(between(pose, np.arange(5) == 3)[:, 1, 1], 0.8, atol=1e-6)


@pytest.mark.slow
@pytest.mark.models
def test_what_the_networks_say_arrives(folder, clip):
    """In the camera's axes; a frame without anybody takes what lies between its neighbours, one without a face keeps its body."""
    track, frames, points, scores = clip
    scores = scores.copy()
    scores[1], scores[2, 23:91] = 0, 0
    first = Initialiser(folder, head=True)
    found = first.body(track, frames, points, scores)
    alone = first.body(track.frames(slice(2, 3)), frames[2:3], points[2:3], scores[2:3])
    np.testing.assert_allclose(found.full_pose[2], alone.full_pose[0], atol=1e-4)
    assert np.abs(found.full_pose[0, :22] - track.full_pose[0, :22]).max() > 0.05 and np.isfinite(found.full_pose).all()
    half = Rotation.from_rotvec(found.body_pose[0]).inv() * Rotation.from_rotvec(found.body_pose[1])
    whole = Rotation.from_rotvec(found.body_pose[0]).inv() * Rotation.from_rotvec(found.body_pose[2])
    np.testing.assert_allclose(half.magnitude(), whole.magnitude() / 2, atol=1e-4)
    box = hand4whole.person_box(boxes(points[:1], np.ones((1, 133), bool))[0][0], 128, 128)
    said = first.people(hand4whole.crop_people(frames[:1], [box]))
    in_camera = Rotation.from_matrix(track.viewmats[0, :3, :3]) * Rotation.from_rotvec(found.global_orient[0])
    np.testing.assert_allclose(in_camera.as_matrix(), Rotation.from_rotvec(said.global_orient[0].numpy()).as_matrix(), atol=1e-3)
    head = first.head(frames, points, scores)
    assert head.found.tolist() == [True, False, False, True] and head.expression.shape == (FRAMES, 50)
    np.testing.assert_allclose(head.expression[1], (2 * head.expression[0] + head.expression[3]) / 3, atol=1e-5)
    assert Initialiser(folder, head=False).head(frames, points, scores) is None  # says nothing, which is not that no face is there
    nobody = first.body(track, frames, points, scores * 0)
    assert nobody is track and not first.head(frames, points, scores * 0).found.any()


@pytest.mark.models
def test_files_that_are_not_there_are_named(tmp_path):
    with pytest.raises(WeightsMissing, match="snapshot_6"):
        PaperFit(FitConfig(backend="smplx-exavatar", flame="off", initialiser="hand4whole", weights=str(tmp_path))).setup()
    said = PaperFit.described(FitConfig(backend="smplx-exavatar", initialiser="hand4whole"))
    assert not said.commercial and {hand4whole.FILE, deca.FILE} <= {file.name for file in said.files}
