"""Skin, face and eyes: painted into the base mesh's UV space through its region pictures and by distance in space."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.ndimage import gaussian_filter, zoom

from svad_ray.evaluate.synthetic.character import Mesh
from svad_ray.evaluate.synthetic.fabrics import Color
from svad_ray.evaluate.synthetic.mannequin import Mannequin
from svad_ray.evaluate.synthetic.people import Person
from svad_ray.geometry.raster import interpolate, rasterize_mesh, sample_bilinear

TEXTURE = 2048  # pixels along each side of the skin's texture

# Region picture, tint of the skin, strength.
_TINTS: tuple[tuple[str, Color, float], ...] = (
    ("face", (1.05, 0.95, 0.93), 0.5),
    ("ears", (1.04, 0.90, 0.87), 0.4),
    ("eyelids", (0.86, 0.74, 0.71), 0.6),
    ("fingernails", (1.12, 1.04, 1.02), 0.6),
    ("lips", (0.92, 0.62, 0.61), 0.75),
)


@dataclass(frozen=True, eq=False)
class Painted:
    """A texture looked up by UV; v points up."""

    texture: np.ndarray

    def __call__(self, coords: np.ndarray) -> np.ndarray:
        size = np.array(self.texture.shape[1::-1], np.float32)
        return sample_bilinear(self.texture, np.stack([coords[:, 0], 1 - coords[:, 1]], axis=1) * size)


def build_skin(body: Mannequin, person: Person, hidden: np.ndarray) -> Mesh:
    """The naked body without the faces whose three corners are ``hidden`` (19158,) bool."""
    faces, corners = body.data.triangles("body")
    texture = _paint(body, person, faces, corners)
    shown = ~hidden[faces].all(1)
    used, inverse = np.unique(faces[shown], return_inverse=True)
    uv = body.data.uv.astype(np.float32)
    return Mesh("body", body.vertices[used], inverse.reshape(-1, 3), body.data.lbs_weights[used], uv, corners[shown], Painted(texture))


def position_map(vertices: np.ndarray, faces: np.ndarray, uv: np.ndarray, corners: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The texels that faces cover: (size, size) bool, and what point of the surface each shows, (M, 3) metres in row order."""
    flat = np.concatenate([uv * [1, -1] + [0, 1], np.ones((len(uv), 1))], axis=1)
    buffers = rasterize_mesh(flat, corners, np.diag([size, size, 1.0]), size, size)
    corner_points = np.zeros((len(uv), 3), np.float32)
    corner_points[corners.ravel()] = vertices[faces.ravel()]
    return buffers.mask, interpolate(buffers, corners, corner_points)


