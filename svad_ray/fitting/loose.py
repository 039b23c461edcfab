"""Loose clothes: a surface of their own for skirts, and skinning that does not tear cloth between the legs.

A skirt is recognised by its outline: the picture shows cloth where the fitted body shows a gap between the legs. Its surface is the convex
hull of both legs' cross-sections, height by height: the half of each leg that faces outwards stays, the half that faces the other leg is
stretched over the hull's front and back and meets the other leg's in the middle. Skinning by the nearest leg would tear that surface in a
stride (SVAD's failure case C.2); loose vertices follow a blend that depends smoothly on where they are, not on which leg they belong to.
Source: ours.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy.spatial import ConvexHull

from svad_ray.body.model import Body
from svad_ray.body.names import JOINT_INDEX
from svad_ray.geometry.raster import project, to_camera

J = JOINT_INDEX
Loose = Literal["off", "auto", "on"]
BAND = 0.02  # metres of height that share one cross-section
GAP_NAKED, GAP_CLOSED = 0.03, 0.012  # metres between the legs that count as a gap, and what cloth leaves of it
GAP_WIDE = 0.06  # metres in the picture that a skirt closes at its widest; less may be legs that cross
UNEVEN = 0.08  # metres between the heights of both legs in the picture from which one is bent, and nothing is said there
LEAST_SKIRT = 0.10  # metres of closed gap from which cloth counts as a skirt
STANDS_OFF = (0.02, 0.05)  # metres off the body from which cloth moves freely ("on"), none to wholly
OPEN = 0.5  # share of a skirt's heights that are open in front from which it is a coat
HANG = 0.5  # how far cloth below the hips falls straight instead of following the legs; rings of offsets add the rest
MIDDLE = 1.2  # of a leg's distance from the middle: how far out cloth follows that leg alone
FADE = 0.05  # metres over which loose skinning ends at the waist
BRIDGED = 0.7  # share of the pixels between the legs that the mask must cover at one height


def legs(body: Body) -> tuple[np.ndarray, np.ndarray]:
    """(V,) bool, vertices of the left and of the right leg, feet not included."""
    w = body.lbs_weights.numpy()
    return tuple(w[:, [J[f"{side}_hip"], J[f"{side}_knee"]]].sum(1) > 0.5 for side in ("left", "right"))  # type: ignore[return-value]


def leg_gap(body: Body, rest: np.ndarray, among: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Heights (B,), bottom up, and the gap between the legs there (B,), metres; NaN where a leg has no vertex.

    Args:
        rest: (V, 3) the surface in the zero pose. among: (V,) bool, the vertices that count; None = all.
    """
    left, right = legs(body) if among is None else [side & among for side in legs(body)]
    height = np.arange(rest[left | right, 1].min(), rest[left | right, 1].max(), BAND)
    gap = np.full(len(height), np.nan)
    for i, y in enumerate(height):
        here = (rest[:, 1] >= y - BAND / 2) & (rest[:, 1] < y + 1.5 * BAND)
        if (here & left).any() and (here & right).any():
            gap[i] = rest[here & left, 0].min() - rest[here & right, 0].max()
    return height + BAND / 2, gap


def skirt_hem(body: Body, rest: np.ndarray, posed: np.ndarray, viewmat: np.ndarray, K: np.ndarray, mask: np.ndarray) -> float | None:
    """Height of the skirt's hem on the rest surface, metres, or None where the photo shows no skirt.

    Args:
        rest, posed: (V, 3) the naked body in the zero pose and in the photo's pose.
        viewmat, K: The photo's camera. mask: (H, W) in [0, 1].
    """
    left, right = legs(body)
    camera = to_camera(posed, viewmat)
    uv = project(camera, K)
    height, gap = leg_gap(body, rest)
    crotch = crotch_height(body, rest) - 3 * BAND  # just below it the legs' inner sides are the pelvis's
    closed, judged, seen = np.zeros(len(height), bool), np.zeros(len(height), bool), np.zeros(len(height))
    for i, y in enumerate(height):
        if not (gap[i] > GAP_NAKED and y < crotch):
            continue
        here = np.abs(rest[:, 1] - y) < BAND
        pixels = K[0, 0] / float(np.median(camera[here & (left | right), 2]))  # a metre
        low, high = uv[here & right, 0].max(), uv[here & left, 0].min()
        rows = [float(np.median(uv[here & side, 1])) for side in (left, right)]
        row, seen[i] = int(np.mean(rows)), (high - low) / pixels
        if seen[i] < GAP_NAKED or abs(rows[0] - rows[1]) > UNEVEN * pixels or not 0 <= row < mask.shape[0]:
            continue
        between = mask[row, max(0, int(low) + 1) : int(high)]
        judged[i], closed[i] = len(between) > 0, len(between) > 0 and (between > 0.5).mean() > BRIDGED
    open_ = judged & ~closed
    hem = height[open_].max() if open_.any() else height[judged].min() if judged.any() else np.inf
    shut = judged & closed & (height > hem)
    return float(hem) if shut.sum() * BAND > LEAST_SKIRT and np.quantile(seen[shut], 0.9) > GAP_WIDE else None


