"""Points spread evenly on a surface."""

import numpy as np
from scipy.spatial import cKDTree

from svad_ray.geometry.evenly import scatter_evenly
from svad_ray.geometry.mesh import scatter

SQUARE = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
FACES = np.array([[0, 1, 2], [0, 2, 3]])


def at(face: np.ndarray, bary: np.ndarray) -> np.ndarray:
    return np.einsum("nk,nkc->nc", bary, SQUARE[FACES[face]])


def test_points_keep_apart_and_leave_no_gaps():
    face, bary, spacing, reach = scatter_evenly(SQUARE, FACES, 900, seed=1)
    random_face, random_bary, *_ = scatter(SQUARE, FACES, 900, seed=1)
    grid = np.stack([*np.meshgrid(np.linspace(0, 1, 200), np.linspace(0, 1, 200)), np.zeros((200, 200))], -1).reshape(-1, 3)
    near, gap = (lambda x: (np.percentile(cKDTree(x).query(x, 2)[0][:, 1], 5), cKDTree(x).query(grid)[0].max())), 1 / 30
    (apart, hole), (random_apart, random_hole) = near(at(face, bary)), near(at(random_face, random_bary))
    assert len(face) > 880 and np.allclose(spacing, gap, rtol=0.01) and spacing.dtype == np.float32
    assert apart > 3 * random_apart and apart > 0.4 * gap and hole < 0.7 * random_hole
    assert reach.max() < hole + 0.01 and reach.max() > 0.7 * hole, "the reach is the gap that an independent grid finds"


def test_density_is_kept():
    face, *_ = scatter_evenly(SQUARE, FACES, 1000, density=np.array([4.0, 1.0]), seed=1)
    assert 3.3 < (face == 0).sum() / (face == 1).sum() < 4.5
