"""Clothes: regions of the second skin bounded by smooth lines, draped, measured for patterns and hemmed.

All lines are zero sets of scalar fields in metres over the zero pose, positive inside the garment, so that the smallest field is about the
distance to the nearest edge.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from svad_ray.evaluate.synthetic.character import Mesh
from svad_ray.evaluate.synthetic.fabrics import Material, Shoe
from svad_ray.evaluate.synthetic.mannequin import Mannequin
from svad_ray.evaluate.synthetic.people import Bottom, Top
from svad_ray.evaluate.synthetic.surfaces import Surface, clip, drape, flow_coordinate, fold_hem, smoother, split
from svad_ray.geometry.mesh import normals_np

HEM_DEPTH = 0.012  # metres that a hem turns inwards
FRONT, BACK, SLEEVE_FRONT, SLEEVE_BACK = range(4)


def top_fields(body: Mannequin, top: Top, points: np.ndarray) -> dict[str, np.ndarray]:
    """The edges of a top: (N,) metres each, positive inside.

    Args:
        points: (N, 3) zero pose.
    """
    shoulder, wrist, neck = (body.joint(n) for n in ("left_shoulder", "left_wrist", "neck"))
    x, y, z = points.T
    reach = shoulder[0] + (wrist[0] - shoulder[0]) * top.sleeve if top.sleeve > 0 else shoulder[0] - 0.015 * body.unit
    centre = neck + np.array([0, 0.012, 0.018]) * body.unit
    fields = {"hem": y - top.hem * body.unit, "cuff": reach - np.abs(x), "neck": np.linalg.norm(points - centre, axis=1) - top.neckline * body.unit}
    if top.open_front:
        gap = top.open_front * np.clip((centre[1] - y) / (centre[1] - top.hem), 0.15, 1.0)
        fields["opening"] = np.maximum(np.abs(x) - gap, 0.6 * (0.02 - z))
    return fields


def bottom_fields(body: Mannequin, bottom: Bottom, points: np.ndarray) -> dict[str, np.ndarray]:
    """The edges of trousers or a skirt, as :func:`top_fields`."""
    hip, ankle = body.joint("left_hip"), body.joint("left_ankle")
    end = hip[1] + (ankle[1] + 0.005 - hip[1]) * bottom.length
    fields = {"waist": bottom.waist * body.unit - points[:, 1], "hem": points[:, 1] - end}
    if bottom.kind == "trousers":
        fields["arm"] = 0.75 * (body.joint("left_elbow")[0] + body.joint("left_shoulder")[0]) - np.abs(points[:, 0])
    return fields


def build_top(body: Mannequin, top: Top, name: str, *, over: list[Mesh]) -> list[Mesh]:
    """A shirt, blouse or jacket, with its collar, outside of the pieces ``over``."""
    shape = _cut(body.tights, top_fields(body, top, body.tights.vertices))
    armhole = body.joint("left_shoulder")[0] - 0.012 * body.unit
    x, _, z = shape.vertices.T
    shape.attributes["armhole"] = np.abs(x) - armhole - 0.25 * (shape.vertices[:, 1] - body.joint("left_shoulder")[1])
    shape.attributes["seam"] = z - body.joint("left_shoulder")[2]
    shape = _paneled(shape)
    sag = 0.010 * np.exp(-(((shape.vertices[:, 1] - top.hem) / 0.12) ** 2))
    placed = drape(shape, shape.attributes["normal"], top.ease + sag + _wrinkles(shape, 0.0022), strength=60, least=0.6 * top.ease)
    placed = push_outside(placed, over, margin=0.006)
    mesh = _finish(shape.moved(placed), name, top.cloth, _top_flow)
    return [mesh, _collar(body, top, f"{name} collar")] if top.collar else [mesh]


def build_bottom(body: Mannequin, bottom: Bottom, *, over: list[Mesh]) -> list[Mesh]:
    """Trousers out of the second skin, or a skirt out of the base mesh's skirt, outside of the pieces ``over``."""
    source = body.tights if bottom.kind == "trousers" else body.surface("helper-skirt", refine=2)
    shape = _cut(source, bottom_fields(body, bottom, source.vertices))
    shape.attributes["armhole"] = -np.ones(len(shape.vertices))
    shape.attributes["seam"] = shape.vertices[:, 2] - body.joint("left_hip")[2]
    shape = _paneled(shape)
    ease = _leg_ease(body, bottom, shape.vertices) if bottom.kind == "trousers" else np.full(len(shape.vertices), 0.012)
    placed = drape(shape, shape.attributes["normal"], ease + _wrinkles(shape, 0.0022), strength=40, least=0.006)
    placed = push_outside(placed, over, margin=0.006)
    return [_finish(shape.moved(placed), "bottom", bottom.cloth, _bottom_flow)]


def _leg_ease(body: Mannequin, bottom: Bottom, points: np.ndarray) -> np.ndarray:
    """(N,) metres: straight legs stand off the calf and hang close at the hip."""
    hip, ankle = body.joint("left_hip"), body.joint("left_ankle")
    mirrored = np.abs(points[:, :1]) * [1, 0, 0] + points * [0, 1, 1]
    down = np.clip((hip[1] - mirrored[:, 1]) / (hip[1] - ankle[1]), 0, 1)
    axis = hip + down[:, None] * (ankle - hip)
    radius = np.linalg.norm((mirrored - axis)[:, [0, 2]], axis=1)
    wish = (0.085 + (bottom.width - 0.085) * down / max(bottom.length, 0.3)) * body.unit
    return np.clip(np.where(down > 0.2, wish - radius, 0), 0.007, 0.05)


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