def skirt_shell(body: Body, rest: np.ndarray, hem: float) -> np.ndarray:
    """(V, 3) metres: how the legs' vertices above ``hem`` move onto the convex hull of both legs.

    Args:
        rest: (V, 3) the naked body in the zero pose.
    """
    left, right = legs(body)
    out = np.zeros_like(rest)
    w = body.lbs_weights.numpy()
    lower = w[:, [J[n] for n in ("pelvis", "spine1", "left_hip", "right_hip", "left_knee", "right_knee")]].sum(1) > 0.9
    hip = (body.J_regressor.numpy()[J["left_hip"]] @ rest)[1]
    for y in np.arange(hem, crotch_height(body, rest), BAND):
        here = (rest[:, 1] >= y) & (rest[:, 1] < y + BAND) & (left | right)
        ring = (rest[:, 1] >= y - BAND) & (rest[:, 1] < y + 2 * BAND) & (left | right)
        if (ring & left).sum() < 4 or (ring & right).sum() < 4:
            continue
        hull = rest[ring][:, [0, 2]]
        hull = hull[ConvexHull(hull).vertices]
        hangs = rest[lower & (rest[:, 1] >= y) & (rest[:, 1] < hip + FADE), 2]
        for side, sign in ((left, 1.0), (right, -1.0)):
            numbers = np.flatnonzero(here & side)
            step = _onto_hull(rest[numbers], rest[ring & side], hull, sign)
            step[:, 2] += _hang(rest[numbers, 2] + step[:, 2], hull[:, 1], hangs)
            out[numbers] = step
    return out


def _hang(z: np.ndarray, own: np.ndarray, hangs: np.ndarray) -> np.ndarray:
    """(N,) steps in depth that stretch the range of ``own`` to that of ``hangs``: cloth falls straight from where the body above reaches farthest."""
    middle = (own.min() + own.max()) / 2
    front = (hangs.max() - middle) / (own.max() - middle)
    back = (middle - hangs.min()) / (middle - own.min())
    return HANG * (z - middle) * (np.where(z > middle, front, back) - 1)


def _onto_hull(points: np.ndarray, ring: np.ndarray, hull: np.ndarray, sign: float) -> np.ndarray:
    """(N, 3) steps of points (N, 3) of one leg's ``ring`` (R, 3) onto the convex outline ``hull`` (M, 2) of x and z, the leg at ``sign`` of x = 0."""
    x, z = points[:, 0] * sign, points[:, 2]
    cx, cz = (sign * (ring[:, 0].min() + ring[:, 0].max()) / 2, (ring[:, 2].min() + ring[:, 2].max()) / 2)
    inner = np.arctan2(cx - x, np.abs(z - cz) + 1e-9) / (np.pi / 2)  # 1 = faces the other leg, 0 = front or back, negative = outside
    front = z > cz
    share = np.clip(1.5 * inner, 0, 1)  # from the leg's middle to the middle of the skirt
    goal_x = np.where(inner > 0, cx * (1 - share), x)
    low, high = _span(hull, goal_x * sign)
    depth = np.where(front, high, low)
    meet = np.clip((inner - 2 / 3) * 3, 0, 1)  # what is left of the ring closes the tube in the middle, where nobody looks
    goal_z = (1 - meet) * depth + meet * (low + high) / 2
    step = np.zeros_like(points)
    move = np.clip(inner / 0.2, 0, 1)  # no crease where the ring starts to leave the leg
    step[:, 0] = np.where(inner > 0, move * (goal_x - x) * sign, 0)
    step[:, 2] = np.where(inner > 0, move * (goal_z - z), 0)
    return step


