"""Anchors, tiles and suppression."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from svad_ray.stages.perceive.detector import _GRIDS, Candidate, grid_anchors, suppress, tiles


def test_anchors_are_cell_centres_row_by_row():
    anchors = grid_anchors(_GRIDS)
    assert anchors.shape == (2254, 2)  # what the network's output has
    np.testing.assert_allclose(anchors[0], [0.5 / 28, 0.5 / 28])
    np.testing.assert_allclose(anchors[2], [1.5 / 28, 0.5 / 28])  # two a cell, x first
    np.testing.assert_allclose(anchors[2 * 28], [0.5 / 28, 1.5 / 28])
    np.testing.assert_allclose(anchors[-1], [6.5 / 7, 6.5 / 7])
    np.testing.assert_allclose(anchors.mean(0), [0.5, 0.5])


def person(score: float, x: float, y: float, radius: float) -> Candidate:
    return Candidate(score, np.array([x, y]), np.array([x, y - radius]))


people = st.lists(
    st.builds(person, st.floats(0.4, 1), st.floats(0, 500), st.floats(0, 500), st.floats(5, 300)), max_size=12, unique_by=lambda one: one.score
)


@given(people)
def test_suppression(candidates):
    kept = suppress(candidates)
    assert [one.score for one in kept] == sorted((one.score for one in kept), reverse=True)
    for weak in range(len(kept)):
        for strong in range(weak):
            assert np.hypot(*(kept[weak].hip - kept[strong].hip)) > 0.3 * kept[strong].radius
    for one in candidates:  # whoever is gone is gone because of somebody stronger and near
        if not any(one is other for other in kept):
            assert any(other.score > one.score and np.hypot(*(one.hip - other.hip)) <= 0.3 * other.radius for other in kept)
    assert len(suppress(kept)) == len(kept)


@given(st.integers(64, 3000), st.integers(64, 3000))
def test_tiles_cover_the_photo(height, width):
    for share in (0.5, 0.37):
        side = share * max(height, width)
        chosen = [roi for roi in tiles(height, width) if roi.side == side]
        for axis, length in ((0, width), (1, height)):
            starts = np.unique([roi.centre[axis] - side / 2 for roi in chosen])
            assert starts[0] <= 1e-6 and starts[-1] + side >= length - 1e-6
            assert (np.diff(starts) <= side / 2 + 1e-6).all()


def test_roi_is_the_circle_and_a_quarter_more():
    roi = person(0.9, 100, 200, 80).roi
    assert roi.side == 200 and roi.angle == 0
    np.testing.assert_array_equal(roi.centre, [100, 200])
