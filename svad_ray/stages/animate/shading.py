"""The slow part of a photo's light, told from what the surface itself looks like, so that colours carried elsewhere are lit as that place is.

The logarithm of brightness is a smooth function of the normal plus one number for each kind of cloth or skin. Depth enters by its size alone, so that
the function holds for what faces away as well: lit from the left, a person is lit from the left behind, too. Source: ours; a quadratic in the normal
is the low-frequency model of diffuse light of Ramamoorthi and Hanrahan 2001.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

DARKEST = 0.02  # brightness below which a pixel tells nothing of the light
CHROMA_STEP = 0.04  # colours whose chromaticity falls into one cell are one cloth
FEWEST = 40  # points that make a cloth worth a number of its own
RIDGE = 0.02  # of the number of points: what the light must explain before it counts
ROBUST = 0.25  # residual of the logarithm that counts half: a stripe or a fold is no light
ROUNDS = 6
STRONGEST = 0.5  # bound of a correction's logarithm


@dataclass(frozen=True)
class Shading:
    """Light of one photo: ``coefficients`` (5,) of x, y, x^2, xy and y^2 of the normal in camera axes."""

    coefficients: np.ndarray

    def __call__(self, normals: np.ndarray) -> np.ndarray:
        """(N,) logarithm of the brightness of normals (N, 3), up to a constant."""
        return _basis(normals) @ self.coefficients


def _basis(normals: np.ndarray) -> np.ndarray:
    x, y = normals[:, 0], normals[:, 1]
    return np.stack([x, y, x * x, x * y, y * y], 1).astype(np.float64)


def fit_shading(color: np.ndarray, normals: np.ndarray, part: np.ndarray, weight: np.ndarray) -> Shading:
    """The light under which a photo shows points.

    Args:
        color: (N, 3) in [0, 1]. normals: (N, 3) camera axes, unit length. part: (N,) int, body parts; a cloth does not go across them.
        weight: (N,) how well each is seen; those with zero are left out.
    """
    brightness = color.mean(1)
    use = np.flatnonzero((weight > 0) & (brightness > DARKEST) & (brightness < 0.98))
    cloth = _cloths(color[use], part[use])
    known = cloth >= 0
    use, cloth = use[known], cloth[known]
    if len(use) < 10 * FEWEST:
        return Shading(np.zeros(5))
    log, basis, w = np.log(brightness[use]), _basis(normals[use]), weight[use].astype(np.float64)
    robust, coefficients = np.ones(len(use)), np.zeros(5)
    for _ in range(ROUNDS):
        ww = w * robust
        centred, target = _within(basis, cloth, ww), _within(log[:, None], cloth, ww)[:, 0]
        system = (centred * ww[:, None]).T @ centred + RIDGE * ww.sum() * np.eye(5)
        coefficients = np.linalg.solve(system, (centred * ww[:, None]).T @ target)
        residual = target - centred @ coefficients
        robust = 1 / (1 + (residual / ROBUST) ** 2)
    return Shading(coefficients)


def _cloths(color: np.ndarray, part: np.ndarray) -> np.ndarray:
    """(N,) number of each point's cloth: body part and cell of chromaticity; -1 where too few points share it."""
    cell = np.floor(color[:, :2] / color.sum(1, keepdims=True) / CHROMA_STEP).astype(int)
    _, number, count = np.unique(np.column_stack([part, cell]), axis=0, return_inverse=True, return_counts=True)
    number = number.reshape(-1)
    return np.where(count[number] >= FEWEST, number, -1)


def _within(values: np.ndarray, group: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(N, C) values less their group's weighted mean."""
    total = np.bincount(group, weight) + 1e-12
    mean = np.stack([np.bincount(group, weight * column) / total for column in values.T], 1)
    return values - mean[group]
