"""Which foot is in front, and by how much: the depth that a frontal photo tells of a stride.

Three things tell. On one ground the nearer foot stands lower in the picture, the nearer foot looks larger, and so does the nearer leg: 30 cm at 3 m
are a tenth of its width. Soles and feet are read off the mask, run by run from below, because the detector's feet are 3 to 8 cm off in a stride. The
detector's world landmarks know the sign, but put a back leg half as far back as it is. Source: ours.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from svad_ray.subject import Perception

FEET = {"left": (27, 29, 31), "right": (28, 30, 32)}  # ankle, heel, toe
KNEES = {"left": 25, "right": 26}
SHANK = np.linspace(0.2, 0.95, 31)  # where between knee and ankle a leg is measured
CREDIBLE = 0.3  # log ratio of widths beyond which something else hides one of the legs
SCATTER = 0.04
HEIGHT = 1.65  # metres that the landmarks' extent stands for
FOOT_TALL, FOOT_SEEN = 0.05, 0.035  # of the size: rows above the sole that are foot; fewer than these and the foot is hidden
LOW_CAMERA = 0.1  # of the size: a camera that is not this much above the soles says nothing by their rows
# Of ground, foot, shank and ankles, by what can be seen: (feet apart, shanks apart, and their rows agree).
GAIN = {
    (False, False, False): (0.0, 0.0, 0.0, 1.0),
    (False, True, False): (0.0, 0.0, 0.47, 0.62),
    (False, True, True): (0.0, 0.0, 0.77, 0.42),
    (True, False, False): (0.8, 0.2, 0.0, 0.0),
    (True, True, False): (0.3, 0.0, 0.45, 0.35),
    (True, True, True): (0.27, 0.0, 0.87, 0.0),
}


class Foot(NamedTuple):
    """Lowest row of a foot in the mask, and its widest row's width, pixels."""

    sole: float
    width: float


def stride_depth(seen: Perception, size: float, K: np.ndarray) -> float:
    """Metres that the left ankle is nearer to a level camera than the right one; 0 where the feet are not seen."""
    p, mask, focal = seen.landmarks, seen.mask, float(K[0, 0])
    used = [*FEET["left"], *FEET["right"], *KNEES.values()]
    if mask.size == 0 or not np.isfinite(p[used]).all():
        return 0.0
    depth = focal / size * HEIGHT
    feet = feet_in(mask, p, size)
    shank, agreed = _shanks(mask, p)
    above = (p[27, 1] + p[28, 1]) / 2 - K[1, 2]
    if above < LOW_CAMERA * size: feet = None
    known = shank is not None
    gain = (1 - agreed) * np.array(GAIN[feet is not None, known, False]) + agreed * np.array(GAIN[feet is not None, known, known])
    ankles = (p[27, 1] - p[28, 1]) / max(above, LOW_CAMERA * size)
    ground = foot = 0.0
    if feet is not None:
        left, right = feet
        ground = (left.sole - right.sole) / ((left.sole + right.sole) / 2 - K[1, 2])
        foot = float(np.clip(np.log(left.width / right.width), -CREDIBLE, CREDIBLE))
    return float(depth * np.dot(gain, (ground, foot, shank or 0.0, ankles)))


def feet_in(mask: np.ndarray, p: np.ndarray, size: float) -> tuple[Foot, Foot] | None:
    """Left and right foot, or None where they are not apart in the picture."""
    left, right = _upwards(mask, p, "left", size), _upwards(mask, p, "right", size)
    if not left or not right:
        return None
    shared = set(left) & set(right)
    merged = max((row for row, _, _ in shared), default=-1)
    feet = []
    for runs in (left, right):
        own = [run for run in runs if run[0] > merged][: int(FOOT_TALL * size)]
        if len(own) < FOOT_SEEN * size:
            return None
        feet.append(Foot(float(own[0][0] + 1), max(float(mask[row, max(0, a - 1) : b + 1].sum()) for row, a, b in own)))
    return feet[0], feet[1]


def _upwards(mask: np.ndarray, p: np.ndarray, side: str, size: float) -> list[tuple[int, int, int]]:
    """Runs (row, first, end) of the mask that hang together with a foot, from its lowest row up."""
    x, y = p[list(FEET[side])].mean(0)
    row = int(round(y))
    if not 0 <= row < len(mask):
        return []
    here = _nearest(_runs(mask[row]), x, 0.05 * size)
    if here is None:
        return []
    down, up = _follow(mask, here, range(row, len(mask))), _follow(mask, here, range(row - 1, max(-1, row - int(0.35 * size)), -1))
    return down[::-1] + up


def _follow(mask, run, rows):
    out = []
    for row in rows:
        runs = [q for q in _runs(mask[row]) if q[0] < run[1] and q[1] > run[0]]
        if not runs:
            break
        run = max(runs, key=lambda q: min(q[1], run[1]) - max(q[0], run[0]))
        out.append((row, *run))
    return out


def _runs(row: np.ndarray) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.r_[0, (row >= 0.5).astype(np.int8), 0]))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def _nearest(runs, x, reach):
    away = [max(a - x, x - b, 0.0) for a, b in runs]
    return runs[int(np.argmin(away))] if runs and min(away) <= reach else None


def _shanks(mask, p) -> tuple[float | None, float]:
    """log ratio of widths, left over right, row by row; how far rows agree [0,1]."""
    ratios = []
    for t in SHANK:
        left, right = (_run(mask, *(p[KNEES[side]] * (1 - t) + p[FEET[side][0]] * t)) for side in FEET)
        if left is not None and right is not None and abs(left[1] - right[1]) >= 0.5 * max(left[0], right[0]):
            ratios.append(np.log(left[0] / right[0]))
    if len(ratios) < len(SHANK) / 4:
        return None, 0.0
    middle = float(np.median(ratios))
    scatter = float(np.median(np.abs(np.array(ratios) - middle)))
    share = np.clip(2 * len(ratios) / len(SHANK) - 0.5, 0, 1)
    return float(np.clip(middle, -CREDIBLE, CREDIBLE)), float(share / (1 + (scatter / SCATTER) ** 4))


def _run(mask: np.ndarray, x: float, y: float) -> tuple[float, float] | None:
    """Width (soft edges counted by their share) and middle of the mask's run at a pixel; None outside of the mask."""
    i, j = int(y), int(x)
    if not (0 <= i < mask.shape[0] and 0 <= j < mask.shape[1]) or mask[i, j] < 0.5:
        return None
    outside = np.flatnonzero(mask[i] < 0.5)
    at = int(np.searchsorted(outside, j))
    first = int(outside[at - 1]) if at > 0 else 0
    last = int(outside[at]) if at < len(outside) else mask.shape[1] - 1
    return float(mask[i, first : last + 1].sum()), (first + last) / 2
