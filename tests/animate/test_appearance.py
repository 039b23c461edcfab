"""Projection, completion and drawing on a plain sheet of triangles, where everything can be counted by hand; and on the open body."""

import numpy as np
import pytest
import torch

from svad_ray.body import load_body
from svad_ray.fitting.clothed import PARTS, Surface, clothed_surface
from svad_ray.fitting.state import photo_camera, pose_body, relaxed_pose
from svad_ray.geometry.raster import project, rasterize_mesh, to_camera
from svad_ray.stages.animate.appearance import Appearance, draw
from svad_ray.stages.animate.completion import complete, reaches_sides
from svad_ray.stages.animate.embedded import spread
from svad_ray.stages.animate.projection import extend_person, limbs_in_front, look_at_photo

K = np.array([[200.0, 0, 64], [0, 200, 64], [0, 0, 1]])


def sheet(z=2.0, n=9, side=0.5):
    """A square sheet facing the camera: camera points, surface."""
    t = np.linspace(-side, side, n)
    x, y = np.meshgrid(t, t)
    points = np.stack([x.ravel(), y.ravel(), np.full(n * n, z)], 1).astype(np.float32)
    i = np.arange(n * n).reshape(n, n)
    a, b, c, d = i[:-1, :-1].ravel(), i[:-1, 1:].ravel(), i[1:, 1:].ravel(), i[1:, :-1].ravel()
    faces = np.concatenate([np.stack([a, d, b], 1), np.stack([b, d, c], 1)])
    weights = torch.zeros(n * n, 55)
    weights[:, 0] = 1
    empty = np.zeros(n * n, bool)
    regions = dict.fromkeys(("face", "scalp", "ears", "eyes"), empty)
    return points, Surface(points, faces, weights, points * [1, -1, -1], np.ones(n * n, int), regions)


def test_a_textured_sheet_shows_the_photo_itself():
    points, surface = sheet()
    y, x = np.mgrid[:128, :128].astype(np.float32)
    photo = np.stack([x / 128, y / 128, 0 * x], -1)
    uv = project(points, K).astype(np.float32)
    n = len(uv)
    nowhere = np.full((n, 2), np.nan, np.float32)
    look = Appearance(photo, uv[None], np.ones((1, n), np.float32), np.zeros((n, 3), np.float32), nowhere, np.ones(n, np.float32), 1.0)
    image, alpha, depth = draw(surface, look, points, K, 128, 128)
    inside = alpha == 1
    assert inside.sum() > 8000 and np.abs(image[inside] - photo[inside]).max() < 0.01
    assert (image[alpha == 0] == 1).all() and np.allclose(depth[inside], 2.0)


def test_unseen_surface_shows_its_fill_and_fill_coordinates_show_the_photo_there():
    points, surface = sheet()
    n = len(points)
    photo = np.zeros((128, 128, 3), np.float32)
    photo[40, 40] = photo[40, 41] = photo[41, 40] = photo[41, 41] = [0, 1, 0]
    fill = np.tile(np.array([1, 0, 0], np.float32), (n, 1))
    nowhere, there = np.full((n, 2), np.nan, np.float32), np.full((n, 2), 41.0, np.float32)
    unseen = (np.zeros((1, n, 2), np.float32), np.zeros((1, n), np.float32), fill)
    plain = Appearance(photo, *unseen, nowhere, np.ones(n, np.float32), 1.0)
    placed = Appearance(photo, *unseen, there, np.ones(n, np.float32), 1.0)
    darker = Appearance(photo, *unseen, there, np.full(n, 0.5, np.float32), 1.0)
    assert np.allclose(draw(surface, plain, points, K, 128, 128)[0][64, 64], [1, 0, 0])
    assert np.allclose(draw(surface, placed, points, K, 128, 128)[0][64, 64], [0, 1, 0], atol=1e-5)
    assert np.allclose(draw(surface, darker, points, K, 128, 128)[0][64, 64], [0, 0.5, 0], atol=1e-5)


