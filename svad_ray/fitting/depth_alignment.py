"""Relative depth maps brought to the body's metres, and the points of the background that come out of them.

Source: SVAD's code (spec: avatar 3.9). The paper names the standard deviation; the code takes the mean absolute deviation, and so do we.
Nothing here runs by default: the embedded avatar has no background.
"""

from __future__ import annotations

import numpy as np

from svad_ray.errors import InputError

_AVOID_ZERO = 1e-6  # added to the number of frames that a background pixel is seen in


def align_depth(levels: np.ndarray, body_depth: np.ndarray) -> np.ndarray:
    """A relative map in metres: its mean and its mean absolute deviation where the body is become the body's.

    Args:
        levels: (H, W) uint8, larger = nearer. body_depth: (H, W) metres along the camera's z axis; infinite or negative where no body is.

    Returns:
        (H, W) float32 metres.

    Raises:
        InputError: No pixel shows the body, or the map is flat there.
    """
    body = np.isfinite(body_depth) & (body_depth > 0)
    if not body.any():
        raise InputError("no pixel of the depth map shows the body", expected="a body in front of the camera")
    far, wanted = 255.0 - levels, body_depth[body].astype(np.float64)
    spread = mean_absolute_deviation(far[body])
    if spread == 0:
        raise InputError(
            "the depth map is flat where the body is", expected="a map that tells near from far", remedy="look at the picture it was made of"
        )
    scaled = far * (mean_absolute_deviation(wanted) / spread)
    return (scaled - scaled[body].mean() + wanted.mean()).astype(np.float32)


def mean_absolute_deviation(values: np.ndarray) -> float:
    """Mean distance from the mean."""
    return float(np.abs(values - values.mean()).mean())


def background_points(frames: np.ndarray, masks: np.ndarray, depths: np.ndarray, K: np.ndarray, *, official: bool = False) -> np.ndarray:
    """One coloured point for each pixel that some frame shows without the person, averaged over those frames; the camera stands still.

    Args:
        frames: (T, H, W, 3) uint8 RGB. masks: (T, H, W) bool, the person. depths: (T, H, W) metres. K: (3, 3) pixels.
        official: As the published code: pixel centres at whole numbers, colours in the order blue, green, red.

    Returns:
        (N, 6) float64: x, y, z in metres on the camera's axes, and red, green, blue in [0, 255]; pixels in row order.
    """
    free = ~masks
    seen = free.sum(0)
    y, x = np.nonzero(seen)
    count = seen[y, x] + _AVOID_ZERO
    z = np.where(free, depths, 0.0).sum(0, dtype=np.float64)[y, x] / count
    colors = np.where(free[..., None], frames, 0).sum(0, dtype=np.int64)[y, x] / count[:, None]
    pixels = np.stack((x, y), 1) + (0.0 if official else 0.5)
    xy = (pixels - K[:2, 2]) / np.diag(K)[:2] * z[:, None]
    return np.column_stack((xy, z, colors[:, ::-1] if official else colors))
