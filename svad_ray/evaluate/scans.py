"""Textured scans (OBJ, MTL, one picture) and their views by our own rasteriser: THuman's layout.

::

    DIR/0000/0000.obj  DIR/0000/material0.jpeg (named by 0000/*.mtl)      [DIR or SMPLX]/0000/smplx_param.pkl (optional: where the pelvis is)
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from svad_ray.body.pickled import read_pickle
from svad_ray.conventions import to_float, to_uint8
from svad_ray.errors import InputError
from svad_ray.evaluate.synthetic.render import FOCAL_PER_HEIGHT, View, intrinsics, turntable
from svad_ray.geometry.raster import interpolate, project, rasterize_mesh, sample_bilinear, to_camera

HEIGHT = 1.8  # metres that a scan is scaled to, as THuman's scans have units of their own
_LAYOUT = "one folder a scan: NAME/NAME.obj with texture coordinates, and the picture that its .mtl names (THuman 2.0: 0000/0000.obj, material0.jpeg)"


@dataclass(frozen=True)
class Scan:
    """A textured mesh that stands upright, y up, facing +z.

    Attributes:
        name: Of its folder. vertices: (V, 3) metres, the middle of its box at x = z = 0, soles at y = 0. faces: (F, 3).
        uv: (U, 2) in [0, 1], origin at the lower left. uv_faces: (F, 3) rows of ``uv``.
        texture: (H, W, 3) float32. pelvis: (3,) metres; the box's middle where no fit says it.
    """

    name: str
    vertices: np.ndarray
    faces: np.ndarray
    uv: np.ndarray
    uv_faces: np.ndarray
    texture: np.ndarray
    pelvis: np.ndarray


def scan_names(root: Path) -> list[str]:
    """The scans below ``root``, sorted.

    Raises:
        InputError: No folder, or none with a scan in it.
    """
    if not root.is_dir():
        raise InputError(f"there is no folder {root}", expected=_LAYOUT)
    names = sorted(path.parent.name for path in root.glob("*/*.obj") if path.stem == path.parent.name)
    if not names:
        raise InputError(f"{root} holds no scan", expected=_LAYOUT)
    return names


def drawn_names(names: list[str], count: int, seed: int) -> list[str]:
    """``count`` of the scans, drawn by ``seed`` and sorted; all of them where there are fewer."""
    drawn = np.random.default_rng(seed).permutation(len(names))[:count]
    return sorted(names[i] for i in drawn)


def read_scan(root: Path, name: str, *, fits: Path | None = None) -> Scan:
    """One scan, scaled and placed.

    Args:
        fits: Folder of SMPL-X fits (``NAME/smplx_param.pkl``); of them only the place of the root is used.

    Raises:
        InputError: A file is missing or not of this layout; the message names it.
    """
    path = root / name / f"{name}.obj"
    vertices, faces, uv, uv_faces = read_obj(path)
    texture = _texture(path)
    low, high = vertices.min(0), vertices.max(0)
    scale = HEIGHT / max(high[1] - low[1], 1e-9)
    origin = np.array([(low[0] + high[0]) / 2, low[1], (low[2] + high[2]) / 2])
    fit = (fits or root) / name / "smplx_param.pkl"
    if fit.is_file():
        pelvis = _root_of(fit, vertices)
    elif fits is not None:
        raise InputError(f"there is no {fit}", expected="a fit of every scan in the folder given for them")
    else:
        pelvis = np.array([origin[0], low[1] + 0.53 * (high[1] - low[1]), origin[2]])
    return Scan(name, (vertices - origin) * scale, faces, uv, uv_faces, texture, (pelvis - origin) * scale)


def read_obj(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Vertices (V, 3), faces (F, 3), texture coordinates (U, 2) and their faces (F, 3) of a Wavefront file; polygons become fans."""
    points, coords, faces, corners = [], [], [], []
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", expected=_LAYOUT) from error
    for number, line in enumerate(lines, 1):
        kind, *words = line.split() or [""]
        try:
            if kind == "v":
                points.append([float(word) for word in words[:3]])
            elif kind == "vt":
                coords.append([float(word) for word in words[:2]])
            elif kind == "f":
                pairs = [word.split("/")[:2] for word in words]
                ends = [(_row(p[0], len(points)), _row(p[1], len(coords))) for p in pairs]
                for second, third in pairwise(ends[1:]):
                    faces.append((ends[0][0], second[0], third[0]))
                    corners.append((ends[0][1], second[1], third[1]))
        except (ValueError, IndexError) as error:
            raise InputError(
                f"line {number} of {path} is no part of a textured mesh: {line[:60]!r}", expected="v x y z, vt u v, f v/vt v/vt v/vt"
            ) from error
    if not faces:
        raise InputError(f"{path} has {len(points)} vertices and no face", expected=_LAYOUT)
    return np.array(points), np.array(faces), np.array(coords), np.array(corners)


