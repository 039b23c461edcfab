"""Which vertices photos really show, and where: visibility, grazing angles, and a guard band beside nearer limbs; several photos as one.

Of several photos each vertex takes those that see it best. Where photos meet, their exposures are brought together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import scipy.sparse as sp
import torch
from scipy.ndimage import distance_transform_edt

from svad_ray.body.model import Body
from svad_ray.fitting.clothed import Surface
from svad_ray.fitting.state import pose_body, state_of
from svad_ray.geometry.mesh import adjacency, normals_np
from svad_ray.geometry.raster import MeshBuffers, project, rasterize_mesh, sample_bilinear, to_camera
from svad_ray.stages.animate.appearance import odd, smoothstep
from svad_ray.subject import BodyTrack, Perception

FACING = (0.10, 0.45)  # cosine between normal and view where the photo's weight goes from 0 to 1
LIMB_GUARD = 0.008  # of the person's size: beside a nearer limb the photo may show the limb
HAND_GUARD = 0.024
FOREARM, HAND = 0.026, 0.034  # of the person's size: radius of the capsules round forearms and hands
ARM_PARTS = (2, 3, 6, 7)
LIMB_STEP, HAND_STEP = 0.07, 0.05  # metres in depth that make a neighbour a nearer limb


SHARPNESS = 4  # power of a photo's claim to a vertex: higher = less mixing of photos that do not quite agree
FACE_FIRST = 3.0  # claim of the first photo, which has the best face, to the face
OVERLAP, MEETING = 0.15, 200  # weight in both photos, and vertices, from which two photos' exposures are compared
EXPOSURE = 0.35  # bound of the logarithm of an exposure's correction


@dataclass(frozen=True)
class SeenSurface:
    """What photos show of a surface; with K photos those are below each other in one picture.

    Attributes:
        uv: (N, 2) photo pixels of each vertex, in the photo that shows it best. weight: (N,) in [0, 1]. facing: (N,) cosine of normal and view.
        photo: (H, W, 3) float32, extended outwards from sure person pixels. color: (N, 3) photo colours.
        size: The person's size in the first photo, pixels. neighbours: (N, N) adjacency.
        page: (N,) int, the photo that shows a vertex best. normals: (K, N, 3) unit, camera axes, in each photo's pose.
        uvs: (K, N, 2) pixels. shares: (K, N) what each photo gives, together ``weight``.
    """

    uv: np.ndarray
    weight: np.ndarray
    facing: np.ndarray
    photo: np.ndarray
    color: np.ndarray
    size: float
    neighbours: sp.csr_matrix
    page: np.ndarray
    normals: np.ndarray
    uvs: np.ndarray
    shares: np.ndarray

    def smooth(self, values: np.ndarray) -> np.ndarray:
        """Mean over the neighbours."""
        return _smooth(self.neighbours, values)


@dataclass(frozen=True)
class Visible:
    """Which vertices of a surface a photo shows.

    Attributes:
        uv: (N, 2) pixels. weight: (N,) in [0, 1]. facing: (N,) cosine of normal and view. normals: (N, 3) unit, camera axes.
        size: The person's size in the photo, pixels. neighbours: (N, N) adjacency.
    """

    uv: np.ndarray
    weight: np.ndarray
    facing: np.ndarray
    normals: np.ndarray
    size: float
    neighbours: sp.csr_matrix


def visible(surface: Surface, camera_points: np.ndarray, K: np.ndarray, mask: np.ndarray, *, limbs: np.ndarray | None = None) -> Visible:
    """What a photo can show of a surface in the photo's pose; arguments as of :func:`look_at_photo`."""
    height, width = mask.shape
    buffers = rasterize_mesh(camera_points, surface.faces, K, height, width)
    uv = project(camera_points, K).astype(np.float32)
    normals = normals_np(camera_points, surface.faces)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-9
    facing = -(normals * camera_points).sum(1) / np.linalg.norm(camera_points, axis=1)
    rows = np.where(mask.any(1))[0]
    size = float(max(len(rows) and rows[-1] - rows[0] + 1, 1))
    depth = camera_points[:, 2]
    surface_depth = sample_bilinear(np.where(buffers.mask, buffers.depth, 0).astype(np.float32), uv)
    inside = sample_bilinear(distance_transform_edt(mask).astype(np.float32), uv) > size / 440
    seen = (depth < surface_depth + 0.012 + 0.02 * (1 - np.clip(facing, 0, 1))) & (facing > 0.05) & inside
    seen &= depth < sample_bilinear(_guard(surface, buffers, size), uv)
    if limbs is not None:
        seen &= np.isin(surface.part, ARM_PARTS) | (sample_bilinear(limbs.astype(np.float32), uv) < 0.5)
    weight = seen * smoothstep(facing, *FACING)
    near = adjacency(surface.faces, len(depth))
    for _ in range(2):  # the weight fades towards what was not seen
        weight = np.minimum(weight, 0.5 * weight + 0.5 * _smooth(near, weight))
    return Visible(uv, np.clip(weight, 0, 1).astype(np.float32), facing, normals, size, near)


