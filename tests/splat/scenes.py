"""Small random scenes and cameras for the rasteriser's tests."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Scene:
    """Gaussians and cameras in float32; `double` gives the same numbers in float64."""

    means: Tensor
    quats: Tensor
    scales: Tensor
    opacities: Tensor
    colors: Tensor
    viewmats: Tensor
    Ks: Tensor
    width: int
    height: int

    def tensors(self, dtype: torch.dtype, *, grad: bool = False) -> list[Tensor]:
        names = ("means", "quats", "scales", "opacities", "colors", "viewmats")
        return [getattr(self, name).detach().to(dtype).clone().requires_grad_(grad) for name in names]


def camera(width: int, height: int, *, angle: float = 0.3, distance: float = 2.5, fill: float = 0.8) -> tuple[Tensor, Tensor]:
    """A camera that looks at the origin from ``distance``, turned by ``angle`` about the vertical; a subject 1.8 high fills ``fill``."""
    c, s = math.cos(angle), math.sin(angle)
    viewmat = torch.tensor([[c, 0, s, 0.02], [0, -1, 0, -0.01], [s, 0, -c, distance], [0, 0, 0, 1]])
    focal = fill * height / 1.8 * distance
    return viewmat, torch.tensor([[focal, 0, width / 2 + 0.7], [0, 1.05 * focal, height / 2 - 1.3], [0, 0, 1]])


def random_scene(count: int, width: int, height: int, *, seed: int = 0, channels: int = 3, size: float = 0.06, cameras: int = 1,
                 opacity: tuple[float, float] = (0.1, 0.98), coefficients: int = 0) -> Scene:  # fmt: skip
    """A cloud of anisotropic Gaussians in an ellipsoid 1.8 high; ``coefficients`` > 0 gives harmonics instead of colours."""
    g = torch.Generator().manual_seed(seed)
    means = torch.randn(count, 3, generator=g).clamp(-2, 2) * torch.tensor([0.2, 0.4, 0.2])
    scales = size * torch.exp(0.5 * torch.randn(count, 3, generator=g))
    quats = torch.randn(count, 4, generator=g)
    opacities = opacity[0] + (opacity[1] - opacity[0]) * torch.rand(count, generator=g)
    colors = torch.rand(count, channels, generator=g)
    if coefficients:
        colors = 0.3 * torch.randn(count, coefficients, 3, generator=g)
    views = [camera(width, height, angle=0.3 + 1.1 * i) for i in range(cameras)]
    return Scene(means, quats, scales, opacities, colors, torch.stack([v for v, _ in views]), torch.stack([k for _, k in views]), width, height)