def test_two_photos_are_mixed_by_their_weights():
    points, surface = sheet()
    n = len(points)
    pages = np.concatenate([np.full((20, 20, 3), [1, 0, 0]), np.full((20, 20, 3), [0, 0, 1])]).astype(np.float32)
    uv = np.stack([np.full((n, 2), 10.0), np.full((n, 2), [10.0, 30.0])]).astype(np.float32)
    weights, green = np.stack([np.full(n, 0.25), np.full(n, 0.5)]).astype(np.float32), np.tile(np.array([0, 1, 0], np.float32), (n, 1))
    look = Appearance(pages, uv, weights, green, np.full((n, 2), np.nan, np.float32), np.ones(n, np.float32), 1.0)
    assert np.allclose(draw(surface, look, points, K, 128, 128)[0][64, 64], [0.25, 0.25, 0.5], atol=1e-5)
    assert np.allclose(look.colors, [0.25, 0.25, 0.5])


def test_background_never_enters_the_extended_person():
    photo = np.zeros((60, 60, 3), np.float32)
    photo[10:50, 20:40] = 0.5
    mask = photo[..., 0] > 0
    photo[~mask] = [0, 1, 0]
    photo[10, 20:40] = [0, 1, 0]  # a row of background inside the mask's rim
    assert np.allclose(extend_person(photo, mask, 40), 0.5)


def test_capsules_cover_forearms_in_front_and_not_those_behind_the_back():
    xy, seen, world = np.full((33, 2), 100.0), np.ones(33), np.zeros((33, 3))
    xy[13], xy[15], xy[[17, 19, 21]] = (40, 100), (80, 100), (90, 100)
    world[15, 2] = 0.2
    front = limbs_in_front(xy, seen, world, (200, 200), 180.0)
    assert front[100, 60] and front[100, 95] and not front[120, 60]
    world[15, 2] = -0.3
    assert not limbs_in_front(xy, np.where(np.arange(33) % 2 == 1, seen, 0), world, (200, 200), 180.0)[100, 60]


def before_the_photo():
    """The open body, relaxed: surface, camera points, intrinsics, and its template's x and y."""
    body = load_body()
    surface = clothed_surface(body, np.zeros(20), None)
    Ks, viewmats = photo_camera(512, 512, focal_factor=1.4)
    pose = relaxed_pose()[None]
    skin = pose_body(body, body.J_regressor @ body.v_template, pose, torch.tensor([[0.0, 0.1, -3.0]])).skin[0]
    return surface, to_camera(surface.posed(skin), viewmats[0].numpy()), Ks[0].numpy(), *surface.template.T[:2]


def photographed(surface, points, K, color):
    """What a photo on grey shows of the surface in these vertex colours, and its mask."""
    buffers = rasterize_mesh(points, surface.faces, K, 512, 512)
    photo = np.full((512, 512, 3), 0.2, np.float32)
    corners = surface.faces[buffers.face_id[buffers.mask]]
    photo[buffers.mask] = np.einsum("mk,mkc->mc", buffers.bary[buffers.mask], color[corners])
    return look_at_photo(surface, points, K, photo, buffers.mask), buffers.mask


@pytest.fixture(scope="module")
def person():
    """A striped shirt, blue legs, skin elsewhere, a red print on the chest."""
    surface, points, K, x, y = before_the_photo()
    color = np.tile(np.array([0.8, 0.6, 0.5]), (len(x), 1))
    torso, legs = surface.part == PARTS.index("torso"), np.isin(surface.part, (4, 5))
    stripes = (np.floor(y / 0.05) % 2)[:, None]
    color[torso] = (stripes * [0.9, 0.9, 0.9] + (1 - stripes) * [0.1, 0.3, 0.1])[torso]
    color[legs] = [0.1, 0.1, 0.5]
    color[torso & (np.abs(x) < 0.06) & (y > 0.2) & (y < 0.35)] = [1, 0, 0]
    seen, mask = photographed(surface, points, K, color)
    return surface, points, color, seen, complete(surface, seen, None, mask)


