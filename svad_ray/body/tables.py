"""What a body file means beyond its shape: named vertices, regions, UV, mirror partners and face landmarks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from svad_ray.body.names import FINGERS, JOINT_INDEX, SIDES, VERTEX_JOINT_NAMES
from svad_ray.errors import InputError

REGIONS = ("left_hand", "right_hand", "face", "scalp", "ears", "lips", "eyes", "left_foot", "right_foot", "inner_mouth")
EAR_RADIUS = 0.05  # metres around the ear's named vertex, where no region mask says better

# SMPL-X's own vertex numbers of the named vertices (10,475 vertices). Source: the smplx package's table of extra joints.
_SMPLX_VERTICES = (9120, 9929, 9448, 616, 6, 5770, 5780, 8846, 8463, 8474, 8635, 5361, 4933, 5058, 5169, 5286, 8079, 7669, 7794, 7905, 8022)
SMPLX_VERTEX_COUNT = 10475
# smplx's short names, for tables written with them.
SHORT_NAMES = {
    "nose": "nose", "reye": "right_eye", "leye": "left_eye", "rear": "right_ear", "lear": "left_ear",
    **{f"{s[0].upper()}{word}": f"{s}_{part}" for s in SIDES for word, part in (("BigToe", "big_toe"), ("SmallToe", "small_toe"), ("Heel", "heel"))},
    **{f"{s[0]}{finger}": f"{s}_{finger}_tip" for s in SIDES for finger in FINGERS},
}  # fmt: skip


@dataclass(frozen=True)
class BodyTables:
    """Companion tables of one body.

    Attributes:
        vertex: Vertex number by name (:data:`svad_ray.body.names.VERTEX_JOINT_NAMES`: nose, left_eye, left_ear, left_big_toe, left_heel,
            left_thumb_tip, ...).
        regions: (V,) bool masks by name (:data:`REGIONS`).
        uv: (T, 2) texture coordinates, v up; (0, 2) where the body has none. uv_faces: (F, 3) their numbers per face corner.
        mirror: (V,) int64, the vertex on the other side of the body.
        landmark_faces, landmark_bary: (51,) and (51, 3), iBUG points 17-67.
        contour_faces, contour_bary: (79, 17) and (79, 17, 3), iBUG points 0-16 by head yaw (SMPL-X's bins: 0..39 turned right, 40..78 left).
    """

    vertex: dict[str, int]
    regions: dict[str, np.ndarray]
    uv: np.ndarray
    uv_faces: np.ndarray
    mirror: np.ndarray
    landmark_faces: np.ndarray
    landmark_bary: np.ndarray
    contour_faces: np.ndarray
    contour_bary: np.ndarray

    @property
    def vertex_joints(self) -> np.ndarray:
        """(21,) vertex numbers in output order."""
        return np.array([self.vertex[name] for name in VERTEX_JOINT_NAMES])


@dataclass(frozen=True)
class Geometry:
    """The arrays that tables are derived from: vertices (V, 3), faces (F, 3), lbs_weights (V, 55), joints (55, 3), landmarks (51, 3)."""

    vertices: np.ndarray
    faces: np.ndarray
    lbs_weights: np.ndarray
    joints: np.ndarray
    landmarks: np.ndarray

    def weight(self, *names: str) -> np.ndarray:
        """(V,) summed skinning weight of some joints."""
        return self.lbs_weights[:, [JOINT_INDEX[name] for name in names]].sum(1)

    def joint(self, name: str) -> np.ndarray:
        """(3,) metres."""
        return self.joints[JOINT_INDEX[name]]


def tables_of(data: Mapping[str, np.ndarray], *, vertex_ids: Mapping[str, int] | None = None) -> BodyTables:
    """Tables of a body file: its own where it carries them, SMPL-X's known numbers, else derived from its geometry.

    Args:
        data: Arrays of the npz.
        vertex_ids: Named vertices that replace the file's (this project's names or smplx's short ones).
    """
    g = _geometry(data)
    count = len(g.vertices)
    vertex = named_vertices(g)
    if count == SMPLX_VERTEX_COUNT:
        vertex |= dict(zip(VERTEX_JOINT_NAMES, _SMPLX_VERTICES))
    if "vertex_names" in data:
        vertex |= {str(name): int(i) for name, i in zip(data["vertex_names"], data["vertex_numbers"])}
    vertex |= {SHORT_NAMES.get(name, name): int(i) for name, i in (vertex_ids or {}).items()}
    if bad := [name for name, i in vertex.items() if not 0 <= i < count]:
        raise InputError(f"named vertices {', '.join(bad)} lie outside the body", expected=f"numbers below {count}")
    known = {str(name): np.asarray(mask, bool) for name, mask in zip(data.get("region_names", ()), data.get("region_masks", ()))}
    regions = derive_regions(g, vertex, known)
    return BodyTables(
        vertex,
        regions,
        np.asarray(data["vt"], np.float32) if "vt" in data else np.zeros((0, 2), np.float32),
        np.asarray(data["ft"], np.int64) if "ft" in data else np.zeros((0, 3), np.int64),
        np.asarray(data["mirror"], np.int64) if "mirror" in data else mirror_of(g.vertices),
        np.asarray(data["lmk_faces_idx"], np.int64).reshape(-1),
        np.asarray(data["lmk_bary_coords"], np.float32).reshape(-1, 3),
        np.asarray(data["dynamic_lmk_faces_idx"], np.int64).reshape(79, 17),
        np.asarray(data["dynamic_lmk_bary_coords"], np.float32).reshape(79, 17, 3),
    )


def _geometry(data: Mapping[str, np.ndarray]) -> Geometry:
    vertices, faces = np.asarray(data["v_template"], np.float64), np.asarray(data["f"]).astype(np.int64)
    bary = np.asarray(data["lmk_bary_coords"], np.float64).reshape(-1, 3, 1)
    landmarks = (vertices[faces[np.asarray(data["lmk_faces_idx"]).reshape(-1)]] * bary).sum(1)
    return Geometry(vertices, faces, np.asarray(data["weights"], np.float64), np.asarray(data["J_regressor"], np.float64) @ vertices, landmarks)


def mirror_of(vertices: np.ndarray) -> np.ndarray:
    """(V,) int64, nearest vertex to each vertex's reflection in x = 0."""
    return cKDTree(vertices).query(vertices * [-1, 1, 1])[1].astype(np.int64)


def named_vertices(g: Geometry) -> dict[str, int]:
    """The 21 named vertices from the shape of a body in its zero pose: extremes of the part that carries them."""
    head = g.weight("head", "jaw") > 0.5
    vertex = {"nose": _nearest(g, head, g.landmarks[30 - 17])}
    for side, sign in (("left", 1.0), ("right", -1.0)):
        eye = g.weight(f"{side}_eye") > 0.5
        vertex[f"{side}_eye"] = _farthest(g, eye if eye.any() else head, np.array([0.0, 0.0, 1.0]), near=g.joint(f"{side}_eye"))
        vertex[f"{side}_ear"] = _ear(g, head, sign)
        vertex |= _foot(g, side, sign)
        for finger in FINGERS:
            part = g.weight(f"{side}_{finger}3") > 0.5
            bone = g.joint(f"{side}_{finger}3") - g.joint(f"{side}_{finger}2")
            vertex[f"{side}_{finger}_tip"] = _farthest(g, part, bone)
    return vertex


def _nearest(g: Geometry, part: np.ndarray, point: np.ndarray) -> int:
    numbers = np.flatnonzero(part)
    return int(numbers[((g.vertices[numbers] - point) ** 2).sum(1).argmin()])


def _farthest(g: Geometry, part: np.ndarray, direction: np.ndarray, *, near: np.ndarray | None = None) -> int:
    """The vertex of a part farthest along a direction; with ``near``, distance across the direction counts against it."""
    if not part.any():
        raise InputError("the body's skinning weights leave a part of it empty", expected="all 55 SMPL-X joints to carry vertices")
    numbers = np.flatnonzero(part)
    d = direction / np.linalg.norm(direction)
    along = g.vertices[numbers] @ d
    if near is not None:
        off = g.vertices[numbers] - near
        along = off @ d - 2 * np.linalg.norm(off - (off @ d)[:, None] * d, axis=1)
    return int(numbers[along.argmax()])


def _ear(g: Geometry, head: np.ndarray, sign: float) -> int:
    """Where the ear meets the cheek, just before the ear canal: between the eyes' and the nose tip's height, at the ear's front root."""
    eyes, nose = (g.joint("left_eye") + g.joint("right_eye")) / 2, g.landmarks[30 - 17]
    height, depth = (eyes[1] + nose[1]) / 2, g.joint("head")[2]
    at_height = head & (np.abs(g.vertices[:, 1] - height) < 0.035) & (g.vertices[:, 2] < eyes[2] - 0.03)
    return _farthest(g, at_height if at_height.any() else head, np.array([sign, 0.0, 0.0]), near=np.array([0.0, height, min(depth, eyes[2])]))


def _foot(g: Geometry, side: str, sign: float) -> dict[str, int]:
    toes, foot = g.weight(f"{side}_foot") > 0.5, g.weight(f"{side}_ankle", f"{side}_foot") > 0.5
    toes = toes if toes.any() else foot
    low = foot & (g.vertices[:, 1] < g.joint(f"{side}_ankle")[1])
    return {
        f"{side}_big_toe": _farthest(g, toes, np.array([-0.35 * sign, 0.0, 1.0])),
        f"{side}_small_toe": _farthest(g, toes, np.array([1.2 * sign, 0.0, 1.0])),
        f"{side}_heel": _farthest(g, low if low.any() else foot, np.array([0.0, -0.4, -1.0])),
    }


def derive_regions(g: Geometry, vertex: Mapping[str, int], known: Mapping[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
    """Region masks from skinning weights and the face's landmarks; masks that are already ``known`` stay and shape the others."""
    known = known or {}
    head = g.weight("head", "jaw") > 0.5
    eyes = known.get("eyes", g.weight("left_eye", "right_eye") > 0.5)
    inner = known.get("inner_mouth", np.zeros(len(g.vertices), bool))
    ears = known["ears"] if "ears" in known else _ears_region(g, vertex, head)
    face = known["face"] if "face" in known else _face_region(g, vertex, head | eyes) & ~ears
    lips = known["lips"] if "lips" in known else _lips_region(g, face)
    hands = {f"{side}_hand": g.weight(f"{side}_wrist", *(f"{side}_{f}{k}" for f in FINGERS for k in (1, 2, 3))) > 0.5 for side in SIDES}
    feet = {f"{side}_foot": g.weight(f"{side}_ankle", f"{side}_foot") > 0.5 for side in SIDES}
    scalp = head & ~face & ~ears & ~inner & ~eyes & (g.vertices[:, 1] > g.landmarks[30 - 17, 1])
    return {**hands, "face": face, "scalp": scalp, "ears": ears, "lips": lips, "eyes": eyes, **feet, "inner_mouth": inner, **known}


def _ears_region(g: Geometry, vertex: Mapping[str, int], head: np.ndarray) -> np.ndarray:
    out = np.zeros(len(head), bool)
    for side in SIDES:
        root = g.vertices[vertex[f"{side}_ear"]]
        near = np.linalg.norm(g.vertices - root, axis=1) < EAR_RADIUS
        out |= head & near & (np.abs(g.vertices[:, 0]) > 0.85 * abs(root[0]))
    return out


def _face_region(g: Geometry, vertex: Mapping[str, int], head: np.ndarray) -> np.ndarray:
    """The front of the head from chin to a little above the brows."""
    chin = g.vertices[_farthest(g, head, np.array([0.0, -1.0, 0.3])), 1]
    brow, ears = g.landmarks[:10, 1].max(), g.vertices[[vertex["left_ear"], vertex["right_ear"]], 2].mean()
    _, y, z = g.vertices.T
    return head & (z > ears + 0.02) & (y < brow + 0.03) & (y > chin - 0.01)


def _lips_region(g: Geometry, face: np.ndarray) -> np.ndarray:
    """Skin close to both rings of lip landmarks."""
    outer, inner = g.landmarks[48 - 17 : 60 - 17], g.landmarks[60 - 17 :]
    return face & (cKDTree(outer).query(g.vertices)[0] + cKDTree(inner).query(g.vertices)[0] < 0.014)
