"""The scoring protocol on geometry that is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from svad_ray.errors import InputError
from svad_ray.evaluate.synthetic.protocol import evaluation_cameras, joint_error, score_views
from svad_ray.evaluate.synthetic.render import View, intrinsics, turntable
from svad_ray.geometry.raster import project, to_camera

POINTS = np.random.default_rng(0).normal(size=(55, 3)) * [0.3, 0.8, 0.15]
POINTS[0] = 0


def truth(yaw: float, points: np.ndarray = POINTS) -> View:
    K, viewmat = intrinsics(64, 64, 100.0), turntable(yaw, 0.05)
    image = np.full((64, 64, 3), 255, np.uint8)
    image[20:50, 25:40] = 90
    mask = (image[..., 0] == 90).astype(np.float32)
    return View(image, mask, np.full((64, 64), np.inf, np.float32), K, viewmat, points, project(to_camera(points, viewmat), K), yaw)


def test_a_perfect_fit_with_the_wrong_focal_length_lands_on_the_true_pixels() -> None:
    """A person 1.7 times as large and as far, seen with the same focal length, is the same photo; so it must be the same from every side."""
    yaws = [0.0, -np.pi / 2, np.pi / 2, np.pi, 0.3]
    photo, turned = truth(0.0), [truth(yaw) for yaw in yaws]
    fitted = POINTS * 1.7
    viewmat = photo.viewmat.copy()
    viewmat[:3, 3] *= 1.7
    cameras = evaluation_cameras(fitted[0], photo.K, viewmat, photo, turned)
    for camera, view in zip(cameras, turned):
        np.testing.assert_allclose(project(to_camera(fitted, camera), view.K), view.keypoints2d, atol=1e-9)
        np.testing.assert_allclose(camera[:3, :3] @ camera[:3, :3].T, np.eye(3), atol=1e-9)  # rigid


def test_focal_length_and_photo_size_do_not_move_the_pelvis_or_its_scale() -> None:
    photo = truth(0.0)
    K = intrinsics(200, 300, 700.0)  # the fit saw a larger photo and assumed another focal length
    fitted = to_camera(POINTS, photo.viewmat)
    fitted[:, 2] += 2.0
    beside = fitted[:1] + np.array([0.01, 0, 0])
    camera = evaluation_cameras(fitted[0], K, np.eye(4), photo, [photo])[0]
    pelvis, near = to_camera(fitted[:1], camera), to_camera(beside, camera)
    step = project(near, photo.K)[0, 0] - project(pelvis, photo.K)[0, 0]
    seen = project(beside, K)[0, 0] - project(fitted[:1], K)[0, 0]
    assert step == pytest.approx(seen, rel=1e-6)  # same size in pixels
    np.testing.assert_allclose(project(pelvis, photo.K), project(fitted[:1], K), atol=1e-9)  # same pixel


def test_fitting_errors_are_not_aligned_away() -> None:
    photo = truth(0.0)
    lean = Rotation.from_rotvec([0.2, 0, 0]).apply(POINTS)
    camera = evaluation_cameras(lean[0], photo.K, photo.viewmat, photo, [truth(-np.pi / 2)])[0]
    off = project(to_camera(lean, camera), photo.K) - truth(-np.pi / 2).keypoints2d
    assert np.abs(off).max() > 1


def test_joint_error_ignores_place_and_size_only() -> None:
    assert joint_error(POINTS * 0.3 + [1, 2, 3], POINTS).worst_mm == pytest.approx(0, abs=1e-9)
    turned = Rotation.from_rotvec([0, 0.5, 0]).apply(POINTS)
    expected = np.linalg.norm(turned[:22] - POINTS[:22], axis=1).mean() * 1000
    assert joint_error(turned, POINTS).mean_mm == pytest.approx(expected, rel=1e-9)
    pushed = POINTS.copy()
    pushed[7, 2] += 0.11
    error = joint_error(pushed, POINTS)
    assert (error.worst_mm, error.depth_mm) == (pytest.approx(110), pytest.approx(5))
    with pytest.raises(InputError, match="22"):
        joint_error(POINTS[:17], POINTS)


def test_scores_of_known_differences() -> None:
    view = truth(0.0)
    perfect, grey = view.image, np.full((64, 64, 3), 0.5, np.float32)
    half = view.mask.copy()
    half[20:35] = 0
    same, other = score_views([(perfect, view.mask), (grey, half)], [view, view], perceptual=lambda a, b: float(np.abs(a - b).mean()))
    assert same.psnr == np.inf and same.ssim == pytest.approx(1) and same.lpips == 0 and same.iou == 1
    white, dark = 1 - 450 / 4096, 450 / 4096
    assert other.psnr == pytest.approx(-10 * np.log10(white * 0.25 + dark * (0.5 - 90 / 255) ** 2), abs=1e-3)
    assert other.iou == pytest.approx(0.5)
    assert np.isnan(score_views([(perfect, None)], [view])[0].iou)
    with pytest.raises(InputError, match="1 renders for 2"):
        score_views([(perfect, None)], [view, view])