def test_what_faces_away_or_hides_is_not_seen(person):
    _, _, _, seen, _ = person
    assert (seen.weight[seen.facing < 0.05] < 0.05).all()
    assert (seen.weight[seen.facing > 0.8] > 0.9).mean() > 0.8


def test_seen_colours_are_the_true_ones(person):
    _, _, color, seen, look = person
    sure = seen.weight > 0.95
    assert np.median(np.abs(look.colors[sure] - color[sure])) < 0.02


def test_clothes_continue_on_the_back_and_the_print_does_not(person):
    surface, _, color, seen, look = person
    v = surface.template
    back = (seen.facing < -0.5) & (surface.part == PARTS.index("torso")) & (v[:, 1] > 0) & (v[:, 1] < 0.4) & (np.abs(v[:, 0]) < 0.1)
    red = (look.colors[back, 0] > 0.6) & (look.colors[back, 1] < 0.4)
    assert red.mean() < 0.005
    want, got = color[back].mean(1) > 0.5, look.colors[back].mean(1) > 0.5
    outside_print = ~((v[back, 1] > 0.18) & (v[back, 1] < 0.37))
    assert (want == got)[outside_print].mean() > 0.75  # stripes at the same height as in front
    legs = (seen.facing < -0.5) & np.isin(surface.part, (4, 5)) & (v[:, 1] < -0.3)
    assert np.median(look.colors[legs, 2] - look.colors[legs, 0]) > 0.25


def test_a_print_is_told_from_a_pattern(person):
    surface, _, color, seen, _ = person
    lend = (seen.weight > 0.9) & (surface.part == PARTS.index("torso"))
    ok = reaches_sides(surface, seen, lend)
    red = lend & (color[:, 0] == 1) & (color[:, 1] == 0)
    assert ok[red].mean() < 0.05 and ok[lend & ~red].mean() > 0.8


def test_an_open_coat_is_closed_behind():
    """Shirt and trousers between the coat's edges stay in front: neither torso nor legs wear them on the back, nor the coat's hem beside them."""
    surface, points, K, x, y = before_the_photo()
    color = np.tile(np.array([0.8, 0.6, 0.5]), (len(x), 1))
    coat = np.isin(surface.part, (1, 2, 3, 4, 5)) & (y > -0.7)
    opening = 0.05 + 0.07 * np.clip((0.3 - y) / 0.9, 0, 1)  # half of its width
    color[coat] = [0.22, 0.22, 0.2]
    color[coat & (np.abs(x) < opening + 0.015)] = [0.11, 0.11, 0.1]  # the hem
    color[coat & (np.abs(x) < opening)] = [0.9, 0.2, 0.1]
    seen, mask = photographed(surface, points, K, color)
    look = complete(surface, seen, None, mask)
    back = coat & (seen.facing < -0.4) & (y < 0.35) & (y > -0.6) & (surface.part != 2) & (surface.part != 3)
    red = look.colors[:, 0] - look.colors[:, 2] > 0.25
    assert back.sum() > 2000 and red[back].mean() < 0.01 and (look.colors[back].mean(1) < 0.16).mean() < 0.03
    front = coat & (seen.weight > 0.9) & (np.abs(x) < 0.04) & (y < 0.3) & (y > 0)
    assert red[front].mean() > 0.9


def test_everything_gets_a_colour(person):
    *_, look = person
    assert np.isfinite(look.colors).all() and look.colors.min() >= 0 and look.colors.max() <= 1


def test_a_shorter_clip_keeps_the_first_and_last_frame_of_the_motion():
    from svad_ray.motion import turn

    short = spread(turn(), 10)
    assert len(short) == 10
    assert np.array_equal(short.full_pose[[0, -1]], turn().full_pose[[0, -1]])
