"""The face's texture: every frame that shows the face is unwrapped onto FLAME's map of texture, and their mean is the texture.

Source: ExAvatar's fitting code (spec: avatar 3.9): a texel takes the colour of the point that it lies on where the point's triangle is seen at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from svad_ray.errors import InputError
from svad_ray.geometry.raster import MeshBuffers, interpolate, project, rasterize_mesh, sample_bilinear

SIDE = 512  # texels
_AVOID_ZERO = 1e-4  # added to the number of frames that show a texel


@dataclass(frozen=True)
class TextureMap:
    """What lies where in the texture.

    Attributes:
        faces: (F, 3) vertices of the head's triangles. texels: Which triangle each texel lies on, and where on it.
    """

    faces: np.ndarray
    texels: MeshBuffers

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.texels.face_id.shape


@dataclass(frozen=True)
class FaceTexture:
    """color: (S, S, 3) float32 in [0, 1], black outside ``mask``, which is (S, S) bool: the texels that count."""

    color: np.ndarray
    mask: np.ndarray

    @property
    def image(self) -> np.ndarray:
        """(S, S, 3) uint8 RGB, truncated as the published code does."""
        return (self.color * 255).astype(np.uint8)


def texture_map(faces: np.ndarray, uv: np.ndarray, uv_faces: np.ndarray, *, size: int = SIDE) -> TextureMap:
    """Draw the triangles of the texture.

    Args:
        faces, uv_faces: (F, 3) numbers of vertices and of texture coordinates, triangle by triangle.
        uv: (N, 2) in [0, 1], v downwards from the picture's upper border (files of wavefront type hold 1 - v).

    Raises:
        InputError: The two lists of triangles differ in length.
    """
    if faces.shape != uv_faces.shape:
        raise InputError(f"{len(faces)} triangles have {len(uv_faces)} triangles of texture", expected="as many", remedy="use the head's own map")
    flat = np.column_stack((uv * size, np.ones(len(uv))))
    return TextureMap(np.asarray(faces), rasterize_mesh(flat, uv_faces, np.eye(3), size, size, threads=1))


def unwrap(layout: TextureMap, image: np.ndarray, vertices: np.ndarray, K: np.ndarray, *, official: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """One frame on the texture.

    Args:
        image: (H, W, 3) float32. vertices: (V, 3) of the head, metres on the camera's axes. K: (3, 3) pixels.
        official: As the published code: half a pixel to the right of and below the point, and what lies beyond the picture is black.

    Returns:
        (S, S, 3) float32 colours, and (S, S) bool, the texels that have one: their triangle covers a pixel, and their point is in the picture.
    """
    height, width = image.shape[:2]
    seen = np.zeros(len(layout.faces) + 1, bool)
    seen[rasterize_mesh(vertices, layout.faces, K, height, width, threads=1).face_id] = True
    seen[-1] = False  # where nothing is
    known = seen[layout.texels.face_id]
    place = np.zeros((*layout.size, 2), np.float32)
    place[layout.texels.mask] = interpolate(layout.texels, layout.faces, project(vertices.astype(np.float32), K))
    if official:
        image, place = np.pad(image, ((1, 1), (1, 1), (0, 0))), place + np.float32(1.5)  # a black border, and the half pixel
    else:
        known &= ((place >= 0) & (place <= [width, height])).all(-1)
    color = np.zeros((*layout.size, 3), np.float32)
    color[known] = sample_bilinear(image, place[known])
    return color, known


def face_texture(
    layout: TextureMap,
    images: Sequence[np.ndarray] | np.ndarray,
    vertices: np.ndarray,
    Ks: np.ndarray,
    visible: np.ndarray,
    *,
    moving: np.ndarray,
    neck: np.ndarray,
    official: bool = False,
) -> FaceTexture:
    """The mean of the frames whose face is visible, without the neck and what no expression moves.

    Args:
        images: T of (H, W, 3) float32 in [0, 1] or uint8, the faces' crops, of any sizes. Ks: (T, 3, 3) of the crops.
        vertices: (T, V, 3) metres on the camera's axes.
        visible: (T,) bool. moving: (V,) bool, moved by some expression. neck: (V,) bool, see ``Flame.neck_vertices``.
        official: See :func:`unwrap`.

    Raises:
        InputError: No frame shows the face.
    """
    if not visible.any():
        raise InputError("no frame shows the face", expected="at least one frame for its texture", remedy="use a clip that shows the face")
    total, count = np.zeros((*layout.size, 3), np.float32), np.zeros(layout.size, np.float32)
    for t in np.flatnonzero(visible).tolist():  # one frame at a time: a texture of every frame would take gigabytes
        image = images[t] if images[t].dtype != np.uint8 else images[t].astype(np.float32) / 255
        color, known = unwrap(layout, image, vertices[t], Ks[t], official=official)
        total, count = total + color, count + known
    kept = (count > 0) & face_texels(layout, moving=moving, neck=neck)
    return FaceTexture(np.where(kept[..., None], total / (count + _AVOID_ZERO)[..., None], 0), kept)


def face_texels(layout: TextureMap, *, moving: np.ndarray, neck: np.ndarray) -> np.ndarray:
    """(S, S) bool: the texels on triangles all of whose corners an expression moves, and none of which is the neck's."""
    good = np.append((moving & ~neck)[layout.faces].all(1), False)
    return good[layout.texels.face_id]
