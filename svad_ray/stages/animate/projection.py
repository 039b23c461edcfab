"""Which vertices the photo really shows, and where: visibility, grazing angles, and a guard band beside nearer limbs."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import scipy.sparse as sp
from scipy.ndimage import distance_transform_edt

from svad_ray.fitting.clothed import Surface
from svad_ray.geometry.mesh import adjacency, normals_np
from svad_ray.geometry.raster import MeshBuffers, project, rasterize_mesh, sample_bilinear
from svad_ray.stages.animate.appearance import odd, smoothstep

FACING = (0.10, 0.45)  # cosine between normal and view where the photo's weight goes from 0 to 1
LIMB_GUARD = 0.008  # of the person's size: beside a nearer limb the photo may show the limb
HAND_GUARD = 0.024
FOREARM, HAND = 0.026, 0.034  # of the person's size: radius of the capsules round forearms and hands
ARM_PARTS = (2, 3, 6, 7)
LIMB_STEP, HAND_STEP = 0.07, 0.05  # metres in depth that make a neighbour a nearer limb


@dataclass(frozen=True)
class SeenSurface:
    """What the photo shows of a surface.

    Attributes:
        uv: (N, 2) photo pixels of each vertex. weight: (N,) in [0, 1]. facing: (N,) cosine of normal and view.
        photo: (H, W, 3) float32, extended outwards from sure person pixels. color: (N, 3) photo colours at ``uv``.
        size: The person's size in the photo, pixels. neighbours: (N, N) adjacency.
    """

    uv: np.ndarray
    weight: np.ndarray
    facing: np.ndarray
    photo: np.ndarray
    color: np.ndarray
    size: float
    neighbours: sp.csr_matrix

    def smooth(self, values: np.ndarray) -> np.ndarray:
        """Mean over the neighbours."""
        degree = np.maximum(np.asarray(self.neighbours.sum(1)).ravel(), 1)
        total = self.neighbours @ values
        return total / (degree[:, None] if values.ndim == 2 else degree)


def look_at_photo(
    surface: Surface, camera_points: np.ndarray, K: np.ndarray, photo: np.ndarray, mask: np.ndarray, *, limbs: np.ndarray | None = None
) -> SeenSurface:
    """Project the photo on the surface in the photo's pose.

    Args:
        camera_points: (N, 3) vertices in camera axes. K: (3, 3).
        photo: (H, W, 3) float32 [0, 1]. mask: (H, W) bool, the person.
        limbs: (H, W) bool, where forearms and hands are in the picture: nothing else is seen there.
    """
    height, width = mask.shape
    buffers = rasterize_mesh(camera_points, surface.faces, K, height, width)
    uv = project(camera_points, K).astype(np.float32)
    normals = normals_np(camera_points, surface.faces)
    facing = -(normals * camera_points).sum(1) / np.linalg.norm(camera_points, axis=1)
    rows = np.where(mask.any(1))[0]
    size = float(max(len(rows) and rows[-1] - rows[0] + 1, 1))
    depth = camera_points[:, 2]
    surface_depth = sample_bilinear(np.where(buffers.mask, buffers.depth, 0).astype(np.float32), uv)
    inside = sample_bilinear(distance_transform_edt(mask).astype(np.float32), uv) > size / 440
    visible = (depth < surface_depth + 0.012 + 0.02 * (1 - np.clip(facing, 0, 1))) & (facing > 0.05) & inside
    visible &= depth < sample_bilinear(_guard(surface, buffers, size), uv)
    if limbs is not None:
        visible &= np.isin(surface.part, ARM_PARTS) | (sample_bilinear(limbs.astype(np.float32), uv) < 0.5)
    weight = visible * smoothstep(facing, *FACING)
    near = adjacency(surface.faces, len(depth))
    seen = SeenSurface(uv, weight, facing, extend_person(photo, mask, size), np.empty(0), size, near)
    for _ in range(2):  # the weight fades towards what was not seen
        weight = np.minimum(weight, 0.5 * weight + 0.5 * seen.smooth(weight))
    color = sample_bilinear(seen.photo, uv)
    return SeenSurface(uv, np.clip(weight, 0, 1).astype(np.float32), facing, seen.photo, color, size, near)


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
