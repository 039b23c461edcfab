"""The Gaussian avatar: colours from views, training, and the stored asset in use."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from painted_turn import paint, painted_turn

from svad_ray.body import load_body
from svad_ray.config import AvatarConfig
from svad_ray.evaluate.metrics import psnr, silhouette_iou
from svad_ray.stages.avatar.asset import INFLUENCES, PosableAvatar, rotations_from_quats
from svad_ray.stages.avatar.colors import colors_from_views
from svad_ray.stages.avatar.gaussian import GaussianAvatar, GaussianModel, surface_points, train
from svad_ray.stages.base import NO_CHECKPOINT
from svad_ray.store import load_avatar, save_avatar

SIZE, FRAMES = 320, 8


@pytest.fixture(scope="module")
def scene():
    return painted_turn(load_body(), size=SIZE, frames=FRAMES)


def test_first_colours_come_from_the_views_that_see_a_point(scene):
    surface = scene.surface
    points = surface_points(surface, 4000, head_density=4.0, seed=0)
    got = colors_from_views(surface, points, scene.views())
    true = np.einsum("nk,nkc->nc", points.bary, paint(surface.rest)[surface.faces[points.face]])
    assert np.median(np.abs(got - true)) < 0.04


@pytest.mark.slow
def test_training_lowers_the_loss_and_the_stored_asset_draws_the_same(scene, tmp_path):
    track, views = scene.track, scene.views()
    points = surface_points(scene.surface, 6000, head_density=2.0, seed=0)
    grey = np.full((len(points.face), 3), 0.5, np.float32)
    model = GaussianModel(points, grey, stiff=np.ones(len(grey)))
    losses = train(model, views, iterations=60, rates=(0.02, 0.01, 0.1), seed=0, progress=lambda done: None)
    assert np.mean(losses[-8:]) < 0.5 * np.mean(losses[:8])
    stage = GaussianAvatar(AvatarConfig())
    stage.body = scene.body
    save_avatar(stage._asset(model, scene.surface, points, track, scene.rest_joints, losses), tmp_path / "avatar")
    posable = PosableAvatar(load_avatar(tmp_path / "avatar"))
    with torch.no_grad():
        mine = model.render(views[3])[0].numpy()
    assert psnr(posable.render(track, 3)[0], mine) > 60
    assert sum(f.stat().st_size for f in (tmp_path / "avatar").rglob("*")) < 2e7


def test_the_ground_that_a_picture_is_drawn_on_is_no_error(scene):
    """A model before its own picture on white and its own alpha: the loss is what it costs on white, on any colour."""
    points = surface_points(scene.surface, 2000, head_density=2.0, seed=1)
    model = GaussianModel(points, np.full((len(points.face), 3), 0.3, np.float32), stiff=np.ones(len(points.face)))
    view = scene.views()[2]
    with torch.no_grad():
        image, alpha = model.render(view)
        own = replace(view, image=image, alpha=alpha)
        costs = [float(model.loss(own, torch.tensor(ground))) for ground in ([1.0, 1, 1], [0.0, 0, 0], [1.0, 0, 1])]
        other = float(model.loss(replace(own, alpha=alpha * 0.9), torch.zeros(3)))
    assert np.ptp(costs) < 1e-5 and other > max(costs) + 0.01


def test_a_white_fingertip_outside_the_person_costs_something(scene, monkeypatch):
    """On white alone only its alpha would; a person's own colour is judged on white in every step."""
    points = surface_points(scene.surface, 2000, head_density=2.0, seed=1)
    model = GaussianModel(points, np.full((len(points.face), 3), 0.3, np.float32), stiff=np.ones(len(points.face)))
    nobody = replace(scene.views()[0], image=torch.ones(SIZE, SIZE, 3), alpha=torch.zeros(SIZE, SIZE), weight=1.0)
    tip, color = torch.zeros(SIZE, SIZE), torch.tensor([0.2, 0.5, 1.0])
    tip[:40, :80] = 1

    def cost(paint: float) -> float:
        monkeypatch.setattr(model, "render", lambda view: (1 - (1 - paint) * tip[..., None].expand(-1, -1, 3), tip))
        return float(model.loss(nobody, color).detach())

    share = float(tip.mean())
    assert cost(1.0) == pytest.approx(share * (5 * float((1 - color).mean()) + 2), rel=1e-4)
    assert cost(0.0) - cost(1.0) == pytest.approx(share * 5 * (1 + float(color.mean()) - float((1 - color).mean())), rel=1e-4)


def test_training_is_the_same_every_time(scene):
    views = scene.views()

    def run():
        points = surface_points(scene.surface, 2000, head_density=2.0, seed=1)
        model = GaussianModel(points, np.full((len(points.face), 3), 0.5, np.float32), stiff=np.ones(len(points.face)))
        train(model, views, iterations=5, rates=(0.02, 0.01, 0.1), seed=2, progress=lambda done: None)
        return model.logit_color.detach().numpy()

    assert np.array_equal(run(), run())


def test_the_whole_stage_makes_a_person_on_white(scene):
    clip, track = scene.clip, scene.track
    stage = GaussianAvatar(AvatarConfig(gaussians=12_000, iterations=60, color_views=8))
    stage.setup()
    avatar = stage(clip, track, *scene.photo())
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

    views = scene.views()
    store, steps = ArtefactStore(tmp_path), []

    def run(kill_at: int = -1):
        """As another process would: everything anew, the state from the store."""
        points = surface_points(scene.surface, 2000, head_density=2.0, seed=1)
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
