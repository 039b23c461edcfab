"""The paper's identity stage on rule-made weights and a head cut from the open body: it turns as the body does, and no frame is ever lost."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from svad_ray.body import load_body
from svad_ray.body.flame import Embedding, Flame
from svad_ray.body.names import JOINT_INDEX
from svad_ray.config import IdentityConfig
from svad_ray.errors import InputError, QualityRejected, WeightsMissing
from svad_ray.fitting.heads import landmarks_of, posed_vertices, project
from svad_ray.motion import load_motion, retarget
from svad_ray.motion.heads import HeadTrack, save_head_track
from svad_ray.nets.gagavatar.tiny import TINY, write_tiny
from svad_ray.stages.identity.fusion import shape_disparity
from svad_ray.stages.identity.gagavatar import GAGAvatarIdentity, head_crop, looked_at, turn_deg
from svad_ray.stages.identity.head import head_transforms
from svad_ray.stages.perceive.wholebody import FACE_68_FROM_MESH, face_68
from svad_ray.subject import Clip, Perception, Photo

pytestmark = pytest.mark.models
FRAMES = 8
INNER = slice(17, 68)  # the contour slides over the body's head, not over the tracked one's


def open_head(body) -> Flame:
    """The open body's head in FLAME's layout: its vertices round the head joint, its landmarks, its first shapes."""
    of_head = [JOINT_INDEX[name] for name in ("head", "jaw", "left_eye", "right_eye")]
    keep = (body.lbs_weights[:, of_head].sum(1) > 0.5).numpy()
    number = np.cumsum(keep) - 1
    corner_kept = keep[body.faces].all(1)
    faces = number[body.faces[corner_kept]]
    face_number = np.cumsum(corner_kept) - 1
    centre = body.joint_template[JOINT_INDEX["head"]] + torch.tensor([0, 0.07, 0.02])
    weights = torch.zeros(int(keep.sum()), 5)
    weights[:, 2] = body.lbs_weights[keep, JOINT_INDEX["jaw"]]
    weights[:, 1] = 1 - weights[:, 2]
    regressor = torch.full((5, len(weights)), 1 / len(weights))
    landmarks = Embedding(face_number[body.tables.landmark_faces], body.tables.landmark_bary.astype(np.float32))
    contour = Embedding(face_number[body.tables.contour_faces], body.tables.contour_bary.astype(np.float32))
    template = body.v_template[keep] - centre
    dirs = (body.shapedirs[keep][..., :10], body.exprdirs[keep][..., :10])
    return Flame("open", "CC0", template, faces, *dirs, torch.zeros(len(weights), 3, 36), regressor, weights, inner=landmarks, contour=contour)


@pytest.fixture(scope="module")
def body():
    return load_body()


@pytest.fixture(scope="module")
def weights(body, tmp_path_factory):
    head = open_head(body)
    folder = write_tiny(tmp_path_factory.mktemp("gaga"), sizes=replace(TINY, vertices=len(head.v_template)))
    arrays = {"v_template": head.v_template, "f": head.faces, "weights": head.lbs_weights, "J_regressor": head.J_regressor, "posedirs": head.posedirs}
    shapes = torch.cat([head.shapedirs, head.exprdirs], 2)
    np.savez(folder / "FLAME_NEUTRAL.npz", shapedirs=shapes, kintree_table=np.array([[-1, 0, 1, 1, 1], range(5)]), **arrays)
    points = {"static": head.inner, "dynamic": head.contour}
    embeddings = {
        f"{kind}_lmk_{name}": getattr(at, part) for kind, at in points.items() for name, part in (("faces_idx", "faces"), ("bary_coords", "bary"))
    }
    np.save(folder / "landmark_embedding.npy", np.array(embeddings, object), allow_pickle=True)
    return folder


def made(weights, **settings) -> GAGAvatarIdentity:
    stage = GAGAvatarIdentity(IdentityConfig(backend="gagavatar", weights=str(weights), **settings))
    stage.setup()
    return stage


@pytest.fixture(scope="module")
def stage(weights):
    return made(weights)


@pytest.fixture(scope="module")
def track(body):
    """A person who turns once round, seen by a close camera; the first frame is the photo's."""
    turn = load_motion("a-pose-turn", body)
    turn = turn.frames(np.linspace(0, len(turn), FRAMES, endpoint=False).astype(int))
    return retarget(turn, person=turn.frames(slice(0, 1)), body=body, size=512)


