"""Taking only detail from an enlarging network, and putting a restored crop back. Source: ours.

An adversarially trained network repaints: on a face of forty pixels it moves eyelids and shifts colours. What the original knows, its lower
frequencies, therefore stays the original's; only what it cannot know, the frequencies above, comes from the network.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from svad_ray.subject import Clip

FEATHER = 0.12  # of the crop's side: width of the ramp in which a crop fades into its frame


def keep_low_frequencies(restored: np.ndarray, original: np.ndarray, *, sigma: float) -> np.ndarray:
    """``restored`` with everything coarser than ``sigma`` taken from ``original``.

    Args:
        restored, original: (H, W, 3) uint8 of one size.
        sigma: Pixels, deviation of the Gaussian that parts coarse from fine; 1 for crops at the original's own resolution.

    Returns:
        (H, W, 3) uint8.
    """
    difference = original.astype(np.float32) - restored.astype(np.float32)
    coarse = cv2.GaussianBlur(difference, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101)
    return np.clip(restored + coarse + 0.5, 0, 255).astype(np.uint8)


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8 to (height, width): areas when it shrinks, Lanczos when it grows."""
    if image.shape[:2] == tuple(size):
        return image
    method = cv2.INTER_AREA if size[0] < image.shape[0] else cv2.INTER_LANCZOS4
    return cv2.resize(image, (size[1], size[0]), interpolation=method)


def pixel_box(box: np.ndarray, size: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """Whole-pixel (x0, y0, x1, y1) of a box inside an image of (height, width); None when less than 8 pixels of it are inside."""
    low = np.maximum(np.floor(box[:2]).astype(int), 0)
    high = np.minimum(np.ceil(box[2:]).astype(int), [size[1], size[0]])
    return None if (high - low).min() < 8 else (int(low[0]), int(low[1]), int(high[0]), int(high[1]))


def paste(frame: np.ndarray, crop: np.ndarray, corner: tuple[int, int]) -> np.ndarray:
    """A copy of ``frame`` with ``crop`` at (x, y), faded in over a ramp that an image border does not need.

    Args:
        frame: (H, W, 3) uint8.
        crop: (h, w, 3) uint8, inside the frame.
        corner: Pixel of its top left.
    """
    (x, y), (height, width) = corner, crop.shape[:2]
    weight = _ramp(height, y > 0, y + height < frame.shape[0])[:, None] * _ramp(width, x > 0, x + width < frame.shape[1])[None]
    out = frame.copy()
    under = frame[y : y + height, x : x + width].astype(np.float32)
    mixed = under + weight[..., None] * (crop.astype(np.float32) - under)
    out[y : y + height, x : x + width] = (mixed + 0.5).astype(np.uint8)
    return out


def _ramp(length: int, start: bool, end: bool) -> np.ndarray:
    """(length,) weights in (0, 1]: smooth from the edges that are asked for."""
    at = (np.arange(length) + 0.5) / max(FEATHER * length, 1)
    ramp = np.ones(length)
    for asked, distance in ((start, at), (end, at[::-1])):
        if asked:
            t = np.minimum(distance, 1)
            ramp = ramp * t * t * (3 - 2 * t)
    return ramp.astype(np.float32)


def scaled_clip(shard: Clip, frames: np.ndarray, remarks: tuple[str, ...], scale: int) -> Clip:
    """The shard with new frames; masks and cameras at the new size, ``scale`` times the old one."""
    if scale == 1:
        return replace(shard, frames=frames, remarks=remarks)
    masks = np.stack([resize(np.dstack([m] * 3), frames.shape[1:3])[..., 0] for m in shard.masks])
    Ks = shard.track.Ks * np.array([[scale], [scale], [1]], shard.track.Ks.dtype)
    height, width = shard.track.image_size
    track = replace(shard.track, Ks=Ks, image_size=(height * scale, width * scale))
    return replace(shard, frames=frames, masks=masks, track=track, remarks=remarks)
