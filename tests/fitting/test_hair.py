"""Falling hair: told from skin and clothes in the picture, how far down it reaches, and a surface that hides the neck and spares the throat."""

import numpy as np
import pytest

from svad_ray.body.lbs import skin_points
from svad_ray.body.names import JOINT_INDEX as J
from svad_ray.fitting.hair import BEHIND, above_face, falling_hair, hair_pixels
from svad_ray.fitting.silhouette import shaped
from svad_ray.fitting.state import pose_body
from svad_ray.fitting.surface import clothe
from svad_ray.geometry.raster import project, to_camera

BROWN, DARK, SKIN, BLUE = (0.25, 0.15, 0.08), (0.1, 0.07, 0.05), (0.85, 0.65, 0.55), (0.2, 0.3, 0.7)
FACE = {
    10: (100, 60),
    152: (100, 140),
    50: (80, 105),
    280: (120, 105),
    195: (100, 98),
    2: (100, 112),
    164: (100, 114),
    205: (84, 115),
    425: (116, 115),
}


def portrait(*, shirt=BLUE, color=BROWN, skin=SKIN):
    """A head of 80 pixels from the top of the face to the chin, hair round it down to row 170, a shirt from row 190; picture, mask, mesh, hair."""
    y, x = np.mgrid[:320, :200]
    face = ((x - 100) / 32) ** 2 + ((y - 100) / 42) ** 2 < 1
    neck = (np.abs(x - 100) < 18) & (y > 100) & (y < 195)
    hair = (((x - 100) / 48) ** 2 + ((y - 85) / 60) ** 2 < 1) | ((np.abs(x - 100) < 48) & (y > 85) & (y < 170))
    body = (np.abs(x - 100) < 80) & (y >= 190)
    hair &= ~face & ~neck
    mask = face | neck | hair | body
    image = np.full((320, 200, 3), 0.95)
    for where, paint in ((body, shirt), (hair, color), (neck | face, skin)):
        image[where] = paint
    image = np.clip(image + 0.02 * np.random.default_rng(0).standard_normal(image.shape), 0, 1)
    mesh = np.zeros((468, 3), np.float32)
    for i, xy in FACE.items():
        mesh[i, :2] = xy
    return image, mask, mesh, hair


@pytest.mark.parametrize("color, skin", [(BROWN, SKIN), (DARK, SKIN), ((0.7, 0.52, 0.38), SKIN), (DARK, (0.3, 0.2, 0.15))])
def test_hair_is_told_from_skin_and_clothes(color, skin):
    image, mask, mesh, hair = portrait(color=color, skin=skin)
    found = hair_pixels(image, mask, mesh)
    assert (found & hair).sum() / (found | hair).sum() > 0.997


def test_a_patch_of_the_same_colour_elsewhere_is_no_hair():
    image, mask, mesh, _ = portrait()
    image[230:260, 70:90] = BROWN
    assert not hair_pixels(image, mask, mesh)[230:260, 70:90].any()


def test_hair_of_the_clothes_colour_and_hair_out_of_the_picture_are_not_judged():
    image, mask, mesh, _ = portrait(shirt=BROWN)
    assert hair_pixels(image, mask, mesh) is None
    image, mask, mesh, _ = portrait()
    mask[:62] = False  # the picture ends at the forehead
    assert above_face(mesh, mask).sum() == 0 and hair_pixels(image, mask, mesh) is None


@pytest.fixture
def head(body, standing):
    """Naked rest and posed body, camera, and what tells where the head is."""
    rest = shaped(body, standing.betas)
    skin = pose_body(body, body.J_regressor @ rest, standing.pose, standing.transl).skin
    posed = skin_points(rest, body.lbs_weights, skin)[0].numpy()
    return rest.numpy(), posed, standing.viewmats[0].numpy(), standing.Ks[0].numpy()


def hair_beside(body, head, low, *, sides=(1, -1), high=0.75):
    """(H, W) bool: 4 cm of hair beside everything of head and neck between two rest heights, on some sides."""
    rest, posed, viewmat, K = head
    uv, out = project(to_camera(posed, viewmat), K), np.zeros((512, 512), bool)
    part = body.lbs_weights.numpy()[:, [J["head"], J["jaw"], J["neck"]]].sum(1) > 0.5
    wide = 0.04 * K[0, 0] / 3.2
    for y in np.arange(low, high, 0.003):
        ring = np.flatnonzero(part & (np.abs(rest[:, 1] - y) < 0.01))
        if not len(ring):
            continue
        for sign in sides:
            u, v = uv[ring[np.argmax(sign * rest[ring, 0])]]
            a, b = sorted((u, u + sign * wide))
            out[round(v), round(a) : round(b)] = True
    return out


def test_short_hair_does_not_fall(body, head):
    assert falling_hair(body, *head, hair_beside(body, head, 0.66)) is None
    assert falling_hair(body, *head, np.zeros((512, 512), bool)) is None


def test_a_bob_ends_where_it_is_seen_to_end_and_spares_the_throat(body, head):
    rest = head[0]
    found = falling_hair(body, *head, hair_beside(body, head, 0.6))
    hair = found.share > 0.5
    assert abs(rest[hair, 1].min() - 0.6) < 0.015
    assert np.abs(found.offset[:, 1]).max() < 1e-6  # outwards, neither up nor down
    throat = (np.abs(rest[:, 0]) < 0.03) & (rest[:, 2] > rest[J["neck"], 2]) & (rest[:, 1] > 0.5) & (rest[:, 1] < 0.62)
    front = throat & (rest[:, 2] > 0.02)
    assert front.sum() > 20 and found.share[front].max() == 0
    assert not (hair & (body.tables.regions["face"] | body.tables.regions["eyes"])).any()
    placed = rest + found.offset
    behind = hair & (np.abs(rest[:, 0]) < 0.03) & (rest[:, 1] < 0.62)
    skull = body.tables.regions["scalp"]
    assert behind.any() and np.abs(placed[behind, 2] - rest[skull, 2].min()).max() < 0.025  # as far back as the head
    assert (rest[behind, 2] - placed[behind, 2]).max() > 0.02


def test_hair_to_the_shoulders_goes_on_behind_them(body, head):
    rest = head[0]
    found = falling_hair(body, *head, hair_beside(body, head, 0.5))
    hair = found.share > 0.5
    shoulder = float((body.J_regressor.numpy() @ rest)[[J["left_shoulder"], J["right_shoulder"]], 1].mean())
    assert abs(rest[hair, 1].min() - (shoulder - BEHIND)) < 0.03
    back = hair & (rest[:, 1] < shoulder)
    assert back.sum() > 50 and rest[back, 2].max() < 0 and found.offset[back, 2].max() < -0.005 and np.abs(found.offset[back, 0]).max() < 1e-6


def test_hair_on_one_side_stays_there(body, head):
    rest = head[0]
    found = falling_hair(body, *head, hair_beside(body, head, 0.6, sides=(1,)))
    assert found.share[rest[:, 0] > 0.03].max() > 0.9 and found.share[rest[:, 0] < -0.03].max() == 0


def test_clothes_start_from_the_hair(body, standing, head):
    hair = falling_hair(body, *head, hair_beside(body, head, 0.6))
    without, with_ = (clothe(body, standing, np.zeros((512, 512), np.float32), iterations=0, hair=one) for one in (None, hair))
    assert np.abs(with_ - without - hair.offset)[head[0][:, 1] < 0.3].max() < 1e-6
    more = np.linalg.norm(with_ - without - hair.offset, axis=1)[hair.share > 0.9]
    assert 0.008 < np.median(more) < 0.02  # a strand's thickness on top
