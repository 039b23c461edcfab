"""The restore stage on a body that turns: its plan keeps the budget, no frame is lost, cameras follow the scale."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from svad_ray.config import RestoreConfig
from svad_ray.conventions import BODY_TO_CAMERA
from svad_ray.errors import InputError, SvadError
from svad_ray.geometry.raster import project, to_camera
from svad_ray.stages.identity.head import facing_deg, head_boxes, head_transforms
from svad_ray.stages.restore.networks import LARGE_S
from svad_ray.stages.restore.photo import restore_photo_head
from svad_ray.subject import BodyTrack, Clip, Photo

pytestmark = pytest.mark.models
SIZE, FOCAL = 160, 500.0


@pytest.fixture(scope="module")
def stage():
    from svad_ray.stages.restore.embedded import RealEsrganRestore

    made = RealEsrganRestore(RestoreConfig(budget_s=2.0))
    try:
        made.setup()
    except SvadError as error:
        pytest.skip(f"model packages cannot be had: {error}")
    return made


def turning_track(body, frames: int = 12) -> BodyTrack:
    """A standing body that turns evenly once round, its head in the middle of the image."""
    z, zero = np.zeros((frames, 1), np.float32), np.zeros((frames, 3), np.float32)
    orient = zero.copy()
    orient[:, 1] = 2 * np.pi * np.arange(frames) / frames
    transl = zero.copy()
    transl[:, 1:] = [-0.62, -3.5]
    return BodyTrack(
        betas=np.zeros(10, np.float32),
        global_orient=orient,
        body_pose=np.zeros((frames, 21, 3), np.float32),
        left_hand_pose=np.zeros((frames, 15, 3), np.float32),
        right_hand_pose=np.zeros((frames, 15, 3), np.float32),
        jaw_pose=zero,
        leye_pose=zero,
        reye_pose=zero,
        expression=z,
        transl=transl,
        viewmats=np.tile(BODY_TO_CAMERA, (frames, 1, 1)),
        Ks=np.tile(np.array([[FOCAL, 0, SIZE / 2], [0, FOCAL, SIZE / 2], [0, 0, 1]], np.float32), (frames, 1, 1)),
        image_size=(SIZE, SIZE),
        fps=25.0,
        body_id=body.id,
    )


def clip_of(track: BodyTrack) -> Clip:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (len(track), SIZE // 8, SIZE // 8, 3)).astype(np.uint8).repeat(8, 1).repeat(8, 2)
    return Clip(frames, np.full(frames.shape[:3], 255, np.uint8), track, tuple("x" if i == 1 else "" for i in range(len(track))))


def test_head_transforms_equal_the_full_body_model(stage):
    track = turning_track(stage.body)
    pose = {name: torch.tensor(getattr(track, name)) for name in ("global_orient", "body_pose", "transl")}
    joints = stage.body.forward(betas=torch.zeros(1, 10).expand(12, -1), **pose).joints[:, 15].numpy()
    ours = head_transforms(stage.body, track)
    for i in range(12):
        np.testing.assert_allclose(ours[i, :3, 3], to_camera(joints[i], track.viewmats[i]), atol=1e-5)
        np.testing.assert_allclose(ours[i, :3, :3] @ ours[i, :3, :3].T, np.eye(3), atol=1e-5)


def test_facing_angle_follows_the_turn_and_boxes_hold_the_head(stage):
    track = turning_track(stage.body)
    heads = head_transforms(stage.body, track)
    expected = np.degrees(np.abs((2 * np.pi * np.arange(12) / 12 + np.pi) % (2 * np.pi) - np.pi))
    assert np.abs(facing_deg(heads) - expected).max() < 8  # the camera looks a little up or down at the head
    boxes = head_boxes(heads, track.Ks)
    pose = {name: torch.tensor(getattr(track, name)) for name in ("global_orient", "transl")}
    vertices = stage.body.forward(betas=torch.zeros(1, 10).expand(12, -1), **pose).vertices.numpy()
    skull = stage.body.lbs_weights[:, 15].numpy() > 0.9
    for i in range(12):
        xy = project(to_camera(vertices[i, skull], track.viewmats[i]), track.Ks[i])
        assert (xy > boxes[i, :2] - 1).all() and (xy < boxes[i, 2:] + 1).all()


def test_plan_takes_the_most_frontal_frames_within_the_budget(stage):
    track = turning_track(stage.body)
    plan = stage.plan(track)
    heads = head_transforms(stage.body, track)
    boxes, angles = head_boxes(heads, track.Ks), facing_deg(heads)
    side = np.ceil(boxes[:, 2] - boxes[:, 0]) - 1
    assert plan and (side[list(plan)] ** 2).sum() * LARGE_S <= stage.config.budget_s
    assert max(angles[i] for i in plan) <= min(angles[i] for i in set(range(12)) - set(plan)) + 1e-6
    assert stage.plan(track, first=40) == tuple(i + 40 for i in plan)


def test_no_frame_is_lost_and_blocks_do_not_change_the_result(stage):
    clip = clip_of(turning_track(stage.body))
    plan = (0,)
    whole = stage(clip.slice(0, 3), plan)
    assert len(whole) == 3 and whole.frames.shape == (3, SIZE, SIZE, 3)
    assert whole.remarks == ("head x4plus", "x; head compact", "head compact")
    again = stage(clip.slice(2, 3), plan)
    assert np.array_equal(again.frames[0], whole.frames[2]) and again.first == 2


def test_a_head_outside_the_image_is_said_and_the_frame_kept(stage):
    track = turning_track(stage.body, 1)
    track.transl[:, 0] = 5
    clip = clip_of(track)
    out = stage(clip)
    assert "not restored" in out.remarks[0]
    assert np.array_equal(out.frames, clip.frames)


def test_scale_two_doubles_frames_masks_and_cameras(stage):
    from svad_ray.stages.restore.embedded import RealEsrganRestore

    double = RealEsrganRestore(RestoreConfig(scale=2, budget_s=0))
    double.body, double.networks = stage.body, stage.networks
    clip = clip_of(turning_track(stage.body)).slice(0, 1)
    out = double(clip)
    assert out.frames.shape == (1, 2 * SIZE, 2 * SIZE, 3) and out.masks.shape == (1, 2 * SIZE, 2 * SIZE)
    assert out.track.image_size == (2 * SIZE, 2 * SIZE)
    point = np.array([0.1, 0.2, 3.0])
    np.testing.assert_allclose(project(point, out.track.Ks[0]), 2 * project(point, clip.track.Ks[0]), rtol=1e-6)
    assert out.remarks[0] == "head compact"


def test_photo_head_keeps_colours_and_maps_pixels(stage):
    image = clip_of(turning_track(stage.body, 1)).frames[0]
    photo = Photo("p", image, "0")
    head = restore_photo_head(photo, np.array([40.0, 40, 72, 72]), networks=stage.networks)
    assert head.scale == 4 and head.image.shape == (128, 128, 3) and head.box == (40, 40, 72, 72)
    np.testing.assert_allclose(head.uv(np.array([40.5, 71.5])), [2.0, 126.0])
    back = head.image.reshape(32, 4, 32, 4, 3).mean((1, 3))
    assert np.abs(back - image[40:72, 40:72]).mean() < 6
    kept = restore_photo_head(photo, np.array([40.0, 40, 72, 72]), budget_s=0.01, networks=stage.networks)
    assert kept.scale == 1 and np.array_equal(kept.image, image[40:72, 40:72]) and "kept" in kept.remark
    with pytest.raises(InputError, match="not in the photo"):
        restore_photo_head(photo, np.array([500.0, 500, 540, 540]), networks=stage.networks)
