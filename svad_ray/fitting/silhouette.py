"""The body's outline against the person's mask, through the rasteriser's alpha: one Gaussian per vertex, set inside the surface."""

from __future__ import annotations

from copy import copy
from dataclasses import replace

import cv2
import numpy as np
import torch
from scipy.ndimage import distance_transform_edt

from svad_ray.body.lbs import skin_points
from svad_ray.body.model import Body
from svad_ray.fitting.keypoints import KeypointLoss
from svad_ray.fitting.state import BODY_JOINTS, FitState, pose_body
from svad_ray.geometry.mesh import mean_edge, vertex_normals
from svad_ray.splat import rasterization

SIGMA = 0.315  # of the mean edge; larger Gaussians shrink the fitted body, smaller ones leave holes (measured)
INSET = 1.85  # sigmas below the surface, so that the Gaussians' rim and not their centres lies on it
OPACITY = 0.9
BORDER = 0.03  # of the picture's side: a mask cut off by the border says nothing about the outline there


class MaskTarget:
    """The person's mask at the working size.

    Args:
        mask: (H, W) in [0, 1].
        longest: Longer side of the working image, pixels.
        K: (3, 3) intrinsics of the full picture.
        ignore_border: Leave the band at the picture's border out (half-body photos).
    """

    def __init__(self, mask: np.ndarray, longest: int, K: torch.Tensor, *, ignore_border: bool = False) -> None:
        k = longest / max(mask.shape)
        self.height, self.width = (max(8, round(side * k)) for side in mask.shape)
        small = cv2.resize(mask.astype(np.float32), (self.width, self.height), interpolation=cv2.INTER_AREA)
        self.mask = torch.tensor(small)
        self.K = K * torch.tensor([[self.width / mask.shape[1]], [self.height / mask.shape[0]], [1.0]])
        self.area = float(self.mask.sum()) + 1e-6
        self.weight = torch.ones_like(self.mask)
        if ignore_border:
            band = max(1, round(BORDER * longest))
            self.weight[:band] = self.weight[-band:] = 0
            self.weight[:, :band] = self.weight[:, -band:] = 0


class OutlineRenderer:
    """Soft silhouette of a posed surface."""

    def __init__(self, body: Body, *, lbs_weights: torch.Tensor | None = None, spread: np.ndarray | None = None) -> None:
        """``lbs_weights`` (V, 55) replace the body's, for loose clothes; ``spread`` (V, 3): a rest surface whose edges are longer than the body's."""
        outside = ~body.tables.regions["inner_mouth"]
        self.use = torch.as_tensor(np.where(outside)[0])
        edge = mean_edge(body.v_template.numpy() if spread is None else spread, body.faces)
        self.sigma = torch.tensor(SIGMA * edge, dtype=torch.float32).clamp(0.001, 0.02)[self.use]
        self.faces = torch.as_tensor(body.faces)
        self._weights = (body.lbs_weights if lbs_weights is None else lbs_weights)[self.use]
        n = len(self.use)
        self._quats = torch.tensor([1.0, 0, 0, 0]).repeat(n, 1)
        self._ones, self._opacity = torch.ones(n, 1), torch.full((n,), OPACITY)

    def alpha(self, rest: torch.Tensor, normals: torch.Tensor, skin: torch.Tensor, viewmat: torch.Tensor, target: MaskTarget) -> torch.Tensor:
        """(H, W) coverage of the rest surface (V, 3) with rest normals (V, 3) under skinning transforms (55, 3, 4)."""
        inside = rest[self.use] - normals[self.use] * (self.sigma * INSET)[:, None]
        x = skin_points(inside, self._weights, skin[None])[0]
        scales = self.sigma[:, None].expand(-1, 3)
        _, alpha, _ = rasterization(
            x, self._quats, scales, self._opacity, self._ones, viewmat[None], target.K[None], target.width, target.height, packed=False
        )
        return alpha[0, ..., 0]


