"""Open coats: told from jackets, suits and skirts, a sheet behind both legs, and skinning that does not tear it."""

import numpy as np
import pytest
import torch
from coat_picture import COAT, HEM, OPENING, SKIN, TROUSERS, front, picture

from svad_ray.body.lbs import skin_points
from svad_ray.body.names import JOINT_INDEX as J
from svad_ray.fitting.coat import open_coat
from svad_ray.fitting.coat_shell import coat_shell
from svad_ray.fitting.drape import drape_of, parted
from svad_ray.fitting.loose import leg_gap, legs, loose_share, loose_weights
from svad_ray.fitting.state import pose_body
from svad_ray.fitting.surface import clothe
from svad_ray.geometry.mesh import laplacian
from svad_ray.geometry.raster import rasterize_mesh


@pytest.fixture(scope="module")
def state(body):
    return front(body)


@pytest.fixture(scope="module")
def seen(body, state):
    return picture(body, state)


@pytest.fixture(scope="module")
def coat(body, seen):
    return open_coat(body, *seen.arguments())


@pytest.fixture(scope="module")
def shell(body, seen, coat):
    return coat_shell(body, seen.rest, coat)


def test_an_open_coat_is_told_with_hem_edges_and_outline(body, seen, coat):
    assert np.abs(coat.hems - HEM).max() < 0.03
    down = coat.heights > HEM
    assert np.abs(coat.edges[down] - OPENING).max() < 0.025
    left = legs(body)[0]
    naked = [seen.rest[left & (np.abs(seen.rest[:, 1] - y) < 0.02), 0].max() for y in coat.heights[down]]
    assert 0.015 < np.median(coat.rims[down, 0] - naked) < 0.045
    row = np.flatnonzero(coat.between.any(1))
    assert np.abs(seen.image[coat.between & seen.mask][:, 2] - TROUSERS[2]).mean() < 0.1 and len(row) > 60


@pytest.mark.parametrize(
    "worn",
    [
        {"coat": None},
        {"coat": None, "shirt": COAT},
        {"coat": None, "shirt": COAT, "legs_": COAT},
        {"coat": None, "shirt": COAT, "legs_": COAT, "shins": SKIN},
        {"hem": -0.16},
        {"hem": -0.16, "legs_": COAT},
        {"hem": -0.16, "legs_": COAT, "shins": SKIN},
        {"opening": 0.0},
        {"hem": -0.8},
        {"legs_": tuple(1.12 * c for c in COAT), "shins": SKIN},
    ],
    ids=[
        "shirt",
        "shirt and trousers",
        "one colour",
        "shorts of the shirt's colour",
        "jacket",
        "suit",
        "jacket and shorts",
        "closed",
        "to the ground",
        "one cloth, lighter in front",
    ],
)
def test_what_is_no_open_coat(body, state, worn):
    """Ends at the hips; one colour from top to toe; shorts that end like a coat; no opening; no hem; one cloth that is lit from the front."""
    assert open_coat(body, *picture(body, state, **worn).arguments()) is None


def test_behind_the_coat_is_one_sheet_and_in_front_the_legs_stay(body, seen, shell):
    cloth = seen.rest + shell.offset
    behind = shell.back & np.logical_or(*legs(body))
    height, gap = leg_gap(body, cloth, behind)
    inside = (height > HEM + 0.03) & (height < -0.15)
    assert np.nanmax(gap[inside]) < 0
    before = (shell.share == 0) & ~shell.below
    assert np.abs(shell.offset[before][:, [0, 2]]).max() < 0.02
    opening = np.logical_or(*legs(body)) & before & (seen.rest[:, 2] > 0.03) & (np.abs(seen.rest[:, 0]) < 0.06)
    assert opening.sum() > 20  # what the opening shows
    # seen from behind there is no hole: the pixels between the legs, from the hem to the hips
    K = np.array([[400.0, 0, 128], [0, 400, 128], [0, 0, 1]])
    drawn = [
        rasterize_mesh(((points + np.array([0, 0.3, 0])) * [-1, -1, 1] + [0, 0, 2.0]).astype(np.float32), body.faces, K, 256, 256).mask
        for points in (seen.rest, cloth)
    ]
    middle = np.zeros((256, 256), bool)
    middle[128 + round(200 * (-0.3 + 0.15)) : 128 + round(200 * (-0.3 - HEM - 0.02)), 122:135] = True
    assert drawn[1][middle].all() and not drawn[0][middle].all()


