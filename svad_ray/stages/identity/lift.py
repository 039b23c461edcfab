"""The photo's own head in three dimensions: the 468-point face mesh, textured with the photo, with rings of hair and ears round it.

Source: ours. It stands where SVAD puts GAGAvatar's head render; the points are MediaPipe's face mesh, whose z is in pixels of the
photo at the head's own depth (weak perspective).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import cv2
import numpy as np
from scipy.spatial import Delaunay

from svad_ray.geometry.raster import MeshBuffers, interpolate, project, rasterize_mesh, sample_bilinear, to_camera

# Outline of the face mesh, once round from the top of the forehead over the person's left.
FACE_OVAL = np.concatenate(
    [
        [10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377],
        [152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109],
    ]
)
RIGHT_EYE, LEFT_EYE = np.array([33, 133, 159, 145]), np.array([263, 362, 386, 374])  # outer, inner, upper, lower
CHIN = 152
FACE_POINTS = 468

# Rings round the outline: how far out from the face's centre, and how far back in widths of the face.
RINGS = ((1.12, 0.10), (1.28, 0.28), (1.42, 0.60))
SUPERSAMPLE = 2
MARGIN = 0.004  # metres; the eyes count as seen when nothing lies further in front of them than this


@dataclass(frozen=True)
class HeadReference:
    """The lifted head of one photo.

    Attributes:
        vertices: (V, 3) float32 metres in the axes of the body's head joint; the first 468 are the face mesh.
        faces: (F, 3) int32.
        uv: (V, 2) float32 pixels of ``texture``.
        texture: (h, w, 4) float32 in [0, 1], the photo round the head with the person's mask as fourth channel, colours premultiplied.
        seen_from: (3,) unit vector in the head's axes from the face to the photo's camera.
        pixels_per_metre: Resolution of the texture on the face.
    """

    vertices: np.ndarray
    faces: np.ndarray
    uv: np.ndarray
    texture: np.ndarray
    seen_from: np.ndarray
    pixels_per_metre: float


@dataclass(frozen=True)
class HeadRender:
    """A view of the lifted head.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        points: (468, 2) float32 pixels, where the face mesh lies.
        eyes_seen: Both eyes are turned to the camera with nothing in front of them.
        turn_deg: Angle between this view and the photo's.
    """

    image: np.ndarray
    points: np.ndarray
    eyes_seen: bool
    turn_deg: float


def face_axes(points: np.ndarray) -> np.ndarray:
    """(3, 3) rows: the face's right in the image, down, and away from the viewer, of (468, 3) points."""
    right = points[LEFT_EYE].mean(0) - points[RIGHT_EYE].mean(0)
    right /= np.linalg.norm(right)
    down = points[CHIN] - (points[LEFT_EYE].mean(0) + points[RIGHT_EYE].mean(0)) / 2
    down -= right * (down @ right)
    down /= np.linalg.norm(down)
    return np.stack([right, down, np.cross(right, down)])


