"""Pictures to judge by: sizes, places and colours by arithmetic."""

import numpy as np
import pytest

from svad_ray.export.sheets import contact_sheet, draw_fit, draw_perception, evenly, fit_inside


def plain(height, width, colour) -> np.ndarray:
    return np.full((height, width, 3), colour, np.uint8)


@pytest.mark.parametrize(("count", "columns", "labels"), [(1, None, False), (7, 3, True), (12, 6, False), (2, 6, True)])
def test_a_sheet_has_room_for_every_cell_and_nothing_else(count, columns, labels):
    frames = [plain(20, 10, 40)] * count
    sheet = contact_sheet(frames, labels=["x"] * count if labels else (), columns=columns, cell=32, gap=4)
    across = min(count, columns or 1)
    rows = -(-count // across)
    assert sheet.shape == (rows * (32 + 18 * labels + 4) - 4, across * 36 - 4, 3) and sheet.dtype == np.uint8


def test_frames_lie_in_reading_order_and_keep_their_shape():
    colours = [(200, 0, 0), (0, 200, 0), (0, 0, 200)]
    sheet = contact_sheet([plain(40, 20, c) for c in colours], columns=2, cell=40, gap=10)
    for (y, x), colour in zip([(20, 20), (20, 70), (70, 20)], colours):
        np.testing.assert_array_equal(sheet[y, x], colour)
    assert (sheet[20, 2] == 255).all() and (sheet[20, 37] == 255).all()  # a narrow frame leaves paper on both sides
    assert (sheet[70, 70] == 255).all()  # an empty cell


def test_an_empty_sheet_is_paper():
    assert (contact_sheet([], cell=16) == 255).all()


@pytest.mark.parametrize(("shape", "expected"), [((100, 50), (32, 16)), ((10, 20), (16, 32)), ((1000, 1), (32, 1))])
def test_pictures_fit_inside(shape, expected):
    assert fit_inside(plain(*shape, 9), 32).shape == (*expected, 3)


def test_even_choice_holds_both_ends_without_repeats():
    assert evenly(189, 12)[[0, -1]].tolist() == [0, 188]
    assert evenly(3, 12).tolist() == [0, 1, 2]
    assert np.ptp(np.diff(evenly(100, 12))) <= 1


def test_only_points_that_score_are_drawn_and_outside_is_dimmed():
    image, mask = plain(120, 80, 100), np.zeros((120, 80), np.float32)
    mask[20:100, 20:60] = 1
    keypoints, scores = np.full((133, 2), np.nan, np.float32), np.zeros(133, np.float32)
    keypoints[5], keypoints[6], scores[5] = [40.5, 50.5], [40.5, 80.5], 1
    before = image.copy()
    drawn = draw_perception(image, keypoints, scores, mask)
    np.testing.assert_array_equal(image, before)  # the caller's photo stays
    np.testing.assert_array_equal(drawn[50, 40], [255, 255, 255])
    np.testing.assert_array_equal(drawn[80, 40], [100, 100, 100])
    assert (drawn[5, 5] == int(100 * 0.45 + 235 * 0.55)).all()


def test_the_fitted_body_lies_where_the_camera_sees_it():
    grid = np.stack(np.meshgrid(np.linspace(-0.5, 0.5, 60), np.linspace(-0.5, 0.5, 60), [0.0]), -1).reshape(-1, 3)
    K = np.array([[100.0, 0, 100], [0, 100.0, 60], [0, 0, 1]])
    viewmat = np.eye(4)
    viewmat[2, 3] = 2  # the square covers columns 75 to 125 and rows 35 to 85
    drawn = draw_fit(plain(120, 200, 255), grid, viewmat, K, joints=np.zeros((2, 3)), parents=(-1, 0))
    covered = np.argwhere((drawn != 255).any(-1))
    np.testing.assert_allclose(covered.min(0), [35, 75], atol=3)
    np.testing.assert_allclose(covered.max(0), [85, 125], atol=3)
    behind = draw_fit(plain(120, 200, 255), grid - [0, 0, 5], viewmat, K)
    assert (behind == 255).all()
