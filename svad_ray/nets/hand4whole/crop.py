"""The part of a picture that Hand4Whole sees, and how its networks cut hands and face out of it.

Source: Moon et al., "Accurate 3D Hand Pose Estimation for Whole-Body 3D Human Mesh Estimation" (2022), and its released code (spec: avatar 3.3).
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

PATCH = (512, 384)  # rows and columns
_ROOM = 1.25


def person_box(box: np.ndarray, height: int, width: int) -> np.ndarray | None:
    """The (4,) box x, y, width, height of a person, cut to the picture, grown to the patch's proportions and a quarter more.

    None where nothing of it lies in the picture.
    """
    x, y, w, h = (float(value) for value in box)
    left, top = max(0.0, x), max(0.0, y)
    right, bottom = min(width - 1.0, left + max(0.0, w - 1)), min(height - 1.0, top + max(0.0, h - 1))
    if not (w * h > 0 and right > left and bottom > top):
        return None
    middle, size = np.array([left + right, top + bottom]) / 2, np.array([right - left, bottom - top])
    wide = max(size[0], size[1] * PATCH[1] / PATCH[0])
    grown = _ROOM * wide * np.array([1, PATCH[0] / PATCH[1]])
    return np.concatenate([middle - grown / 2, grown]).astype(np.float32)


def transform(box: np.ndarray) -> np.ndarray:
    """(2, 3) float32 from pixels of the picture to those of the patch."""
    middle, scale = box[:2] + box[2:] / 2, np.array(PATCH[::-1]) / box[2:]
    shift = np.array(PATCH[::-1]) / 2 - scale * middle
    return np.array([[scale[0], 0, shift[0]], [0, scale[1], shift[1]]], np.float32)


def crop_people(images: Sequence[np.ndarray] | np.ndarray, boxes: Sequence[np.ndarray]) -> Tensor:
    """(N, 3, 512, 384) float32 in [0, 1] of N uint8 RGB pictures and their boxes from ``person_box``."""
    return torch.stack([_crop(image, box) for image, box in zip(images, boxes)])


def _crop(image: np.ndarray, box: np.ndarray) -> Tensor:
    patch = cv2.warpAffine(image, transform(box), PATCH[::-1], flags=cv2.INTER_LINEAR)  # rounded to whole grey levels, as the original's is
    return torch.from_numpy(patch).permute(2, 0, 1).float() / 255


def roi_align(images: Tensor, boxes: Tensor, size: int) -> Tensor:
    """(N, C, size, size) parts of (N, C, H, W) images, one (4,) box x1, y1, x2, y2 of each; bilinear, averaged over as many samples as pixels.

    Source: He et al., "Mask R-CNN" (2017), section 3, without the half-pixel shift. A sample's weights along x and y are independent, so that
    a box is two products of matrices.
    """
    found = []
    for image, box in zip(images, boxes):
        low, extent = box[:2], (box[2:] - box[:2]).clamp_min(1)
        across, down = (_weights(low[axis], extent[axis], image.shape[2 - axis], size) for axis in (0, 1))
        found.append(down @ image @ across.T)
    return torch.stack(found)


def _weights(low: Tensor, extent: Tensor, pixels: int, bins: int) -> Tensor:
    """(bins, pixels) share of every pixel in every bin along one axis."""
    samples = max(1, int(torch.ceil(extent / bins)))
    step = (torch.arange(samples, dtype=low.dtype) + 0.5) / samples
    at = (low + (torch.arange(bins, dtype=low.dtype)[:, None] + step) * (extent / bins)).flatten()
    inside = ((at >= -1) & (at <= pixels)).to(low.dtype) / samples
    at = at.clamp(0, pixels - 1)
    first = at.floor().long().clamp(max=pixels - 1)
    second, share = (first + 1).clamp(max=pixels - 1), at - first
    rows = torch.arange(bins).repeat_interleave(samples)
    weights = torch.zeros(bins, pixels, dtype=low.dtype)
    weights.index_put_((rows, first), inside * (1 - share), accumulate=True)
    return weights.index_put_((rows, second), inside * share, accumulate=True)
