"""Open coats, told from the photo: where they end, how wide they are open, how far they stand off, and which pixels show them.

The lower half of an open coat is one piece of cloth behind and two panels in front. A photo from the front shows it in the colours: the outer
side of each leg is coloured as the sides of the chest, the inner side is not, and lower down, at the hem, the outer side stops being so. All
three are asked of both legs, so that trousers (one colour across), a shirt that ends at the hips (no chest's colour on the legs) and suits of one
colour (nothing in the opening differs) are no coats; a coat that is closed in front is a skirt to ``svad_ray.fitting.loose``. Source: ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from svad_ray.body.model import Body
from svad_ray.body.names import JOINT_INDEX
from svad_ray.fitting.hair import Colors
from svad_ray.fitting.loose import BAND, crotch_height, legs
from svad_ray.geometry.cut import best_cut
from svad_ray.geometry.raster import project, to_camera

J = JOINT_INDEX
TRUNK = ("pelvis", "spine1", "spine2", "spine3")
SIDE = 0.2  # of the trunk's width: its outer parts, which show the coat
ABOVE_WAIST = 0.14  # metres above the pelvis joint from which they are: lower down trousers and skirts begin
UNDER_SHOULDER = 0.12  # metres below the shoulder joints up to which the trunk's sides are read
ARM = 0.035  # metres round forearm and hand that may show them
UNLIKE = 3.5  # standard deviations from the coat's colour at which a pixel is none
APART, MIXED = 2.5, 0.04  # standard deviations between coat and legs, and share of the trunk's pixels like legs: more, and it is one cloth
CONFUSED = 0.1  # the same like the trunk's middle: more, and the coat is closed there
TEXELS = 60  # fewest pixels that a colour is told from
FARTHEST = 0.30  # metres from a leg's middle that a panel may reach
LEAST_PANEL, LEAST_INNER = 0.02, 0.015  # metres of coat, and of leg beside it, that one height must show
PURE = 0.85  # share of a leg's pixels that one edge between leg and coat must tell right
LEAST_LENGTH = 0.10  # metres below the crotch that a coat reaches
OFTEN = 0.75  # share of the heights down to the hem that must show both
UNEVEN = 0.10  # metres between the hems of both sides
BELOW, ENDED, GONE = 5, 2, 0.25  # heights under the hem of which some show less than this share of coat
FROM_GROUND = 0.06  # metres above the ankle joints down to which a hem is looked for
DRAWN_IN = 0.02  # metres that a coat may be narrower than higher up; less is a mask that lost a dark hem
MISSED = 2  # heights in a row that show no edge before the coat has ended


@dataclass(frozen=True)
class OpenCoat:
    """A coat that is open in front.

    Attributes:
        hems: (2,) heights where it ends on the left and the right, metres in the zero pose.
        heights: (B,) metres, top down. edges: (B, 2) metres from the middle to the opening's edge on the left and the right, both positive.
        rims: (B, 2) the same to the coat's outline.
        pixels: (H, W) bool, where the photo shows the coat.
        between: (H, W) bool, what lies between the panels down to the hem: the legs, and behind them the coat's back, which masks often leave out.
    """

    hems: np.ndarray
    heights: np.ndarray
    edges: np.ndarray
    rims: np.ndarray
    pixels: np.ndarray
    between: np.ndarray


def open_coat(
    body: Body, rest: np.ndarray, posed: np.ndarray, viewmat: np.ndarray, K: np.ndarray, image: np.ndarray, mask: np.ndarray
) -> OpenCoat | None:
    """The open coat that the photo shows, or None.

    Args:
        rest, posed: (V, 3) the naked body in the zero pose and in the photo's pose.
        viewmat, K: The photo's camera. image: (H, W, 3) float in [0, 1]. mask: (H, W) bool.
    """
    camera = to_camera(posed, viewmat)
    view = _View(body, rest, project(camera, K), float(K[0, 0] / np.median(camera[:, 2])), mask)
    trunk, inner = view.trunk_sides(image), view.inner_legs(image)
    if len(trunk) < TEXELS or len(inner) < TEXELS:
        return None
    coat, other = Colors(trunk), Colors(inner)
    apart = max(coat.distance(other.mean[None])[0], other.distance(coat.mean[None])[0])
    if apart < APART or (coat.distance(trunk) > other.distance(trunk)).mean() > MIXED:
        return None
    own = coat.distance(image)
    like = (own < UNLIKE) & (own < other.distance(image))
    shirt = view.trunk_middle(image)
    if len(shirt) >= TEXELS:
        under = Colors(shirt)
        if (coat.distance(trunk) > under.distance(trunk)).mean() < CONFUSED:
            like &= own < under.distance(image)
    heights = np.arange(view.crotch, view.ankle + FROM_GROUND, -BAND)
    sides = [[view.split(y, side, like) for y in heights] for side in (0, 1)]
    ends = [_end(side) for side in sides]
    if min(ends) * BAND < LEAST_LENGTH or abs(ends[0] - ends[1]) * BAND > UNEVEN:
        return None
    edges, rims = np.stack([_lines(side, end) for side, end in zip(sides, ends)], 2)
    return OpenCoat(view.crotch - BAND * (np.array(ends) - 0.5), heights, edges, rims, like & view.judged, _between(sides, ends, mask.shape))


@dataclass(frozen=True)
class Split:
    """One leg at one height.

    Attributes:
        edge, rim: Metres from the body's middle to where the coat begins, or None where it does not show, and to the person's outline.
        coat: Share of the leg's pixels that look like the coat.
        at: Pixel (column, row) of the edge.
    """

    edge: float | None
    rim: float
    coat: float
    at: tuple[int, int]


def _end(splits: list[Split | None]) -> int:
    """How many heights down from the crotch the coat ends; 0 where it does not show, not often enough, or does not end."""
    last, missed = -1, 0
    for i, split in enumerate(splits):
        if split is not None and split.edge is not None:
            last, missed = i, 0
        else:
            missed += 1
        if missed > MISSED:
            break
    shown = sum(split is not None and split.edge is not None for split in splits[: last + 1])
    under = [split for split in splits[last + 1 : last + 1 + BELOW] if split is not None and split.edge is None]
    ended = sum(split.coat < GONE for split in under)
    return last + 1 if last >= 0 and shown > OFTEN * (last + 1) and ended >= ENDED else 0


def _lines(splits: list[Split | None], end: int) -> np.ndarray:
    """(2, B) metres: the opening's edge and the outline at every height, running medians of what was seen."""
    seen = [(i, split.edge, split.rim) for i, split in enumerate(splits[:end]) if split is not None and split.edge is not None]
    at, *lines = np.array(seen).T
    calm = [[np.median(line[max(0, i - 2) : i + 3]) for i in range(len(line))] for line in lines]
    edge, rim = (np.interp(np.arange(len(splits)), at, line) for line in calm)
    return np.stack([edge, np.maximum(rim, np.maximum.accumulate(rim) - DRAWN_IN)])


