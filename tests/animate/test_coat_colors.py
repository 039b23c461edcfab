"""What an open coat's back wears, on the open body painted in plain colours."""

import numpy as np
import pytest
from coat_picture import COAT, HEM, TROUSERS, front, picture

from svad_ray.body import load_body
from svad_ray.fitting.clothed import clothed_surface
from svad_ray.fitting.coat import open_coat
from svad_ray.fitting.coat_shell import coat_shell
from svad_ray.fitting.state import pose_body
from svad_ray.geometry.raster import to_camera
from svad_ray.stages.animate.completion import complete
from svad_ray.stages.animate.projection import look_at_photo

GREENISH = (0.3, 0.36, 0.2)  # so like the coat that its sides do not tell it from that


@pytest.fixture(scope="module")
def worn():
    body = load_body()
    state = front(body)
    seen = picture(body, state, shirt=GREENISH)
    coat = open_coat(body, *seen.arguments())
    shell = coat_shell(body, seen.rest, coat)
    surface = clothed_surface(body, state.betas.numpy(), shell.offset.astype(np.float32), loose="auto", coat=shell)
    skin = pose_body(body, body.J_regressor @ body.v_template, state.pose, state.transl).skin[0]
    points = to_camera(surface.posed(skin), seen.viewmat)
    return surface, look_at_photo(surface, points, seen.K, seen.image.astype(np.float32), seen.mask), seen.mask, coat.pixels


def like(colors, color):
    return np.abs(colors - np.array(color)).max(1) < 0.1


def test_the_back_is_the_coats_from_the_shoulders_to_the_hem(worn):
    surface, seen, mask, pixels = worn
    told, untold = (complete(surface, seen, None, mask, coat=one, relight=False).colors for one in (pixels, None))
    sheet = surface.regions["coat_back"] & (seen.facing < -0.5)
    back = (surface.part == 1) & (seen.facing < -0.5) & (surface.template[:, 1] < 0.4)
    for where in (sheet, back):
        assert where.sum() > 100 and like(told[where], COAT).mean() > 0.97
    green = [(colors[back][:, 1] > colors[back][:, 0] + 0.03).mean() for colors in (told, untold)]
    assert green[0] < 0.005 < 0.05 < green[1]


def test_the_legs_in_the_opening_and_below_the_hem_stay_trousers(worn):
    surface, seen, mask, pixels = worn
    colors = complete(surface, seen, None, mask, coat=pixels, relight=False).colors
    shin = np.isin(surface.part, (4, 5)) & (surface.rest[:, 1] < HEM - 0.03)
    assert like(colors[shin], TROUSERS).mean() > 0.97
