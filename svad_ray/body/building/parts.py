"""What of the base mesh becomes the body, and its regions and UV."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from svad_ray.body.makehuman import MakeHuman
from svad_ray.body.names import JOINT_INDEX, JOINT_NAMES
from svad_ray.geometry.raster import sample_bilinear

EYES = ("helper-l-eye", "helper-r-eye")
MOUTH = ("helper-upper-teeth", "helper-lower-teeth", "helper-tongue")
GROUPS = ("body", *EYES, *MOUTH)
# (55,) the joint on the other side.
JOINT_MIRROR = np.array([JOINT_INDEX[n.replace("left", "#").replace("right", "left").replace("#", "right")] for n in JOINT_NAMES])
_FLIP = np.array([-1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Parts:
    """The kept mesh.

    Attributes:
        data: MakeHuman's data.
        keep: (V,) vertex numbers in the base mesh, ascending.
        faces, uv_faces: (F, 3) in kept numbers and in ``uv``'s.
        uv: (T, 2), v up.
        mirror: (V,) partner on the other side, kept numbers.
    """

    data: MakeHuman
    keep: np.ndarray
    faces: np.ndarray
    uv_faces: np.ndarray
    uv: np.ndarray
    mirror: np.ndarray

    @classmethod
    def of(cls, data: MakeHuman) -> Parts:
        """Body, eyes, teeth and tongue of the base mesh."""
        both = [data.triangles(group) for group in GROUPS]
        faces, uv_faces = (np.concatenate([pair[k] for pair in both]) for k in (0, 1))
        keep, used = np.unique(faces), np.unique(uv_faces)
        number = np.full(len(data.vertices), -1)
        number[keep] = np.arange(len(keep))
        return cls(data, keep, number[faces], np.searchsorted(used, uv_faces), data.uv[used], number[data.mirror[keep]])

    @cached_property
    def lbs_weights(self) -> np.ndarray:
        """(V, 55) float64, left and right alike."""
        w = self.data.lbs_weights[self.keep]
        return (w + w[self.mirror][:, JOINT_MIRROR]) / 2

    def symmetric(self, vertices: np.ndarray) -> np.ndarray:
        """(V, 3) mean of a kept mesh and its reflection."""
        return (vertices + vertices[self.mirror] * _FLIP) / 2

    def symmetric_joints(self, joints: np.ndarray) -> np.ndarray:
        """(55, 3) mean of joints and their reflection."""
        return (joints + joints[JOINT_MIRROR] * _FLIP) / 2

    def in_groups(self, *groups: str) -> np.ndarray:
        """(V,) bool."""
        return np.isin(self.keep, np.concatenate([self.data.group_vertices(group) for group in groups]))

    @cached_property
    def vertex_uv(self) -> np.ndarray:
        """(V, 2) one texture coordinate per vertex (any of its corners' at seams)."""
        out = np.zeros((len(self.keep), 2))
        out[self.faces.ravel()] = self.uv[self.uv_faces.ravel()]
        return out

    def painted(self, name: str) -> np.ndarray:
        """(V,) float in [0, 1]: MakeHuman's UV mask at the vertices of the skin, 0 elsewhere."""
        image = self.data.region_image(name)
        pixels = np.stack([self.vertex_uv[:, 0], 1 - self.vertex_uv[:, 1]], 1) * image.shape[::-1]
        return np.where(self.in_groups("body"), sample_bilinear(image, pixels), 0)

    def regions(self) -> dict[str, np.ndarray]:
        """(V,) bool masks that the mesh's own groups and masks tell; the others are derived like any body's."""
        inner = self._both_sides(self.in_groups(*MOUTH) | (self.painted("inside-mouth") > 0.5))
        ears = self._both_sides(self.painted("ears") > 0.5) & ~inner
        face = self._both_sides(self.painted("face") > 0.5) & ~ears & ~inner
        lips = self._both_sides(self.painted("lips") > 0.5)
        return {"ears": ears, "face": face, "lips": lips, "eyes": self.in_groups(*EYES), "inner_mouth": inner}

    def _both_sides(self, mask: np.ndarray) -> np.ndarray:
        return mask | mask[self.mirror]
