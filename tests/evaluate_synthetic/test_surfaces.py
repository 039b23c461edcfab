"""Cutting and measuring surfaces, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from svad_ray.evaluate.synthetic.surfaces import Surface, border_edges, clip, drape, flow_coordinate, fold_hem, smooth_border, split
from svad_ray.geometry.mesh import face_areas


def sheet(n: int = 12, *, size: float = 1.0) -> Surface:
    """A flat square in the xy plane with its own position as an attribute."""
    x, y = np.meshgrid(np.linspace(0, size, n), np.linspace(0, size, n))
    points = np.stack([x.ravel(), y.ravel(), np.zeros(n * n)], axis=1)
    grid = np.arange(n * n).reshape(n, n)
    a, b, c, d = (g.ravel() for g in (grid[:-1, :-1], grid[:-1, 1:], grid[1:, :-1], grid[1:, 1:]))
    return Surface.of(points, np.concatenate([np.stack([a, b, c], 1), np.stack([b, d, c], 1)]), place=points)


@settings(deadline=None, max_examples=40)
@given(st.floats(0, 2 * np.pi), st.floats(0.25, 0.75))
def test_a_straight_cut_takes_the_exact_area(angle: float, offset: float) -> None:
    """The half plane's part of the square, by clipping the square's polygon (Sutherland and Hodgman) here."""
    n = np.array([np.cos(angle), np.sin(angle)])
    surface = sheet()
    field = surface.vertices[:, :2] @ n - n @ [0.5, 0.5] - (offset - 0.5) * 0.5
    part = clip(surface, field)
    assert face_areas(part.vertices, part.faces).sum() == pytest.approx(clipped_square(n, n @ [0.5, 0.5] + (offset - 0.5) * 0.5), abs=2e-3)


def clipped_square(n: np.ndarray, level: float) -> float:
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], float)
    kept = []
    for a, b in zip(corners, np.roll(corners, -1, axis=0)):
        u, v = a @ n - level, b @ n - level
        if u > 0:
            kept.append(a)
        if (u > 0) != (v > 0):
            kept.append(a + (b - a) * u / (u - v))
    x, y = np.array(kept).T
    return 0.5 * abs(x @ np.roll(y, -1) - y @ np.roll(x, -1))


def test_a_cut_leaves_no_crack_and_no_overlap() -> None:
    surface = sheet()
    field = 0.31 - np.linalg.norm(surface.vertices - [0.5, 0.5, 0], axis=1)
    cut, side = split(surface, field)
    assert len(border_edges(cut.faces)) == len(border_edges(surface.faces))  # the seam is inside: shared by both sides
    assert face_areas(cut.vertices, cut.faces).sum() == pytest.approx(1, abs=1e-12)
    np.testing.assert_array_equal(cut.attributes["place"], cut.vertices)
    assert 0 < side.sum() < len(side)


def test_every_cut_face_keeps_its_winding() -> None:
    surface = sheet()
    cut, _ = split(surface, np.sin(9 * surface.vertices[:, 0]) + surface.vertices[:, 1] - 0.6)
    a, b, c = (cut.vertices[cut.faces[:, k]] for k in range(3))
    assert (np.cross(b - a, c - a)[:, 2] > 0).all()


def test_flow_is_arc_length_round_a_cylinder() -> None:
    """Up the wall the coordinate is the height; round it, radius times angle."""
    n, radius = 40, 0.3
    flat = sheet(n, size=1.0)
    angle = flat.vertices[:, 0] * np.pi
    wall = np.stack([radius * np.sin(angle), flat.vertices[:, 1], radius * np.cos(angle)], axis=1)
    centre = wall[flat.faces].mean(1)
    up = flow_coordinate(wall, flat.faces, np.tile([0, 1.0, 0], (len(flat.faces), 1)))
    round_ = flow_coordinate(wall, flat.faces, np.cross([0, 1.0, 0], centre * [1, 0, 1]))
    np.testing.assert_allclose(up, wall[:, 1] - wall[:, 1].mean(), atol=1e-6)
    expected = radius * angle
    np.testing.assert_allclose(round_ - round_.mean(), expected - expected.mean(), atol=2e-3)


def test_drape_stays_above_the_least_height_and_keeps_a_flat_ease() -> None:
    surface = sheet(20)
    normals = np.tile([0, 0, 1.0], (400, 1))
    placed = drape(surface, normals, np.full(400, 0.012), strength=20, least=0.006)
    np.testing.assert_allclose(placed[:, 2], 0.012, atol=1e-9)
    bumpy = surface.moved(surface.vertices + normals * 0.05 * np.sin(7 * surface.vertices[:, :1]))
    height = (drape(bumpy, normals, np.full(400, 0.0), strength=20, least=0.006) - bumpy.vertices)[:, 2]
    assert height.min() > 0.005
    assert height.max() > 0.02  # hollows are bridged


def test_a_hem_turns_every_border_edge_inwards() -> None:
    surface = sheet(6)
    hemmed = fold_hem(surface, np.tile([0, 0, 1.0], (36, 1)), 0.01)
    assert len(hemmed.faces) == len(surface.faces) + 2 * 20
    np.testing.assert_allclose(hemmed.vertices[36:, 2], -0.01)


def test_smoothing_a_border_takes_teeth_away() -> None:
    surface = sheet(30)
    teeth = surface.vertices.copy()
    edge = np.flatnonzero((teeth[:, 1] == 1) & (teeth[:, 0] > 0.2) & (teeth[:, 0] < 0.8))
    teeth[edge[::2], 1] += 0.01
    smooth = smooth_border(teeth, surface.faces, rounds=12)
    middle = edge[4:-4]
    assert np.abs(np.diff(smooth[middle, 1])).max() < 0.1 * np.abs(np.diff(teeth[middle, 1])).max()
