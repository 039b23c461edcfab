"""The last pixels of the outline: vertices on the clothed surface's rim are moved onto the mask's border, and the surface beside them follows.

The optimisation before it (``svad_ray.fitting.surface.clothe``) finds who wears what; it sees a small, soft picture and leaves the rim a pixel beside
the mask's. Here each vertex on the rim reads its distance from the mask's border off the photo-sized mask. Source: ours; a Laplacian deformation
with soft constraints (Sorkine et al. 2004).
"""

from __future__ import annotations

import cv2
import numpy as np
import scipy.sparse as sp
import torch
from scipy.ndimage import distance_transform_edt
from scipy.sparse.linalg import splu

from svad_ray.body.lbs import skin_points
from svad_ray.body.model import Body
from svad_ray.fitting.drape import Drape, parted
from svad_ray.fitting.silhouette import BORDER, shaped
from svad_ray.fitting.state import FitState, pose_body
from svad_ray.fitting.surface import mobility
from svad_ray.geometry.mesh import laplacian, normals_np
from svad_ray.geometry.raster import project, rasterize_mesh, sample_bilinear, to_camera

ROUNDS = 4
FINER = 2  # samples per pixel along each side, for distances of fractions of a pixel
EDGE_ON = 0.35  # cosine of normal and view below which a vertex may be on the rim
ON_RIM = 1.5  # pixels from the drawn surface's border within which it is
FARTHEST = 0.03  # of the person's height that the rim may be beside the mask's border
MEETS = 0.6  # cosine between the surface's normal and the border's: beside another border nothing is read
# How dear bending and stretching the surface is, and moving it where there is no rim, against missing the border at one vertex of the rim.
BEND, STRETCH, STAY = 1e-2, 1e-3, 1e-4
HANDS = 0.5  # how far the outline moves hands and faces, which ``clothe`` keeps stiff: a mesh of fingers would crumple, a few pixels do no harm


def border_distance(mask: np.ndarray) -> np.ndarray:
    """(H * FINER, W * FINER) float32, pixels of the mask's own size inside (positive) or outside of its border."""
    return _signed(cv2.resize(mask.astype(np.float32), None, fx=FINER, fy=FINER, interpolation=cv2.INTER_LINEAR) > 0.5)


def _signed(fine: np.ndarray) -> np.ndarray:
    """Distances from the border of a mask that is ``FINER`` already; pixels lie half a pixel off it."""
    signed = distance_transform_edt(fine) - distance_transform_edt(~fine)
    return ((signed - 0.5 * np.sign(signed)) / FINER).astype(np.float32)


def fit_rim(
    body: Body,
    state: FitState,
    offset: np.ndarray,
    mask: np.ndarray,
    *,
    lbs_weights: np.ndarray | None = None,
    drape: Drape | None = None,
    ignore_border: bool = False,
) -> np.ndarray:
    """Offsets (V, 3), metres, with the rim on the mask's border.

    Args:
        offset: (V, 3) so far. mask: (H, W) in [0, 1].
        lbs_weights: (V, 55) instead of the body's. drape: Skirt or coat, that ends at its hem.
        ignore_border: Nothing is read in the band at the picture's border (half-body photos).
    """
    faces = body.faces[~body.tables.regions["inner_mouth"][body.faces].any(1)]
    weights = body.lbs_weights if lbs_weights is None else torch.as_tensor(lbs_weights)
    mobile = np.maximum(mobility(body)[0], HANDS) * ~(body.tables.regions["eyes"] | body.tables.regions["inner_mouth"])
    border = round(BORDER * max(mask.shape)) if ignore_border else 0
    naked = shaped(body, state.betas).numpy()
    skin = pose_body(body, body.J_regressor @ torch.from_numpy(naked), state.pose, state.transl).skin
    viewmat, K = state.viewmats[0].numpy(), state.Ks[0].numpy()
    inside = border_distance(mask)
    slope = np.stack(np.gradient(cv2.GaussianBlur(inside, (0, 0), 2.0)), -1)[..., ::-1]
    rows = np.flatnonzero((mask > 0.5).any(1))
    reach = FARTHEST * (rows[-1] - rows[0] + 1) if len(rows) else 0.0
    lap = parted(laplacian(faces, len(offset)), drape)
    smooth = BEND * lap.T @ lap + STRETCH * lap
    for _ in range(ROUNDS):
        rest = naked + offset
        points = to_camera(skin_points(torch.from_numpy(rest.astype(np.float32)), weights, skin)[0].numpy(), viewmat)
        normals = normals_np(points, faces)
        pull, sure = _read(points, normals, faces, K, inside, slope, reach, mask.shape, border)
        sure = sure * mobile
        system = (sp.diags(sure + STAY) + smooth).tocsc()
        step = splu(system).solve((sure * pull)[:, None] * normals_np(rest, body.faces).astype(np.float64))
        offset = offset + mobile[:, None] * step
    return offset.astype(np.float32)


def _read(
    points: np.ndarray,
    normals: np.ndarray,
    faces: np.ndarray,
    K: np.ndarray,
    inside: np.ndarray,
    slope: np.ndarray,
    reach: float,
    shape: tuple[int, int],
    border: int,
) -> tuple[np.ndarray, np.ndarray]:
    """(V,) metres along the normal to the mask's border, and (V,) 1 on the rim, where that counts."""
    height, width = shape
    fine = K * np.array([[FINER], [FINER], [1.0]])
    drawn = rasterize_mesh(points, faces, fine, height * FINER, width * FINER).mask
    own = _signed(drawn)
    uv = project(points, fine).astype(np.float32)
    ray = points / np.linalg.norm(points, axis=1, keepdims=True)
    facing = np.abs((normals * ray).sum(1))
    flat = normals[:, :2] / (np.linalg.norm(normals[:, :2], axis=1, keepdims=True) + 1e-9)
    beside = sample_bilinear(own, uv)
    gap = sample_bilinear(inside, uv)
    gradient = sample_bilinear(slope.astype(np.float32), uv)
    meets = -(gradient / (np.linalg.norm(gradient, axis=1, keepdims=True) + 1e-9) * flat).sum(1)
    sure = (facing < EDGE_ON) & (np.abs(beside) < ON_RIM) & (np.abs(gap) < reach) & (meets > MEETS)
    sure &= (uv > FINER * border).all(1) & (uv[:, 0] < FINER * (width - border)) & (uv[:, 1] < FINER * (height - border))
    # the vertex lies ``beside`` pixels within the drawn rim, which shall come to the mask's border
    return (gap - np.maximum(beside, 0)) * points[:, 2] / K[0, 0], sure.astype(np.float64)
