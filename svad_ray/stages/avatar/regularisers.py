"""What keeps an ExAvatar's Gaussians near the body, small and of even colour (avatar 4.4)."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import scipy.sparse as sp
import torch

from svad_ray.body.names import JOINT_INDEX, JOINT_NAMES, LEFT_JOINTS, RIGHT_JOINTS, SIDES
from svad_ray.geometry.mesh import adjacency, vertex_normals
from svad_ray.nets.exavatar.mesh import AvatarMesh, SparseMap
from svad_ray.nets.exavatar.model import Assets, Posed, incidence

NEIGHBOURS = 10  # at most, of a vertex, count for its Laplacian
WARM_UP, WARM_SCALE = 100, 1e-3  # steps in which no Gaussian is drawn larger than that many metres
ARM_REACH = 0.01  # metres along x within which the upper side of the arm is a colour's model
ARM_MODELS = 50
UP = 0.5  # cosine of 60 degrees
CLOSED = 0.3  # weight of the squared log by which sizes fall short of those that close the surface


@dataclass(frozen=True)
class Weights:
    """(N, 1) weights of the vertices for each term."""

    mean: torch.Tensor
    scale: torch.Tensor
    lap_mean: torch.Tensor
    lap_scale: torch.Tensor
    lap_rgb: torch.Tensor


def vertex_weights(mesh: AvatarMesh) -> Weights:
    """The original's weights by region; later regions overrule earlier ones."""
    f, hands = mesh.flags, mesh.hands
    face, moving, cavity = f["is_face"], f["is_face_expr"], f["is_cavity"]
    return Weights(
        _by_region(len(mesh), 10, (hands, 1000), (face, 1), (moving, 10)),
        _by_region(len(mesh), 1, (hands, 1000), (moving, 10), (cavity, 0)),
        _by_region(len(mesh), 1, (moving, 50), (cavity, 0.1)) * 1e5,
        _by_region(len(mesh), 10, (moving, 0)) * 1e5,
        _by_region(len(mesh), 0.1, (hands, 100)),
    )


def _by_region(count: int, start: float, *regions: tuple[torch.Tensor, float]) -> torch.Tensor:
    out = torch.full((count, 1), float(start))
    for mask, value in regions:
        out[mask] = value
    return out


def neighbours(faces: np.ndarray, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, 10) numbers of neighbours, and (N, 10) weights -1/n; a vertex with more has the ten of lowest number (the original: any ten)."""
    graph = adjacency(faces, count).tocsr()
    graph.sort_indices()
    degree = np.minimum(np.diff(graph.indptr), NEIGHBOURS)
    slot = np.arange(NEIGHBOURS)[None] < degree[:, None]
    place = np.minimum(graph.indptr[:-1, None] + np.arange(NEIGHBOURS), max(graph.nnz - 1, 0))
    index = np.where(slot, graph.indices[place], np.arange(count)[:, None])
    weight = np.where(slot, -1.0 / np.maximum(degree, 1)[:, None], 0.0)
    return torch.from_numpy(index.astype(np.int64)), torch.from_numpy(weight.astype(np.float32))


def laplacian_map(index: torch.Tensor, weight: torch.Tensor) -> SparseMap:
    """The uniform Laplacian of those neighbours: a value less the mean around it."""
    count, width = index.shape
    rows = np.repeat(np.arange(count), width)
    around = sp.coo_matrix((weight.numpy().ravel(), (rows, index.numpy().ravel())), (count, count))
    return SparseMap(sp.identity(count) + around)


def arm_sides(mesh: AvatarMesh, canonical: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(N,) bool: the arms' upper sides, which cameras see, and the rest of them."""
    joints = [JOINT_INDEX[f"{side}_{name}"] for side in SIDES for name in ("shoulder", "elbow")]
    arm = torch.isin(mesh.lbs_weights.argmax(1), torch.tensor(joints))
    upward = vertex_normals(canonical, torch.as_tensor(mesh.faces))[:, 1] > UP
    return arm & upward, arm & ~upward


@dataclass
class ArmModels:
    """Which upper vertices an arm's lower vertices take their colour from: lower (M,), upper (M, K) and (M,) whether there is any."""

    lower: torch.Tensor
    upper: torch.Tensor
    found: torch.Tensor


