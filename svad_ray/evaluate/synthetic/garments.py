"""Clothes: regions of the second skin bounded by smooth lines, draped, measured for patterns and hemmed.

All lines are zero sets of scalar fields in metres over the zero pose, positive inside the garment, so that the smallest field is about the
distance to the nearest edge.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from scipy.spatial import cKDTree

from svad_ray.evaluate.synthetic.character import Mesh
from svad_ray.evaluate.synthetic.fabrics import Material, Shoe
from svad_ray.evaluate.synthetic.mannequin import Mannequin
from svad_ray.evaluate.synthetic.people import Bottom, Top
from svad_ray.evaluate.synthetic.surfaces import Surface, clip, drape, face_normals, flow_coordinate, fold_hem, smooth_border, smoother, split
from svad_ray.geometry.mesh import adjacency

HEM_DEPTH = 0.012  # metres that a hem turns inwards
SLEEVE_FRONT = 2  # panels: 0 front, 1 back, 2 and 3 the same of the sleeves


@dataclass(frozen=True)
class Layer:
    """What was put on: its meshes, and the (N, 3) points that the next layer must stay outside of (hems not among them)."""

    meshes: list[Mesh]
    points: np.ndarray


def top_fields(body: Mannequin, top: Top, points: np.ndarray) -> dict[str, np.ndarray]:
    """The edges of a top: (N,) metres each, positive inside.

    Args:
        points: (N, 3) zero pose.
    """
    shoulder, wrist = body.joint("left_shoulder"), body.joint("left_wrist")
    x, y, z = points.T
    reach = shoulder[0] + (wrist[0] - shoulder[0]) * top.sleeve if top.sleeve > 0 else shoulder[0] - 0.042 * body.unit
    centre, radius = _neck_opening(body, top)
    below = np.clip(shoulder[1] - 0.10 * body.unit - y, 0, None)  # under the armpit the trunk may be wider than the sleeve is long
    fields = {
        "hem": y - max(top.hem * body.unit, body.crotch + 0.022),
        "cuff": reach + below - np.abs(x),
        "neck": _outside_neck(points, centre, radius),
    }
    if top.open_front:
        gap = top.open_front * np.clip((centre[1] - y) / (centre[1] - top.hem), 0.15, 1.0)
        fields["opening"] = np.maximum(np.abs(x) - gap, 0.6 * (0.02 - z))
    return fields


def _neck_opening(body: Mannequin, top: Top) -> tuple[np.ndarray, float]:
    """Centre (3,) and radius of the ball that a neckline is cut with, metres."""
    return body.joint("neck") + np.array([0, 0.016, 0.024]) * body.unit, top.neckline * body.unit


def _outside_neck(points: np.ndarray, centre: np.ndarray, radius: float) -> np.ndarray:
    """(N,) metres outside the ball of the neck opening; what lies above it (neck and head) is not in the garment either."""
    q = points - centre
    q[:, 2] *= np.where(q[:, 2] < 0, 1.15, 1.0)  # necklines are cut lower at the front than at the back
    return np.minimum(np.linalg.norm(q, axis=1) - radius, centre[1] + 0.03 - points[:, 1])


def bottom_fields(body: Mannequin, bottom: Bottom, points: np.ndarray) -> dict[str, np.ndarray]:
    """The edges of trousers or a skirt, as :func:`top_fields`."""
    hip, ankle = body.joint("left_hip"), body.joint("left_ankle")
    end = hip[1] + (ankle[1] + 0.005 - hip[1]) * bottom.length
    fields = {"waist": bottom.waist * body.unit - points[:, 1], "hem": points[:, 1] - end}
    if bottom.kind == "trousers":
        fields["arm"] = 0.75 * (body.joint("left_elbow")[0] + body.joint("left_shoulder")[0]) - np.abs(points[:, 0])
    return fields


def build_top(body: Mannequin, top: Top, name: str, *, over: list[Layer]) -> Layer:
    """A shirt, blouse or jacket, with its collar, outside of the pieces ``over``."""
    shape = _cut(body.tights, top_fields(body, top, body.tights.vertices))
    armhole = body.joint("left_shoulder")[0] - 0.012 * body.unit
    x, _, z = shape.vertices.T
    shape.attributes["armhole"] = np.abs(x) - armhole - 0.25 * (body.joint("left_shoulder")[1] - shape.vertices[:, 1])
    shape.attributes["seam"] = z - body.joint("left_shoulder")[2]
    shape = _paneled(shape)
    sag = 0.010 * np.exp(-(((shape.vertices[:, 1] - top.hem) / 0.12) ** 2))
    ease = top.ease * (0.45 + 0.55 * np.clip(_outside_neck(shape.vertices, *_neck_opening(body, top)) / 0.05, 0, 1))
    placed = drape(shape, shape.attributes["normal"], ease + sag + _wrinkles(shape, 0.0022), strength=60, least=0.4 * top.ease)
    placed = push_outside(placed, shape, over, margin=0.007)
    mesh = _finish(shape.moved(placed), name, top.cloth)
    return Layer([mesh, build_collar(body, top, f"{name} collar")] if top.collar else [mesh], placed)


def build_bottom(body: Mannequin, bottom: Bottom, *, over: list[Layer], name: str = "bottom", gap: float = 0.0) -> Layer:
    """Trousers out of the second skin, or a skirt out of the base mesh's skirt, outside of the pieces ``over``.

    Args:
        gap: Half width of an opening down a skirt's front, metres; 0 = closed.
    """
    source = body.tights if bottom.kind == "trousers" else body.surface("helper-skirt", refine=2)
    fields = bottom_fields(body, bottom, source.vertices)
    if gap:
        x, _, z = source.vertices.T
        fields["opening"] = np.maximum(np.abs(x) - gap, 0.6 * (0.02 - z))
    shape = _cut(source, fields)
    shape.attributes["armhole"] = -np.ones(len(shape.vertices))
    shape.attributes["seam"] = shape.vertices[:, 2] - body.joint("left_hip")[2]
    shape = _paneled(shape)
    ease = _leg_ease(body, bottom, shape.vertices) if bottom.kind == "trousers" else np.full(len(shape.vertices), 0.012)
    placed = drape(shape, shape.attributes["normal"], ease + _wrinkles(shape, 0.0022), strength=40, least=0.006)
    placed = push_outside(placed, shape, over, margin=0.007)
    if bottom.flare or bottom.folds:
        placed = _flared(body, bottom, placed)
    return Layer([_finish(shape.moved(placed), name, bottom.cloth)], placed)


def _flared(body: Mannequin, bottom: Bottom, placed: np.ndarray) -> np.ndarray:
    """A skirt's points moved out from the vertical through the pelvis, the more the lower, in folds: no offset of the body's surface is like it."""
    hip, low = body.joint("left_hip")[1], placed[:, 1].min()
    share = np.clip((hip - placed[:, 1]) / max(hip - low, 1e-6), 0, 1) ** 1.3
    angle = np.arctan2(placed[:, 0], placed[:, 2] - body.joint("pelvis")[2])
    fold = np.cos(11 * angle + 1.5 * np.sin(3 * angle))
    out = share * (bottom.flare + bottom.folds * fold)
    return placed + np.stack([np.sin(angle) * out, np.zeros_like(out), np.cos(angle) * out], axis=1)


def _leg_ease(body: Mannequin, bottom: Bottom, points: np.ndarray) -> np.ndarray:
    """(N,) metres: straight legs stand off the calf and hang close at the hip."""
    hip, ankle = body.joint("left_hip"), body.joint("left_ankle")
    mirrored = np.abs(points[:, :1]) * [1, 0, 0] + points * [0, 1, 1]
    down = np.clip((hip[1] - mirrored[:, 1]) / (hip[1] - ankle[1]), 0, 1)
    axis = hip + down[:, None] * (ankle - hip)
    radius = np.linalg.norm((mirrored - axis)[:, [0, 2]], axis=1)
    wish = (0.085 + (bottom.width - 0.085) * down / max(bottom.length, 0.3)) * body.unit
    return np.clip(np.where(down > 0.2, wish - radius, 0), 0.007, 0.05)


def _hanging(shape: Surface, waist: float) -> np.ndarray:
    """(V, 3) unit normals that lie level below the waist, so that a hem hangs instead of following the body's underside."""
    normal = shape.attributes["normal"] * [1, 1, 1]
    normal[:, 1] *= np.clip((shape.vertices[:, 1] - waist + 0.10) / 0.10, 0, 1)
    return normal / (np.linalg.norm(normal, axis=1, keepdims=True) + 1e-9)