def _row(word: str, count: int) -> int:
    number = int(word)
    row = number - 1 if number > 0 else count + number
    if not 0 <= row < count:
        raise IndexError(word)
    return row


def _texture(obj: Path) -> np.ndarray:
    """The picture that the material file names, else the only picture beside the mesh."""
    named = []
    for material in sorted(obj.parent.glob("*.mtl")):
        lines = material.read_text(encoding="utf-8", errors="replace").splitlines()
        named += [obj.parent / Path(line.split(maxsplit=1)[1].strip()).name for line in lines if line.strip().startswith("map_Kd ")]
    beside = [path for path in sorted(obj.parent.iterdir()) if path.suffix.lower() in (".jpeg", ".jpg", ".png")]
    found = next((path for path in named if path.is_file()), beside[0] if len(beside) == 1 else None)
    image = None if found is None else cv2.imread(str(found), cv2.IMREAD_COLOR)
    if image is None:
        raise InputError(f"the texture of {obj} is missing or no picture", expected=_LAYOUT)
    return to_float(np.ascontiguousarray(image[..., ::-1]))


def _root_of(fit: Path, vertices: np.ndarray) -> np.ndarray:
    """(3,) where a fit puts the pelvis, in the scan's units."""
    told = read_pickle(fit)
    place = next((told[name] for name in ("transl", "translation", "trans") if name in told), None)
    if place is None or np.size(place) != 3:
        raise InputError(f"{fit} has no translation", expected="transl or translation of 3 numbers, as THuman's SMPL-X fits")
    pelvis = np.asarray(place, np.float64).reshape(3)
    low, high = vertices.min(0), vertices.max(0)
    if not ((low - 0.5 * (high - low) <= pelvis) & (pelvis <= high + 0.5 * (high - low))).all():
        raise InputError(f"{fit} puts its root at {pelvis.round(2)}, outside of the scan", expected="a fit in the scan's own units")
    return pelvis


def render_scan(scan: Scan, yaw: float, *, size: int = 512, supersample: int = 2, background: float = 1.0) -> View:
    """The scan turned by ``yaw`` radians towards its own left, unlit (the texture has its light in it), before a level camera."""
    middle = HEIGHT / 2
    viewmat, K = turntable(yaw, middle), intrinsics(size, size, FOCAL_PER_HEIGHT * size)
    fine = K.copy()
    fine[:2] *= supersample
    camera = to_camera(scan.vertices, viewmat)
    buffers = rasterize_mesh(camera, scan.faces, fine, size * supersample, size * supersample)
    height, width = scan.texture.shape[:2]
    texels = scan.uv * [width, -height] + [0, height]
    color = np.zeros((*buffers.face_id.shape, 3), np.float32)
    color[buffers.mask] = sample_bilinear(scan.texture, interpolate(buffers, scan.uv_faces, texels.astype(np.float32)))
    blocks = (size, supersample, size, supersample)
    covered = buffers.mask.reshape(blocks).mean((1, 3), dtype=np.float32)
    image = color.reshape(*blocks, 3).mean((1, 3)) + (1 - covered[..., None]) * background
    joints = scan.pelvis[None]
    depth = buffers.depth.reshape(blocks).min((1, 3))
    return View(to_uint8(image), covered, depth, K, viewmat, joints, project(to_camera(joints, viewmat), K), yaw)
