"""The Gaussian avatar: colours from views, training, and the stored asset in use."""

import numpy as np
import pytest
import torch

from svad_ray.body import load_body
from svad_ray.config import AvatarConfig
from svad_ray.evaluate.metrics import psnr, silhouette_iou
from svad_ray.fitting.clothed import clothed_surface
from svad_ray.motion import retarget, turn
from svad_ray.stages.animate.embedded import spread
from svad_ray.stages.avatar.asset import INFLUENCES, PosableAvatar, rotations_from_quats
from svad_ray.stages.avatar.colors import colors_from_views
from svad_ray.stages.avatar.gaussian import GaussianAvatar, GaussianModel, clip_views, surface_points, train
from svad_ray.stages.base import NO_CHECKPOINT
from svad_ray.store import load_avatar, save_avatar
from svad_ray.subject import BodyTrack, Clip, Perception, Photo

SIZE, FRAMES = 320, 8


@pytest.fixture(scope="module")
def scene():
    """A body whose colour is a function of its rest position, drawn by the mesh rasteriser in eight views of a turn."""
    from svad_ray.fitting.state import pose_body, state_of
    from svad_ray.geometry.raster import interpolate, rasterize_mesh, to_camera

    body = load_body()
    nobody = BodyTrack(**{**vars(turn(2)), "betas": np.zeros(20, np.float32), "body_id": body.id})
    track = retarget(spread(turn(), FRAMES), person=nobody, body=body, size=SIZE)
    surface = clothed_surface(body, track.betas, None)
    color = 0.5 + 0.4 * np.sin(surface.rest * [9.0, 7.0, 11.0])
    rest = body.J_regressor @ body.v_template
    skin = pose_body(body, rest, state_of(track).pose, state_of(track).transl).skin
    frames, masks = np.full((FRAMES, SIZE, SIZE, 3), 255, np.uint8), np.zeros((FRAMES, SIZE, SIZE), np.uint8)
    for i in range(FRAMES):
        buffers = rasterize_mesh(to_camera(surface.posed(skin[i]), track.viewmats[i]), surface.faces, track.Ks[i], SIZE, SIZE)
        frames[i][buffers.mask] = interpolate(buffers, surface.faces, color) * 255
        masks[i][buffers.mask] = 255
    return body, surface, color, rest, Clip(frames, masks, track, ("",) * FRAMES), track


def test_first_colours_come_from_the_views_that_see_a_point(scene):
    body, surface, color, rest, clip, track = scene
    points = surface_points(surface, 4000, head_density=4.0, seed=0)
    got = colors_from_views(surface, points, clip_views(body, rest, clip, track))
    true = np.einsum("nk,nkc->nc", points.bary, color[surface.faces[points.face]])
    assert np.median(np.abs(got - true)) < 0.04


@pytest.mark.slow
def test_training_lowers_the_loss_and_the_stored_asset_draws_the_same(scene, tmp_path):
    body, surface, _, rest, clip, track = scene
    points = surface_points(surface, 6000, head_density=2.0, seed=0)
    views = clip_views(body, rest, clip, track)
    grey = np.full((len(points.face), 3), 0.5, np.float32)
    model = GaussianModel(points, grey, stiff=np.ones(len(grey)))
    losses = train(model, views, iterations=60, rates=(0.02, 0.01, 0.1), seed=0, progress=lambda done: None)
    assert np.mean(losses[-8:]) < 0.5 * np.mean(losses[:8])
    stage = GaussianAvatar(AvatarConfig())
    stage.body = body
    save_avatar(stage._asset(model, surface, points, track, rest, losses), tmp_path / "avatar")
    posable = PosableAvatar(load_avatar(tmp_path / "avatar"))
    with torch.no_grad():
        mine = model.render(views[3], torch.ones(3))[0].numpy()
    assert psnr(posable.render(track, 3)[0], mine) > 60
    assert sum(f.stat().st_size for f in (tmp_path / "avatar").rglob("*")) < 2e7


def test_training_is_the_same_every_time(scene):
    body, surface, _, rest, clip, track = scene
    views = clip_views(body, rest, clip, track)

    def run():
        points = surface_points(surface, 2000, head_density=2.0, seed=1)
        model = GaussianModel(points, np.full((len(points.face), 3), 0.5, np.float32), stiff=np.ones(len(points.face)))
        train(model, views, iterations=5, rates=(0.02, 0.01, 0.1), seed=2, progress=lambda done: None)
        return model.logit_color.detach().numpy()

    assert np.array_equal(run(), run())


def test_the_whole_stage_makes_a_person_on_white(scene):
    _, _, _, _, clip, track = scene
    photo = Photo("frame", clip.frames[0], "")
    nothing = np.zeros(0, np.float32)
    seen = Perception(nothing, nothing, clip.masks[0] / np.float32(255), nothing, nothing, nothing, None, nothing, 1.0, 1)
    stage = GaussianAvatar(AvatarConfig(gaussians=12_000, iterations=60, color_views=8))
    stage.setup()
    avatar = stage(clip, track, photo, seen, track.frames(slice(0, 1)))
    image, alpha = PosableAvatar(avatar).render(track, 0)
    truth = clip.frames[0] / 255.0
    # the truth has hard, aliased edges at this size, which caps the figure; a white picture scores 12
    assert psnr(image, truth) > 22 and silhouette_iou(alpha, clip.masks[0] / 255.0) > 0.9
    assert avatar.tensors["lbs_weights"].shape[1] == INFLUENCES and avatar.facts["iterations"] == 60
    assert len(avatar.tensors["source"]) == len(avatar.tensors["confidence"]) == len(avatar.tensors["means"])
    assert avatar.facts["confidence"]["photos"] == ["frame"] and 0.15 < avatar.facts["confidence"]["seen"] < 0.6


def test_rotations_from_quats_are_rotations():
    q = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    m = rotations_from_quats(q)
    assert torch.allclose(m @ m.transpose(1, 2), torch.eye(3).expand(50, 3, 3), atol=1e-5)
    assert torch.allclose(torch.linalg.det(m), torch.ones(50), atol=1e-5)


def test_training_that_was_killed_goes_on_to_the_same_numbers(scene, tmp_path):
    from svad_ray.local import StoredCheckpoint
    from svad_ray.store import ArtefactStore, Key

    body, surface, _, rest, clip, track = scene
    views = clip_views(body, rest, clip, track)
    store, steps = ArtefactStore(tmp_path), []

    def run(kill_at: int = -1):
        """As another process would: everything anew, the state from the store."""
        points = surface_points(surface, 2000, head_density=2.0, seed=1)
        model = GaussianModel(points, np.full((len(points.face), 3), 0.5, np.float32), stiff=np.ones(len(points.face)))

        def progress(done: float) -> None:
            steps.append(done)
            if len(steps) == kill_at:
                raise KeyboardInterrupt

        kept = StoredCheckpoint(store, Key("avatar", "1" * 32), every_s=0) if kill_at or steps else NO_CHECKPOINT
        losses = train(model, views, iterations=20, rates=(0.02, 0.01, 0.1), seed=2, progress=progress, checkpoint=kept)
        return losses, [p.detach().numpy().copy() for p in model.parameters()]

    whole = run(kill_at=0)
    steps.clear()
    with pytest.raises(KeyboardInterrupt):
        run(kill_at=11)  # in the second round of views: their order is part of the state
    resumed = run()
    assert len(steps) == 20 and steps[-1] == 1.0
    assert resumed[0] == whole[0]
    assert all(np.array_equal(a, b) for a, b in zip(resumed[1], whole[1]))