def _noise(rng: np.random.Generator, size: int, width: float) -> np.ndarray:
    """(size, size) smooth noise of unit deviation."""
    coarse = max(1, int(width // 2))
    small = gaussian_filter(rng.standard_normal((size // coarse,) * 2), width / coarse, mode="wrap")
    return zoom(small / small.std(), size / len(small), order=1)[:size, :size].astype(np.float32)


def _paint(body: Mannequin, person: Person, faces: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """(TEXTURE, TEXTURE, 3) float32 skin with lips, lids, cheeks, nails, brows and lashes; skin between the islands, so seams show none."""
    rng = np.random.default_rng(person.seed)
    skin = np.asarray(person.skin, np.float32)
    tone = 1 + 0.012 * _noise(rng, TEXTURE, 3) + 0.018 * _noise(rng, TEXTURE, 36)
    texture = skin * tone[..., None]
    for region, tint, strength in _TINTS:
        _lay(texture, slice(None), _region(body, region) * strength, skin * np.asarray(tint, np.float32))
    front = (body.vertices[faces, 2] > body.joint("head")[2]).all(1) & (body.vertices[faces, 1] > body.joint("head")[1] - 0.05).all(1)
    texels, points = position_map(body.vertices, faces[front], body.data.uv, corners[front], TEXTURE)
    _lay(texture, texels, _cheeks(body, points), skin * np.array([1.0, 0.80, 0.78], np.float32))
    _lay(texture, texels, _brows(body, points), np.asarray(person.hair.color, np.float32) * 0.9)
    _lay(texture, texels, _lashes(body, points), skin * 0.22)
    return np.clip(texture, 0, 1)


def _lay(texture: np.ndarray, where: np.ndarray | slice, opacity: np.ndarray, color: np.ndarray) -> None:
    """Paint a colour over the texels ``where``, in place."""
    k = opacity[..., None].astype(np.float32)
    texture[where] = texture[where] * (1 - k) + k * color.astype(np.float32)


def _region(body: Mannequin, name: str) -> np.ndarray:
    """(TEXTURE, TEXTURE) float32 in [0, 1]."""
    image = np.asarray(body.data.region_image(name), np.float32)
    return image if image.shape[0] == TEXTURE else zoom(image, TEXTURE / image.shape[0], order=1)


def _mirrored(points: np.ndarray) -> np.ndarray:
    """Points folded onto the person's left, so that one curve paints both sides."""
    return np.concatenate([np.abs(points[..., :1]), points[..., 1:]], axis=-1)


def _polyline(points: np.ndarray, line: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance to a chain of segments, metres, and the place along it in [0, 1]."""
    best, place = np.full(points.shape[:-1], np.inf, np.float32), np.zeros(points.shape[:-1], np.float32)
    for k, (a, b) in enumerate(pairwise(line)):
        t = np.clip(((points - a) @ (b - a)) / ((b - a) @ (b - a)), 0, 1)
        d = np.linalg.norm(points - (a + t[..., None] * (b - a)), axis=-1)
        nearer = d < best
        best, place = np.where(nearer, d, best), np.where(nearer, (k + t) / (len(line) - 1), place)
    return best, place


def _brows(body: Mannequin, points: np.ndarray) -> np.ndarray:
    """Opacity of the eyebrows: an arc above the eye that thins outwards."""
    eye, unit = body.joint("left_eye"), body.unit
    # x and y from the eyeball's centre; z does not matter, the arc is projected onto the face
    arc = np.array([[-0.0165, 0.0175, 0], [-0.006, 0.0215, 0], [0.006, 0.0235, 0], [0.0165, 0.0195, 0], [0.0225, 0.0145, 0]]) * unit
    q = (_mirrored(points) - eye) * [1, 1, 0]
    face = points[..., 2] > eye[2] - 0.01
    distance, place = _polyline(q.astype(np.float32), arc.astype(np.float32))
    half = (0.0042 - 0.0024 * place**2) * unit
    return (np.clip((half - distance) / 0.0016 + 0.5, 0, 1) * 0.82 * face).astype(np.float32)


def _lashes(body: Mannequin, points: np.ndarray) -> np.ndarray:
    """Opacity of a dark line along the rims of the lids: skin that touches the eyeball."""
    eye = body.joint("left_eye")
    ball = body.vertices[np.unique(body.data.triangles("helper-l-eye")[0])]
    radius = np.linalg.norm(ball - ball.mean(0), axis=1).max()
    q = _mirrored(points) - eye
    gap = np.abs(np.linalg.norm(q, axis=-1) - radius)
    upper = np.clip(q[..., 1] / 0.004 + 0.6, 0.15, 1)
    return (np.clip((0.0022 - gap) / 0.0015, 0, 1) * upper * 0.75 * (q[..., 2] > 0)).astype(np.float32)


def _cheeks(body: Mannequin, points: np.ndarray) -> np.ndarray:
    """Opacity of the blush."""
    centre = body.joint("left_eye") + np.array([0.010, -0.034, 0.010]) * body.unit
    q = (_mirrored(points) - centre) / np.array([0.022, 0.016, 0.03])
    return (0.35 * np.exp(-(q**2).sum(-1))).astype(np.float32)


def build_eyes(body: Mannequin, person: Person) -> list[Mesh]:
    """Two eyeballs that look where the base mesh's eye targets lie."""
    out = []
    for side, letter in (("left", "l"), ("right", "r")):
        faces, _ = body.data.triangles(f"helper-{letter}-eye")
        used, inverse = np.unique(faces, return_inverse=True)
        vertices = body.vertices[used]
        centre = (vertices.min(0) + vertices.max(0)) / 2
        rays = (vertices - centre) @ _to_gaze(_gaze(body, letter, centre)).T
        coords = np.concatenate([rays, np.zeros((len(rays), 3))], axis=1).astype(np.float32)
        local = inverse.reshape(-1, 3)
        out.append(
            Mesh(
                f"{side} eye",
                vertices,
                local,
                body.data.lbs_weights[used],
                coords,
                local,
                Eyeball(person.iris),
            )
        )
    return out


def _gaze(body: Mannequin, letter: str, centre: np.ndarray) -> np.ndarray:
    """(3,) unit: straight ahead, at the height of the opening between the lids."""
    aim = body.vertices[body.data.group_vertices(f"joint-{letter}-eye-target")].mean(0) - centre
    aim[0] *= 0.3
    return aim / np.linalg.norm(aim)


def _to_gaze(forward: np.ndarray) -> np.ndarray:
    """(3, 3) rotation that carries ``forward`` to +z and keeps y up."""
    x = np.cross([0.0, 1.0, 0.0], forward)
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(forward, x), forward])


@dataclass(frozen=True)
class Eyeball:
    """Sclera, iris with a dark rim, pupil and a catchlight, by the angle to the gaze."""

    iris: Color

    def __call__(self, coords: np.ndarray) -> np.ndarray:
        ray = coords[:, :3] / (np.linalg.norm(coords[:, :3], axis=1, keepdims=True) + 1e-9)
        angle = np.degrees(np.arccos(np.clip(ray[:, 2], -1, 1)))
        sclera = np.array([0.90, 0.88, 0.86], np.float32) * (1 - 0.25 * np.clip((ray[:, 1:2] - 0.12) * 3, 0, 1))
        fibre = 1 + 0.15 * np.sin(np.arctan2(ray[:, 1], ray[:, 0]) * 23)[:, None]
        iris = np.asarray(self.iris, np.float32) * fibre * (1.15 - 0.5 * (angle[:, None] / 24) ** 4)
        out = sclera + (iris - sclera) * np.clip((25.0 - angle) / 3, 0, 1)[:, None]
        out *= 1 - 0.96 * np.clip((11.0 - angle) / 2, 0, 1)[:, None]
        spot = np.hypot(ray[:, 0] - 0.16, ray[:, 1] - 0.20)
        return np.clip(out + 0.95 * np.clip((0.10 - spot) / 0.04, 0, 1)[:, None], 0, 1).astype(np.float32)
