"""What the photo says of hair and of a garment's upper edge, on the open body painted in plain colours."""

import numpy as np
import pytest
import torch

from svad_ray.body import load_body
from svad_ray.fitting.clothed import PARTS, clothed_surface
from svad_ray.fitting.state import photo_camera, pose_body, relaxed_pose
from svad_ray.geometry.raster import project, rasterize_mesh, to_camera
from svad_ray.stages.animate.completion import behind_hair, complete, hair_zone, shows_hair
from svad_ray.stages.animate.projection import look_at_photo

SKIN, CLOTH, HAIR = (0.8, 0.6, 0.5), (0.1, 0.2, 0.6), (0.05, 0.4, 0.05)
EDGE = 0.47  # metres: the garment's upper edge beside the neck; before the throat it lies 10 cm lower

FRINGE = 0.71  # metres


def photographed(*, collar=None):
    """The open body before its photo: green hair to beneath the ears, a blue garment with a neckline, or a collar up to that height, skin; and where
    hair is in the photo."""
    body = load_body()
    falls = np.zeros(len(body.v_template))
    x, y, z = body.v_template.numpy().T
    falls[(np.abs(x) > 0.05) & (y > 0.58) & (y < 0.7) & ~body.tables.regions["face"] & (z < 0.06)] = 1
    surface = clothed_surface(body, np.zeros(20), None, hair=falls)
    Ks, viewmats = photo_camera(768, 768, focal_factor=1.4)
    skin = pose_body(body, body.J_regressor @ body.v_template, relaxed_pose()[None], torch.tensor([[0.0, 0.1, -3.0]])).skin[0]
    points = to_camera(surface.posed(skin), viewmats[0].numpy())
    x, y, z = surface.template.T
    color = np.tile(np.array(SKIN), (len(x), 1))
    low = (np.abs(x) < 0.05) & (y > EDGE - 0.1)
    color[np.isin(surface.part, (1, 2, 3)) & (y < EDGE) & ~low] = CLOTH
    if collar is not None:
        color[((surface.part == 0) & surface.neck | np.isin(surface.part, (1, 2, 3))) & (y < collar)] = CLOTH
    is_hair = surface.regions["hair"] | surface.regions["scalp"] & ~surface.regions["ears"] | (surface.part == 0) & (y > FRINGE)
    color[is_hair] = HAIR
    buffers = rasterize_mesh(points, surface.faces, Ks[0].numpy(), 768, 768)
    corners = surface.faces[buffers.face_id[buffers.mask]]
    photo, hair = np.full((768, 768, 3), 0.2, np.float32), np.zeros((768, 768), bool)
    photo[buffers.mask] = np.einsum("mk,mkc->mc", buffers.bary[buffers.mask], color[corners])
    hair[buffers.mask] = is_hair[corners].all(1)
    seen = look_at_photo(surface, points, Ks[0].numpy(), photo, buffers.mask)
    uv = project(points, Ks[0].numpy())
    fringe = is_hair & (np.abs(x) < 0.02) & (z > 0.05)
    mesh = np.zeros((468, 3), np.float32)
    mesh[10, :2], mesh[152, :2] = uv[fringe][uv[fringe, 1].argmax()], uv[surface.regions["face"]][uv[surface.regions["face"], 1].argmax()]
    return surface, seen, mesh, buffers.mask, hair


@pytest.fixture(scope="module")
def person():
    return photographed()


def near(colors, color, reach=0.12):
    return np.abs(colors - np.array(color)).max(1) < reach


def test_behind_the_garment_reaches_as_high_as_beside_the_neck_and_skin_is_above(person):
    surface, seen, mesh, mask, hair = person
    look = complete(surface, seen, mesh, mask, hair=hair)
    x, y, _ = surface.template.T
    back = (surface.part == PARTS.index("torso")) & (seen.facing < -0.3) & (np.abs(x) < 0.04) & ~surface.regions["hair"]
    worn = back & (y > EDGE - 0.08) & (y < EDGE - 0.015)
    assert worn.sum() > 20 and near(look.colors[worn], CLOTH).mean() > 0.75  # the front shows skin at this height
    bare = (surface.part == 0) & surface.neck & (seen.facing < -0.3) & (y > EDGE + 0.02) & ~hair_zone(surface)
    assert bare.sum() > 20 and near(look.colors[bare], SKIN).mean() > 0.9


@pytest.mark.parametrize("collar", [0.545, 0.7])
def test_behind_a_collar_reaches_as_high_as_it_is_seen_and_a_scarf_all_the_way(collar):
    """Before the photo a high collar covers most of the neck that the chin leaves to be seen; higher up nothing of it is."""
    surface, seen, mesh, mask, hair = photographed(collar=collar)
    colors = complete(surface, seen, mesh, mask, hair=hair).colors
    y = surface.template[:, 1]
    behind = (surface.part == 0) & surface.neck & (seen.facing < -0.3) & ~hair_zone(surface)
    under, over = behind & (y < 0.54), behind & (y > 0.585)
    assert under.sum() > 10 and over.sum() > 10
    assert near(colors[under], CLOTH).mean() > 0.9
    assert near(colors[over], SKIN if collar < 0.6 else CLOTH).mean() > 0.9


def test_hair_that_falls_is_hair_all_round(person):
    surface, seen, mesh, mask, hair = person
    look = complete(surface, seen, mesh, mask, hair=hair)
    unseen = surface.regions["hair"] & (seen.weight < 0.1)
    assert unseen.sum() > 50 and near(look.colors[unseen], HAIR).mean() > 0.95


def test_skin_beside_hair_is_not_mixed_with_it(person):
    """Cheeks and jaw that hair hides get skin's colour; without the photo's hair they take the hair's."""
    surface, seen, mesh, mask, hair = person
    told, untold = (complete(surface, seen, mesh, mask, hair=one).colors for one in (hair, None))
    mouth = surface.regions["lips"] | surface.regions["inner_mouth"] | surface.regions["eyes"]
    side = (surface.part == 0) & ~mouth & ~surface.neck & ~hair_zone(surface) & (surface.template[:, 1] < FRINGE - 0.02) & (seen.weight < 0.3)
    green = [(colors[side, 1] > colors[side, 0] + 0.02).mean() for colors in (told, untold)]
    assert green[0] < 0.02 < green[1]


def test_what_hair_hides_is_not_seen(person):
    surface, seen, _, _, hair = person
    on_hair = shows_hair(seen, hair)
    sure = seen.weight > 0.9
    assert on_hair[sure & (surface.part == 0) & (surface.template[:, 1] > FRINGE)].mean() > 0.9
    assert on_hair[sure & (surface.part == PARTS.index("torso"))].mean() < 0.01
    hidden = behind_hair(surface, seen, on_hair)
    beside = on_hair & (surface.part == 0) & ~surface.neck & ~hair_zone(surface) & (surface.template[:, 2] < 0.05)
    assert hidden.weight[beside].max() == 0 and hidden.shares[:, beside].max() == 0
    nose = surface.regions["face"] & (np.abs(surface.template[:, 0]) < 0.02)
    assert np.array_equal(hidden.weight[nose], seen.weight[nose])