def _cut(source: Surface, fields: dict[str, np.ndarray]) -> Surface:
    """The region where all fields are positive; their smallest stays as the attribute ``edge``."""
    shape = Surface(source.vertices, source.faces, {**source.attributes, **fields}, source.labels)
    for name in fields:
        shape = clip(shape, shape.attributes[name])
    edge = np.min([shape.attributes.pop(name) for name in fields], axis=0)
    shape.attributes["edge"] = np.maximum(edge, 0)
    shape.attributes["rest"] = shape.vertices
    return shape


def _paneled(shape: Surface) -> Surface:
    """Label front, back and sleeves, cutting the faces along the seams."""
    for name, value in (("armhole", 2), ("seam", 1)):
        shape, side = split(shape, shape.attributes[name])
        shape.labels[side if name == "armhole" else ~side] += value
    return shape


def _wrinkles(shape: Surface, height: float) -> np.ndarray:
    """(V,) metres of folds, always the same for the same place."""
    x, y, z = shape.vertices.T
    return height * (np.sin(y * 60 + 6 * np.sin(x * 18) + 4 * np.sin(z * 25)) + 0.6 * np.sin(x * 45 + 5 * np.sin(y * 22) + z * 30))


def push_outside(placed: np.ndarray, shape: Surface, inner: list[Layer], *, margin: float) -> np.ndarray:
    """Move a garment out along its normals until it stands ``margin`` metres above the layers under it.

    The lift is widened over three rings of neighbours and then smoothed, so that an inner hem does not print through as a ridge.

    Args:
        placed: (V, 3) the garment's vertices so far.
        shape: Its faces and unit ``normal``.
    """
    normals = shape.attributes["normal"]
    around = adjacency(shape.faces, len(placed)) + sp.eye(len(placed), format="csr")
    for layer in inner:
        distance, index = cKDTree(layer.points).query(placed)
        lift = margin - ((placed - layer.points[index]) * normals).sum(1)
        lift = np.where(distance < 0.04, np.clip(lift, 0, 0.04), 0)
        for _ in range(3):
            lift = around.multiply(lift[None]).max(axis=1).toarray().ravel()
        placed = placed + normals * smoother(shape.faces, len(placed), 12.0)(lift)[:, None]
    return placed


