"""The shaped, unposed body that clothes are cut on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from scipy.spatial import cKDTree

from svad_ray.body.makehuman import MakeHuman
from svad_ray.body.names import JOINT_NAMES
from svad_ray.evaluate.synthetic.people import Person
from svad_ray.evaluate.synthetic.surfaces import Surface
from svad_ray.geometry.mesh import normals_np


@lru_cache(maxsize=1)
def makehuman() -> MakeHuman:
    """The CC0 data, loaded once in a process."""
    from svad_ray.models import ensure

    return MakeHuman.load(ensure("makehuman"))


@dataclass(frozen=True)
class Mannequin:
    """One body with everything that cutting clothes asks of it.

    Attributes:
        data: The MakeHuman data.
        vertices: (19158, 3) metres, zero pose, pelvis at the origin; the helper geometry is part of it.
        joints: (55, 3) metres.
    """

    data: MakeHuman
    vertices: np.ndarray
    joints: np.ndarray

    @classmethod
    def of(cls, person: Person, data: MakeHuman) -> Mannequin:
        """The body of a person."""
        vertices, joints = data.unpose(data.shape(person.phenotype, person.local))
        return cls(data, np.asarray(vertices, np.float64), np.asarray(joints, np.float64))

    def joint(self, name: str) -> np.ndarray:
        """(3,) metres."""
        return self.joints[JOINT_NAMES.index(name)]

    @cached_property
    def unit(self) -> float:
        """Size of this body relative to the one that the garments' measures were taken on."""
        return float(np.linalg.norm(self.joint("head") - self.joint("left_ankle")) / 1.53)

    @cached_property
    def ground(self) -> float:
        """Height of the soles, metres."""
        faces, _ = self.data.triangles("body")
        return float(self.vertices[faces.ravel(), 1].min())

    @cached_property
    def crotch(self) -> float:
        """Height where the legs part, metres."""
        middle = self.tights.vertices[np.abs(self.tights.vertices[:, 0]) < 0.006]
        return float(middle[:, 1].min())

    def surface(self, group: str, *, refine: int) -> Surface:
        """A group of the base mesh, refined, with its unit normals (``normal``) and skinning weights (``lbs_weights``)."""
        faces, _ = self.data.triangles(group)
        base = Surface.of(self.vertices, faces, lbs_weights=self.data.lbs_weights).refined(refine)
        base.attributes["normal"] = normals_np(base.vertices, base.faces).astype(np.float64)
        return base

    @cached_property
    def tights(self) -> Surface:
        """The second skin from neck to wrists to toes."""
        return self.surface("helper-tights", refine=2)

    @cached_property
    def tree(self) -> cKDTree:
        """Nearest neighbours on :attr:`tights`."""
        return cKDTree(self.tights.vertices)

    def weights_near(self, points: np.ndarray) -> np.ndarray:
        """(N, 55) skinning weights of the second skin nearest to ``points`` (N, 3), averaged over a few neighbours."""
        distance, index = self.tree.query(points, k=6)
        share = 1 / (distance + 0.01)
        share /= share.sum(1, keepdims=True)
        return np.einsum("nk,nkj->nj", share, self.tights.attributes["lbs_weights"][index])
