"""The square of a picture that DECA sees.

Source: DECA's test data (spec: avatar 3.2). Its landmark detector is not among what we have: the box comes from the 68 face points of the
perceive stage, which are the same points.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

SIDE = 224
_OVER_BOX = 1.1 * 1.25  # from the points' box to the head, and some room


def face_square(box: np.ndarray) -> tuple[np.ndarray, int]:
    """((2,) middle, whole side) in pixels, of the (4,) box x1, y1, x2, y2 of the 68 points."""
    low, high = np.asarray(box[:2], float), np.asarray(box[2:], float)
    return (low + high) / 2, max(1, int(_OVER_BOX * (high - low).mean()))  # a face of less than a pixel is still a square


def transform(middle: np.ndarray, size: int) -> np.ndarray:
    """(3, 3) from pixels of the picture to those of the crop: the square's corners fall on the crop's first and last pixel."""
    scale = (SIDE - 1) / size
    shift = -scale * (np.asarray(middle) - size / 2)
    return np.array([[scale, 0, shift[0]], [0, scale, shift[1]], [0, 0, 1]])


def crop_faces(images: Sequence[np.ndarray] | np.ndarray, boxes: np.ndarray) -> Tensor:
    """(N, 3, 224, 224) float32 in [0, 1] of N uint8 RGB pictures (H, W, 3) and their (N, 4) boxes; black beyond the picture."""
    return torch.stack([_crop(image, box) for image, box in zip(images, boxes)])


def _crop(image: np.ndarray, box: np.ndarray) -> Tensor:
    to_crop = transform(*face_square(box))
    height, width = image.shape[:2]
    place = torch.arange(SIDE, dtype=torch.float64)
    x, y = ((place - to_crop[axis, 2]) / to_crop[0, 0] for axis in (0, 1))
    columns, rows = 2 * x / (width - 1) - 1, 2 * y / (height - 1) - 1
    grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1)[None]
    picture = torch.tensor(image, dtype=torch.float64).permute(2, 0, 1)[None] / 255
    return F.grid_sample(picture, grid, align_corners=True)[0].float()
