"""The lifted head: exact from the photo's own camera, rigid in every other, and honest about what it can see."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from svad_ray.geometry.raster import project, to_camera
from svad_ray.stages.identity.lift import FACE_OVAL, FACE_POINTS, at_resolution, face_axes, head_points, lift_head, render_head, unproject

K = np.array([[600.0, 0, 128], [0, 600.0, 128], [0, 0, 1]])
DEPTH = 1.2
EYES = {33: (-0.42, -0.25), 133: (-0.15, -0.25), 159: (-0.28, -0.3), 145: (-0.28, -0.2)}
NAMED = {152: (0.0, 0.98), **EYES, **{left: (-x, y) for left, (x, y) in zip((263, 362, 386, 374), EYES.values())}}


def face_mesh(size: float = 40.0, centre: tuple[float, float] = (128, 128)) -> np.ndarray:
    """(468, 3) pixels: points of a shallow bowl turned to the viewer, the named ones where a face has them."""
    rng = np.random.default_rng(0)
    radius, angle = 0.93 * np.sqrt(rng.random(FACE_POINTS)), 2 * np.pi * rng.random(FACE_POINTS)
    xy = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
    round_it = -np.pi / 2 + 2 * np.pi * np.arange(len(FACE_OVAL)) / len(FACE_OVAL)
    xy[FACE_OVAL] = np.stack([np.cos(round_it), np.sin(round_it)], 1)
    for number, where in NAMED.items():
        xy[number] = where
    z = 0.2 - 0.4 * (1 - (xy**2).sum(1))
    return np.column_stack([xy * [0.8 * size, size] + centre, z * size])


def photo() -> np.ndarray:
    y, x = np.mgrid[:256, :256]
    return np.dstack([120 + 60 * np.sin(x / 9), 120 + 60 * np.cos(y / 11), 100 + x / 4]).astype(np.uint8)


def camera(yaw_deg: float = 0.0) -> np.ndarray:
    """(4, 4) head joint (y up, z to the photo's camera) in camera axes, turned about its own y axis."""
    out = np.eye(4)
    out[:3, :3] = np.diag([1.0, -1, -1]) @ Rotation.from_euler("y", yaw_deg, degrees=True).as_matrix()
    out[:3, 3] = [0, 0.04, DEPTH + 0.05]
    return out


@pytest.fixture(scope="module")
def reference():
    return lift_head(photo(), np.ones((256, 256), np.float32), face_mesh(), K, camera(), depth=DEPTH)


def test_unprojected_points_project_back_and_lie_at_their_depth():
    points = face_mesh()
    metres = unproject(points, K, DEPTH)
    np.testing.assert_allclose(project(metres, K), points[:, :2], atol=1e-9)
    np.testing.assert_allclose(metres[:, 2], DEPTH * (1 + points[:, 2] / 600), atol=1e-12)


def test_the_photos_own_camera_sees_the_photo(reference):
    view = render_head(reference, camera(), K, (256, 256), background=np.ones(3))
    np.testing.assert_allclose(view.points, face_mesh()[:, :2], atol=1e-3)
    inner = np.hypot((np.mgrid[:256, :256][1] - 128) / 32, (np.mgrid[:256, :256][0] - 128) / 40) < 0.9
    assert np.abs(view.image.astype(int) - photo())[inner].max() <= 6  # supersampled and averaged, so not bit by bit
    assert np.abs(view.image.astype(int) - photo())[inner].mean() < 1
    assert view.eyes_seen and view.turn_deg == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize("yaw", [-30, 12, 45])
def test_the_head_moves_as_one_rigid_body(reference, yaw):
    view = render_head(reference, camera(yaw), K, (256, 256), background=np.ones(3))
    photo_points = unproject(face_mesh(), K, DEPTH)
    moved = to_camera(to_camera(photo_points, np.linalg.inv(camera())), camera(yaw))
    np.testing.assert_allclose(view.points, project(moved, K), atol=1e-2)
    assert view.turn_deg == pytest.approx(abs(yaw), abs=6)  # the face's middle lies beside the joint's axis


def test_eyes_are_unseen_from_behind_and_from_far_aside(reference):
    assert render_head(reference, camera(20), K, (256, 256), background=np.ones(3)).eyes_seen
    for yaw in (100, 180, -100):
        assert not render_head(reference, camera(yaw), K, (256, 256), background=np.ones(3)).eyes_seen


def test_background_fills_what_the_head_and_the_mask_leave_free():
    none = lift_head(photo(), np.zeros((256, 256), np.float32), face_mesh(), K, camera(), depth=DEPTH)
    view = render_head(none, camera(), K, (256, 256), background=np.array([1.0, 0.5, 0.0]))
    assert np.abs(view.image.astype(int) - [255, 128, 0]).max() <= 1


def test_triangles_cover_the_face_once_and_use_every_point():
    points, faces = head_points(face_mesh())
    assert set(range(FACE_POINTS)) <= set(faces.ravel().tolist())
    edges = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), 1)
    assert np.unique(edges, axis=0, return_counts=True)[1].max() == 2  # a surface: no edge has three faces
    assert len(points) > FACE_POINTS


def test_face_axes_are_a_rotation_that_follows_the_face():
    mesh = face_mesh() - [128, 128, 0]
    np.testing.assert_allclose(face_axes(mesh), np.eye(3), atol=0.35)
    turn = Rotation.from_euler("yx", [35, -10], degrees=True).as_matrix()
    np.testing.assert_allclose(face_axes(mesh @ turn.T), face_axes(mesh) @ turn.T, atol=1e-9)


def test_a_texture_is_averaged_for_small_views_and_kept_for_large_ones(reference):
    assert at_resolution(reference, 2 * reference.pixels_per_metre) is reference
    small = at_resolution(reference, reference.pixels_per_metre / 4)
    assert small.texture.shape[0] == round(reference.texture.shape[0] / 4)
    np.testing.assert_allclose(small.texture.mean((0, 1)), reference.texture.mean((0, 1)), atol=0.01)
    np.testing.assert_allclose(small.uv / reference.uv, 0.25, rtol=0.03)