def head_points(face_mesh: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Face mesh with its rings.

    Args:
        face_mesh: (468, 3) pixels.

    Returns:
        points (468 + 36 rings, 3) pixels, and faces (F, 3) int32.
    """
    axes = face_axes(face_mesh.astype(np.float64))
    centre = face_mesh[FACE_OVAL].mean(0)
    local = (face_mesh - centre) @ axes.T
    oval = local[FACE_OVAL]
    width = float(np.ptp(oval[:, 0]))
    rings = [np.column_stack([oval[:, :2] * out, oval[:, 2] + back * width]) for out, back in RINGS]
    faces = np.concatenate([_face_triangles(local, width), _ring_triangles(len(rings))])
    return np.concatenate([local, *rings]) @ axes + centre, faces.astype(np.int32)


def _face_triangles(local: np.ndarray, width: float) -> np.ndarray:
    """Delaunay triangles of the face rolled out from a cylinder behind it: the cheeks do not fold over as they would from the front."""
    angle = np.arctan2(local[:, 0], 0.6 * width - local[:, 2])
    flat = np.column_stack([angle * 0.6 * width, local[:, 1]])
    triangles = Delaunay(flat).simplices
    # The hull's slivers outside the outline would bridge its small dents with a face of their own.
    outline = flat[FACE_OVAL].astype(np.float32)
    middle = flat[triangles].mean(1).astype(np.float32)
    inside = [cv2.pointPolygonTest(outline, (float(x), float(y)), True) > 0 for x, y in middle]
    return triangles[np.array(inside)]


def _ring_triangles(rings: int) -> np.ndarray:
    n = len(FACE_OVAL)
    loops = [FACE_OVAL, *(FACE_POINTS + n * k + np.arange(n) for k in range(rings))]
    out = []
    for a, b in pairwise(loops):
        a1, b1 = np.roll(a, -1), np.roll(b, -1)
        out += [np.stack([a, a1, b], 1), np.stack([a1, b1, b], 1)]
    return np.concatenate(out)


def unproject(points: np.ndarray, K: np.ndarray, depth: float) -> np.ndarray:
    """Camera-space metres of points in pixels whose z counts from ``depth`` in pixels of that depth; x and y project back exactly.

    Args:
        points: (N, 3) pixels.
        K: (3, 3) pinhole intrinsics.
        depth: Metres at z = 0.
    """
    z = depth + points[:, 2] * depth / K[0, 0]
    return np.column_stack([(points[:, 0] - K[0, 2]) / K[0, 0] * z, (points[:, 1] - K[1, 2]) / K[1, 1] * z, z])


def lift_head(
    image: np.ndarray, mask: np.ndarray, face_mesh: np.ndarray, K: np.ndarray, head_to_camera: np.ndarray, *, depth: float
) -> HeadReference:
    """The photo's head as a textured mesh in the axes of the body's head joint.

    Args:
        image: (H, W, 3) uint8 RGB photo.
        mask: (H, W) float in [0, 1], the person.
        face_mesh: (468, 3) pixels.
        K: (3, 3) the photo's intrinsics.
        head_to_camera: (4, 4) rigid, the head joint in the photo's camera.
        depth: Metres from the camera to the plane z = 0 of the face mesh.
    """
    points, faces = head_points(face_mesh)
    camera = unproject(points, K, depth)
    rotation, origin = head_to_camera[:3, :3], head_to_camera[:3, 3]
    texture, corner = _texture(image, mask, points[:, :2])
    view = rotation.T @ -camera[:FACE_POINTS].mean(0)
    return HeadReference(
        vertices=((camera - origin) @ rotation).astype(np.float32),
        faces=faces,
        uv=(points[:, :2] - corner).astype(np.float32),
        texture=texture,
        seen_from=(view / np.linalg.norm(view)).astype(np.float32),
        pixels_per_metre=float(K[0, 0] / depth),
    )


def _texture(image: np.ndarray, mask: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The photo round the points, masked and premultiplied, and the pixel at which it begins."""
    height, width = image.shape[:2]
    low = np.clip(np.floor(points.min(0)).astype(int) - 2, 0, [width - 1, height - 1])
    high = np.clip(np.ceil(points.max(0)).astype(int) + 2, low + 1, [width, height])
    crop = np.s_[low[1] : high[1], low[0] : high[0]]
    alpha = mask[crop][..., None].astype(np.float32)
    return np.concatenate([image[crop].astype(np.float32) / 255 * alpha, alpha], 2), low.astype(np.float64)


def at_resolution(reference: HeadReference, pixels_per_metre: float) -> HeadReference:
    """The reference with its texture averaged down to a view's resolution, so that a small render does not alias."""
    factor = pixels_per_metre / reference.pixels_per_metre
    if factor >= 0.9:
        return reference
    height, width = reference.texture.shape[:2]
    size = (max(round(width * factor), 1), max(round(height * factor), 1))
    scale = np.array([size[0] / width, size[1] / height], np.float32)
    texture = cv2.resize(reference.texture, size, interpolation=cv2.INTER_AREA)
    return replace(reference, texture=texture, uv=reference.uv * scale, pixels_per_metre=pixels_per_metre)


def render_head(reference: HeadReference, head_to_camera: np.ndarray, K: np.ndarray, size: tuple[int, int], *, background: np.ndarray) -> HeadRender:
    """The lifted head seen by a camera.

    Args:
        reference: From :func:`lift_head`.
        head_to_camera: (4, 4) the head joint in the camera.
        K: (3, 3) intrinsics.
        size: (height, width).
        background: (3,) colour in [0, 1] where the head is not.
    """
    vertices = to_camera(reference.vertices, head_to_camera)
    fine = np.array([[SUPERSAMPLE], [SUPERSAMPLE], [1]]) * K
    buffers = rasterize_mesh(vertices, reference.faces, fine, size[0] * SUPERSAMPLE, size[1] * SUPERSAMPLE, threads=1)
    texture = at_resolution(reference, SUPERSAMPLE * float(K[0, 0] / vertices[:FACE_POINTS, 2].mean()))
    color = np.zeros((*buffers.depth.shape, 4), np.float32)
    color[buffers.mask] = sample_bilinear(texture.texture, interpolate(buffers, reference.faces, texture.uv))
    color = cv2.resize(color, (size[1], size[0]), interpolation=cv2.INTER_AREA)
    image = color[..., :3] + (1 - color[..., 3:]) * np.asarray(background, np.float32)
    turn = _turn_deg(reference, head_to_camera, vertices)
    return HeadRender(
        image=(np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8),
        points=project(vertices[:FACE_POINTS], K).astype(np.float32),
        eyes_seen=turn < 90 and all(points_seen(vertices[eye], fine, buffers) >= 3 for eye in (RIGHT_EYE, LEFT_EYE)),
        turn_deg=turn,
    )


def _turn_deg(reference: HeadReference, head_to_camera: np.ndarray, vertices: np.ndarray) -> float:
    view = head_to_camera[:3, :3].T @ -vertices[:FACE_POINTS].mean(0)
    return float(np.degrees(np.arccos(np.clip(view @ reference.seen_from / np.linalg.norm(view), -1, 1))))


def points_seen(points: np.ndarray, K: np.ndarray, buffers: MeshBuffers, *, margin: float = MARGIN) -> int:
    """How many of (N, 3) points in the camera lie in front in a z-buffer, or no further behind than ``margin``."""
    height, width = buffers.depth.shape
    xy = np.floor(project(points, K)).astype(int)
    inside = ((xy >= 0) & (xy < [width, height])).all(1)
    x, y = np.clip(xy[:, 0], 0, width - 1), np.clip(xy[:, 1], 0, height - 1)
    return int((inside & (points[:, 2] < buffers.depth[y, x] + margin)).sum())
