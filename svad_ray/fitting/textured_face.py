"""The face of a clip, textured: where the map of its texture comes from, and how the frames of a clip fill it.

FLAME's own map and the fitted FLAME where its files are (the paper's way, from the fit stage); else the body's own face and texture coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from svad_ray.body.flame import Flame, load_flame
from svad_ray.body.model import Body
from svad_ray.body.names import JOINT_INDEX
from svad_ray.errors import InputError
from svad_ray.fitting.face_texture import SIDE, FaceTexture, face_texture, texture_map
from svad_ray.geometry.raster import project, to_camera
from svad_ray.motion.labels import posed
from svad_ray.subject import BodyTrack, Clip, TexturedFace

MAP_FILE, MOVING_FILE = "FLAME_texture.npz", "2019/generic_model.pkl"
EXPRESSIONS = 50  # of the older FLAME, by which the face is told from the rest of the head
_FACING = np.cos(0.75 * np.pi)  # the face looks at the camera within 45 degrees
_BORDER, _MARGIN = 0.02, 4  # of the texture, left empty round a body's own map; pixels round the face's crop
_CHUNK = 16  # frames posed at once


@dataclass(frozen=True)
class FaceLayout:
    """A face's mesh and its map, before anything is known of its colours.

    Attributes:
        rows, faces, uv, uv_faces, source: As of :class:`svad_ray.subject.TexturedFace`.
        moving, neck: (F,) bool, what some expression moves, and what hangs on the neck.
    """

    rows: np.ndarray
    faces: np.ndarray
    uv: np.ndarray
    uv_faces: np.ndarray
    moving: np.ndarray
    neck: np.ndarray
    source: str

    def textured(self, made: FaceTexture) -> TexturedFace:
        """With its colours."""
        return TexturedFace(made.image, made.mask, self.rows, self.faces, self.uv, self.uv_faces, self.source)


def flame_layout(folder: str | Path, body: Body, flame: Flame, head: np.ndarray) -> FaceLayout | None:
    """FLAME's map from ``FLAME_texture.npz`` of the user's folder; None where there is no such file.

    Which vertices count, FLAME 2019 says by its expressions, which move the face alone (``2019/generic_model.pkl``); without it the body's face
    region does.

    Args:
        head: (F,) the body's vertex of each of FLAME's.

    Raises:
        InputError: A file is damaged, or of another head.
    """
    folder = Path(folder).expanduser()
    if not (folder / MAP_FILE).is_file():
        return None
    uv, uv_faces = _read_map(folder / MAP_FILE, flame)
    moving = np.asarray(body.tables.regions["face"])[head]
    if (folder / MOVING_FILE).is_file():
        older = load_flame(folder / MOVING_FILE)
        if len(older.v_template) != len(flame.v_template):
            raise InputError(f"{folder / MOVING_FILE} has {len(older.v_template)} vertices", expected=f"{len(flame.v_template)}, as FLAME's of 2020")
        moving = (older.exprdirs[..., :EXPRESSIONS] != 0).flatten(1).any(1).numpy()
    return FaceLayout(np.asarray(head), flame.faces, uv, uv_faces, moving, flame.neck_vertices, "flame")


def _read_map(path: Path, flame: Flame) -> tuple[np.ndarray, np.ndarray]:
    """Texture coordinates (M, 2), v downwards, and their (N, 3) triangles."""
    try:
        with np.load(path, allow_pickle=False) as file:
            uv, uv_faces = file["vt"].astype(np.float32), file["ft"].astype(np.int64)
    except (ValueError, OSError, EOFError, KeyError) as error:
        raise InputError(f"{path.name} cannot be read ({error})", expected="FLAME's texture space: vt and ft", remedy="download it again") from error
    if uv_faces.shape != flame.faces.shape or uv.ndim != 2 or uv.shape[1] != 2 or uv_faces.max() >= len(uv):
        raise InputError(
            f"{path.name} maps {len(uv_faces)} triangles", expected=f"FLAME's {len(flame.faces)}", remedy="use FLAME_texture.npz of the FLAME site"
        )
    return (uv * [1, -1] + [0, 1]).astype(np.float32), uv_faces


def body_layout(body: Body) -> FaceLayout | None:
    """The body's own face on its own texture coordinates, enlarged to the whole texture; None where the body has no coordinates or no face.

    Of the face's parts in the map only the largest is kept, which the front of the face is.
    """
    face = np.asarray(body.tables.regions["face"])
    if not len(body.tables.uv) or not face.any():
        return None
    chosen = np.flatnonzero(face[body.faces].all(1))
    corners = body.tables.uv_faces[chosen]
    chosen = chosen[_largest_part(corners, len(body.tables.uv))]
    rows, faces = np.unique(body.faces[chosen], return_inverse=True)
    used, uv_faces = np.unique(body.tables.uv_faces[chosen], return_inverse=True)
    uv = body.tables.uv[used] * [1, -1]
    low, high = uv.min(0), uv.max(0)
    uv = (uv - (low + high) / 2) / (high - low).max() * (1 - 2 * _BORDER) + 0.5
    moves = (body.exprdirs[rows] != 0).flatten(1).any(1).numpy()
    moving = moves if moves.any() else np.ones(len(rows), bool)
    shape = (len(chosen), 3)
    neck = np.zeros(len(rows), bool)
    return FaceLayout(rows, faces.reshape(shape), uv.astype(np.float32), uv_faces.reshape(shape), moving, neck, "body")


def _largest_part(triangles: np.ndarray, count: int) -> np.ndarray:
    """(N,) bool: the triangles of the largest connected piece."""
    a, b = triangles[:, [0, 1]].ravel(), triangles[:, [1, 2]].ravel()
    _, part = connected_components(coo_matrix((np.ones(len(a)), (a, b)), shape=(count, count)), directed=False)
    of = part[triangles[:, 0]]
    return of == np.bincount(of).argmax()


class Seen(NamedTuple):
    """What fills a texture: (T, H, W, 3) uint8 frames, (T, F, 3) the face in each camera, (T, 3, 3) cameras, (T,) bool whether the face is seen."""

    frames: np.ndarray
    vertices: np.ndarray
    Ks: np.ndarray
    visible: np.ndarray


def fill(layout: FaceLayout, seen: Seen, *, crops: np.ndarray | None = None) -> TexturedFace | None:
    """The mean texture; None where no frame shows the face.

    Args:
        crops: (T, 4) squares x, y, width, height that are scaled to 256 pixels first, as released; None = the frames' own pixels.
    """
    if not seen.visible.any():
        return None
    at = np.flatnonzero(seen.visible)
    pictures, Ks = [], []
    for t in at.tolist():
        cut = _scaled_crop(seen.frames[t], crops[t], seen.Ks[t]) if crops is not None else _plain_crop(seen, t)
        pictures.append(cut[0])
        Ks.append(cut[1])
    layout_map = texture_map(layout.faces, layout.uv, layout.uv_faces, size=SIDE)
    everything = np.ones(len(at), bool)
    made = face_texture(
        layout_map, pictures, seen.vertices[at], np.stack(Ks), everything, moving=layout.moving, neck=layout.neck, official=crops is not None
    )
    return layout.textured(made) if made.mask.any() else None


def _plain_crop(seen: Seen, t: int) -> tuple[np.ndarray, np.ndarray]:
    """The part of a frame that shows the face, and its camera."""
    flat, (height, width) = project(seen.vertices[t], seen.Ks[t]), seen.frames.shape[1:3]
    low = np.clip(np.floor(flat.min(0)).astype(int) - _MARGIN, 0, [width - 1, height - 1])
    high = np.clip(np.ceil(flat.max(0)).astype(int) + _MARGIN, low + 1, [width, height])
    K = seen.Ks[t].astype(np.float64).copy()
    K[:2, 2] -= low
    return seen.frames[t, low[1] : high[1], low[0] : high[0]], K


CROP = 256  # pixels of the released crops


def _scaled_crop(frame: np.ndarray, square: np.ndarray, K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A square of a frame at ``CROP`` pixels, float32 in [0, 1], and its camera."""
    import cv2

    scale = CROP / square[2:]
    shift = CROP / 2 - (square[:2] + square[2:] / 2) * scale
    affine = np.array([[scale[0], 0, shift[0]], [0, scale[1], shift[1]]])
    out = K.astype(np.float64).copy()
    out[:2] = out[:2] * scale[:, None]
    out[:2, 2] += shift
    return cv2.warpAffine(frame.astype(np.float32), affine, (CROP, CROP), flags=cv2.INTER_LINEAR) / 255, out


