"""Hair: a shell that grows out of the scalp behind a smooth hairline, and a curtain that falls from it over the back."""

from __future__ import annotations

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import gaussian_filter

from svad_ray.body.names import JOINT_NAMES
from svad_ray.evaluate.synthetic.character import Mesh
from svad_ray.evaluate.synthetic.fabrics import Hair
from svad_ray.evaluate.synthetic.garments import grid_faces
from svad_ray.evaluate.synthetic.mannequin import Mannequin
from svad_ray.evaluate.synthetic.people import Person
from svad_ray.evaluate.synthetic.surfaces import Surface, clip, smoother
from svad_ray.geometry.mesh import normals_np

_THICKNESS = {"buzz": 0.004, "short": 0.015, "bob": 0.017, "long": 0.014}  # metres
# The hairline: degrees from the front against height above the eyes, metres; sideburn at 75, behind the ear at 105, nape at 180.
_LINE = PchipInterpolator([0, 25, 48, 62, 74, 86, 100, 118, 140, 180], [0.068, 0.066, 0.052, 0.024, -0.006, 0.012, 0.004, -0.026, -0.052, -0.058])


def build_hair(body: Mannequin, person: Person, over: np.ndarray) -> list[Mesh]:
    """The hair of a person; long hair stays outside of the clothes' points ``over`` (N, 3)."""
    style = person.hair
    if style.kind == "none":
        return []
    material = Hair(style.color, person.seed)
    shell = _shell(body, _THICKNESS[style.kind] * style.volume, person.seed, material)
    if style.kind in ("buzz", "short"):
        return [shell]
    return [shell, _curtain(body, shell, over, long=style.kind == "long", material=material)]


def _middle(body: Mannequin) -> np.ndarray:
    """(3,) the head's axis at the height of the eyes."""
    eyes = (body.joint("left_eye") + body.joint("right_eye")) / 2
    head = body.vertices[np.unique(body.data.triangles("body")[0])]
    skull = head[head[:, 1] > eyes[1] + 0.03 * body.unit]
    return np.array([0, eyes[1], (skull[:, 2].min() + skull[:, 2].max()) / 2])


