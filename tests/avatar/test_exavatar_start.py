"""An ExAvatar's start: the surface closed and painted before the first step, and better after a few."""

import numpy as np
import pytest
import torch
from painted_turn import paint, painted_turn

from svad_ray.body import load_body
from svad_ray.evaluate.metrics import psnr
from svad_ray.nets.exavatar.mesh import avatar_mesh
from svad_ray.nets.exavatar.model import AvatarModel
from svad_ray.stages.avatar.bake import regions_of, total_offset
from svad_ray.stages.avatar.exavatar import fresh_networks
from svad_ray.stages.avatar.exavatar_training import Poses, Trainer, cropped, draw, train_exavatar
from svad_ray.stages.avatar.first import begin, inset, reaches, vertex_colors
from svad_ray.stages.avatar.losses import over
from svad_ray.stages.avatar.regularisers import Regularisers

SIZE, FRAMES = 192, 4


@pytest.fixture(scope="module")
def given():
    """Body, track and views of a painted turn."""
    made = painted_turn(load_body(), size=SIZE, frames=FRAMES)
    return made.body, made.track, made.views()


@pytest.fixture(scope="module")
def started(given):
    body, track, views = given
    mesh = avatar_mesh(body, regions_of(body), levels=0)
    below = total_offset(None, inset(body, track, mesh))
    model = AvatarModel(mesh, fresh_networks(track, triplane=32, seed=0), surface_offset=below)
    error = begin(model, mesh, body, track, views, looks=FRAMES, steps=60, rate=0.01, seed=0)
    return model, vertex_colors(mesh, body, track, views), error


@torch.no_grad()
def shown(model: AvatarModel, poses: Poses, view, frame: int, background: float) -> np.ndarray:
    posed = model.posed(*poses.of(frame))
    return over(*draw(posed.refined, view), torch.tensor(background))[0].permute(1, 2, 0).numpy()


def test_vertices_take_the_colours_that_the_views_show(given, started):
    body, *_ = given
    model, colors, error = started
    true = paint(model.mesh.up(body.v_template).numpy())
    assert np.median(np.abs(colors - true)) < 0.04
    with torch.no_grad():
        own = (torch.tanh(model.static().rgb) + 1) / 2
    assert error < 0.06 and np.sqrt(((own.numpy() - colors) ** 2).mean()) < 0.06, "the networks hold what was fitted"


def test_the_surface_is_closed_at_the_start(given, started):
    """On black and on white the inner pixels of the person are the same: no light of the background comes through."""
    _, track, views = given
    model = started[0]
    poses = Poses((track,), 10)
    for frame, view in enumerate(views):
        black, white = (shown(model, poses, view, frame, ground) for ground in (0.0, 1.0))
        inside = torch.nn.functional.avg_pool2d(view.alpha[None, None], 5, 1, 2)[0, 0].numpy() > 0.999
        through = (white - black).mean(2)[inside]
        assert np.mean(through > 0.1) < 0.01


@torch.no_grad()
def test_at_the_start_poses_move_and_tint_next_to_nothing(given, started):
    _, track, _ = given
    posed = started[0].posed(*Poses((track,), 10).of(1))
    assert (posed.refined.means - posed.static.means).norm(dim=1).max() < 1e-3
    assert (posed.refined.colors - posed.static.colors).abs().max() < 0.02


def test_a_short_training_gives_a_picture(given, started):
    _, track, views = given
    model = started[0]
    poses, regularisers = Poses((track,), 10), Regularisers(model.mesh, model.canonical().mesh.detach(), model.networks.joint_offset.detach().clone())
    trainer = Trainer(model, regularisers, poses, cropped(views), gentle=True, refresh=10)

    def quality() -> float:
        return float(np.mean([psnr(shown(model, poses, view, i, 1.0), view.image.numpy()) for i, view in enumerate(views)]))

    before = quality()
    train_exavatar(trainer, iterations=8, rate=0.001, seed=0)
    after = quality()
    assert before > 18 and after > max(19.0, before + 0.2), f"{before:.2f} dB, then {after:.2f}; a white picture scores 12"


def test_a_vertex_reaches_to_the_middle_of_its_largest_triangle():
    vertices = np.array([[0.0, 0, 0], [3, 0, 0], [0, 3, 0], [0, 0, 1.5], [9, 9, 9]])
    got = reaches(vertices, np.array([[0, 1, 2], [0, 1, 3]]), rounds=0)
    want = [np.sqrt(2), np.sqrt(5), np.sqrt(5), np.sqrt(2), 0]
    np.testing.assert_allclose(got[[0, 1, 2]], want[:3])
    assert got[4] == np.median([*want[:3], np.linalg.norm([1, 0, -1.0])]), "one without a triangle has the others' median"
