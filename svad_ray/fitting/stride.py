"""Which foot is in front, and by how much: the depth that a frontal photo tells of a stride.

Two things tell. The nearer foot stands lower in the picture, and the nearer leg looks larger: 30 cm at 3 m are a tenth of its width, which the
mean over a shank or a shoe shows. The detector's world landmarks know the sign, but put a back leg half as far back as it is. Source: ours.
"""

from __future__ import annotations

import numpy as np

from svad_ray.subject import Perception

FEET = {"left": (27, 29, 31), "right": (28, 30, 32)}  # ankle, heel, toe
KNEES = {"left": 25, "right": 26}
SHANK = np.linspace(0.35, 0.95, 25)  # where between knee and ankle a leg is measured
SOLE_REACH = 8  # pixels below the landmarks that still belong to a foot
CREDIBLE = 0.3  # log ratio of widths beyond which something else hides one of the legs
# Metres of depth per what was measured: ankles' height difference (per size of the person), log ratio of the shanks' widths, and of the feet's.
# Least squares on the renders of ``landmarks.SHIFT``; 8 cm rms on people left out with all three, 11 cm with the ankles alone.
GAIN = {
    (False, False): (11.6, 0.0, 0.0),
    (True, False): (5.5, 1.53, 0.0),
    (False, True): (4.9, 0.0, 1.91),
    (True, True): (3.1, 0.84, 1.48),
}
NEAR = 1.8  # focal length over the person's size in those pictures, as the fit assumes it; width tells more depth from farther away


def stride_depth(seen: Perception, size: float, focal: float) -> float:
    """Metres that the left ankle is nearer to the camera than the right one; 0 where the feet are not seen.

    Args:
        seen: Landmarks and mask.
        size: Of the person in the picture, pixels.
        focal: Assumed focal length, pixels.
    """
    p, mask = seen.landmarks, seen.mask
    used = [*FEET["left"], *FEET["right"], *KNEES.values()]
    if mask.size == 0 or not np.isfinite(p[used]).all():
        return 0.0
    shank, foot = _log_ratio(_shank(p, mask, "left"), _shank(p, mask, "right")), _log_ratio(_foot(p, mask, "left"), _foot(p, mask, "right"))
    gain = GAIN[shank is not None, foot is not None]
    farther = float(np.clip(focal / size / NEAR, 0.5, 2.0))
    return gain[0] * float(p[27, 1] - p[28, 1]) / size + farther * (gain[1] * (shank or 0.0) + gain[2] * (foot or 0.0))


def _log_ratio(left: tuple[float, float] | None, right: tuple[float, float] | None) -> float | None:
    """Of two runs (width, middle); None where one is missing, both are the same run, or the ratio is not believable."""
    if left is None or right is None or abs(left[1] - right[1]) < 0.5 * max(left[0], right[0]):
        return None
    ratio = float(np.log(left[0] / right[0]))
    return ratio if abs(ratio) < CREDIBLE else None


def _shank(p: np.ndarray, mask: np.ndarray, side: str) -> tuple[float, float] | None:
    knee, ankle = p[KNEES[side]], p[FEET[side][0]]
    runs = [_run(mask, *(knee * (1 - t) + ankle * t)) for t in SHANK]
    found = np.array([r for r in runs if r is not None])
    return (float(np.median(found[:, 0])), float(np.median(found[:, 1]))) if len(found) > 5 else None


def _foot(p: np.ndarray, mask: np.ndarray, side: str) -> tuple[float, float] | None:
    """The widest row of the mask through a foot."""
    points = p[list(FEET[side])]
    runs = [_run(mask, points[:, 0].mean(), y) for y in range(int(points[0, 1]), int(points[:, 1].max()) + SOLE_REACH)]
    found = [r for r in runs if r is not None]
    return max(found) if found else None


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
