"""Turned square regions: closed forms."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from svad_ray.stages.perceive.crops import Roi, sigmoid

rois = st.builds(
    lambda x, y, side, angle: Roi(np.array([x, y]), side, angle), st.floats(-200, 800), st.floats(-200, 800), st.floats(5, 900), st.floats(-3.1, 3.1)
)


@given(rois)
def test_crop_corners_lie_half_a_side_from_the_centre(roi):
    corners = roi.to_image(np.array([[0, 0], [64, 0], [64, 64], [0, 64]]), 64)
    np.testing.assert_allclose(corners.mean(0), roi.centre, atol=1e-6)
    np.testing.assert_allclose(np.hypot(*(corners - roi.centre).T), roi.side / np.sqrt(2), rtol=1e-6)
    right = corners[1] - corners[0]
    np.testing.assert_allclose(right, roi.side * np.array([np.cos(roi.angle), np.sin(roi.angle)]), atol=1e-6 * roi.side + 1e-9)


@given(st.floats(-3.1, 3.1), st.floats(1, 300))
def test_up_of_the_crop_points_to_the_top(angle, length):
    centre = np.array([100.0, 50.0])
    top = centre + length * np.array([np.sin(angle), -np.cos(angle)])
    roi = Roi.upright_from(centre, top, scale=2.5)
    np.testing.assert_allclose(roi.side, 2.5 * length)
    above = roi.to_image(np.array([[50.0, 50 - 100 / 2.5]]), 100)[0]
    np.testing.assert_allclose(above, top, atol=1e-6 * length + 1e-6)


def test_crop_samples_where_it_says():
    # A linear image is reproduced exactly by bilinear sampling, so a crop's pixel tells where it was taken from.
    y, x = np.mgrid[:200, :240] + 0.5
    image = np.stack([x, y, np.full_like(x, 128)], -1).round().astype(np.uint8)
    roi = Roi(np.array([120.0, 95.0]), 80.0, 0.4)
    crop = roi.crop(image, 64) * 255
    v, u = np.mgrid[:64, :64] + 0.5
    expected = roi.to_image(np.column_stack([u.ravel(), v.ravel()]), 64).reshape(64, 64, 2)
    np.testing.assert_allclose(crop[..., :2], expected + 0.5 - 0.5, atol=1.0)  # uint8 rounding at both ends
    assert abs(float((crop[..., :2] - expected).mean())) < 0.6


def test_shrinking_crop_does_not_alias():
    stripes = np.zeros((1024, 1024, 3), np.uint8)
    stripes[:, ::2] = 255  # the finest pattern there is: anything but grey is aliasing
    crop = Roi(np.array([512.0, 512.0]), 1000.0, 0.0).crop(stripes, 64)
    np.testing.assert_allclose(crop[2:-2, 2:-2], 0.5, atol=0.02)


def test_outside_is_black():
    assert Roi(np.array([-100.0, -100.0]), 50.0).crop(np.full((64, 64, 3), 255, np.uint8), 32).max() == 0


def test_paste_puts_a_blob_back_where_it_was():
    roi = Roi(np.array([130.0, 90.0]), 120.0, -0.7)
    blob = np.exp(-((np.mgrid[:64, :64] + 0.5 - np.array([20.0, 40.0])[:, None, None]) ** 2).sum(0) / 18)
    pasted = roi.paste(blob, 200, 260)
    y, x = np.mgrid[:200, :260] + 0.5
    centre = np.array([(pasted * x).sum(), (pasted * y).sum()]) / pasted.sum()
    np.testing.assert_allclose(centre, roi.to_image(np.array([[40.0, 20.0]]), 64)[0], atol=0.05)


@given(rois)
def test_vectors_turn_as_points_do(roi):
    vectors = np.array([[3.0, -2.0, 7.0], [0.5, 4.0, -1.0]])
    turned = roi.rotate_back(vectors)
    moved = roi.to_image(vectors[:, :2], 64) - roi.to_image(np.zeros((1, 2)), 64)
    np.testing.assert_allclose(turned[:, :2] * (roi.side / 64), moved, atol=1e-6 * roi.side)
    np.testing.assert_array_equal(turned[:, 2], vectors[:, 2])


def test_sigmoid_is_logistic_and_does_not_overflow():
    x = np.array([-1e4, -2.0, 0.0, 3.0, 1e4])
    np.testing.assert_allclose(sigmoid(x), [0, 0.11920292, 0.5, 0.95257413, 1], atol=1e-7)