def _up(centre: np.ndarray, label: np.ndarray) -> np.ndarray:
    """(F, 3) the direction of v at face centres: up the body, out along the sleeves."""
    return np.where(label[:, None] >= SLEEVE_FRONT, np.sign(centre[:, :1]) * [1.0, 0, 0], [0, 1.0, 0])


def _finish(shape: Surface, name: str, cloth: Material) -> Mesh:
    """Turn the hems in and give every panel its cloth coordinates."""
    shape = shape.moved(smooth_border(shape.vertices, shape.faces, rounds=12))
    shape = fold_hem(shape, shape.attributes["normal"], HEM_DEPTH)
    label = shape.labels
    v = _up(shape.attributes["rest"][shape.faces].mean(1), label)
    u = np.cross(v, face_normals(shape.vertices, shape.faces))
    up, corner = _piecewise(shape, v, label // 2), np.zeros_like(shape.faces)
    coords: list[np.ndarray] = []
    rows = 0
    for panel in np.unique(label):
        here = np.flatnonzero(label == panel)
        used, inverse = np.unique(shape.faces[here], return_inverse=True)
        local = inverse.reshape(-1, 3)
        across = flow_coordinate(shape.vertices[used], local, u[here])
        across -= across[np.abs(shape.attributes["rest"][used, 0 if panel < SLEEVE_FRONT else 1]).argmin()]
        corner[here] = local + rows
        rows += len(used)
        extra = [shape.attributes["edge"][used, None], shape.attributes["rest"][used]]
        coords.append(np.concatenate([across[:, None], up[panel // 2][used, None], *extra], axis=1))
    return Mesh(name, shape.vertices, shape.faces, shape.attributes["lbs_weights"], np.concatenate(coords).astype(np.float32), corner, cloth)


def _piecewise(shape: Surface, direction: np.ndarray, part: np.ndarray) -> dict[int, np.ndarray]:
    """The coordinate along ``direction`` (F, 3) on the vertices of each part (body, sleeves), NaN elsewhere; front and back share it."""
    out = {}
    for number in np.unique(part):
        here = np.flatnonzero(part == number)
        used, inverse = np.unique(shape.faces[here], return_inverse=True)
        out[int(number)] = np.full(len(shape.vertices), np.nan)
        out[int(number)][used] = flow_coordinate(shape.vertices[used], inverse.reshape(-1, 3), direction[here])
    return out


def build_collar(body: Mannequin, top: Top, name: str) -> Mesh:
    """A turned-down collar: a band up the neck, a fold, and a leaf that lies on the shirt; open at the throat."""
    columns, unit = 97, body.unit
    centre = body.joint("neck") + np.array([0, 0, 0.006]) * unit
    #        height above the neck joint, distance from the body, half opening at the throat (radians)
    rows = np.array(
        [
            (-0.022, 0.003, 0.14), (-0.006, 0.004, 0.14), (0.010, 0.005, 0.14), (0.022, 0.006, 0.15), (0.027, 0.008, 0.16),
            (0.026, 0.011, 0.18), (0.020, 0.013, 0.22), (0.010, 0.015, 0.28), (-0.002, 0.017, 0.36), (-0.013, 0.018, 0.44),
        ]
    )  # fmt: skip
    wide = 0.35 if top.open_front else 0.0
    points, across = [], []
    for height, off, gap in rows:
        angle = np.linspace(gap + wide, 2 * np.pi - gap - wide, columns)  # from the throat round the person's left
        front = np.cos(angle)
        drop = height - 0.006 - 0.034 * np.clip(front, -0.35, 1)
        radius = _radius(body, centre, angle, drop * unit) + (off + 0.5 * top.ease) * unit
        points.append(centre + np.stack([radius * np.sin(angle), drop * unit, radius * front], axis=1))
        across.append(0.07 * (angle - np.pi))
    flat = np.concatenate(points)
    coords = np.stack([np.concatenate(across), np.repeat(_arc(rows[:, :2]), columns), np.repeat(np.linspace(0.05, 0, len(rows)), columns)], axis=1)
    coords = np.concatenate([coords, flat * [1, 1, 0]], axis=1)
    faces = grid_faces(len(rows), columns)
    return Mesh(name, flat, faces, body.weights_near(flat), coords.astype(np.float32), faces, top.cloth)


def grid_faces(rows: int, columns: int) -> np.ndarray:
    """(2 (rows - 1) (columns - 1), 3) faces of a grid of vertices in row order."""
    grid = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = (g.ravel() for g in (grid[:-1, :-1], grid[:-1, 1:], grid[1:, :-1], grid[1:, 1:]))
    return np.concatenate([np.stack([a, b, c], 1), np.stack([b, d, c], 1)])


def _arc(profile: np.ndarray) -> np.ndarray:
    """(R,) length along a chain of points (R, 2)."""
    return np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(profile, axis=0), axis=1))])


def _radius(body: Mannequin, centre: np.ndarray, angle: np.ndarray, height: np.ndarray) -> np.ndarray:
    """(A,) metres from the vertical through ``centre`` to the second skin, at each direction (from +z towards +x) and height."""
    p = body.tights.vertices - centre
    p = p[(np.abs(p[:, 1]) < 0.08) & (np.hypot(p[:, 0], p[:, 2]) < 0.13)]
    turn = np.angle(np.exp(1j * (angle[:, None] - np.arctan2(p[:, 0], p[:, 2])[None])))
    near = np.exp(-(turn**2) / (2 * 0.15**2) - (height[:, None] - p[None, :, 1]) ** 2 / (2 * 0.006**2)) + 1e-12
    return (near * np.hypot(p[:, 0], p[:, 2])).sum(1) / near.sum(1)


def build_shoes(body: Mannequin, shoe: Shoe) -> list[Mesh]:
    """A pair of trainers: the second skin's feet, rounded, on a flat sole."""
    skin = body.tights
    ankle, ground = body.joint("left_ankle"), body.ground
    rise = 0.012 - 0.10 * np.clip(skin.vertices[:, 2] - ankle[2] - 0.045, -0.03, 0.03)
    shape = _cut(skin, {"collar": ankle[1] + rise - skin.vertices[:, 1]})
    height = shape.vertices[:, 1] - ground
    placed = drape(shape, shape.attributes["normal"], np.full(len(height), 0.009), strength=25, least=0.005)
    flare = np.exp(-((height / 0.022) ** 2)) * 0.005
    placed = placed + shape.attributes["normal"] * [1, 0, 1] * flare[:, None]
    low = height < 0.012
    placed[:, 1] = np.where(low, ground - 0.014, np.maximum(placed[:, 1], ground - 0.014))
    placed = np.where(low[:, None], placed, smoother(shape.faces, len(placed), 2.0)(placed))
    shape = fold_hem(shape.moved(placed), shape.attributes["normal"], 0.008)
    side = np.sign(shape.vertices[:, 0])
    toe = body.joint("left_foot")
    line = (toe[0] - ankle[0]) / (toe[2] - ankle[2])
    u = side * shape.vertices[:, 0] - ankle[0] - line * (shape.vertices[:, 2] - ankle[2])
    instep = (shape.vertices[:, 2] > ankle[2] + 0.035) & (shape.vertices[:, 2] < toe[2] - 0.015) & (shape.attributes["normal"][:, 1] > 0.3)
    coords = np.stack([u, shape.vertices[:, 1] - ground + 0.014, instep, *shape.vertices.T], axis=1)
    return [Mesh("shoes", shape.vertices, shape.faces, shape.attributes["lbs_weights"], coords.astype(np.float32), shape.faces, shoe)]


def covered(body: Mannequin, top: Top, bottom: Bottom, points: np.ndarray) -> np.ndarray:
    """(N,) bool: skin that lies at least 18 mm inside a garment's edges (on a skirt: never, legs show when it swings) or in a shoe."""
    inside_top = (np.min(list(top_fields(body, top, points).values()), axis=0) > 0.018) & (points[:, 1] < body.joint("neck")[1])
    shoes = points[:, 1] < body.joint("left_ankle")[1] - 0.012
    if bottom.kind == "skirt":
        return inside_top | shoes
    return inside_top | shoes | (np.min(list(bottom_fields(body, bottom, points).values()), axis=0) > 0.018)