def test_the_sheet_hangs_from_the_seat_and_stands_off_the_sides_as_the_outline_does(body, seen, shell, coat):
    cloth = seen.rest + shell.offset
    seat = seen.rest[np.logical_or(*legs(body)) & (seen.rest[:, 1] > -0.15), 2].min()
    flat = shell.back & (np.abs(cloth[:, 0]) < 0.06) & (cloth[:, 1] < -0.25)
    assert flat.sum() > 20 and cloth[flat, 2].max() < seat + 0.03
    outer = legs(body)[0] & (shell.share > 0.9) & (cloth[:, 1] < -0.2)
    assert abs(cloth[outer, 0].max() - np.median(coat.rims[:, 0])) < 0.01


def test_the_hem_is_one_line_and_nothing_goes_on_across_it(body, seen, shell, state, coat):
    y = seen.rest[:, 1] + shell.offset[:, 1]
    lap = laplacian(body.faces, len(y))
    drape = drape_of(body, state, seen.mask.astype(np.float32), coat)
    cut = parted(lap, drape)
    assert np.allclose(cut.sum(1), 0) and abs(cut - cut.T).max() < 1e-9
    lost = ((lap - cut).tocoo().data != 0) & ((lap - cut).tocoo().row != (lap - cut).tocoo().col)
    ends = np.unique((lap - cut).tocoo().row[lost])
    assert len(ends) > 20 and np.abs(y[ends] - coat.hems.mean()).max() < 0.02
    assert parted(lap, None) is lap


@pytest.mark.slow
def test_clothes_keep_the_coats_shape(body, seen, state, coat):
    drape = drape_of(body, state, seen.mask.astype(np.float32), coat)
    offset = clothe(body, state, seen.mask.astype(np.float32), iterations=1, drape=drape)
    known = drape.stiff == 1
    assert known.sum() > 500 and np.abs(offset - drape.offset)[known].max() < 5e-4
    assert np.abs(offset - drape.offset)[drape.stiff == 0].max() > 0.005


def test_a_stride_tears_the_sheet_ten_times_less_and_the_opening_follows_its_legs(body, seen, shell):
    offset = shell.offset.astype(np.float32)
    cloth = torch.as_tensor(seen.rest + offset, dtype=torch.float32)
    pose = torch.zeros(1, 55, 3)
    pose[0, J["left_hip"], 0], pose[0, J["right_hip"], 0] = -0.4, 0.4
    skin = pose_body(body, body.J_regressor @ torch.as_tensor(seen.rest), pose, torch.zeros(1, 3)).skin
    middle = shell.back & (np.abs(cloth[:, 0].numpy()) < 0.025) & (seen.rest[:, 1] < -0.25) & (seen.rest[:, 1] > HEM + 0.03)
    a, b = (np.flatnonzero(middle & side) for side in legs(body))
    partner = b[torch.cdist(cloth[a], cloth[b]).argmin(1).numpy()]
    torn = {}
    for mode in ("off", "auto"):
        moved = skin_points(cloth, torch.as_tensor(loose_weights(body, seen.rest, offset, mode)), skin)[0]
        torn[mode] = float(((moved[a] - moved[partner]).norm(dim=1) - (cloth[a] - cloth[partner]).norm(dim=1)).mean())
    assert torn["off"] > 0.15 and torn["auto"] < 0.1 * torn["off"]
    share = loose_share(body, seen.rest, offset, "auto")
    assert share[shell.back & (seen.rest[:, 1] < -0.25) & (np.abs(cloth[:, 0].numpy()) < 0.1)].min() > 0.5
    assert share[(shell.share == 0) & (np.abs(shell.offset).max(1) == 0)].max() == 0