def clip_face(clip: Clip, track: BodyTrack, body: Body) -> TexturedFace | None:
    """The textured face of a clip: the fit's own, else unwrapped here onto the body's own face.

    Args:
        track: Of ``clip``, on ``body``.

    Returns:
        None where neither the track carries one nor the body has a face with texture coordinates, or where no frame shows the face.
    """
    if track.face is not None:
        return track.face
    layout = body_layout(body)
    if layout is None:
        return None
    visible = face_seen(body, track)
    at = np.flatnonzero(visible)
    vertices = np.zeros((len(track), len(layout.rows), 3), np.float32)
    if len(at):
        vertices[at] = _in_camera(body, track.frames(at), layout.rows)
    return fill(layout, Seen(clip.frames, vertices, track.Ks, visible))


def face_in_camera(face: TexturedFace, body: Body, track: BodyTrack) -> np.ndarray:
    """(T, F, 3) float32 metres on the cameras' axes: the face's mesh in every frame."""
    return _in_camera(body, track, face.rows)


def _in_camera(body: Body, track: BodyTrack, rows: np.ndarray) -> np.ndarray:
    out = []
    for first in range(0, len(track), _CHUNK):
        part = track.frames(slice(first, first + _CHUNK))
        vertices = posed(body, part).vertices[:, rows].numpy()
        out += [to_camera(one, view) for one, view in zip(vertices, part.viewmats)]
    return np.stack(out).astype(np.float32)


def face_seen(body: Body, track: BodyTrack) -> np.ndarray:
    """(T,) bool: the head looks at the camera, within 45 degrees as seen from above (the rule of the fit, on the head's own axis)."""
    head, seen = JOINT_INDEX["head"], []
    for first in range(0, len(track), _CHUNK):
        part = track.frames(slice(first, first + _CHUNK))
        made = posed(body, part)
        place = np.stack([to_camera(one[None], view)[0] for one, view in zip(made.joints[:, head].numpy(), part.viewmats)])[:, [0, 2]]
        ahead = np.einsum("tij,tj->ti", part.viewmats[:, :3, :3], made.transforms[:, head, :3, 2].numpy())[:, [0, 2]]
        length = np.linalg.norm(ahead, axis=1) * np.linalg.norm(place, axis=1)
        seen.append((ahead * place).sum(1) < _FACING * np.maximum(length, 1e-9))
    return np.concatenate(seen)