def visible_in(body: Body, surface: Surface, rest_joints: torch.Tensor, perception: Perception, track: BodyTrack) -> Visible:
    """``visible`` for a photo that the body was fitted to: ``track`` holds its pose and camera."""
    state, mask = state_of(track), perception.mask > 0.5
    points = to_camera(surface.posed(pose_body(body, rest_joints, state.pose, state.transl).skin[0]), track.viewmats[0])
    rows = np.flatnonzero(mask.any(1))
    size = float(np.ptp(rows) + 1) if len(rows) else 1.0
    limbs = None
    if len(perception.landmarks):  # who knows no landmarks knows of no arm in front
        limbs = limbs_in_front(perception.landmarks, perception.visibility, perception.landmarks_world, mask.shape, size)
    return visible(surface, points, track.Ks[0], mask, limbs=limbs)


def look_at_photo(
    surface: Surface, camera_points: np.ndarray, K: np.ndarray, photo: np.ndarray, mask: np.ndarray, *, limbs: np.ndarray | None = None
) -> SeenSurface:
    """Project the photo on the surface in the photo's pose.

    Args:
        camera_points: (N, 3) vertices in camera axes. K: (3, 3).
        photo: (H, W, 3) float32 [0, 1]. mask: (H, W) bool, the person.
        limbs: (H, W) bool, where forearms and hands are in the picture: nothing else is seen there.
    """
    return painted(visible(surface, camera_points, K, mask, limbs=limbs), photo, mask)


def painted(seen: Visible, photo: np.ndarray, mask: np.ndarray) -> SeenSurface:
    """What is visible, with the colours of the photo (H, W, 3) float32 and its mask (H, W) bool."""
    extended = extend_person(photo, mask, seen.size)
    page, color = np.zeros(len(seen.uv), int), sample_bilinear(extended, seen.uv)
    return SeenSurface(
        seen.uv,
        seen.weight,
        seen.facing,
        extended,
        color,
        seen.size,
        seen.neighbours,
        page,
        seen.normals[None],
        seen.uv[None],
        seen.weight[None],
    )


def claims(surface: Surface, weights: np.ndarray, facing: np.ndarray) -> np.ndarray:
    """(K, N) how strongly photos claim vertices; weights and facing (K, N)."""
    claim = weights * np.clip(facing, 0, 1)
    claim[0] *= np.where(surface.regions["face"], FACE_FIRST, 1.0)
    return claim


