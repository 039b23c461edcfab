"""Features -> parameters of Gaussians. Two faults of the trained model are part of it and named where they are."""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from svad_ray.nets.gagavatar.sizes import COLORS, DIRECTION

LARGEST_SCALE = 0.05
_HIDDEN = 128
_PARTS = (COLORS, 1, 3, 4, 1)  # colours, opacity, scales, rotation, way along the plane's normal


@dataclass(frozen=True)
class Gaussians:
    """Parameters of N Gaussians for each of B heads.

    Attributes:
        colors: (B, N, 32). opacities: (B, N, 1). scales: (B, N, 3). quats: (B, N, 4) wxyz, of any length (see ``geometry.covariances``).
    """

    colors: Tensor
    opacities: Tensor
    scales: Tensor
    quats: Tensor


def join(parts: list[Gaussians]) -> Gaussians:
    """All of them in one list."""
    return Gaussians(**{field.name: torch.cat([getattr(part, field.name) for part in parts], 1) for field in fields(Gaussians)})


def _squashed(x: Tensor, axis: int) -> Tensor:
    """The first three entries along ``axis`` through a sigmoid."""
    head = x.narrow(axis, 0, 3).sigmoid()
    return torch.cat((head, x.narrow(axis, 3, x.shape[axis] - 3)), axis)


def _layers(*dims: int) -> nn.Sequential:
    """Linear layers with ReLU between them."""
    parts: list[nn.Module] = []
    for before, after in pairwise(dims):
        parts += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*parts[:-1])


class PointGenerator(nn.Module):
    """Gaussians on the head's vertices, of each vertex' own code and the photo's global feature."""

    def __init__(self, code: int, token: int) -> None:
        super().__init__()
        width = (code + token) // 4
        self.feature_layers = _layers(code + token, width, width, width, width)
        self.color_layers, self.opacity_layers, self.scale_layers, self.rotation_layers = (
            _layers(width + DIRECTION, _HIDDEN, out) for out in (COLORS, 1, 3, 4)
        )

    def forward(self, codes: Tensor, directions: Tensor) -> Gaussians:
        """(B, N, code + token) and (B, 27) encoded directions -> N Gaussians.

        The trained model normalises its quaternions over the POINTS and not over their four components, so that each is about 2 / sqrt(N) long.
        """
        x = self.feature_layers(codes)
        x = torch.cat((x, directions[:, None].expand(-1, x.shape[1], -1)), -1)
        return Gaussians(
            _squashed(self.color_layers(x), 2),
            self.opacity_layers(x).sigmoid(),
            self.scale_layers(x).sigmoid() * LARGEST_SCALE,
            normalize(self.rotation_layers(x), dim=1),
        )


class PlaneGenerator(nn.Module):
    """Gaussians on a plane, of the photo's local features."""

    def __init__(self, feature: int) -> None:
        super().__init__()
        widths = (feature + DIRECTION, _HIDDEN, _HIDDEN, _HIDDEN)
        parts: list[nn.Module] = []
        for before, after in pairwise(widths):
            parts += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
        self.gaussian_conv = nn.Sequential(*parts, nn.Conv2d(_HIDDEN, sum(_PARTS), 1))

    def forward(self, features: Tensor, directions: Tensor) -> tuple[Gaussians, Tensor]:
        """(B, feature, h, w) and (B, 27) -> h * w Gaussians, rows after rows, and (B, h * w, 1) how far each leaves the plane.

        The trained model puts the first three COLUMNS of the picture's colours through the sigmoid, not the first three channels.
        """
        turned = directions[:, :, None, None].expand(-1, -1, *features.shape[-2:])
        x = self.gaussian_conv(torch.cat((features, turned), 1))
        colors, opacities, scales, quats, ways = x.split(_PARTS, 1)
        found = Gaussians(
            _rows(_squashed(colors, 3)), _rows(opacities.sigmoid()), _rows(scales.sigmoid() * LARGEST_SCALE), _rows(normalize(quats, dim=1))
        )
        return found, _rows(ways.sigmoid())


def _rows(x: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, h * w, C)."""
    return x.flatten(2).transpose(1, 2)
