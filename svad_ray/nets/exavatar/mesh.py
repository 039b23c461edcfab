"""The mesh whose vertices are the Gaussians: the body with its mouth closed by a cavity, subdivided, with regions and blended directions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from svad_ray.body.flame import Flame
from svad_ray.body.model import Body
from svad_ray.errors import InputError
from svad_ray.geometry.mesh import subdivide

CAVITY = ((0, 1, 7), (1, 2, 7), (2, 3, 5), (3, 4, 5), (2, 5, 6), (2, 6, 7))  # of the eight lip vertices in their ring's order
SMPLX_LIPS = (2844, 2855, 8977, 1740, 1730, 1789, 8953, 2892)
FLAGS = ("is_rhand", "is_lhand", "is_face", "is_face_expr", "is_cavity")
_MOVED = 1e-4  # metres of any expression from which a vertex counts as moved by the face
_HEAD = ("face", "scalp", "ears", "lips", "eyes")


class SparseMap:
    """A constant sparse matrix (N, L) that acts on dense tensors (L, C) of any device, differentiable; far quicker than gathering with autograd."""

    def __init__(self, matrix: sp.spmatrix) -> None:
        self.matrix = matrix.tocsr().astype(np.float32)
        self.transposed = self.matrix.T.tocsr()
        self._kept: dict[tuple[torch.device, bool], torch.Tensor] = {}

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        """(N, C)."""
        return _Apply.apply(values, self)  # type: ignore[no-untyped-call]

    def multiply(self, values: torch.Tensor, *, transposed: bool = False) -> torch.Tensor:
        """The plain product, without a gradient."""
        matrix = self.transposed if transposed else self.matrix
        if values.device.type == "cpu":
            return torch.from_numpy(matrix @ values.numpy())
        key = (values.device, transposed)
        if key not in self._kept:
            starts, columns, entries = (torch.from_numpy(x) for x in (matrix.indptr, matrix.indices, matrix.data))
            self._kept[key] = torch.sparse_csr_tensor(starts, columns, entries, size=matrix.shape).to(values.device)
        return self._kept[key] @ values.contiguous()


class _Apply(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, sparse: SparseMap) -> torch.Tensor:
        ctx.sparse = sparse
        return sparse.multiply(values.detach())

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return ctx.sparse.multiply(gradients[0], transposed=True), None


@dataclass(frozen=True)
class Regions:
    """Vertices of a body by what they are.

    Attributes:
        right_hand, left_hand, face, face_expression: (V,) bool; the last are those that expressions move.
        lips: Eight vertices of the inner lips in ring order, () where the body has a modelled mouth.
        used: (V,) bool, vertices that become Gaussians (a modelled mouth's inside does not).
    """

    right_hand: np.ndarray
    left_hand: np.ndarray
    face: np.ndarray
    face_expression: np.ndarray
    lips: tuple[int, ...]
    used: np.ndarray


@dataclass(frozen=True)
class AvatarMesh:
    """A body prepared for Gaussians; N vertices after subdivision, L before.

    Attributes:
        body: Whose parameters move it, the face's expression directions included. low: (L,) vertex numbers of the body that the first L vertices are.
        matrix: (N, L) rows that average low vertices. faces: (F, 3).
        flags: ``FLAGS`` -> (N,) bool.
        lbs_weights: (N, 55). expr_rows: (M,) vertices that the expression moves; exprdirs (M, 3, E).
        pose_rows: (P,) hands and moving face; posedirs (P, 3, 486), None for a body without pose correctives.
    """

    body: Body
    low: torch.Tensor
    matrix: SparseMap
    faces: np.ndarray
    flags: dict[str, torch.Tensor]
    lbs_weights: torch.Tensor
    expr_rows: torch.Tensor
    exprdirs: torch.Tensor
    pose_rows: torch.Tensor
    posedirs: torch.Tensor | None

    def __len__(self) -> int:
        return len(self.lbs_weights)

    def up(self, vertices: torch.Tensor) -> torch.Tensor:
        """(V, C) values of the body's vertices -> (N, C), differentiable."""
        return self.matrix(vertices.index_select(0, self.low))

    def up_low(self, vertices: torch.Tensor) -> torch.Tensor:
        """(L, C) values of the first L vertices -> (N, C), differentiable."""
        return self.matrix(vertices)

    def to(self, device: torch.device | str) -> AvatarMesh:
        """This mesh with its tensors on a device."""
        held = {f.name: getattr(self, f.name) for f in fields(self)}
        moved: dict[str, Any] = {name: value.to(device) for name, value in held.items() if isinstance(value, torch.Tensor)}
        moved |= {"body": self.body.on(device), "flags": {name: mask.to(device) for name, mask in self.flags.items()}}
        return replace(self, **moved)

    @property
    def hands(self) -> torch.Tensor:
        """(N,) bool."""
        return self.flags["is_rhand"] | self.flags["is_lhand"]


def open_regions(body: Body) -> Regions:
    """Regions from a body's own tables: what there is without FLAME's companion files."""
    r = body.tables.regions
    face = np.any([r[name] for name in _HEAD if name in r], axis=0)
    moved = body.exprdirs.abs().amax((1, 2)).numpy() > _MOVED
    inner = r["inner_mouth"]
    used = np.zeros(len(inner), bool)
    used[body.faces[~inner[body.faces].any(1)]] = True
    return Regions(r["right_hand"], r["left_hand"], face, face & moved & ~r["eyes"], (), used)


def licensed_regions(body: Body, flame: Flame, companions: Mapping[str, Any]) -> Regions:
    """Regions as the original takes them from SMPL-X's companion files.

    Args:
        companions: ``face_vertex_idx`` (FLAME vertex -> body vertex), ``lhand_vertex_idx``, ``rhand_vertex_idx``, ``flame2019_expr_moving`` (FLAME,)
            bool, and ``lip_vertex_idx`` where the lips are not SMPL-X's.
    """
    count = len(body.v_template)
    face = np.asarray(companions["face_vertex_idx"])
    if len(face) != len(flame.v_template) or face.max() >= count:
        raise InputError(f"companion tables of {len(face)} head vertices", expected=f"{len(flame.v_template)}, each below {count}")
    mobile = np.isin(flame.lbs_weights.argmax(1).numpy(), (1, 2))  # head and jaw: neither neck nor eyeballs
    moving = face[np.asarray(companions["flame2019_expr_moving"]) & mobile]
    right, left, whole, expressive = (_mask(count, rows) for rows in (companions["rhand_vertex_idx"], companions["lhand_vertex_idx"], face, moving))
    lips = tuple(int(i) for i in companions.get("lip_vertex_idx", SMPLX_LIPS))
    return Regions(right, left, whole, expressive, lips, np.ones(count, bool))


def avatar_mesh(body: Body, regions: Regions, *, levels: int = 2) -> AvatarMesh:
    """Subdivide a body ``levels`` times; old vertices keep their order, new ones follow in the order of their edges.

    Source: ExAvatar's mesh: six cavity triangles, then midpoint subdivision with every attribute averaged (avatar 4.1).
    """
    low, faces = _outer(body.faces, regions)
    matrix = sp.identity(len(low), format="csr")
    for _ in range(levels):
        step, faces = subdivide(faces, matrix.shape[0])
        matrix = (step @ matrix).tocsr()

    def up(values: np.ndarray) -> np.ndarray:
        return (matrix @ values[low].reshape(len(low), -1)).reshape(matrix.shape[0], *values.shape[1:])

    cavity = _mask(len(body.v_template), regions.lips)
    masks = (regions.right_hand, regions.left_hand, regions.face, regions.face_expression, cavity)
    flags = {name: torch.from_numpy(up(mask.astype(np.float32)) > 0) for name, mask in zip(FLAGS, masks)}
    exprdirs = up(body.exprdirs.numpy())
    moved = np.where(np.abs(exprdirs).max((1, 2)) > 0)[0]
    posed = torch.nonzero(flags["is_rhand"] | flags["is_lhand"] | flags["is_face_expr"])[:, 0]
    posedirs = None if body.posedirs is None else torch.from_numpy(_rows(matrix, posed.numpy(), body.posedirs.numpy()[low]))
    weights = torch.from_numpy(up(body.lbs_weights.numpy()).astype(np.float32))
    dirs = torch.from_numpy(exprdirs[moved].astype(np.float32))
    return AvatarMesh(body, torch.from_numpy(low), SparseMap(matrix), faces, flags, weights, torch.from_numpy(moved), dirs, posed, posedirs)


def _outer(faces: np.ndarray, regions: Regions) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the used vertices, and faces between them in their own numbers, the cavity's last."""
    low = np.where(regions.used)[0]
    place = np.full(len(regions.used), -1)
    place[low] = np.arange(len(low))
    kept = faces[regions.used[faces].all(1)]
    if regions.lips:
        kept = np.concatenate([kept, np.asarray(regions.lips)[np.array(CAVITY)]])
    return low, place[kept]


def _mask(count: int, rows: Any) -> np.ndarray:
    out = np.zeros(count, bool)
    out[np.asarray(rows, np.int64)] = True
    return out


def _rows(matrix: sp.csr_matrix, rows: np.ndarray, values: np.ndarray) -> np.ndarray:
    picked = matrix[rows].astype(np.float32)
    return (picked @ values.reshape(len(values), -1)).reshape(len(rows), *values.shape[1:]).astype(np.float32)
