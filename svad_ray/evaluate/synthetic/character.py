"""A character: textured meshes in the T zero pose, bound to 55 joints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from svad_ray.evaluate.synthetic.fabrics import Material
from svad_ray.evaluate.synthetic.people import Person
from svad_ray.evaluate.synthetic.poses import Pose, joint_transforms, move_joints, skin


@dataclass(frozen=True)
class Mesh:
    """One piece of a character.

    Attributes:
        name: "body", "top", "hair", ...
        vertices: (V, 3) metres, zero pose, pelvis at the origin.
        faces: (F, 3). lbs_weights: (V, 55).
        coords: (T, C) float32, what ``material`` is a function of. coord_faces: (F, 3) rows of ``coords``.
        material: Colour of the pieces of surface.
    """

    name: str
    vertices: np.ndarray
    faces: np.ndarray
    lbs_weights: np.ndarray
    coords: np.ndarray
    coord_faces: np.ndarray
    material: Material


@dataclass(frozen=True)
class Character:
    """A person that can be posed and drawn.

    Attributes:
        person: The specification it was built from.
        meshes: Its pieces.
        joints: (55, 3) metres at rest, pelvis at the origin.
    """

    person: Person
    meshes: Sequence[Mesh]
    joints: np.ndarray

    @cached_property
    def faces(self) -> np.ndarray:
        """(F, 3) the faces of all pieces, numbering the rows of :meth:`posed`."""
        starts = np.cumsum([0] + [len(m.vertices) for m in self.meshes[:-1]])
        return np.concatenate([m.faces + s for m, s in zip(self.meshes, starts)])

    @cached_property
    def spans(self) -> list[tuple[Mesh, int, int]]:
        """Each piece with its first and one past its last row of :attr:`faces`."""
        ends = np.cumsum([len(m.faces) for m in self.meshes])
        return [(m, int(end) - len(m.faces), int(end)) for m, end in zip(self.meshes, ends)]

    def posed(self, pose: Pose) -> np.ndarray:
        """(V, 3) metres: the vertices of all pieces in a pose (named axis-angles or a (55, 3) array)."""
        transforms = joint_transforms(pose, self.joints)
        return np.concatenate([skin(m.vertices, m.lbs_weights, transforms) for m in self.meshes])

    def posed_joints(self, pose: Pose) -> np.ndarray:
        """(55, 3) metres."""
        return move_joints(self.joints, joint_transforms(pose, self.joints))

    def normals(self, vertices: np.ndarray) -> np.ndarray:
        """(V, 3) area-weighted normals of ``vertices`` (V, 3), not normalised."""
        f = self.faces
        n = np.cross(vertices[f[:, 1]] - vertices[f[:, 0]], vertices[f[:, 2]] - vertices[f[:, 0]])
        n /= np.linalg.norm(n, axis=1, keepdims=True) ** 0.5 + 1e-12  # by the root of the area: slivers along cuts count little
        rows = f.ravel()
        return np.stack([np.bincount(rows, np.repeat(n[:, k], 3), len(vertices)) for k in range(3)], axis=1)
