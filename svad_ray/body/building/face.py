"""The 68 iBUG points on the open body's face, found by what is seen from the front: eye openings, lips, nose, brows, outline.

Source: ours; the points' meaning is iBUG's 300-W mark-up. Everything is measured on the template with a nearly orthographic z-buffer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from svad_ray.body.building.parts import Parts
from svad_ray.body.names import CONTOUR_LANDMARKS, JOINT_INDEX
from svad_ray.geometry.mesh import normals_np
from svad_ray.geometry.raster import rasterize_mesh

_PIXEL = 0.00025  # metres a pixel of the front view
_HALF = 0.14  # metres, half of the view
_AWAY = 40.0  # metres to the camera: perspective below 0.3 %
_BINS, _YAW = 79, 39
_SECTOR = np.deg2rad(3.0)  # an outline is traced by the farthest point of each such sector
_JAW_SLOPE = 0.35  # rise of the jaw's lower edge towards the ear; what lies below belongs to throat and neck
_DOWNWARD = -0.6  # y of normals that belong to the floor of the mouth
_BROW_UNITS = ("browInnerUp", "browOuterUpLeft", "browOuterUpRight")


@dataclass(frozen=True)
class FacePoints:
    """Barycentric points: faces (n,) and bary (n, 3) of landmarks 17-67; (79, 17) and (79, 17, 3) of the contour."""

    faces: np.ndarray
    bary: np.ndarray
    contour_faces: np.ndarray
    contour_bary: np.ndarray


class FrontView:
    """The face seen from the front: what each pixel shows. Columns run to the person's left (+x), rows downwards (-y)."""

    def __init__(self, vertices: np.ndarray, faces: np.ndarray, centre: np.ndarray) -> None:
        size, self.faces, self.vertices = int(2 * _HALF / _PIXEL), faces, vertices
        K = np.array([[_AWAY / _PIXEL, 0, size / 2], [0, _AWAY / _PIXEL, size / 2], [0, 0, 1]])
        camera = (vertices - centre) * [1, -1, -1] + [0, 0, _AWAY]
        self.buffers = rasterize_mesh(camera.astype(np.float32), faces, K, size, size, threads=1)
        corners = faces[self.buffers.face_id.clip(0)]
        self.points = np.einsum("hwk,hwkc->hwc", self.buffers.bary, vertices[corners])
        self.points[~self.buffers.mask] = np.nan
        self._corners = corners

    def shows(self, values: np.ndarray) -> np.ndarray:
        """(H, W) per-vertex values (V,) at each pixel, 0 where nothing is."""
        return np.where(self.buffers.mask, np.einsum("hwk,hwk->hw", self.buffers.bary, values[self._corners]), 0)

    def locate(self, xy: np.ndarray, allowed: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Face number and barycentric coordinates of the pixels nearest to (n, 2) x and y metres, among ``allowed`` (H, W) pixels."""
        rows, cols = np.nonzero(self.buffers.mask if allowed is None else allowed & self.buffers.mask)
        seen = self.points[rows, cols, :2]
        best = [((seen - p) ** 2).sum(1).argmin() for p in xy]
        return self.buffers.face_id[rows[best], cols[best]].astype(np.int64), self.buffers.bary[rows[best], cols[best]].astype(np.float64)


def find_face_points(parts: Parts, template: np.ndarray, joints: np.ndarray, units: dict[str, np.ndarray]) -> FacePoints:
    """All 68 points of a mirror-symmetric template.

    Args:
        parts: The kept mesh.
        template: (V, 3) metres, zero pose.
        joints: (55, 3) metres.
        units: Face units by name, (V, 3) metres.
    """
    eyes = (joints[JOINT_INDEX["left_eye"]] + joints[JOINT_INDEX["right_eye"]]) / 2
    view = FrontView(template, parts.faces, eyes - [0, 0.03, 0])
    regions = parts.regions()
    lids = _eye_points(view, regions["eyes"])
    nose, mouth_top = _nose_points(view, eyes, lids)
    groups = [_brow_points(view, units, lids), nose, np.concatenate([_mirrored(lids, _EYE_SWAP), lids])]
    skin = view.shows(regions["eyes"].astype(float)) < 0.5  # lid points lie on the lid, so that they blink with it
    faces, bary = view.locate(np.concatenate(groups), skin)
    lip_faces, lip_bary = _lip_points(view, regions["lips"] & ~regions["inner_mouth"], parts.lbs_weights[:, JOINT_INDEX["jaw"]], mouth_top)
    contour = _contour(parts, template, joints, regions)
    return FacePoints(np.concatenate([faces, lip_faces]), np.concatenate([bary, lip_bary]), *contour)


_EYE_SWAP = [3, 2, 1, 0, 5, 4]  # 42..47 (inner corner first) seen in the mirror as 36..41 (outer corner first)


def _mirrored(points: np.ndarray, order: list[int]) -> np.ndarray:
    return (points * [-1, 1])[order]


def _eye_points(view: FrontView, eyes: np.ndarray) -> np.ndarray:
    """(6, 2) points 42-47 of the left eye: inner corner, two on the upper lid, outer corner, two on the lower lid."""
    ball = (view.shows(eyes.astype(float)) > 0.5) & (view.points[..., 0] > 0)
    xy = view.points[ball][:, :2]
    inner, outer = xy[xy[:, 0].argmin()], xy[xy[:, 0].argmax()]
    out = [inner, *(_edge(xy, inner, outer, t, top=True) for t in (1 / 3, 2 / 3)), outer]
    return np.array([*out, *(_edge(xy, inner, outer, t, top=False) for t in (2 / 3, 1 / 3))])


def _edge(xy: np.ndarray, start: np.ndarray, end: np.ndarray, t: float, *, top: bool) -> np.ndarray:
    """(2,) the upper or lower end of an area's column at a share ``t`` of the way from ``start`` to ``end``."""
    x = start[0] + t * (end[0] - start[0])
    column = xy[np.abs(xy[:, 0] - x) < 1.5 * _PIXEL]
    return np.array([x, column[:, 1].max() if top else column[:, 1].min()])


def _nose_points(view: FrontView, eyes: np.ndarray, lids: np.ndarray) -> tuple[np.ndarray, float]:
    """(9, 2) points 27-35, and the height of the nose's base."""
    profile = view.points[np.arange(view.points.shape[0]), view.points.shape[1] // 2]
    profile = profile[np.isfinite(profile[:, 0])]
    near = profile[(profile[:, 1] < eyes[1]) & (profile[:, 1] > eyes[1] - 0.07)]
    tip = near[near[:, 2].argmax()]
    above = profile[(profile[:, 1] > tip[1] + 0.02) & (profile[:, 1] < eyes[1] + 0.02)]
    root = above[above[:, 2].argmin()]
    below = profile[(profile[:, 1] < tip[1]) & (profile[:, 1] > tip[1] - 0.03)]
    base = below[_corner(below[:, 1:])]
    bridge = [[0, root[1] + t * (tip[1] - root[1])] for t in (0, 1 / 3, 2 / 3, 1)]
    wing = _wing(view, tip[1] - 0.002, lids)
    row = [[s * wing, base[1] + rise] for s, rise in ((-0.8, 0.002), (-0.42, 0.0005), (0, 0), (0.42, 0.0005), (0.8, 0.002))]
    return np.array(bridge + row), float(base[1])


def _corner(curve: np.ndarray) -> int:
    """Index of the point of an open curve (n, 2) that lies farthest behind its chord: the inner corner between nose and lip."""
    y, z = curve.T
    chord = z[0] + (z[-1] - z[0]) * (y - y[0]) / (y[-1] - y[0])
    return int((z - chord).argmin())


def _wing(view: FrontView, y: float, lids: np.ndarray) -> float:
    """Half width of the nose at a height: where the surface falls back most steeply towards the cheek."""
    rows = view.points[..., 1]
    row = np.nanargmin(np.abs(rows[:, rows.shape[1] // 2] - y))
    x, _, z = view.points[row].T
    side = np.isfinite(x) & (x > 0.011) & (x < lids[1][0])
    slope = np.gradient(z[side], x[side])
    return float(x[side][slope.argmin()])


def _brow_points(view: FrontView, units: dict[str, np.ndarray], lids: np.ndarray) -> np.ndarray:
    """(10, 2) points 17-26: heights where the brow units lift the skin most, from just inside the inner to just outside the outer corner."""
    lift = sum(view.shows(np.maximum(units[name][:, 1], 0)) / np.abs(units[name]).max() for name in _BROW_UNITS)
    inner, outer, upper = lids[0], lids[3], max(lids[1][1], lids[2][1])
    xs = np.linspace(inner[0] - 0.006, outer[0] + 0.008, 5)
    heights = [_lifted_height(view, np.asarray(lift), x, upper) for x in xs]
    smooth = np.polyval(np.polyfit(xs, heights, 2), xs)
    left = np.stack([xs, smooth], 1)
    return np.concatenate([_mirrored(left, [4, 3, 2, 1, 0]), left])


def _lifted_height(view: FrontView, lift: np.ndarray, x: float, lid: float) -> float:
    """Mean height, weighted by lift, of the strip above the eye at ``x``."""
    strip = (np.abs(view.points[..., 0] - x) < 0.001) & (view.points[..., 1] > lid + 0.006) & (view.points[..., 1] < lid + 0.032)
    weight = lift[strip] ** 4  # the peak counts
    return float((view.points[strip][:, 1] * weight).sum() / max(weight.sum(), 1e-12)) if weight.sum() > 0 else lid + 0.015


def _lip_points(view: FrontView, lips: np.ndarray, jaw: np.ndarray, nose_base: float) -> tuple[np.ndarray, np.ndarray]:
    """Points 48-67 on the lips; those of the inner ring lie on the lip that they belong to, so that they part with the jaw."""
    area = (view.shows(lips.astype(float)) > 0.5) & (view.points[..., 1] < nose_base)
    lower = area & (view.shows(jaw) > 0.5)
    upper = area & ~lower
    xy = view.points[area][:, :2]
    right, left = xy[xy[:, 0].argmin()], xy[xy[:, 0].argmax()]
    top, bottom = view.points[upper][:, :2], view.points[lower][:, :2]
    shares = {k: 0.5 + (k - 3) * 0.155 for k in range(1, 6)}  # evenly from corner to corner, as the mark-up has them
    outer_top = [_edge(top, right, left, shares[k], top=True) for k in range(1, 6)]
    outer_bottom = [_edge(bottom, right, left, shares[k], top=False) for k in range(5, 0, -1)]
    inner = (0.3, 0.5, 0.7)
    inner_top = [_edge(top, right, left, t, top=False) for t in inner]
    inner_bottom = [_edge(bottom, right, left, t, top=True) for t in reversed(inner)]
    ends = [(right * 0.9 + left * 0.1), (left * 0.9 + right * 0.1)]
    seam = [np.array([e[0], _edge(top, right, left, t, top=False)[1]]) for e, t in zip(ends, (0.1, 0.9))]
    on_top = view.locate(np.array([*outer_top, *inner_top]), upper)
    on_bottom = view.locate(np.array([*outer_bottom, *inner_bottom]), lower)
    sides = view.locate(np.array([right, left, *seam]), area)
    return tuple(_lip_order(s, t, b) for s, t, b in zip(sides, on_top, on_bottom))  # type: ignore[return-value]


def _lip_order(sides: np.ndarray, top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """48, 49-53, 54, 55-59, 60, 61-63, 64, 65-67."""
    rows = [sides[:1], top[:5], sides[1:2], bottom[:5], sides[2:3], top[5:], sides[3:4], bottom[5:]]
    return np.concatenate(rows)


def _contour(parts: Parts, template: np.ndarray, joints: np.ndarray, regions: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(79, 17) faces and (79, 17, 3) coordinates of the outline from ear to chin to ear, for every degree of yaw."""
    mask = _outline_part(parts, template, joints, regions)
    numbers = np.flatnonzero(mask[parts.faces].all(1))
    bary = _grid(7)
    spots = np.einsum("gk,fkc->fgc", bary, template[parts.faces[numbers]]).reshape(-1, 3)
    eyes = (joints[JOINT_INDEX["left_eye"]] + joints[JOINT_INDEX["right_eye"]]) / 2
    chin = _chin(parts, template)
    faces, coordinates = np.empty((_BINS, CONTOUR_LANDMARKS), np.int64), np.empty((_BINS, CONTOUR_LANDMARKS, 3))
    for row in range(_BINS):
        degrees = -row if row <= _YAW else row - _YAW
        best = _outline(spots - eyes, chin - eyes, np.deg2rad(degrees))
        faces[row], coordinates[row] = numbers[best // len(bary)], bary[best % len(bary)]
    return faces, coordinates


def _outline_part(parts: Parts, template: np.ndarray, joints: np.ndarray, regions: dict[str, np.ndarray]) -> np.ndarray:
    """(V,) bool: cheeks, jaw and chin, without neck, ears and nose."""
    head = parts.lbs_weights[:, [JOINT_INDEX["head"], JOINT_INDEX["jaw"]]].sum(1) > 0.5
    ears = template[regions["ears"]]
    front = template[:, 2] > np.quantile(ears[:, 2], 0.9)
    eyes = joints[JOINT_INDEX["left_eye"]]
    nose = (np.abs(template[:, 0]) < 0.025) & (template[:, 1] > eyes[1] - 0.06)
    chin = _chin(parts, template)
    below = template[:, 1] < chin[1] - 0.001 + _JAW_SLOPE * np.maximum(chin[2] - template[:, 2] - 0.01, 0)
    throat = below | (normals_np(template, parts.faces)[:, 1] < _DOWNWARD) & (template[:, 2] < chin[2] - 0.01)
    hidden = regions["ears"] | regions["inner_mouth"] | regions["eyes"]
    return head & front & ~hidden & ~nose & ~throat & (template[:, 1] < eyes[1] + 0.01)


def _chin(parts: Parts, template: np.ndarray) -> np.ndarray:
    """(3,) the chin's lowest front point: extreme along forwards-down on the middle line of the jaw."""
    jaw = (parts.lbs_weights[:, JOINT_INDEX["jaw"]] > 0.3) & (np.abs(template[:, 0]) < 0.004) & parts.in_groups("body")
    points = template[jaw]
    return points[(0.5 * points[:, 2] - points[:, 1]).argmax()]


def _grid(n: int) -> np.ndarray:
    """((n + 1)(n + 2) / 2, 3) barycentric coordinates evenly over a triangle."""
    return np.array([[i, j, n - i - j] for i in range(n + 1) for j in range(n + 1 - i)]) / n


def _outline(spots: np.ndarray, chin: np.ndarray, yaw: float) -> np.ndarray:
    """(17,) numbers of the spots on the outline seen when the head is turned left by ``yaw``, evenly spaced on either side of the chin."""
    turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    flat, chin2 = (spots @ turn.T)[:, :2], (turn @ chin)[:2]
    angle, radius = np.arctan2(flat[:, 0], -flat[:, 1]), np.linalg.norm(flat, axis=1)  # 0 downwards, +90 degrees to the person's left
    low, rim = np.arctan2(chin2[0], -chin2[1]), _rim(angle, radius)
    at, tip = angle[rim], ((spots - chin) ** 2).sum(1).argmin()
    right = np.append(rim[(at >= -np.pi / 2) & (at < low - _SECTOR / 2)], tip)
    left = np.append(rim[(at > low + _SECTOR / 2) & (at <= np.pi / 2)][::-1], tip)
    return np.concatenate([_evenly(flat, right), _evenly(flat, left)[7::-1]])


def _rim(angle: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Numbers of the farthest spot of each narrow sector, by rising angle."""
    sector = np.floor(angle / _SECTOR)
    order = np.lexsort((radius, sector))
    return order[np.flatnonzero(np.diff(sector[order], append=np.inf))]


def _evenly(flat: np.ndarray, path: np.ndarray) -> np.ndarray:
    """(9,) numbers of a path's points at even distances along it, ends included."""
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(flat[path], axis=0), axis=1))])
    return path[np.abs(length[:, None] - np.linspace(0, length[-1], 9)).argmin(0)]
