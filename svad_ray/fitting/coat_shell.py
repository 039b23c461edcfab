"""The lower half of an open coat as a surface of its own: one sheet behind both legs, panels in front, and between them the legs as they are.

The body's mesh knows no coat, so that each leg's vertices become its half of it: outwards they move to the coat's side, backwards to the sheet, which
crosses the other leg's in the middle and turns back to the leg, and in front only where the photo shows a panel. Source: ours.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import gaussian_filter1d

from svad_ray.body.model import Body
from svad_ray.body.names import JOINT_INDEX
from svad_ray.fitting.coat import OpenCoat
from svad_ray.fitting.loose import BAND, legs

J = JOINT_INDEX
FROM_HIP = 0.05  # metres above the hip joints from which cloth may fall
FLARE = 0.4  # of what the sides stand off: so much a coat stands off behind and in front (measured)
CALM = 1.5  # heights over which the coat's profile is smoothed
SQUARE = 0.8  # exponent of its outline between side and back: 1 = an ellipse, 0 = a rectangle
ACROSS, RETURNS = 0.5, 0.85  # of the angle from behind a leg to its inner side: there the sheet has reached the middle, and turns back
OVERLAP = 0.02  # metres past the middle, so that both legs' halves of the sheet cross
TURNED = 0.7  # of the way back to the leg from which it is the leg's
CLOSED = 0.04  # metres below the parting down to which it does not turn back wholly
PANEL_EDGE = 0.02  # metres across which a panel leaves the leg
AIR = 0.002  # metres from the middle within which a vertex is both halves'
LIP = 0.002  # metres between cloth and leg at the hem
HALF = 0.1  # metres from the middle from which a hem is the left's or the right's


@dataclass(frozen=True)
class CoatShell:
    """A coat's lower half on a body.

    Attributes:
        offset: (V, 3) metres, from the naked rest surface to the coat's.
        share: (V,) in [0, 1], how much of a vertex is coat; above the hips nothing is counted.
        back: (V,) bool, the sheet behind the legs. below: (V,) bool, what lies below the hem.
        known: (V,) in [0, 1], how much of its shape this is; the rest, upwards from the thighs, is for the outline to tell.
    """

    offset: np.ndarray
    share: np.ndarray
    back: np.ndarray
    known: np.ndarray
    below: np.ndarray


def coat_shell(body: Body, rest: np.ndarray, coat: OpenCoat) -> CoatShell:
    """How the legs' and hips' vertices above the hem move onto the coat.

    The coat falls from the hips' widest points, and stands off behind and in front as the outline tells of the sides. Behind it is one
    sheet: what of a leg faces the other and backwards is stretched over that, past the middle, and back to the leg's inner side. In front the
    panels are moved onto it, and what the opening shows of the legs stays. Vertices beside the hem move onto the hem.

    Args:
        rest: (V, 3) the naked body in the zero pose.
    """
    out, share, known, y = np.zeros_like(rest), np.zeros(len(rest)), np.zeros(len(rest)), rest[:, 1]
    behind = np.zeros(len(rest), bool)
    hip, parting, hips, both = _hip(body, rest), _parting(body, rest), _hips(body), np.logical_or(*legs(body))
    profiles = [_profile(body, rest, coat, number) for number in (0, 1)]
    back = (profiles[0].back + profiles[1].back) / 2  # one sheet
    for side, sign, own in zip(legs(body), (1.0, -1.0), profiles):
        here = np.flatnonzero(side & (y < parting) | hips & (y >= parting) & (y < hip + FROM_HIP) & (rest[:, 0] * sign >= 0))
        step, share[here], behind[here] = _onto_coat(rest[here], replace(own, back=back), sign, parted=parting - y[here])
        fade = np.clip((hip + FROM_HIP - y[here]) / (hip + FROM_HIP - parting), 0, 1)
        out[here], known[here] = fade[:, None] * step, fade * share[here]
    hem = hem_at(coat, rest[:, 0] + out[:, 0])
    below = y < hem
    out[below], share[below], known[below] = 0, 0, 0
    out[:, 1] = _onto_hem(body.faces, y, hem, both)
    return CoatShell(out, share, behind & ~below, known, below)


def _onto_hem(faces: np.ndarray, y: np.ndarray, hem: np.ndarray, legs_: np.ndarray) -> np.ndarray:
    """(V,) steps upwards of the legs' vertices beside the hem (V,), so that all edges across it are there."""
    above, out = y >= hem, np.zeros(len(y))
    for a, b in ((0, 1), (1, 2), (2, 0)):
        edge = faces[:, [a, b]]
        edge = edge[(above[edge[:, 0]] != above[edge[:, 1]]) & legs_[edge].all(1)].ravel()
        out[edge] = hem[edge] - np.where(above[edge], 0, LIP) - y[edge]
    return out


def hem_at(coat: OpenCoat, x: np.ndarray) -> np.ndarray:
    """(N,) the hem's height at ``x`` (N,) metres to the left of the middle."""
    left, right = coat.hems
    return (left + right) / 2 + (left - right) / 2 * np.clip(x / HALF, -1, 1)


