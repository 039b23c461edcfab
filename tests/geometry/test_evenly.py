"""Points spread evenly on a surface."""

import numpy as np
from scipy.spatial import cKDTree

from svad_ray.geometry.evenly import scatter_evenly
from svad_ray.geometry.mesh import scatter

SQUARE = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
FACES = np.array([[0, 1, 2], [0, 2, 3]])


def at(face: np.ndarray, bary: np.ndarray) -> np.ndarray:
    return np.einsum("nk,nkc->nc", bary, SQUARE[FACES[face]])


def _looked_at(points: np.ndarray, grid: np.ndarray) -> tuple[float, float]:
    """What nearly all keep from their nearest neighbour, and the gap that nearly no place of the square lies deeper in."""
    tree = cKDTree(points)
    return float(np.percentile(tree.query(points, 2)[0][:, 1], 5)), float(np.percentile(tree.query(grid)[0], 99))


def test_points_keep_apart_and_leave_no_gaps():
    face, bary, spacing, reach = scatter_evenly(SQUARE, FACES, 900, seed=1)
    random_face, random_bary, *_ = scatter(SQUARE, FACES, 900, seed=1)
    grid = np.stack([*np.meshgrid(np.linspace(0, 1, 200), np.linspace(0, 1, 200)), np.zeros((200, 200))], -1).reshape(-1, 3)
    gap, (apart, hole), (random_apart, random_hole) = 1 / 30, _looked_at(at(face, bary), grid), _looked_at(at(random_face, random_bary), grid)
    assert len(face) > 880 and np.allclose(spacing, gap, rtol=0.01) and spacing.dtype == np.float32
    assert apart > 2 * random_apart and apart > 0.25 * gap and hole < 0.85 * random_hole
    far = cKDTree(at(face, bary)).query(grid)[0].max()
    assert 0.8 * far < reach.max() < 1.02 * far, "the reach is the gap that an independent grid finds"


def test_density_is_kept():
    face, *_ = scatter_evenly(SQUARE, FACES, 1000, density=np.array([4.0, 1.0]), seed=1)
    assert 3.3 < (face == 0).sum() / (face == 1).sum() < 4.5