def shaped(body: Body, betas: torch.Tensor) -> torch.Tensor:
    """(V, 3) rest surface of the naked body."""
    return body.v_template + body.shapedirs[..., : len(betas)] @ betas


def naked_in(body: Body, state: FitState) -> tuple[torch.Tensor, np.ndarray]:
    """(V, 3) the naked body of a state in the zero pose, and (V, 3) in the pose of its first frame, world axes."""
    rest = shaped(body, state.betas)
    skin = pose_body(body, body.J_regressor @ rest, state.pose, state.transl).skin
    return rest, skin_points(rest, body.lbs_weights, skin)[0].numpy()


def without_strays(mask: np.ndarray, drawn: np.ndarray, *, reach: float) -> np.ndarray:
    """The mask (H, W) without what lies farther than ``reach`` (share of the person's height) from the ``drawn`` (H, W) bool surface.

    A neighbour's hand or a piece of background that a mask includes would become part of the body, or floaters beside it (SVAD's failure case C.1).
    Source: ours.
    """
    rows = np.flatnonzero(drawn.any(1))
    if not len(rows):
        return mask
    return np.where(distance_transform_edt(~drawn) > reach * (rows[-1] - rows[0] + 1), 0, mask).astype(mask.dtype)


def fit_silhouette(
    loss: KeypointLoss,
    state: FitState,
    mask: np.ndarray,
    *,
    iterations: int = 60,
    longest: int = 224,
    outside: float = 1.0,
    missing: float = 0.5,
    weight: float = 400.0,
    keypoint_weight: float = 0.5,
    shape_count: int = 10,
    rates: tuple[float, float, float] = (0.03, 0.008, 0.004),
    ignore_border: bool = False,
    worn: np.ndarray | None = None,
) -> FitState:
    """Refine one frame's shape, pose and place so that the body lies inside the mask.

    Args:
        loss: Keypoint terms; their 2D residual is scaled by ``keypoint_weight``.
        mask: (H, W) in [0, 1] of the full picture.
        outside, missing: Weights of body outside the mask and of mask without body (clothes are not body: smaller).
        worn: (V, 3) metres, known clothes: then the outline is that of the clothed body.
    """
    body, renderer = loss.model.body, OutlineRenderer(loss.model.body)
    target = MaskTarget(mask, longest, state.Ks[0], ignore_border=ignore_border)
    per_pixel = torch.where(target.mask > 0.5, missing, outside) * target.weight
    clothes = torch.zeros(()) if worn is None else torch.as_tensor(worn, dtype=torch.float32)
    normals = vertex_normals(shaped(body, state.betas) + clothes, renderer.faces)
    head, tail = state.betas[:shape_count].clone().requires_grad_(True), state.betas[shape_count:]
    pose, fingers = state.pose[:, :BODY_JOINTS].clone().requires_grad_(True), state.pose[:, BODY_JOINTS:]
    transl = state.transl.clone().requires_grad_(True)
    adam = torch.optim.Adam([{"params": [p], "lr": r} for p, r in zip((head, pose, transl), rates)])
    loss = copy(loss)
    loss.w = replace(loss.w, points=loss.w.points * keypoint_weight)
    for i in range(iterations):
        if i == int(0.7 * iterations):
            for group in adam.param_groups:
                group["lr"] *= 0.3
        betas, full = torch.cat([head, tail]), torch.cat([pose, fingers], 1)
        posed = pose_body(body, loss.model.rest_joints(betas), full, transl)
        alpha = renderer.alpha(shaped(body, betas) + clothes, normals, posed.skin[0], state.viewmats[0], target)
        outline = (per_pixel * (alpha - target.mask).pow(2)).sum() / target.area
        adam.zero_grad()
        (weight * outline + loss(state, betas, full, posed)).backward()
        adam.step()
    return state.with_parameters(torch.cat([head, tail]), torch.cat([pose, fingers], 1), transl)
