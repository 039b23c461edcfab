"""A photo's local feature map and global feature vector.

Source: GAGAvatar on the decoder of DPT (Ranftl et al. 2021). The picture itself, made smaller without aliasing, leads
each level's channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, relu

from svad_ray.nets.gagavatar.dino import Dino
from svad_ray.nets.gagavatar.sizes import Sizes

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def normalise(images: Tensor) -> Tensor:
    """(B, 3, H, W) in [0, 1] -> mean and deviation of ImageNet taken out."""
    return (images - images.new_tensor(_MEAN)[:, None, None]) / images.new_tensor(_STD)[:, None, None]


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear, corners on corners."""
    return interpolate(x, tuple(size), mode="bilinear", align_corners=True)


class ResidualUnit(nn.Module):
    """Two convolutions added to what came in."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(dim, dim, 3, padding=1), nn.Conv2d(dim, dim, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(relu(self.conv1(relu(x))))


class FusionBlock(nn.Module):
    """A coarse map and the next finer level -> one map of the next size. The coarsest block has no finer level; its first unit rests."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.resConfUnit1, self.resConfUnit2, self.out_conv = ResidualUnit(dim), ResidualUnit(dim), nn.Conv2d(dim, dim, 1)

    def forward(self, coarse: Tensor, level: Tensor | None, size: Sequence[int]) -> Tensor:
        x = coarse if level is None else coarse + self.resConfUnit1(level)
        return self.out_conv(resize(self.resConfUnit2(x), size))


class BaseModel(nn.Module):
    """DINOv2's last four layers fused into one map of eight by eight values to a patch."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        dim, levels = sizes.feature, sizes.levels
        self.dino_model = Dino(sizes.dino)
        self.projects = nn.ModuleList(nn.Conv2d(sizes.dino.dim, level, 1) for level in levels)
        self.resize_layers = nn.ModuleList(
            (
                nn.ConvTranspose2d(levels[0], levels[0], 4, 4),
                nn.ConvTranspose2d(levels[1], levels[1], 2, 2),
                nn.Identity(),
                nn.Conv2d(levels[3], levels[3], 3, 2, 1),
            )
        )
        self.layer_rn = nn.ModuleList(nn.Conv2d(level + 3, dim, 3, padding=1, bias=False) for level in levels)
        self.refinenet = nn.ModuleList(FusionBlock(dim) for _ in levels)
        self.output_conv = nn.Conv2d(dim, dim, 3, padding=1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Both features of (B, 3, S, S) pictures in [0, 1]; see :meth:`fuse`."""
        images = normalise(images)
        return self.fuse(images, self.dino_model(images))

    def fuse(self, images: Tensor, tokens: Tensor, *, output_size: int | None = None) -> tuple[Tensor, Tensor]:
        """Local and global features.

        The trained model takes the first token of the list for its global feature. The class token is not in that list: it is the patch in the
        picture's top left corner, and stays so.

        Args:
            images: (B, 3, H, W) normalised. tokens: (4, B, patches, dim). output_size: Resize the map to this side.

        Returns:
            (B, feature, h, w) and (B, dim).
        """
        side = round(tokens.shape[2] ** 0.5)
        levels = []
        for layer, project, change, convolve in zip(tokens, self.projects, self.resize_layers, self.layer_rn):
            x = change(project(layer.transpose(1, 2).unflatten(2, (side, side))))
            picture = interpolate(images, x.shape[-2:], mode="bilinear", antialias=True)
            levels.append(convolve(torch.cat((picture, x), 1)))
        x = self.refinenet[0](levels[3], None, levels[2].shape[-2:])
        x = self.refinenet[1](x, levels[2], levels[1].shape[-2:])
        x = self.refinenet[2](x, levels[1], levels[0].shape[-2:])
        x = self.refinenet[3](x, levels[0], [2 * n for n in levels[0].shape[-2:]])
        x = self.output_conv(x)
        return x if output_size is None else resize(x, (output_size, output_size)), tokens[-1][:, 0]
