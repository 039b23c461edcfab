"""Image terms of the avatar's training, all differentiable. Images are (1, 3, H, W) float in [0, 1]."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch

RGB, SSIM, LPIPS, HUMAN = 0.8, 0.2, 0.2, 1.0
WINDOW, SIGMA = 11, 1.5
C1, C2 = 0.01**2, 0.03**2

Distance = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


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


def ssim_map(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """(1, 3, H, W) structural similarity with zeros outside the image (window 11, sigma 1.5)."""
    rows, columns = (_blur(size, a.dtype) for size in a.shape[-2:])
    blurred = rows @ torch.stack([a, b, a * a, b * b, a * b]) @ columns
    mean_a, mean_b, aa, bb, ab = blurred
    top = (2 * mean_a * mean_b + C1) * (2 * (ab - mean_a * mean_b) + C2)
    return top / ((mean_a.square() + mean_b.square() + C1) * (aa - mean_a.square() + bb - mean_b.square() + C2))


@lru_cache(maxsize=64)
def _blur(size: int, dtype: torch.dtype) -> torch.Tensor:
    """(size, size) symmetric band matrix of the window: on a CPU two products with it are several times quicker than convolutions."""
    at = torch.arange(size, dtype=torch.float64)
    away = (at[:, None] - at[None]).abs()
    reach = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    whole = torch.exp(-reach.square() / (2 * SIGMA**2)).sum()
    return (torch.exp(-away.square() / (2 * SIGMA**2)) * (away <= WINDOW // 2) / whole).to(dtype)


def composite_terms(image: torch.Tensor, truth: torch.Tensor, crop: Crop, *, lpips: Distance | None) -> dict[str, torch.Tensor]:
    """L1, structural and (with ``lpips``) perceptual terms in the person's box.

    Source: ExAvatar's weights (avatar 4.4).
    """
    a, b = crop.of(image), crop.of(truth)
    terms = {"rgb_human": (a - b).abs().mean() * RGB, "ssim_human": (1 - ssim_map(a, b)).mean() * SSIM}
    return terms if lpips is None else {**terms, "lpips_human": lpips(a, b) * LPIPS}


def plain_background_term(image: torch.Tensor, truth: torch.Tensor, mask: torch.Tensor, background: torch.Tensor, crop: Crop) -> torch.Tensor:
    """L1 of a render on ``background`` (3,) to the person cut out by ``mask`` (1, 1, H, W) on the same colour."""
    return (crop.of(image) - crop.of(on_background(truth, mask, background))).abs().mean() * HUMAN


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
    structure = (1 - ssim_map(image * outside, truth * outside)).mean()
    return {"rgb_scene": ((image - truth).abs() * outside).mean() * RGB, "ssim_scene": structure * SSIM}