def face_points(stage, track) -> np.ndarray:
    return stage._face_points(track)


def seen_photo(stage, track) -> tuple[Photo, Perception]:
    """A photo whose face mesh holds the body's own 68 points."""
    points = face_points(stage, track.frames(slice(0, 1)))[0]
    mesh = np.zeros((468, 3), np.float32)
    mesh[:, :2] = points.mean(0)
    mesh[FACE_68_FROM_MESH, :2] = points
    mesh[10, :2] = points.mean(0) - [0, 1.1 * np.ptp(points[:, 1]) / 2]  # forehead
    height, width = track.image_size
    image = np.random.default_rng(0).integers(60, 200, (height, width, 3), np.uint8)
    nothing = np.full((2, 21, 3), np.nan, np.float32)
    marks = np.zeros((33, 2), np.float32)
    shown = Perception(
        np.zeros((133, 2), np.float32), np.zeros(133, np.float32), np.ones((height, width), np.float32), marks, np.ones(33), np.zeros((33, 3)), mesh,
        nothing, 0.9, 1,
    )  # fmt: skip
    return Photo("figure", image, "0" * 64), shown


@pytest.fixture(scope="module")
def reference(stage, track):
    return stage.reference(*seen_photo(stage, track), track.frames(slice(0, 1)))


def clip(track, images) -> Clip:
    images = np.stack(images)
    return Clip(images, np.full(images.shape[:3], 255, np.uint8), track, ("before",) * len(images), 0)


def noise(track, seed=0) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).integers(0, 255, (len(track), *track.image_size, 3), np.uint8))


def test_the_photo_is_tracked(stage, track, reference):
    """The head model's landmarks lie on the photo's, and the camera looks at its face."""
    _, seen = seen_photo(stage, track)
    _, to_crop = head_crop(np.zeros((*track.image_size, 3), np.uint8), seen.mask, seen.face_mesh)
    points = face_68(seen.face_mesh)[:, :2] @ to_crop[:, :2].T + to_crop[:, 2]
    ours = stage._landmarks(reference.track)
    assert np.linalg.norm(ours - points, axis=1).mean() < 4
    assert turn_deg(reference.track.transforms[0], np.array([[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, -1.0, 0]])) < 15
    assert stage._eyes_seen(reference.track)
    assert reference.gaussians["colors"].shape[1] == len(stage.flame.v_template) + 2 * stage.network.sizes.plane**2


def test_the_head_turns_as_the_body_does(stage, track, reference):
    """In every frame that shows the face, the posed head's 68 points have the shape of the body's own; a mirrored turn would not."""
    heads, expected = head_transforms(stage.body, track), face_points(stage, track)
    turns, shapes, eyes = [], [], []
    for i in range(FRAMES):
        posed = stage.posed_for(i, reference, heads[i], track.jaw_pose[i])
        turns.append(turn_deg(reference.track.transforms[0], posed.transforms[0]))
        points = landmarks_of(stage.flame, posed_vertices(stage.flame, posed))
        shapes.append(shape_disparity(expected[i, INNER], project(points, torch.tensor(posed.transforms))[0, INNER].numpy()))
        eyes.append(stage._eyes_seen(posed))
    np.testing.assert_allclose(np.array(turns)[[0, 1, 2, 6, 7]], [0, 45, 90, 90, 45], atol=4)
    assert np.argmax(turns) == 4  # the camera looks down a little, so that half a turn is less than 180 degrees to it
    assert max(shapes) < 0.02, shapes
    mirrored = project(landmarks_of(stage.flame, posed_vertices(stage.flame, posed)), torch.tensor(posed.transforms))[0].numpy()
    assert shape_disparity(expected[1, INNER], mirrored[INNER]) > 0.05  # the last frame is the first one's mirror image
    assert eyes[0] and not any(eyes[2:7])


def test_a_head_beside_the_middle_is_seen_from_its_side():
    """Straight ahead in the camera's axes, 45 degrees to the right of the picture's middle: turned to it, the camera sees it from 45 degrees."""
    head = np.eye(4)[None].copy()
    head[0, :3, 3] = [2.0, 0, 2.0]
    expected = np.array([[np.sqrt(0.5), 0, -np.sqrt(0.5)], [0, 1, 0], [np.sqrt(0.5), 0, np.sqrt(0.5)]])
    np.testing.assert_allclose(looked_at(head)[0], expected, atol=1e-9)


