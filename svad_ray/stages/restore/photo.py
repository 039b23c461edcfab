"""The photo's head, enlarged before it is projected onto the surface: the one place where detail is worth most.

Source: ours (spec: RealESRGAN_x4plus on the head crop).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from svad_ray.errors import InputError
from svad_ray.stages.restore.detail import keep_low_frequencies, pixel_box, resize
from svad_ray.stages.restore.networks import LARGE_S, Networks
from svad_ray.subject import Photo

KEEP_SIGMA = 0.5  # original pixels; coarser structure stays the photo's (on a reduced face .5 had the least LPIPS of .5, .7, 1, 1.5, 2.5)


@dataclass(frozen=True)
class PhotoHead:
    """The head of a photo at a higher resolution.

    Attributes:
        image: (scale h, scale w, 3) uint8 RGB.
        box: (x0, y0, x1, y1) whole pixels of the photo that ``image`` covers.
        scale: 4, or 1 when the photo's head is large enough or the budget too small.
        remark: What was done, for the report.
    """

    image: np.ndarray
    box: tuple[int, int, int, int]
    scale: int
    remark: str

    def uv(self, xy: np.ndarray) -> np.ndarray:
        """Pixels of ``image`` at (..., 2) photo pixels (centres at half integers in both)."""
        return (np.asarray(xy) - np.asarray(self.box[:2])) * self.scale


def restore_photo_head(photo: Photo, box: np.ndarray, *, budget_s: float = 12.0, networks: Networks | None = None) -> PhotoHead:
    """The photo's head crop at up to four times its resolution, without a change of its coarse structure or colour.

    Args:
        photo: The photo.
        box: (x0, y0, x1, y1) pixels round the head, hair included.
        budget_s: Recorded seconds that the network may take; a larger head is returned as it is, it has its detail already.
        networks: Loaded networks; None = load the embedded ones.

    Raises:
        InputError: The box lies outside the photo.
    """
    inside = pixel_box(np.asarray(box, np.float64), photo.image.shape[:2])
    if inside is None:
        raise InputError(
            f"the head box {np.round(box).tolist()} is not in the photo", expected=f"a box inside {photo.image.shape[1]} x {photo.image.shape[0]}"
        )
    x0, y0, x1, y1 = inside
    crop = np.ascontiguousarray(photo.image[y0:y1, x0:x1])
    cost = crop.shape[0] * crop.shape[1] * LARGE_S
    if cost > budget_s:
        return PhotoHead(crop, inside, 1, f"photo head kept: {x1 - x0} x {y1 - y0} pixels would take {cost:.0f} s of {budget_s:g} s")
    large = (networks or Networks.load()).enlarge("x4plus", crop)
    original = resize(crop, large.shape[:2])
    image = keep_low_frequencies(large, original, sigma=4 * KEEP_SIGMA)
    return PhotoHead(image, inside, 4, f"photo head {x1 - x0} x {y1 - y0} enlarged 4 times by Real-ESRGAN x4plus")
