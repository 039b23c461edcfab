"""From the naked body to the clothed surface: smooth rest-space offsets that make the posed outline the mask.

Two kinds of offset add up. *Rings* inflate a whole belt round a limb or the torso by one number: the outline tells how far cloth stands off
at the sides, and a belt carries that to the front and the back, which one photo does not show. *Free* offsets pass through
(I + lambda L)^-1 and make the outline exact. Source: ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from scipy.sparse.linalg import splu

from svad_ray.body.model import Body
from svad_ray.body.names import JOINT_INDEX
from svad_ray.fitting.drape import Drape, parted
from svad_ray.fitting.face_shape import face_offset
from svad_ray.fitting.hair import FallingHair
from svad_ray.fitting.silhouette import MaskTarget, OutlineRenderer, shaped
from svad_ray.fitting.state import FitState, pose_body
from svad_ray.geometry.mesh import laplacian, vertex_normals

J = JOINT_INDEX


class _Solve(torch.autograd.Function):
    """x -> M^-1 x for a factored symmetric M."""

    @staticmethod
    def forward(ctx, x, factor):
        ctx.factor = factor
        return torch.from_numpy(factor.solve(x.detach().numpy().astype(np.float64)).astype(np.float32))

    @staticmethod
    def backward(ctx, grad):
        return torch.from_numpy(ctx.factor.solve(grad.numpy().astype(np.float64)).astype(np.float32)), None


def mobility(body: Body) -> tuple[np.ndarray, sp.csc_matrix]:
    """(V,) in [0, 1], how far the outline may move each vertex (hands, face and eyes stiff), and the mesh Laplacian."""
    regions, count = body.tables.regions, len(body.v_template)
    stiff = 0.9 * np.maximum.reduce([regions[name].astype(float) for name in ("left_hand", "right_hand", "face")])
    lap = laplacian(body.faces, count)
    free = splu((sp.eye(count) + 8 * lap).tocsc()).solve(1 - stiff)
    free[regions["eyes"] | regions["inner_mouth"]] = 0
    return np.clip(free, 0, 1).astype(np.float32), lap


_LIMBS = [
    (f"{s}_{a}", f"{s}_{b}") for s in ("left", "right") for a, b in (("hip", "knee"), ("knee", "ankle"), ("shoulder", "elbow"), ("elbow", "wrist"))
]


_ARMS = {i for i, (a, _) in enumerate(_LIMBS) if a.endswith(("shoulder", "elbow"))}
BRIDGED = 0.005  # metres towards the other leg from which a vertex belongs to the cloth between them
BEHIND = 0.4  # cloth lies on thighs, belly and chest, and hangs off the hollows behind: so much more of a belt behind, so much less in front
ARM_STIFFNESS = 12.0  # sleeves: an arm before the body has no outline of its own, so its rings must not swell to explain the torso's


def ring_basis(body: Body, *, spacing: float = 0.03) -> tuple[sp.csr_matrix, np.ndarray]:
    """(V, R) partition of unity, hat functions along the torso, the head and each limb segment, blended by skinning weights; (R,) stiffness.

    Args:
        spacing: Distance of neighbouring rings along the axis, metres.
    """
    v, w = body.v_template.numpy(), body.lbs_weights.numpy()
    joints = (body.J_regressor @ body.v_template).numpy()
    hangs = 1 - BEHIND * vertex_normals(body.v_template, torch.as_tensor(body.faces)).numpy()[:, 2]
    blocks = []
    limb_joints = {a for a, _ in _LIMBS}
    for i, (a, b) in enumerate(_LIMBS):
        axis = joints[J[b]] - joints[J[a]]
        length = float(np.linalg.norm(axis))
        blocks.append(_hats((v - joints[J[a]]) @ (axis / length), spacing, -0.1, length + 0.1, w[:, J[a]] * (1 if i in _ARMS else hangs)))
    rest = 1 - w[:, [J[n] for n in limb_joints]].sum(1)
    head = w[:, [J["head"], J["jaw"], J["left_eye"], J["right_eye"]]].sum(1)
    blocks.append(_hats(v[:, 1], spacing, v[:, 1].min(), v[:, 1].max(), np.clip(rest - head, 0, 1) * hangs))
    blocks.append(_hats(v[:, 1], spacing, joints[J["neck"], 1], v[:, 1].max(), head))
    basis = sp.hstack(blocks).tocsr()
    stiffness = np.concatenate([np.full(b.shape[1], ARM_STIFFNESS if i in _ARMS else 1.0) for i, b in enumerate(blocks)])
    used = np.asarray(basis.sum(0)).ravel() > 1e-3
    return basis[:, used].tocsr(), stiffness[used]


def _apart(basis: sp.csr_matrix, stiffness: np.ndarray, drape: Drape | None) -> tuple[sp.csr_matrix, np.ndarray]:
    """The rings with those across a hem in two: cloth and the leg below it have belts of their own."""
    if drape is None or not drape.below.any():
        return basis, stiffness
    halves = [(sp.diags(part.astype(float)) @ basis).tocsr() for part in (~drape.below, drape.below)]
    used = [np.asarray(half.sum(0)).ravel() > 1e-3 for half in halves]
    return sp.hstack([half[:, keep] for half, keep in zip(halves, used)]).tocsr(), np.concatenate([stiffness[keep] for keep in used])


def _hats(t: np.ndarray, spacing: float, low: float, high: float, weight: np.ndarray) -> sp.coo_matrix:
    """Linear hat functions of ``t`` at knots ``spacing`` apart, times ``weight``."""
    count = max(2, int(np.ceil((high - low) / spacing)) + 1)
    u = np.clip((t - low) / (high - low) * (count - 1), 0, count - 1 - 1e-6)
    i = u.astype(int)
    rows = np.arange(len(t))
    data = np.concatenate([weight * (1 - (u - i)), weight * (u - i)])
    keep = data > 1e-4
    return sp.coo_matrix((data[keep], (np.concatenate([rows, rows])[keep], np.concatenate([i, i + 1])[keep])), (len(t), count))


@dataclass(frozen=True)
class ClotheWeights:
    """Numbers of :func:`clothe`: smoothing of normal and free offsets, penalties (per square metre), what people usually wear where no outline
    tells (thickness of shoes, hair and cloth, metres) and learning rates."""

    smooth_normal: float = 25.0
    smooth_free: float = 8.0
    normal: float = 1.5
    free: float = 10.0
    inward: float = 30.0
    ring: float = 0.15
    ring_inward: float = 400.0
    shoe: float = 0.016
    hair: float = 0.012
    cloth: float = 0.009
    rate_normal: float = 0.012
    rate_free: float = 0.006
    rate_ring: float = 0.004


def clothe(
    body: Body,
    state: FitState,
    mask: np.ndarray,
    *,
    iterations: int = 80,
    longest: int = 320,
    weights: ClotheWeights | None = None,
    ignore_border: bool = False,
    drape: Drape | None = None,
    face: np.ndarray | None = None,
    hair: FallingHair | None = None,
) -> np.ndarray:
    """Rest-space offsets (V, 3), metres, such that the posed silhouette of frame 0 is the mask (H, W).

    Args:
        drape: A skirt or coat that hangs free, whose surface the offsets start from; None = nothing does.
        face: (51, 3) face landmarks of the picture that the head's surface is moved to, see ``svad_ray.fitting.face_shape``; None = left as it is.
        hair: What hangs from the head below the scalp, which the offsets start from; None = nothing.
    """
    w = weights or ClotheWeights()
    free, lap = mobility(body)
    count = len(free)
    lap = parted(lap, drape)
    if drape is not None:
        free = free * (1 - drape.stiff).astype(np.float32)
    solve_n = splu((sp.eye(count) + w.smooth_normal * lap).tocsc())
    solve_f = splu((sp.eye(count) + w.smooth_free * lap).tocsc())
    basis, per_ring = _apart(*ring_basis(body), drape)
    rings, stiffness = _to_torch(basis), torch.tensor(per_ring, dtype=torch.float32)[:, None]
    naked = shaped(body, state.betas)
    shell, skinning, spread, bridged = _hung(naked, drape)
    if face is not None:
        shell = shell + torch.from_numpy(face_offset(body, naked.numpy(), face).astype(np.float32))
    if hair is not None:
        shell = shell + torch.from_numpy(hair.offset.astype(np.float32))
    mobile, renderer = torch.tensor(free)[:, None], OutlineRenderer(body, lbs_weights=skinning, spread=spread)
    target = MaskTarget(mask, longest, state.Ks[0], ignore_border=ignore_border)
    posed = pose_body(body, body.J_regressor @ naked, state.pose, state.transl)
    base = naked + shell
    base_normals = vertex_normals(base, renderer.faces)
    # where a skirt bridges the legs, cloth stands off forwards or backwards: along the legs' own normals its two halves would part
    base_normals = torch.where(bridged, torch.sign(base_normals) * torch.tensor([0.0, 0.0, 1.0]), base_normals)
    thick = usually_worn(body, shoe=w.shoe, hair=w.hair)
    worn = torch.tensor(thick if hair is None else np.maximum(thick, w.hair * hair.share).astype(np.float32))[:, None]
    d, x = torch.zeros(count, 1, requires_grad=True), torch.zeros(count, 3, requires_grad=True)
    r = torch.full((rings.shape[1], 1), w.cloth, requires_grad=True)
    groups = [{"params": [p], "lr": rate} for p, rate in ((d, w.rate_normal), (x, w.rate_free), (r, w.rate_ring))]
    adam = torch.optim.Adam(groups, betas=(0.9, 0.99))

    def offsets() -> tuple[torch.Tensor, ...]:
        normal, slack, belt = _Solve.apply(d, solve_n), _Solve.apply(x, solve_f), torch.sparse.mm(rings, r)
        return mobile * (base_normals * (normal + belt) + slack) + base_normals * worn, normal, slack, belt

    offset = offsets()[0]  # without a step: what people usually wear
    for i in range(iterations):
        if i == int(0.75 * iterations):
            for group in adam.param_groups:
                group["lr"] *= 0.3
        offset, normal, slack, belt = offsets()
        surface = base + offset
        alpha = renderer.alpha(surface, vertex_normals(surface.detach(), renderer.faces), posed.skin[0], state.viewmats[0], target)
        error = (target.weight * (alpha - target.mask).pow(2)).sum() / target.area
        penalty = w.normal * normal.pow(2).mean() + w.free * slack.pow(2).mean() + w.inward * torch.relu(-normal - belt).pow(2).mean()
        penalty = penalty + w.ring * (stiffness * (r - w.cloth).pow(2)).mean() + w.ring_inward * torch.relu(-r).pow(2).mean()
        adam.zero_grad()
        (error + penalty).backward()
        adam.step()
    return (offset.detach() + shell).numpy()


def _hung(naked: torch.Tensor, drape: Drape | None) -> tuple[torch.Tensor, torch.Tensor | None, np.ndarray | None, torch.Tensor]:
    """Of what hangs free on the ``naked`` rest surface (V, 3): (V, 3) offsets; (V, 55) weights; the rest surface whose edges are longer than the
    body's; and (V, 1) bool, where a skirt bridges the legs. Without a drape: zero, None, None, nowhere."""
    if drape is None:
        shell = torch.zeros_like(naked)
        return shell, None, None, torch.zeros(len(naked), 1, dtype=torch.bool)
    shell = torch.from_numpy(drape.offset)
    spread = (naked + shell).numpy() if drape.stiff.any() else None
    return shell, torch.from_numpy(drape.lbs_weights), spread, (shell[:, :1].abs() > BRIDGED) & torch.from_numpy(drape.stiff[:, None] == 0)


def usually_worn(body: Body, *, shoe: float, hair: float) -> np.ndarray:
    """(V,) metres along the normal: shoes on the feet (the sole below, half as much leather above), hair on the scalp, fading over a few edges."""
    regions, count = body.tables.regions, len(body.v_template)
    down = np.clip(-vertex_normals(body.v_template, torch.as_tensor(body.faces)).numpy()[:, 1], 0, 1)
    feet, scalp = regions["left_foot"] | regions["right_foot"], regions["scalp"] & ~regions["ears"] & ~regions["face"]
    thickness = shoe * (0.5 + 0.5 * down) * feet + hair * scalp
    thickness[regions["eyes"] | regions["inner_mouth"]] = 0
    smooth = splu((sp.eye(count) + 2 * laplacian(body.faces, count)).tocsc()).solve(thickness.astype(np.float64))
    return smooth.astype(np.float32)


def _to_torch(m: sp.csr_matrix) -> torch.Tensor:
    coo = m.tocoo()
    index = torch.tensor(np.stack([coo.row, coo.col]))
    return torch.sparse_coo_tensor(index, torch.tensor(coo.data, dtype=torch.float32), coo.shape, check_invariants=True).coalesce()
