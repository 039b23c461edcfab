"""What a step of ExAvatar's training sees: in each the picture on white, and what sticks out of the person costs something whatever its colour."""

from dataclasses import replace

import pytest
import torch
from painted_turn import painted_turn

from svad_ray.nets.exavatar.mesh import avatar_mesh
from svad_ray.nets.exavatar.model import AvatarModel
from svad_ray.stages.avatar import exavatar_training
from svad_ray.stages.avatar.bake import regions_of
from svad_ray.stages.avatar.exavatar import fresh_networks
from svad_ray.stages.avatar.exavatar_training import NAMES, Poses, Trainer, draw
from svad_ray.stages.avatar.losses import ALPHA, HUMAN, RGB, SSIM, away_on, over
from svad_ray.stages.avatar.regularisers import Regularisers
from svad_ray.stages.avatar.ssim import dissimilarity

SIZE = 64


@pytest.fixture(scope="module")
def trainer(golden_body):
    made = painted_turn(golden_body, size=SIZE, frames=1)
    mesh, networks = avatar_mesh(golden_body, regions_of(golden_body), levels=0), fresh_networks(made.track, triplane=16, seed=0)
    model = AvatarModel(mesh, networks)
    regularisers = Regularisers(mesh, model.canonical().mesh.detach(), networks.joint_offset.detach().clone())
    return Trainer(model, regularisers, Poses((made.track,), 10), made.views())


@pytest.fixture
def pictures(trainer, monkeypatch):
    """Terms of a step in which both renders are a block of one colour before nobody."""
    tip = torch.zeros(1, 1, SIZE, SIZE)
    tip[..., 10:30, 20:60] = 1
    nobody = replace(trainer.views[0], image=torch.ones(SIZE, SIZE, 3), alpha=torch.zeros(SIZE, SIZE))
    monkeypatch.setattr(trainer, "views", [nobody])

    def made(paint: float, step: int) -> tuple[dict[str, float], torch.Tensor, torch.Tensor]:
        image = (1 - (1 - paint) * tip).expand(-1, 3, -1, -1).contiguous()
        monkeypatch.setattr(exavatar_training, "draw", lambda assets, view: (image, tip))
        return {name: float(value) for name, value in trainer.terms(0, step, image_only=True).items()}, image, tip

    return made


@pytest.mark.parametrize("step", range(4))
def test_every_step_has_a_picture_on_white(pictures, step):
    found, image, tip = pictures(0.25, step)
    for name in NAMES:
        assert found["rgb_human" + name] == pytest.approx(0.75 * float(tip.mean()) * RGB, rel=1e-5)
        assert found["ssim_human" + name] == pytest.approx(float(dissimilarity(image, torch.ones_like(image))) * SSIM, rel=1e-4)


def test_a_white_fingertip_outside_the_person_costs_something_in_every_step(pictures):
    seen = []
    for step in range(6):
        found, _, tip = pictures(1.0, step)
        share = float(tip.mean())
        for name in NAMES:
            assert found["rgb_human" + name] == 0 and found["alpha" + name] == pytest.approx(share * ALPHA, rel=1e-5)
            seen.append(found["rgb_human_rand_bg" + name] / share / HUMAN)
    assert min(seen) > 0.1 and len(set(seen)) == 6, "one colour a step for both renders, another every step"


@pytest.mark.parametrize("last", [False, True])
def test_on_another_colour_a_picture_is_what_a_render_on_it_is(trainer, last):
    """By its alpha, against the rasteriser's own background, channels first and last."""
    with torch.no_grad():
        assets, view, color = trainer.model.posed(*trainer.poses.of(0)).refined, trainer.views[0], torch.tensor([0.9, 0.1, 0.4])
        assets = assets._replace(scales=torch.full_like(assets.scales, 0.02))
        image, alpha = draw(assets, view)
        quats = torch.tensor([[1.0, 0, 0, 0]]).expand(len(assets.means), -1).contiguous()
        opaque, scales = torch.ones(len(assets.means)), assets.scales.expand(-1, 3)
        camera = view.viewmat[None], view.K[None], SIZE, SIZE
        own, *_ = exavatar_training.rasterization(assets.means, quats, scales, opaque, assets.colors, *camera, packed=False, backgrounds=color[None])
        assert 0.02 < float(alpha.mean()) < 0.9
        if last:
            got, truth = over(image.permute(0, 2, 3, 1), alpha.permute(0, 2, 3, 1), color), torch.rand(1, SIZE, SIZE, 3)
            mask = torch.rand(1, SIZE, SIZE, 1)
            away = away_on(color, image.permute(0, 2, 3, 1), alpha.permute(0, 2, 3, 1), truth, mask)
            assert float(away) == pytest.approx(float((own - (truth + (1 - mask) * (color - 1))).abs().mean()), rel=1e-5)
        else:
            got = over(image, alpha, color[:, None, None]).permute(0, 2, 3, 1)
        torch.testing.assert_close(got, own, atol=2e-6, rtol=0)
