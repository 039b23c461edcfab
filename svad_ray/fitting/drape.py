"""How far a dressed person's surface lies before and behind what an outline from the front tells: the side profile that people usually have.

Seen from the front, a shirt that falls straight from the shoulder blades and trousers that fall straight from the bottom look like any others. What
fits to synthetic people lack in depth is much the same for all of them: 1 to 2 cm at waist, bottom and behind the thighs, with a spread of 2 to 5 mm
(10 at the chest and the upper back). So it is told once, ring by ring (``svad_ray.fitting.surface``), in front and behind, as a linear function of
the fitted shape. ``benchmarks/drape.py`` measures it on the people and pictures of ``benchmarks/limb_depth.py``. Source: ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import scipy.sparse as sp

TABLE = Path(__file__).parent / "data" / "drape.npz"
SHAPES = 5  # betas that the profile depends on
FACES = 0.5  # depth part of a normal from which a vertex counts wholly as front or back
FARTHEST = 0.03  # metres


@dataclass(frozen=True)
class Drape:
    """The learned profile.

    Attributes:
        coefficients: (2, R, 2, 1 + SHAPES) metres: without and with a skirt; of each ring; in front and behind; of one and of the betas.
    """

    coefficients: np.ndarray

    def __call__(self, rings: sp.csr_matrix, normal_z: np.ndarray, betas: np.ndarray, *, skirt: bool) -> np.ndarray:
        """(V,) metres that the surface moves along the zero pose's depth, to the front where its normal does.

        Args:
            rings: (V, R) partition of unity. normal_z: (V,) depth part of the rest normals. betas: (SHAPES or more,).
        """
        told = self.coefficients[int(skirt)] @ np.concatenate([[1.0], np.clip(betas[:SHAPES], -3, 3)])
        front, back = basis_of(rings, normal_z)
        return np.clip(front @ told[:, 0] + back @ told[:, 1], -FARTHEST, FARTHEST)

    def save(self, path: Path) -> None:
        """A tenth of a millimetre is enough."""
        np.savez_compressed(path, coefficients=self.coefficients.astype(np.float16))


def basis_of(rings: sp.csr_matrix, normal_z: np.ndarray) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """(V, R) twice: what a ring's number for the front and for the back moves, fading towards the outline."""
    share = np.clip(np.abs(normal_z) / FACES, 0, 1)
    return sp.diags(share * (normal_z > 0)) @ rings, sp.diags(share * (normal_z <= 0)) @ rings


@cache
def usual_drape() -> Drape:
    """The table that comes with the package."""
    return load_drape(TABLE)


def load_drape(path: Path) -> Drape:
    """A table that :meth:`Drape.save` wrote."""
    with np.load(path) as z:
        return Drape(z["coefficients"].astype(np.float64))
