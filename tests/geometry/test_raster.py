import numpy as np
import pytest

from svad_ray.geometry.raster import interpolate, project, rasterize_mesh, sample_bilinear, to_camera

K = np.array([[100.0, 0, 32], [0, 100, 24], [0, 0, 1]])


def square(z):
    return np.array([[-0.2, -0.1, z], [0.2, -0.1, z], [0.2, 0.1, z], [-0.2, 0.1, z]], np.float32), np.array([[0, 1, 2], [0, 2, 3]])


def test_a_square_covers_the_pixels_whose_centres_it_holds():
    v, f = square(1.0)
    mask = rasterize_mesh(v, f, K, 48, 64).mask
    x, y = np.meshgrid(np.arange(64) + 0.5, np.arange(48) + 0.5)
    expected = (abs((x - 32) / 100) < 0.2) & (abs((y - 24) / 100) < 0.1)
    assert (mask == expected).all()


def test_attributes_are_perspective_correct():
    v = np.array([[-0.5, -0.4, 1.0], [1.5, -0.4, 3.0], [-0.5, 0.6, 1.2]], np.float32)
    buffers = rasterize_mesh(v, np.array([[0, 1, 2]]), K, 48, 64)
    points = interpolate(buffers, np.array([[0, 1, 2]]), v)
    y, x = np.where(buffers.mask)
    assert np.allclose(project(points, K), np.stack([x + 0.5, y + 0.5], 1), atol=1e-3)
    assert np.allclose(points[:, 2], buffers.depth[buffers.mask], atol=1e-5)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_nearer_face_wins_whatever_the_order(order):
    (near, f), (far, _) = square(1.0), square(2.0)
    faces = np.concatenate([f, f + 4][:: 1 if order == (0, 1) else -1])
    buffers = rasterize_mesh(np.concatenate([near, far * [4, 4, 1]]), faces, K, 48, 64)
    assert np.isclose(buffers.depth[24, 32], 1.0) and np.isclose(buffers.depth[6, 2], 2.0)


def test_thread_count_does_not_change_the_result():
    rng = np.random.default_rng(0)
    v = rng.normal(size=(3000, 3)) * [0.2, 0.2, 0.1] + [0, 0, 1]
    f = rng.integers(0, 3000, (4000, 3))
    one, two = (rasterize_mesh(v, f, K, 48, 64, threads=n) for n in (1, 2))
    assert (one.face_id == two.face_id).all() and (one.bary == two.bary).all()


def test_triangles_behind_the_camera_are_left_out():
    v, f = square(-1.0)
    assert not rasterize_mesh(v, f, K, 48, 64).mask.any()


def test_bilinear_sampling_of_a_linear_image_is_exact_and_clamped():
    y, x = np.mgrid[:9, :7]
    image = (2.0 * (x + 0.5) + 3.0 * (y + 0.5)).astype(np.float32)
    points = np.array([[3.2, 4.7], [0.5, 0.5], [6.4, 8.1]])
    assert np.allclose(sample_bilinear(image, points), 2 * points[:, 0] + 3 * points[:, 1], atol=1e-4)
    assert np.isclose(sample_bilinear(image, np.array([[-5.0, -5.0]]))[0], image[0, 0])


def test_to_camera_applies_rotation_then_translation():
    V = np.eye(4)
    V[:3, :3] = [[0, 1, 0], [-1, 0, 0], [0, 0, 1]]
    V[:3, 3] = [0, 0, 2]
    assert np.allclose(to_camera(np.array([[1.0, 0, 0]]), V), [[0, -1, 2]])