def push_outside(points: np.ndarray, inner: list[Mesh], *, margin: float) -> np.ndarray:
    """Move points (N, 3) out until they stand ``margin`` metres off the nearest place of the ``inner`` pieces."""
    for mesh in inner:
        normals = normals_np(mesh.vertices, mesh.faces)
        distance, index = cKDTree(mesh.vertices).query(points)
        lift = ((points - mesh.vertices[index]) * normals[index]).sum(1)
        short = np.where(distance < 0.05, np.clip(margin - lift, 0, 0.05), 0)
        points = points + normals[index] * short[:, None]
    return points


def _top_flow(centre: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Directions of u and v at face centres (F, 3): up the body, out along the sleeves."""
    sleeve = label >= SLEEVE_FRONT
    v = np.where(sleeve[:, None], np.sign(centre[:, :1]) * [1.0, 0, 0], [0, 1.0, 0])
    u = np.where(sleeve[:, None], [0, 1.0, 0], [1.0, 0, 0])
    return u, v


def _bottom_flow(centre: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.tile([1.0, 0, 0], (len(centre), 1)), np.tile([0, 1.0, 0], (len(centre), 1))


def _finish(shape: Surface, name: str, cloth: Material, flow) -> Mesh:
    """Turn the hems in and give every panel its cloth coordinates."""
    shape = fold_hem(shape, normals_np(shape.vertices, shape.faces).astype(np.float64), HEM_DEPTH)
    label = shape.labels
    centre = shape.attributes["rest"][shape.faces].mean(1)
    u, v = flow(centre, label)
    across, coords, corner = _piecewise(shape, v, label // 2), [], np.zeros_like(shape.faces)
    for panel in np.unique(label):
        here = np.flatnonzero(label == panel)
        used, inverse = np.unique(shape.faces[here], return_inverse=True)
        local = inverse.reshape(-1, 3)
        along = flow_coordinate(shape.vertices[used], local, u[here])
        along -= along[np.abs(shape.attributes["rest"][used, 0 if panel < SLEEVE_FRONT else 1]).argmin()]
        corner[here] = local + sum(map(len, coords))
        extra = [shape.attributes["edge"][used, None], shape.attributes["rest"][used]]
        coords.append(np.concatenate([along[:, None], across[panel // 2][used, None], *extra], axis=1))
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


def _collar(body: Mannequin, top: Top, name: str) -> Mesh:
    """A turned-down collar: a band up the neck that folds over and falls on the shoulders, open at the throat."""
    columns, rows = 73, 9
    centre = body.joint("neck") + np.array([0, 0, 0.006]) * body.unit
    gap = 0.24 if not top.open_front else 0.55
    angle = np.linspace(gap, 2 * np.pi - gap, columns)  # from the throat round the person's left
    front = np.cos(angle)
    size, ease = body.unit, top.ease
    profile = np.array([[0.000, -0.006], [0.000, 0.010], [0.001, 0.022], [0.006, 0.028], [0.013, 0.026], [0.020, 0.016], [0.026, 0.004], [0.032, -0.008], [0.037, -0.018]])
    neck = _neck_radius(body, centre, angle) + ease * 0.6
    points, across = np.zeros((rows, columns, 3)), np.zeros((rows, columns))
    for k, (out, up) in enumerate(profile * size):
        fall = up - (0.030 * size + 0.25 * (k > 4) * 0.02) * np.clip(front, -0.3, 1) - (0.012 * size * np.clip(front, 0, 1) * (k - 4) / 4 if k > 4 else 0)
        radius = neck + out * (1 + 0.5 * np.clip(-front, 0, 1))
        points[k] = centre + np.stack([radius * np.sin(angle), fall, radius * front], axis=1)
        across[k] = neck * (angle - np.pi)
    grid = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = (g.ravel() for g in (grid[:-1, :-1], grid[:-1, 1:], grid[1:, :-1], grid[1:, 1:]))
    faces = np.concatenate([np.stack([a, b, c], 1), np.stack([b, d, c], 1)])
    flat = points.reshape(-1, 3)
    v = np.repeat(np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(profile, axis=0), axis=1))]), columns)
    edge = np.repeat(np.linspace(0.06, 0, rows), columns)
    coords = np.concatenate([across.reshape(-1, 1), v[:, None], edge[:, None], flat * [1, 1, 0]], axis=1)
    return Mesh(name, flat, faces, body.weights_near(flat), coords.astype(np.float32), faces, top.cloth)


def _neck_radius(body: Mannequin, centre: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """(A,) metres from ``centre`` to the second skin round the neck, in each direction (angle from +z towards +x)."""
    p = body.tights.vertices - centre
    band = p[np.abs(p[:, 1] - 0.012) < 0.018]
    at = np.arctan2(band[:, 0], band[:, 2])
    near = np.exp(-((np.angle(np.exp(1j * (angle[:, None] - at[None])))) ** 2) / (2 * 0.2**2))
    return (near * np.hypot(band[:, 0], band[:, 2])).sum(1) / near.sum(1)


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
    inside_top = np.min(list(top_fields(body, top, points).values()), axis=0) > 0.018
    shoes = points[:, 1] < body.joint("left_ankle")[1] - 0.012
    if bottom.kind == "skirt":
        return inside_top | shoes
    return inside_top | shoes | (np.min(list(bottom_fields(body, bottom, points).values()), axis=0) > 0.018)