def _span(hull: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest z of a convex outline (M, 2) at each ``x``."""
    a, b = hull, np.roll(hull, -1, axis=0)
    low, high = np.full(len(x), np.inf), np.full(len(x), -np.inf)
    x = np.clip(x, hull[:, 0].min(), hull[:, 0].max())
    for p, q in zip(a, b):
        inside = (x >= min(p[0], q[0]) - 1e-9) & (x <= max(p[0], q[0]) + 1e-9)
        t = np.clip((x - p[0]) / (q[0] - p[0]), 0, 1) if abs(q[0] - p[0]) > 1e-9 else np.zeros(len(x))
        z = p[1] + t * (q[1] - p[1])
        low, high = np.where(inside, np.minimum(low, z), low), np.where(inside, np.maximum(high, z), high)
    return low, high


def crotch_height(body: Body, rest: np.ndarray) -> float:
    """Height where the legs part, metres: the lowest point of the skin between them."""
    w = body.lbs_weights.numpy()
    middle = (np.abs(rest[:, 0]) < 0.01) & (w[:, [J["pelvis"], J["left_hip"], J["right_hip"]]].sum(1) > 0.9)
    return float(rest[middle, 1].min()) if middle.any() else float(rest[J["pelvis"], 1])


def loose_share(body: Body, naked: np.ndarray, offset: np.ndarray, mode: Loose) -> np.ndarray:
    """(V,) in [0, 1]: how freely each vertex of the clothed rest surface moves.

    ``auto`` finds skirts and open coats: the offsets close a gap that the naked legs have, a coat's only behind. ``on`` adds whatever hangs off
    hips and thighs.

    Args:
        naked: (V, 3) the shaped zero pose. offset: (V, 3) metres, clothes.
    """
    share = np.zeros(len(naked))
    if mode == "off":
        return share
    left, right = legs(body)
    joints = (body.J_regressor.numpy() @ naked)[[J["left_hip"], J["left_knee"]]]
    hip = joints[0, 1]
    clothed = naked + offset
    height, gap = leg_gap(body, naked)
    rest_gap = np.interp(height, *_finite(leg_gap(body, clothed)))
    shut = (gap > GAP_NAKED) & (rest_gap < GAP_CLOSED)
    if shut.sum() * BAND > LEAST_SKIRT:
        hem = height[shut].min() - BAND / 2
        w = body.lbs_weights.numpy()
        below = w[:, [J[f"{s}_{n}"] for s in ("left", "right") for n in ("hip", "knee")] + [J["pelvis"]]].sum(1)
        under_waist = below * np.clip((hip + FADE - clothed[:, 1]) / FADE, 0, 1)
        share = np.maximum(share, under_waist * (clothed[:, 1] >= hem))
        before = naked[:, 2] > np.interp(-naked[:, 1], *_legs_depth(body, naked))
        front = np.interp(height, *_finite(leg_gap(body, clothed, before)))
        if (front > GAP_NAKED)[shut].mean() > OPEN:  # a coat: what shows between its panels is the legs' own
            aside = np.linalg.norm(offset[:, [0, 2]], axis=1)
            share = under_waist * (clothed[:, 1] >= hem - BAND) * np.where(before, _stands_off(aside), np.clip(aside / STANDS_OFF[0], 0, 1))
    if mode == "on":
        share = np.maximum(share, _stands_off(np.linalg.norm(offset, axis=1)) * (left | right) * np.clip((hip + FADE - clothed[:, 1]) / FADE, 0, 1))
    return share


def _stands_off(metres: np.ndarray) -> np.ndarray:
    """(V,) in [0, 1]: how freely cloth moves that is so far off the body."""
    return np.clip((metres - STANDS_OFF[0]) / (STANDS_OFF[1] - STANDS_OFF[0]), 0, 1)


def _legs_depth(body: Body, rest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Heights, downwards and negative, and depths of the legs' joints, metres."""
    joints = (body.J_regressor.numpy() @ rest)[[J[f"left_{name}"] for name in ("hip", "knee", "ankle")]]
    return -joints[:, 1], joints[:, 2]


def _finite(rows: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    keep = np.isfinite(rows[1])
    return rows[0][keep], rows[1][keep]


def loose_weights(body: Body, naked: np.ndarray, offset: np.ndarray, mode: Loose) -> np.ndarray:
    """(V, 55) skinning weights of the clothed rest surface: the body's own, and a smooth blend of pelvis and both legs where cloth is loose."""
    own = body.lbs_weights.numpy()
    share = loose_share(body, naked, offset, mode)[:, None]
    if not share.any():
        return own
    return ((1 - share) * own + share * _blend(body, naked, naked + offset)).astype(np.float32)


def _blend(body: Body, naked: np.ndarray, at: np.ndarray) -> np.ndarray:
    """(V, 55) weights that depend on the place ``at`` (V, 3) alone: left to right across the cloth, pelvis to legs downwards."""
    joints = body.J_regressor.numpy() @ naked
    hip, knee, ankle = (joints[J[f"left_{name}"]] for name in ("hip", "knee", "ankle"))
    down = np.clip((hip[1] - at[:, 1]) / (hip[1] - knee[1]), 0, 1)
    leg = down * (2 - down)
    below = np.clip((knee[1] - at[:, 1]) / 0.1 + 0.5, 0, 1)
    reach = np.interp(-at[:, 1], [-hip[1], -knee[1], -ankle[1]], [hip[0], knee[0], ankle[0]]) * MIDDLE
    t = np.clip(at[:, 0] / reach, -1, 1)
    left = 0.5 + 0.25 * t * (3 - t * t)
    out = np.zeros((len(at), len(joints)))
    out[:, J["pelvis"]] = 1 - leg
    for side, part in (("left", left), ("right", 1 - left)):
        out[:, J[f"{side}_hip"]] = leg * part * (1 - below)
        out[:, J[f"{side}_knee"]] = leg * part * below
    return out