def arm_models(mesh: AvatarMesh, canonical: torch.Tensor) -> ArmModels:
    """The nearest upper-side vertices within a centimetre in x, equally many for every lower vertex, fifty at most.

    The original takes as many as the poorest vertex has, and is not a number when that is none; here such a vertex is left out.
    """
    upper, lower = (torch.nonzero(side)[:, 0] for side in arm_sides(mesh, canonical))
    models = torch.zeros(len(lower), 1, dtype=torch.int64)
    if not len(upper) or not len(lower):
        return ArmModels(lower, models, torch.zeros(len(lower), dtype=torch.bool))
    x = canonical.numpy()
    order = np.sort(x[upper, 0])
    reach = np.searchsorted(order, x[lower, 0] + ARM_REACH) - np.searchsorted(order, x[lower, 0] - ARM_REACH, side="right")
    found = torch.from_numpy(reach > 0)
    if not found.any():
        return ArmModels(lower, models, found)
    count = int(min(ARM_MODELS, reach[reach > 0].min()))
    models = torch.zeros(len(lower), count, dtype=torch.int64)
    for start in range(0, len(lower), 512):
        rows = slice(start, start + 512)
        away = canonical[lower[rows], None] - canonical[None, upper]
        distance = away.norm(dim=2).masked_fill(away[..., 0].abs() >= ARM_REACH, torch.inf)
        models[rows] = upper[distance.topk(count, dim=1, largest=False).indices]
    return ArmModels(lower, models, found)