def _azimuth(points: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """Degrees from the front, in [0, 180]."""
    return np.degrees(np.abs(np.arctan2(points[:, 0], points[:, 2] - middle[2])))


def _ears(body: Mannequin, vertices: np.ndarray, uv_of: np.ndarray) -> np.ndarray:
    """(V,) in [0, 1], the base mesh's ears."""
    image = np.asarray(body.data.region_image("ears"), np.float32)
    row = np.clip(((1 - uv_of[:, 1]) * image.shape[0]).astype(int), 0, image.shape[0] - 1)
    col = np.clip((uv_of[:, 0] * image.shape[1]).astype(int), 0, image.shape[1] - 1)
    return image[row, col]


def _scalp(body: Mannequin) -> Surface:
    """The head of the base mesh without ears, refined."""
    faces, corners = body.data.triangles("body")
    uv = np.zeros((len(body.vertices), 2))
    uv[faces.ravel()] = body.data.uv[corners.ravel()]
    ears = _ears(body, body.vertices, uv)
    low = body.joint("neck")[1] + 0.01
    head = (body.vertices[faces, 1] > low).all(1) & (np.abs(body.vertices[faces, 0]) < 0.12).all(1) & ~(ears[faces] > 0.4).any(1)
    return Surface.of(body.vertices, faces[head], lbs_weights=body.data.lbs_weights).refined(1)


def _shell(body: Mannequin, thickness: float, seed: int, material: Hair) -> Mesh:
    """The scalp pushed out; it starts at the skin along the hairline."""
    middle, unit = _middle(body), body.unit
    scalp = _scalp(body)
    scalp.attributes["line"] = _above_line(scalp.vertices, middle, unit, seed)
    shape = clip(scalp, scalp.attributes["line"])
    normals = normals_np(shape.vertices, shape.faces).astype(np.float64)
    inside = shape.attributes["line"]
    rise = thickness * np.sqrt(np.clip(inside / (2.2 * thickness), 0, 1))
    lift = 0.5 * thickness * np.clip((shape.vertices[:, 1] - middle[1] - 0.05 * unit) / 0.05, 0, 1)
    tuft = 0.10 * thickness * _tufts(shape.vertices, middle, seed)
    height = np.maximum(rise + (lift + tuft) * np.clip(inside / 0.02, 0, 1), -0.003 + 0.2 * inside)
    placed = shape.vertices + normals * height[:, None]
    away = np.clip(inside / 0.006, 0, 1)[:, None]  # the hairline itself stays where it was cut
    placed = smoother(shape.faces, len(placed), 1.5)(placed) * away + placed * (1 - away)
    coords = np.concatenate([_strands(placed, middle), np.zeros((len(placed), 1)), placed], axis=1)
    return Mesh("hair", placed, shape.faces, shape.attributes["lbs_weights"], coords.astype(np.float32), shape.faces, material)


def _above_line(points: np.ndarray, middle: np.ndarray, unit: float, seed: int) -> np.ndarray:
    """(V,) metres above the hairline, with a little raggedness."""
    azimuth = _azimuth(points, middle)
    ragged = 0.0012 * np.sin(np.radians(azimuth) * 41 + seed) + 0.0008 * np.sin(np.radians(azimuth) * 97 + 2 * seed)
    return points[:, 1] - middle[1] - _LINE(azimuth) * unit + ragged


def _tufts(points: np.ndarray, middle: np.ndarray, seed: int) -> np.ndarray:
    """(V,) a lock-like relief in [-1, 1]."""
    angle = np.arctan2(points[:, 0], points[:, 2] - middle[2])
    return np.sin(angle * 17 + 40 * (points[:, 1] - middle[1]) + seed) * 0.6 + np.sin(angle * 31 - 25 * points[:, 1]) * 0.4


def _strands(points: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """(V, 2) metres across the strands (round the crown, the same on both sides) and along them (down from the crown)."""
    crown = middle + np.array([0, 0.06, -0.02])
    q = points - crown
    polar = np.arccos(np.clip(q[:, 1] / (np.linalg.norm(q, axis=1) + 1e-9), -1, 1))
    return np.stack([np.arctan2(np.abs(q[:, 0]), q[:, 2]) * 0.09, polar * 0.1], axis=1)


def _curtain(body: Mannequin, shell: Mesh, over: np.ndarray, *, long: bool, material: Hair) -> Mesh:
    """Hair that falls from the shell round the sides and back of the head."""
    middle, unit = _middle(body), body.unit
    columns, rows, open_angle = 121, 61, 66
    angle = np.radians(np.linspace(open_angle, 360 - open_angle, columns))
    azimuth = np.degrees(np.arccos(np.cos(angle)))
    top = middle[1] + 0.030 * unit
    bottom = _curtain_end(body, azimuth, long)
    t = np.linspace(0, 1, rows)[:, None]
    y = top + (bottom - top) * t
    radius = np.maximum(_shell_radius(shell, middle, angle, y) + 0.003, 0)
    x, z = radius * np.sin(angle), middle[2] + radius * np.cos(angle)
    x, z = _clear(x, y, z, over, body)
    points = np.stack([x, y, z], axis=-1)
    relief = 0.0022 * np.sin(angle * 29) * np.clip(t * 3, 0, 1)
    points[..., 0] += relief * np.sin(angle)
    points[..., 2] += relief * np.cos(angle)
    flat = points.reshape(-1, 3)
    faces = grid_faces(rows, columns)
    strands = _strands(flat, middle)
    strands[:, 1] = np.broadcast_to(strands[:columns, 1], (rows, columns)).ravel() + (top - y).ravel()
    coords = np.concatenate([strands, np.zeros((len(flat), 1)), flat], axis=1)
    return Mesh("hair curtain", flat, faces, _fall_weights(body, flat), coords.astype(np.float32), faces, material)


def _curtain_end(body: Mannequin, azimuth: np.ndarray, long: bool) -> np.ndarray:
    """(A,) height of the lower edge: above the shoulders at the sides, over the back when long."""
    chin = body.joint("head")[1] - 0.055 * body.unit
    if not long:
        return chin - 0.012 * body.unit * np.clip((azimuth - 90) / 90, 0, 1)
    shoulder = body.joint("left_shoulder")[1] + 0.085 * body.unit
    back = body.joint("left_shoulder")[1] - 0.13 * body.unit
    share = np.clip((azimuth - 100) / 40, 0, 1)
    return shoulder + (back - shoulder) * share * share * (3 - 2 * share)


def _shell_radius(shell: Mesh, middle: np.ndarray, angle: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(R, A) metres: how far the hair stands from the head's axis: it leaves the shell from under its surface and hangs, drawn in a little."""
    p = shell.vertices - middle
    at, out = np.arctan2(p[:, 0], p[:, 2]), np.hypot(p[:, 0], p[:, 2])
    start = y[0].max() - middle[1]
    turn = np.abs(np.angle(np.exp(1j * (angle[:, None] - at[None])))) < 0.12
    first = np.array([out[row & (np.abs(p[:, 1] - start) < 0.012)].max() for row in turn])
    widest = np.array([out[row & (p[:, 1] > -0.01)].max() for row in turn])
    first, widest = gaussian_filter(first, 3, mode="nearest") - 0.006, gaussian_filter(widest, 3, mode="nearest") + 0.001
    drop = np.clip(y[0].max() - y, 0, None)
    blend = np.clip(drop / 0.07, 0, 1)
    blend = blend * blend * (3 - 2 * blend)
    return (first + (widest - first) * blend) * (1 - 0.12 * np.clip((drop - 0.10) / 0.12, 0, 1))


def _clear(x: np.ndarray, y: np.ndarray, z: np.ndarray, over: np.ndarray, body: Mannequin) -> tuple[np.ndarray, np.ndarray]:
    """Push the curtain back until it lies behind neck, back and clothes (their rearmost point at the same x and y), smoothly."""
    points = np.concatenate([body.tights.vertices, over])
    points = points[(np.abs(points[:, 0]) < 0.2) & (points[:, 2] < body.joint("neck")[2])]
    cell = 0.012
    rear = np.full((40, 120), 9.0)
    i = np.clip(((points[:, 0] + 0.24) / cell).astype(int), 0, 39)
    j = np.clip(((points[:, 1] + 0.4) / cell).astype(int), 0, 119)
    np.minimum.at(rear, (i, j), points[:, 2])
    limit = rear[np.clip(((x + 0.24) / cell).astype(int), 0, 39), np.clip(((y + 0.4) / cell).astype(int), 0, 119)] - 0.010
    behind = z < body.joint("neck")[2] + 0.01
    depth = gaussian_filter(np.where(behind & (limit < z), z - limit, 0), (3, 3), mode="nearest") * 1.15
    return x, np.where(behind, np.minimum(z, np.minimum(z - depth, np.where(limit < 5, np.minimum(z, limit + 0.004), z))), z)


def _fall_weights(body: Mannequin, points: np.ndarray) -> np.ndarray:
    """(N, 55): the head above, the upper back below."""
    head, neck = body.joint("head")[1], body.joint("left_shoulder")[1]
    share = np.clip((points[:, 1] - neck) / (head - neck), 0, 1)
    weights = np.zeros((len(points), len(JOINT_NAMES)))
    weights[:, JOINT_NAMES.index("head")] = share
    weights[:, JOINT_NAMES.index("spine3")] = 1 - share
    return weights