def test_every_frame_comes_back_with_its_reason(stage, track, reference):
    whole = clip(track, noise(track))
    out = stage(whole, reference)
    np.testing.assert_array_equal(out.frames, whole.frames)  # noise shows no face
    assert all(remark.startswith("before; fusion refused: ") for remark in out.remarks)
    assert "head turned" in out.remarks[4] and "no face in the" in out.remarks[0]
    parts = [stage(whole.slice(a, b), reference) for a, b in ((0, 3), (3, 8))]
    assert sum((part.remarks for part in parts), ()) == out.remarks
    for image in (np.zeros_like(whole.frames[0]), np.full_like(whole.frames[0], 128)):
        plain = stage(clip(track, [image] * FRAMES), reference)
        assert (plain.frames == image).all() and "no face in the frame" in plain.remarks[0]
    official = made(stage.config.weights, gate="official")
    late = official(replace(whole, first=135), reference)
    assert "after 138" in late.remarks[4 + 3] and "no face" in late.remarks[0]


def test_pictures_of_a_batch_are_those_of_a_loop(stage, track, reference):
    heads = head_transforms(stage.body, track)
    tracks = [stage.posed_for(i, reference, heads[i], track.jaw_pose[i]) for i in range(3)]
    together = stage.render(reference, tracks, [5, 6, 7])
    alone = [stage.render(reference, [one], [number])[0] for one, number in zip(tracks, (5, 6, 7))]
    assert max(np.abs(a.astype(int) - b).max() for a, b in zip(together, alone)) <= 1
    assert np.abs(together[0].astype(int) - together[1]).mean() > 1  # another pose, another noise


def test_a_driver_gives_expression_eyes_and_camera(weights, track, reference, tmp_path):
    own = reference.track
    driven = HeadTrack(own.shape, own.expression + 1, own.pose, own.eyes + 0.1, own.transforms + 0.01, own.seen, source="a driver")
    save_head_track(driven, tmp_path / "driver.npz")
    stage = made(weights, driver=str(tmp_path / "driver.npz"))
    posed = stage.posed_for(17, reference, np.eye(4), np.zeros(3))  # past the driver's end: it begins again
    np.testing.assert_array_equal(posed.transforms, driven.transforms)
    np.testing.assert_array_equal(posed.expression, driven.expression)
    np.testing.assert_array_equal(posed.shape, own.shape)
    with pytest.raises(InputError, match="no head track"):
        made(weights, driver=str(tmp_path / "other.npz"))


def test_the_crop_is_square_upright_and_black_outside():
    image, mask = np.full((100, 60, 3), 200, np.uint8), np.ones((100, 60), np.float32)
    mesh = np.zeros((468, 3), np.float32)
    mesh[:, 0], mesh[:, 1] = np.linspace(20, 40, 468), np.linspace(4, 30, 468)
    crop, to_crop = head_crop(image, mask, mesh)
    assert crop.shape == (512, 512, 3) and (crop[:60] == 0).all() and (crop[300, 256] == 200).all()
    inside = np.array([[30.5, 20.5]]) @ to_crop[:, :2].T + to_crop[:, 2]
    assert (np.abs(inside - 256) < 256).all()
    mask[:, :30] = 0
    half, _ = head_crop(image, mask, mesh)
    assert half[300, 200].max() == 0 and half[300, 300].min() == 200
    edge = (np.array([[30.0, 50.0]]) @ to_crop[:, :2].T + to_crop[:, 2])[0, 0]
    bright = np.flatnonzero(half[400, :, 0] > 100)[0]
    assert abs(bright - edge) <= 512 / 60  # half a pixel of the photo


def test_what_is_missing_is_named(stage, weights, track, reference, tmp_path):
    with pytest.raises(WeightsMissing, match="no folder"):
        GAGAvatarIdentity(IdentityConfig(backend="gagavatar")).setup()
    shutil.copy(weights / "GAGAvatar.pt", tmp_path)
    with pytest.raises(WeightsMissing, match="no head model"):
        made(tmp_path)
    write_tiny(tmp_path, sizes=replace(TINY, vertices=99))
    for name in ("FLAME_NEUTRAL.npz", "landmark_embedding.npy"):
        shutil.copy(weights / name, tmp_path)
    with pytest.raises(InputError, match="Expected: 99"):
        made(tmp_path)
    photo, shown = seen_photo(stage, track)
    with pytest.raises(QualityRejected, match="no face"):
        stage.reference(photo, replace(shown, face_mesh=None), track.frames(slice(0, 1)))