class Regularisers:
    """All terms that look at Gaussians instead of pictures.

    Args:
        mesh: What the Gaussians are vertices of, on the CPU. canonical: (N, 3) their places at the start, which decide what an arm's sides are.
        joint_offset: (55, 3) metres from the fit, from which the learned one must not stray.
        near: Neighbours and their weights; None = ``neighbours`` of the mesh.
        closed: (N,) metres below which sizes leave gaps (ours): a renderer widens all Gaussians to a pixel, so that pictures taken from afar do not
            show gaps and let sizes shrink. None leaves the term out, as the original does.
        device: Where the Gaussians lie.
    """

    def __init__(
        self,
        mesh: AvatarMesh,
        canonical: torch.Tensor,
        joint_offset: torch.Tensor,
        *,
        near: tuple[torch.Tensor, torch.Tensor] | None = None,
        closed: np.ndarray | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        weights, canonical = vertex_weights(mesh), canonical.cpu()
        self.joint_offset, self.weights = joint_offset.to(device), Weights(*(getattr(weights, f.name).to(device) for f in fields(weights)))
        self._laplacian = laplacian_map(*(neighbours(mesh.faces, len(mesh)) if near is None else near))
        self._hands = [torch.nonzero(mesh.flags[name])[:, 0].to(device) for name in ("is_rhand", "is_lhand")]
        self._outside = HandNormals(mesh, device)
        fingers = [k for k, name in enumerate(JOINT_NAMES) if k >= 25]
        joint_weight = torch.ones(55, 3)
        joint_weight[fingers] = 10
        self._joint_weight = joint_weight.to(device)
        self._sides = [torch.tensor(list(joints), device=device) for joints in (RIGHT_JOINTS, LEFT_JOINTS)]
        self._mirror = torch.tensor([-1.0, 1.0, 1.0], device=device)
        self.closed = None if closed is None else torch.from_numpy(closed).float().to(device)[:, None]
        arms = arm_models(mesh, canonical)
        self._lower, self._upper = arms.lower[arms.found].to(device), arms.upper[arms.found].to(device)

    def __call__(self, posed: Posed, joint_offset: torch.Tensor, *, warm_up: bool = False) -> dict[str, torch.Tensor]:
        """Every term, a scalar each; their sum is the loss.

        Args:
            joint_offset: (55, 3) as learned. warm_up: Look at the scales as they are drawn in the first steps (``drawn``).
        """
        w, o, s, r = self.weights, posed.offsets, posed.static, posed.refined
        scales = [drawn(a, warm_up=warm_up) for a in (s.scales, r.scales)]
        normals = self._outside(posed.canonical.mesh.detach())
        curved = self._laplacian(torch.cat([o.mean, o.mean + o.mean_offset, *scales, s.colors, r.colors], 1)).square()
        by_mean, by_scale, by_color = curved[:, :6], curved[:, 6:8], curved[:, 8:]
        terms = {
            "gaussian_mean_reg": ((o.mean.square() + o.mean_offset.square()) * w.mean).mean(),
            "gaussian_mean_hand_reg": self._outward(normals, o.mean) + self._outward(normals, o.mean_offset),
            "gaussian_scale_reg": ((s.scales.square() + o.scale_offset.square()) * w.scale).mean(),
            "lap_mean": 2 * (by_mean * w.lap_mean).mean(),
            "lap_scale": 2 * (by_scale * w.lap_scale).mean(),
            "lap_rgb": 2 * (by_color * w.lap_rgb).mean(),
            "hand_rgb_reg": 0.01 * (self._even_hands(s.colors) + self._even_hands(r.colors)),
            "arm_rgb_reg": 0.1 * (self._even_arms(s.colors) + self._even_arms(r.colors)),
            "joint_offset_reg": ((joint_offset - self.joint_offset).square() * self._joint_weight).mean(),
            "joint_offset_sym_reg": self._symmetric(joint_offset),
        }
        if self.closed is not None:
            terms["closed"] = self.shortfall(s, r)
        return terms

    def shortfall(self, static: Assets, refined: Assets) -> torch.Tensor:
        """What sizes are short of those that close the surface; nothing where none were given."""
        if self.closed is None:
            return static.scales.new_zeros(())
        short = [(self.closed / assets.scales).log().clamp(min=0).square().mean() for assets in (static, refined)]
        return CLOSED * (short[0] + short[1])

    def _outward(self, normals: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
        """How far the directions of hands' offsets point outwards."""
        if not len(normals):
            return offset.sum() * 0
        hands = offset.index_select(0, self._outside.rows)
        return (normals * torch.nn.functional.normalize(hands, dim=1)).sum(1).clamp(min=0).mean()

    def _even_hands(self, colors: torch.Tensor) -> torch.Tensor:
        hands = [colors.index_select(0, rows) for rows in self._hands if len(rows)]
        if not hands:
            return colors.sum() * 0
        return torch.stack([(hand - hand.mean(0).detach()).square().mean() for hand in hands]).sum()

    def _even_arms(self, colors: torch.Tensor) -> torch.Tensor:
        if not len(self._lower):
            return colors.sum() * 0
        return (colors.index_select(0, self._lower) - colors.detach()[self._upper].mean(1)).square().mean()

    def _symmetric(self, offset: torch.Tensor) -> torch.Tensor:
        right, left = (offset.index_select(0, joints) for joints in self._sides)
        return (right - left * self._mirror).abs().sum(1).mean()


class HandNormals:
    """Unit normals of the hands' vertices ``rows`` (H,), without a gradient and without looking at the rest of the mesh."""

    def __init__(self, mesh: AvatarMesh, device: torch.device | str) -> None:
        hands = mesh.hands.numpy()
        faces = mesh.faces[hands[mesh.faces].any(1)]
        self.rows = torch.from_numpy(np.where(hands)[0]).to(device)
        self._corners = [torch.from_numpy(np.ascontiguousarray(corner)).to(device) for corner in faces.T]
        self._around = SparseMap(incidence(faces, len(mesh)).matrix[hands]) if hands.any() else None

    def __call__(self, vertices: torch.Tensor) -> torch.Tensor:
        """(H, 3) of vertices (N, 3)."""
        if self._around is None:
            return vertices[:0]
        a, b, c = (vertices.index_select(0, corner) for corner in self._corners)
        return torch.nn.functional.normalize(self._around.multiply(torch.linalg.cross(b - a, c - a)), dim=1)


def drawn(scales: torch.Tensor, *, warm_up: bool) -> torch.Tensor:
    """(N, 1) scales as they are rendered: none above a millimetre in the first steps, when networks give wild ones."""
    return scales.clamp(max=WARM_SCALE) if warm_up else scales