def share_out(claim: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(K, N) what each photo gives to a vertex; together the largest weight."""
    if len(claim) == 1:
        return weights
    power = claim**SHARPNESS
    return (power / np.maximum(power.sum(0), 1e-12) * weights.max(0)).astype(np.float32)


def join_views(surface: Surface, views: Sequence[SeenSurface]) -> SeenSurface:
    """What several photos show of one surface together: each vertex mostly by the photo that sees it best."""
    if len(views) == 1:
        return views[0]
    weights = np.stack([view.weight for view in views])
    claim = claims(surface, weights, np.stack([view.facing for view in views]))
    shares = share_out(claim, weights)
    gains = exposures(views, weights)
    pages = [np.clip(view.photo * gain, 0, 1).astype(np.float32) for view, gain in zip(views, gains)]
    tops = np.cumsum([0, *(len(page) for page in pages)])
    width = max(page.shape[1] for page in pages)
    photo = np.concatenate([np.pad(page, ((0, 0), (0, width - page.shape[1]), (0, 0)), mode="edge") for page in pages])
    uvs = np.stack([view.uv + np.array([0, top], np.float32) for view, top in zip(views, tops)])
    best, every = claim.argmax(0), np.arange(len(surface.rest))
    weight = shares.sum(0)
    color = np.einsum("kn,knc->nc", shares, sample_bilinear(photo, uvs)) / np.maximum(weight, 1e-6)[:, None]
    color = np.where(weight[:, None] > 1e-6, color, sample_bilinear(photo, uvs[0])).astype(np.float32)
    facing = np.stack([view.facing for view in views])[best, every]
    normals = np.concatenate([view.normals for view in views])
    return SeenSurface(uvs[best, every], weight, facing, photo, color, views[0].size, views[0].neighbours, best, normals, uvs, shares)


def exposures(views: Sequence[SeenSurface], weights: np.ndarray) -> np.ndarray:
    """(K, 3) factors that give each photo the first one's exposure and white, where both show enough of the same surface; else 1."""
    gains = np.ones((len(views), 3))
    for k in range(1, len(views)):
        both = (weights[0] > OVERLAP) & (weights[k] > OVERLAP)
        both &= (views[0].color.min(1) > 0.03) & (views[k].color.min(1) > 0.03)
        if both.sum() >= MEETING:
            log = np.log(views[0].color[both] / views[k].color[both])
            gains[k] = np.exp(np.clip(np.median(log, 0), -EXPOSURE, EXPOSURE))
    return gains


def _smooth(neighbours: sp.csr_matrix, values: np.ndarray) -> np.ndarray:
    """Mean over the neighbours of each vertex."""
    degree = np.maximum(np.asarray(neighbours.sum(1)).ravel(), 1)
    total = neighbours @ values
    return total / (degree[:, None] if values.ndim == 2 else degree)


def _guard(surface: Surface, buffers: MeshBuffers, size: float) -> np.ndarray:
    """(H, W) depth beyond which a vertex lies behind a limb or hand that passes close by in the picture."""
    depth = np.where(buffers.mask, buffers.depth, 9.0).astype(np.float32)
    hand_vertex = np.isin(surface.part, (6, 7))
    hands = hand_vertex[surface.faces[np.maximum(buffers.face_id, 0)]].all(-1) & buffers.mask
    near = cv2.erode(depth, np.ones((odd(LIMB_GUARD * size),) * 2, np.uint8))
    near_hand = cv2.erode(np.where(hands, depth, 9.0).astype(np.float32), np.ones((odd(HAND_GUARD * size),) * 2, np.uint8))
    return np.minimum(near + LIMB_STEP, near_hand + HAND_STEP)


def limbs_in_front(landmarks: np.ndarray, visibility: np.ndarray, world: np.ndarray, shape: tuple[int, int], size: float) -> np.ndarray:
    """(H, W) bool: capsules round the forearms and hands that pass in front of the body.

    The fitted arm may lie some centimetres beside the real one, and the torso behind a crossed arm must not wear its picture.

    Args:
        landmarks: (33, 2) pixels. visibility: (33,). world: (33, 3) metres, z to the camera.
        shape: (H, W). size: The person's size, pixels.
    """
    out = np.zeros(shape, np.uint8)
    hip = world[[23, 24]].mean(0)
    for shoulder, elbow, wrist, tips in ((11, 13, 15, (17, 19, 21)), (12, 14, 16, (18, 20, 22))):
        if visibility[[elbow, wrist]].min() < 0.5 or not np.isfinite(landmarks[[elbow, wrist, *tips]]).all():
            continue
        if world[wrist, 2] < min(hip[2], world[shoulder, 2]) - 0.05:  # behind the back
            continue
        hand = landmarks[list(tips)].mean(0)
        far = landmarks[wrist] + 1.9 * (hand - landmarks[wrist])
        for a, b, radius in ((landmarks[elbow], landmarks[wrist], FOREARM), (landmarks[wrist], far, HAND)):
            cv2.line(out, (int(a[0]), int(a[1])), (int(b[0]), int(b[1])), 1, max(1, round(2 * radius * size)))
    return out > 0


def extend_person(photo: np.ndarray, mask: np.ndarray, size: float) -> np.ndarray:
    """The photo with everything outside the sure person replaced by the nearest sure person pixel."""
    sure = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8), iterations=max(1, round(size / 220))) > 0
    if not sure.any():
        sure = mask
    _, (iy, ix) = distance_transform_edt(~sure, return_indices=True)
    return np.ascontiguousarray(photo[iy, ix], np.float32)