def _between(sides: list[list[Split | None]], ends: list[int], shape: tuple[int, ...]) -> np.ndarray:
    """(H, W) bool: the area between the opening's edges."""
    left, right = ([split.at for split in side[:end] if split is not None and split.edge is not None] for side, end in zip(sides, ends))
    out = np.zeros(shape, np.uint8)
    cv2.fillPoly(out, [np.array(left + right[::-1], np.int32)], 1)
    return out > 0


class _View:
    """The fitted body in the photo, row by row."""

    def __init__(self, body: Body, rest: np.ndarray, uv: np.ndarray, pixels: float, mask: np.ndarray) -> None:
        """``uv`` (V, 2), ``pixels``: of a metre at the person."""
        self.rest, self.uv, self.pixels, self.mask = rest, uv, pixels, mask
        self.sides = legs(body)
        w, joints = body.lbs_weights.numpy(), body.J_regressor.numpy() @ rest
        self.trunk = w[:, [J[n] for n in TRUNK]].sum(1) > 0.7
        self.crotch = crotch_height(body, rest)
        self.ankle = float(joints[[J["left_ankle"], J["right_ankle"]], 1].mean())
        self.heights = np.arange(
            joints[J["pelvis"], 1] + ABOVE_WAIST, joints[[J["left_shoulder"], J["right_shoulder"]], 1].mean() - UNDER_SHOULDER, BAND
        )
        sure = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        hands = [i for n, i in J.items() if n.endswith(("elbow", "wrist")) or (n[-1].isdigit() and "spine" not in n)]
        self.arms = self._round(w[:, hands].sum(1) > 0.5, ARM)
        self.judged = sure & ~self.arms

    def _round(self, vertices: np.ndarray, metres: float) -> np.ndarray:
        """(H, W) bool: so near to the ``vertices`` (V,) bool in the picture."""
        height, width = self.mask.shape
        out = np.ones((height, width), np.uint8)
        at = np.round(self.uv[vertices] - 0.5).astype(int)
        at = at[(at >= 0).all(1) & (at[:, 0] < width) & (at[:, 1] < height)]
        out[at[:, 1], at[:, 0]] = 0
        return cv2.distanceTransform(out, cv2.DIST_L2, 5) < metres * self.pixels

    def _row(self, ring: np.ndarray) -> int | None:
        row = int(np.median(self.uv[ring, 1])) if len(ring) > 3 else -1
        return row if 0 <= row < len(self.mask) else None

    def trunk_sides(self, image: np.ndarray) -> np.ndarray:
        """(M, 3) colours of the trunk's outer parts."""
        return self._trunk(image, ((0.0, SIDE), (1 - SIDE, 1.0)))

    def trunk_middle(self, image: np.ndarray) -> np.ndarray:
        """(M, 3) colours where an open coat shows what is worn under it."""
        return self._trunk(image, ((0.5 - SIDE / 2, 0.5 + SIDE / 2),))

    def _trunk(self, image: np.ndarray, parts: tuple[tuple[float, float], ...]) -> np.ndarray:
        """(M, 3) colours of ``parts`` of the trunk's width."""
        out = [np.zeros((0, 3))]
        for y in self.heights:
            ring = np.flatnonzero(self.trunk & (np.abs(self.rest[:, 1] - y) < BAND))
            row = self._row(ring)
            if row is None:
                continue
            low, high = self.uv[ring, 0].min(), self.uv[ring, 0].max()
            for a, b in parts:
                part = slice(*(max(0, round(low + share * (high - low))) for share in (a, b)))
                out.append(image[row, part][self.judged[row, part]])
        return np.concatenate(out)

    def inner_legs(self, image: np.ndarray) -> np.ndarray:
        """(M, 3) colours of the legs' inner halves, from the crotch a coat's least length down."""
        out = [np.zeros((0, 3))]
        for y in np.arange(self.crotch, self.crotch - LEAST_LENGTH, -BAND):
            for side, sign in zip(self.sides, (1, -1)):
                ring = np.flatnonzero(side & (np.abs(self.rest[:, 1] - y) < BAND))
                row = self._row(ring)
                if row is None:
                    continue
                across = self.uv[ring[np.argmin(sign * self.rest[ring, 0])], 0], self.uv[ring, 0].mean()
                part = slice(*sorted(max(0, round(float(u))) for u in across))
                out.append(image[row, part][self.judged[row, part]])
        return np.concatenate(out)

    def split(self, y: float, side: int, like: np.ndarray) -> Split | None:
        """What leg 0 (left) or 1 shows at the rest height ``y`` of the pixels ``like`` (H, W) the coat; None where nothing can be told."""
        sign = (1, -1)[side]
        ring = np.flatnonzero(self.sides[side] & (np.abs(self.rest[:, 1] - y) < BAND))
        row = self._row(ring)
        if row is None:
            return None
        x, u = self.rest[ring, 0] * sign, self.uv[ring, 0]
        inner, outer, middle = float(u[np.argmin(x)]), float(u[np.argmax(x)]), float(u.mean())
        if (outer - inner) * sign <= 0:  # seen from behind
            return None
        cells = np.arange(inner, middle + sign * FARTHEST * self.pixels, sign).astype(int)
        cells = cells[(cells >= 0) & (cells < self.mask.shape[1])]
        out = ~self.mask[row, cells] & ((cells - middle) * sign > 0)
        cells = cells[: int(np.argmax(out))] if out.any() else cells
        end = cells[-1] if len(cells) and not self.arms[row, cells[-1]] else None
        cells = cells[self.judged[row, cells]]
        if len(cells) < (LEAST_PANEL + LEAST_INNER) * self.pixels:
            return None
        coat = like[row, cells]
        cut, right = best_cut(coat)
        shows = cut >= LEAST_INNER * self.pixels and len(cells) - cut >= LEAST_PANEL * self.pixels and right >= PURE * len(cells)
        share = float(coat.mean())
        at = cells[min(cut, len(cells) - 1)], cells[-1] if end is None else end
        edge, rim = (float(x.min() + (cell - inner) * (x.max() - x.min()) / (outer - inner)) for cell in at)
        return Split(edge if shows else None, rim, share, (int(at[0]), row))
