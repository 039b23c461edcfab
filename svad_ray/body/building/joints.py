"""Joints from the surface: a non-negative regressor whose rows sum to one."""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls

from svad_ray.body.building.parts import JOINT_MIRROR
from svad_ray.body.names import JOINT_NAMES

REACH, STRIDE = 3000, 8  # nearest vertices that may place a joint, and every how many of them is tried
_SUM_WEIGHT = 30.0  # metres: how hard the rows' sum is pulled to 1 before the exact normalisation
_SPREAD = 2e-3  # metres per person: ridge that spreads a row over many vertices
_STILL = 3.0  # weight of "expressions move no joint"


def fit_regressor(people: np.ndarray, joints: np.ndarray, usable: np.ndarray, mirror: np.ndarray, *, still: np.ndarray | None = None) -> np.ndarray:
    """(55, V) float64 regressor, non-negative, rows summing to 1, left and right alike.

    Args:
        people: (N, V, 3) metres, mirror symmetric.
        joints: (N, 55, 3) metres, mirror symmetric.
        usable: (V,) bool, vertices of the outer skin.
        mirror: (V,) partner vertices.
        still: (U, V, 3) metres, displacements (face units) that should not move joints.
    """
    out = np.zeros((len(JOINT_NAMES), people.shape[1]))
    mean = people.mean(0)
    for j, name in enumerate(JOINT_NAMES):
        if name.startswith("right"):
            continue
        near = _candidates(mean, joints[:, j].mean(0), usable, mirror, middle=not name.startswith("left"))
        out[j, near] = _weights(people[:, near], joints[:, j], None if still is None else still[:, near])
    for j, name in enumerate(JOINT_NAMES):
        other = out[JOINT_MIRROR[j]][mirror]
        if name.startswith("right"):
            out[j] = other
        elif not name.startswith("left"):
            out[j] = (out[j] + other) / 2
    return out


def _candidates(mean: np.ndarray, joint: np.ndarray, usable: np.ndarray, mirror: np.ndarray, *, middle: bool) -> np.ndarray:
    """The skin around a joint: nearest vertices, thinned evenly so that the ring is wide rather than dense."""
    distance = np.where(usable, np.linalg.norm(mean - joint, axis=1), np.inf)
    near = np.argsort(distance, kind="stable")[:REACH]
    near = near[np.isfinite(distance[near])][::STRIDE]
    return np.union1d(near, mirror[near]) if middle else np.sort(near)


def _weights(x: np.ndarray, joint: np.ndarray, still: np.ndarray | None) -> np.ndarray:
    """Non-negative least squares of one joint on (N, n, 3) vertices."""
    people, count = x.shape[:2]
    rows = [x.transpose(0, 2, 1).reshape(-1, count), np.full((1, count), _SUM_WEIGHT), np.sqrt(people) * _SPREAD * np.eye(count)]
    right = [joint.reshape(-1), np.array([_SUM_WEIGHT]), np.zeros(count)]
    if still is not None and np.any(still):
        moved = still.transpose(0, 2, 1).reshape(-1, count)
        moved = moved[np.abs(moved).max(1) > 0]
        rows, right = [*rows, _STILL * moved], [*right, np.zeros(len(moved))]
    solution, _ = nnls(np.concatenate(rows).astype(np.float64), np.concatenate(right), maxiter=40 * count)
    return solution / solution.sum()