@dataclass(frozen=True)
class _Profile:
    """One leg and the coat round it, all (B,) metres at ``heights``, top down; x counts outwards from the middle of the body.

    Attributes:
        x, z: Of the leg's middle. edge, rim: x of the opening's edge and of the coat's side. back, front: z of the coat.
    """

    heights: np.ndarray
    x: np.ndarray
    z: np.ndarray
    edge: np.ndarray
    rim: np.ndarray
    back: np.ndarray
    front: np.ndarray

    def at(self, y: np.ndarray) -> list[np.ndarray]:
        """The six at heights ``y`` (N,)."""
        return [np.interp(-y, -self.heights, line) for line in (self.x, self.z, self.edge, self.rim, self.back, self.front)]


def _profile(body: Body, rest: np.ndarray, coat: OpenCoat, number: int) -> _Profile:
    """Of leg 0 (left) or 1."""
    sign, hip = (1.0, -1.0)[number], _hip(body, rest)
    lower = (_hips(body) | np.logical_or(*legs(body))) & (rest[:, 1] < hip + FROM_HIP)
    side = lower & (rest[:, 0] * sign >= 0)
    rows: list[list[float]] = []
    over = np.arange(hip + FROM_HIP, coat.heights[0], -BAND)  # the photo tells of the coat from the crotch downwards
    edges, rims = (np.concatenate([np.full(len(over), line[0, number]), line[:, number]]) for line in (coat.edges, coat.rims))
    heights = np.concatenate([over, coat.heights])
    for y, edge, rim in zip(heights, edges, rims):
        ring = rest[side & (np.abs(rest[:, 1] - y) < 1.5 * BAND)]
        hangs = rest[lower & (rest[:, 1] >= y - BAND)]
        if len(ring) < 4:
            rows.append(rows[-1])
            continue
        flare = FLARE * (rim - (hangs[:, 0] * sign).max()) * np.clip((hip + FROM_HIP - y) / (hip + FROM_HIP - coat.heights[0]), 0, 1)
        x, z = ring[:, 0] * sign, ring[:, 2]
        back, front = min(hangs[:, 2].min() - flare, z.min()), max(hangs[:, 2].max() + flare, z.max())
        rows.append([(x.min() + x.max()) / 2, (z.min() + z.max()) / 2, edge, max(rim, x.max()), back, front])
    return _Profile(heights, *gaussian_filter1d(np.array(rows), CALM, axis=0, mode="nearest").T)


def _parting(body: Body, rest: np.ndarray) -> float:
    """Height of the lowest point that both halves of the body share."""
    return float(rest[(_hips(body) | np.logical_or(*legs(body))) & (np.abs(rest[:, 0]) < AIR), 1].min(initial=_hip(body, rest)))


def _hip(body: Body, rest: np.ndarray) -> float:
    """Height of the hip joints."""
    return float((body.J_regressor.numpy()[J["left_hip"]] @ rest)[1])


def _hips(body: Body) -> np.ndarray:
    """(V,) bool, pelvis and thighs."""
    return body.lbs_weights.numpy()[:, [J[n] for n in ("pelvis", "spine1", "left_hip", "right_hip")]].sum(1) > 0.9


def _onto_coat(points: np.ndarray, profile: _Profile, sign: float, *, parted: np.ndarray) -> tuple[np.ndarray, ...]:
    """(N, 3) steps of points (N, 3) at ``sign`` of x = 0 onto the coat, (N,) how much of each is coat, and (N,) bool, its back.

    Args:
        parted: (N,) metres below the point where the legs part; the hips above it close the middle themselves.
    """
    x, z = points[:, 0] * sign, points[:, 2]
    cx, cz, edge, rim, back, front = profile.at(points[:, 1])
    inner = np.arctan2(cx - x, np.abs(z - cz) + 1e-9) / (np.pi / 2)  # 1 = faces the other leg, 0 = front or back, -1 = faces outwards
    behind = z < cz
    out = np.clip(-inner, 0, 1) * np.pi / 2
    rim_x, rim_z = cx + (rim - cx) * np.sin(out) ** SQUARE, cz + (np.where(behind, back, front) - cz) * np.cos(out) ** SQUARE
    over = np.clip(inner / ACROSS, 0, 1)  # from the leg's middle past the middle of the sheet
    fold = np.clip((inner - RETURNS) / (1 - RETURNS), 0, 1) * np.clip(parted / CLOSED, 0, 1)  # and back to the leg
    sheet_x, sheet_z = np.where(parted > 0, cx * (1 - over) - OVERLAP * over, x), back
    sheet_x, sheet_z = sheet_x + fold * (x - sheet_x), sheet_z + fold * (z - sheet_z)
    panel = np.clip((x - edge) / PANEL_EDGE + 0.5, 0, 1)
    front_x, front_z = np.where(inner > 0, x, rim_x), np.where(inner > 0, front, rim_z)
    goal_x = np.where(behind, np.where(inner > 0, sheet_x, rim_x), x + panel * (front_x - x))
    goal_z = np.where(behind, np.where(inner > 0, sheet_z, rim_z), z + panel * (front_z - z))
    return np.stack([(goal_x - x) * sign, np.zeros_like(x), goal_z - z], 1), np.where(behind, fold < TURNED, panel), behind & (fold < TURNED)
