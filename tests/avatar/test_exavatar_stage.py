"""The stage: training from a clip, continued training, and the stored avatar in use."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from painted_turn import painted_turn

from svad_ray.body import load_body
from svad_ray.config import AvatarConfig, ExAvatarConfig
from svad_ray.errors import InputError
from svad_ray.evaluate.metrics import psnr, silhouette_iou
from svad_ray.export.ply import write_ply
from svad_ray.stages.avatar.asset import PosableAvatar
from svad_ray.stages.avatar.bake import avatar_model, baked
from svad_ray.stages.avatar.exavatar import ExAvatar
from svad_ray.store import load_avatar, save_avatar

pytestmark = pytest.mark.slow
SIZE, FRAMES = 96, 3
SMALL = AvatarConfig(iterations=3, exavatar=ExAvatarConfig(levels=0, triplane=16))


@pytest.fixture(scope="module")
def person():
    """Arguments of the stage: a coloured body in a few views of a turn."""
    made = painted_turn(load_body(), size=SIZE, frames=FRAMES)
    return made.clip, made.track, *made.photo()


def stage(config: AvatarConfig = SMALL) -> ExAvatar:
    made = ExAvatar(config)
    made.setup()
    return made


def changed(iterations: int, **options) -> AvatarConfig:
    return AvatarConfig(iterations=iterations, exavatar=ExAvatarConfig(**{"levels": 0, "triplane": 16, **options}))


@pytest.fixture(scope="module")
def avatar(person):
    return stage(changed(12))(*person)


def test_training_paints_the_person(person, avatar):
    clip, track, *_ = person
    image, alpha = PosableAvatar(avatar).render(track, 0)
    bare, outline = PosableAvatar(stage(changed(1))(*person)).render(track, 0)
    truth = clip.frames[0] / 255.0
    assert avatar.kind == "exavatar" and avatar.facts["iterations"] == 12
    mask = clip.masks[0] / 255.0  # limbs are four pixels wide here, so that half a pixel more on either side shows
    assert silhouette_iou(alpha, mask) > max(0.65, silhouette_iou(outline, mask))
    assert psnr(image, truth) > psnr(bare, truth) + 0.2


def test_baked_gaussians_are_the_models_own(person, avatar, tmp_path):
    """The posable avatar against the model's whole forward pass, in a pose and with an expression."""
    _, track, *_ = person
    save_avatar(avatar, tmp_path / "avatar")
    kept = load_avatar(tmp_path / "avatar")
    assert all(np.array_equal(kept.tensors[key], value) for key, value in avatar.tensors.items())
    expression = np.zeros_like(track.expression)
    expression[:, 0] = 1.5
    moved = replace(track, expression=expression)
    posed = PosableAvatar(kept).posed(moved, 1)
    model = avatar_model(kept)
    from svad_ray.body.lbs import rotation_matrices

    with torch.no_grad():
        rotations = rotation_matrices(torch.tensor(moved.full_pose[1], dtype=torch.float32))
        own = model.posed(rotations, torch.tensor(expression[1]), torch.tensor(moved.transl[1], dtype=torch.float32))
    same = model.nearest((own.canonical.mesh + own.offsets.mean), own.canonical) == own.nearest  # an expression may change the nearest vertex
    assert same.float().mean() > 0.99
    assert (posed.means - own.static.means)[same].abs().max() < 2e-4
    assert torch.allclose(posed.colors, own.static.colors, atol=1e-6) and torch.allclose(posed.scales[:, :1], own.static.scales, rtol=1e-5)
    write_ply(kept, tmp_path / "a.ply", pose=track, frame=0)
    assert (tmp_path / "a.ply").stat().st_size > len(posed.means) * 40


def test_training_that_was_killed_goes_on_to_the_same_numbers(person, tmp_path):
    from svad_ray.local import StoredCheckpoint
    from svad_ray.store import ArtefactStore, Key

    config, steps = changed(3), []

    def stop(done: float) -> None:
        steps.append(done)
        if len(steps) == 2:
            raise KeyboardInterrupt

    kept = StoredCheckpoint(ArtefactStore(tmp_path), Key("avatar", "1" * 32), every_s=0)
    with pytest.raises(KeyboardInterrupt):
        stage(config)(*person, progress=stop, checkpoint=kept)
    resumed = stage(config)(*person, progress=steps.append, checkpoint=kept)
    whole = stage(config)(*person)
    assert 3 <= len(steps) < 5, "it went on, it did not begin again"
    assert resumed.facts == whole.facts
    assert all(np.array_equal(resumed.tensors[key], value) for key, value in whole.tensors.items())


def test_the_originals_order_of_work_runs_too(person):
    made = stage(changed(2, official=True))(*person)
    assert made.facts["background"] == "scene Gaussians" and np.isfinite(made.facts["loss_last"])


def test_the_fitted_face_is_part_of_the_avatar(person):
    """Its canonical mesh lies off the one without by the offset, upsampled; joints follow by the regressor; the stored avatar keeps it."""
    clip, track, *rest = person
    made = stage(changed(1))(clip, track, *rest)
    mesh = avatar_model(made).mesh
    body = mesh.body
    offset = np.zeros(tuple(body.v_template.shape), np.float32)
    offset[body.tables.regions["face"]] = [0.002, 0, 0.003]
    faced = replace(made, track=replace(made.track, face_offset=offset))
    with torch.no_grad():
        plain, ours = avatar_model(made).canonical(), avatar_model(faced).canonical()
    torch.testing.assert_close(ours.rest_joints - plain.rest_joints, body.J_regressor @ torch.tensor(offset), atol=1e-6, rtol=0)
    moved = (ours.low - plain.low)[body.tables.regions["face"][mesh.low]]
    assert (moved - torch.tensor([0.002, 0, 0.003])).norm(dim=1).median() < 1e-3
    kept = stage(changed(1))(clip, replace(track, face_offset=offset), *rest)
    np.testing.assert_array_equal(kept.track.face_offset, offset)
    with pytest.raises(InputError, match="face_offset of shape"):
        stage(changed(1))(clip, replace(track, face_offset=offset[1:]), *rest)


def test_what_does_not_fit_is_refused(person, avatar):
    clip, track, photo, seen, photo_track = person
    with pytest.raises(InputError, match="a track of body"):
        stage()(clip, replace(track, body_id="another"), photo, seen, photo_track)
    nan = replace(track, transl=np.full_like(track.transl, np.nan))
    with pytest.raises(InputError, match="no numbers"):
        stage()(clip, nan, photo, seen, photo_track)
    with pytest.raises(InputError, match="has the id"):
        baked(replace(avatar, track=replace(avatar.track, body_id="another")))
    short = {key: value for key, value in avatar.tensors.items() if "rgb_net" not in key}
    with pytest.raises(InputError, match="missing, unknown"):
        baked(replace(avatar, tensors=short))
    with pytest.raises(InputError, match="kind 'voxels'"):
        baked(replace(avatar, kind="voxels"))
