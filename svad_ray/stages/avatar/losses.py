"""Image terms of the avatar's training, all differentiable. Images are (1, 3, H, W) float in [0, 1]."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from svad_ray.stages.avatar.ssim import dissimilarity

RGB, SSIM, LPIPS, HUMAN = 0.8, 0.2, 0.2, 1.0  # the original's weights
ALPHA = (
    1.0  # of the squared error of the outline (ours); four times that is nearer in pictures, and shrinks sizes until a face seen from near is a grid
)

Distances = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Crop:
    """Pixels [top, bottom) x [left, right)."""

    top: int
    bottom: int
    left: int
    right: int

    def of(self, image: torch.Tensor) -> torch.Tensor:
        """That part of (..., H, W)."""
        return image[..., self.top : self.bottom, self.left : self.right]


def crop_of(box: Sequence[float], height: int, width: int) -> Crop:
    """The part of an image that a box (x, y, w, h) in pixels names, as the original cuts it: whole numbers towards zero, the corner pushed into the
    image before the size is added."""
    x, y, w, h = (int(v) for v in box)
    x, y = max(x, 0), max(y, 0)
    return Crop(y, min(y + h, height), x, min(x + w, width))


def composite_terms(image: torch.Tensor, truth: torch.Tensor, crop: Crop) -> dict[str, torch.Tensor]:
    """L1 and structural terms in the person's box.

    Source: ExAvatar's weights (avatar 4.4).
    """
    a, b = crop.of(image), crop.of(truth)
    return {"rgb_human": (a - b).abs().mean() * RGB, "ssim_human": dissimilarity(a, b) * SSIM}


def plain_background_term(image: torch.Tensor, truth: torch.Tensor, mask: torch.Tensor, background: torch.Tensor, crop: Crop) -> torch.Tensor:
    """L1 of a render on ``background`` (3,) to the person cut out by ``mask`` (1, 1, H, W) on the same colour."""
    return (crop.of(image) - crop.of(on_background(truth, mask, background))).abs().mean() * HUMAN


def over(image: torch.Tensor, alpha: torch.Tensor, color: torch.Tensor) -> torch.Tensor:
    """A person on white, and its alpha, on a plain colour instead, with no white left in the rim.

    Channels first or last: (..., 3, H, W), (..., 1, H, W) and (3, 1, 1), or (..., H, W, 3), (..., H, W, 1) and (3,).
    """
    return image + (1 - alpha) * (color - 1)


def away_on(color: torch.Tensor, image: torch.Tensor, alpha: torch.Tensor, truth: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """L1 of a picture on white with its alpha to the truth and its mask, both put on a plain colour; shapes as of ``over``.

    On white alone, nothing that sticks out of the person and is white would cost anything.
    """
    return F.l1_loss(over(image, alpha, color), over(truth, mask, color))


def on_background(truth: torch.Tensor, mask: torch.Tensor, background: torch.Tensor) -> torch.Tensor:
    """The masked person on a plain colour (3,)."""
    return truth * mask + (1 - mask) * background[:, None, None]


def face_term(image: torch.Tensor, truth: torch.Tensor, textured: torch.Tensor, crop: Crop) -> torch.Tensor:
    """L1 with the unwrapped face texture pasted over ``image`` where it is valid.

    Args:
        textured: (1, 4, H, W) texture drawn on the face's mesh and its mask, -1 where nothing is.
    """
    valid = (textured[:, :3] != -1) & (textured[:, 3:] == 1)
    return (crop.of(torch.where(valid, textured[:, :3], image)) - crop.of(truth)).abs().mean() * RGB


def scene_terms(image: torch.Tensor, truth: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
    """Terms of the background's own render, outside the person."""
    outside = 1 - mask
    structure = dissimilarity(image * outside, truth * outside)
    return {"rgb_scene": ((image - truth).abs() * outside).mean() * RGB, "ssim_scene": structure * SSIM}
