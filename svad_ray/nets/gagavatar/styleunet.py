"""The last network: 32 splatted channels -> a picture. An encoder and decoder whose maps steer a StyleGAN2 generator.

Source: GFPGAN (Wang et al. 2021) in its form without custom kernels: bilinear resizing instead of filters, spatial scale and shift at every size.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate, leaky_relu

_SLOPE = 0.2
_EPS = 1e-8


def _scaled(x: Tensor, factor: float) -> Tensor:
    return interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


class ResBlock(nn.Module):
    """Two convolutions with a change of size between them, and a short cut."""

    def __init__(self, before: int, after: int, factor: float) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(before, before, 3, padding=1), nn.Conv2d(before, after, 3, padding=1)
        self.skip = nn.Conv2d(before, after, 1, bias=False)
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        out = _scaled(leaky_relu(self.conv1(x), _SLOPE), self.factor)
        return leaky_relu(self.conv2(out), _SLOPE) + self.skip(_scaled(x, self.factor))


class ModulatedConv(nn.Module):
    """A convolution whose weights the style scales by input channel, brought back to unit length by output channel unless told otherwise."""

    def __init__(self, before: int, after: int, kernel: int, style: int, *, demodulate: bool = True, up: bool = False) -> None:
        super().__init__()
        self.demodulate, self.up = demodulate, up
        self.modulation = nn.Linear(style, before)
        self.weight = nn.Parameter(torch.randn(1, after, before, kernel, kernel) / math.sqrt(before * kernel**2))

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        batch = len(x)
        weight = self.weight * self.modulation(style)[:, None, :, None, None]
        if self.demodulate:
            weight = weight * torch.rsqrt(weight.square().sum((2, 3, 4), keepdim=True) + _EPS)
        if self.up:
            x = _scaled(x, 2)
        grouped = conv2d(x.reshape(1, -1, *x.shape[2:]), weight.flatten(0, 1), padding=weight.shape[-1] // 2, groups=batch)
        return grouped.reshape(batch, -1, *grouped.shape[2:])


class StyleConv(nn.Module):
    """A modulated convolution with noise; ``weight`` is how much of it."""

    def __init__(self, before: int, after: int, style: int, *, up: bool = False) -> None:
        super().__init__()
        self.modulated_conv = ModulatedConv(before, after, 3, style, up=up)
        self.weight, self.bias = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1, after, 1, 1))

    def forward(self, x: Tensor, style: Tensor, noise: Tensor) -> Tensor:
        return leaky_relu(self.modulated_conv(x, style) * math.sqrt(2) + self.weight * noise + self.bias, _SLOPE)


class ToRGB(nn.Module):
    """Features -> what they add to the picture of half the size."""

    def __init__(self, before: int, style: int) -> None:
        super().__init__()
        self.modulated_conv = ModulatedConv(before, 3, 1, style, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(1, 3, 1, 1))

    def forward(self, x: Tensor, style: Tensor, smaller: Tensor | None = None) -> Tensor:
        out = self.modulated_conv(x, style) + self.bias
        return out if smaller is None else out + _scaled(smaller, 2)


class UnitLength(nn.Module):
    """Root mean square one."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(1, keepdim=True) + _EPS)


class Constant(nn.Module):
    """What the generator starts from: (B, C, 4, 4)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, channels, 4, 4))

    def forward(self, batch: int) -> Tensor:
        return self.weight.expand(batch, -1, -1, -1)


class Decoder(nn.Module):
    """The StyleGAN2 generator; ``conditions`` scale and shift its features after the first convolution of each size."""

    def __init__(self, channels: tuple[int, ...], style: int) -> None:
        super().__init__()
        mlp: list[nn.Module] = [UnitLength()]
        for _ in range(8):
            mlp += [nn.Linear(style, style), nn.LeakyReLU(_SLOPE)]
        self.style_mlp = nn.Sequential(*mlp)
        self.constant_input = Constant(channels[0])
        self.style_conv1, self.to_rgb1 = StyleConv(channels[0], channels[0], style), ToRGB(channels[0], style)
        self.style_convs, self.to_rgbs, self.noises = nn.ModuleList(), nn.ModuleList(), nn.Module()
        for before, after in pairwise(channels):
            self.style_convs.extend((StyleConv(before, after, style, up=True), StyleConv(after, after, style)))
            self.to_rgbs.append(ToRGB(after, style))
        for number in range(2 * len(channels) - 1):
            side = 4 * 2 ** ((number + 1) // 2)
            self.noises.register_buffer(f"noise{number}", torch.randn(1, 1, side, side))

    def forward(self, code: Tensor, conditions: list[tuple[Tensor, Tensor]], noises: list[Tensor]) -> Tensor:
        style = self.style_mlp(code)
        x = self.style_conv1(self.constant_input(len(code)), style, noises[0])
        picture = self.to_rgb1(x, style)
        for number, ((scale, shift), to_rgb) in enumerate(zip(conditions, self.to_rgbs)):
            first, second = 2 * number, 2 * number + 1
            x = self.style_convs[first](x, style, noises[first + 1]) * scale + shift
            x = self.style_convs[second](x, style, noises[second + 1])
            picture = to_rgb(x, style, picture)
        return picture

    def kept_noises(self) -> list[Tensor]:
        """The noise that lies in the checkpoint: (1, 1, s, s) for each convolution."""
        return [self.noises.get_buffer(f"noise{number}") for number in range(2 * len(self.to_rgbs) + 1)]


class StyleUNet(nn.Module):
    """Splatted channels -> picture of the same size."""

    def __init__(self, channels: int, down: tuple[int, ...], decoder: tuple[int, ...], style: int) -> None:
        super().__init__()
        falling = down[::-1]
        self.conv_body_first = nn.Conv2d(channels, falling[0], 1)
        self.conv_body_down = nn.ModuleList(ResBlock(before, after, 0.5) for before, after in pairwise(falling))
        self.final_conv = nn.Conv2d(down[0], down[0], 3, padding=1)
        self.final_linear = nn.Linear(down[0] * 16, style)
        self.conv_body_up = nn.ModuleList(ResBlock(before, after, 2) for before, after in pairwise(down))
        self.toRGB = nn.ModuleList(nn.Conv2d(width, 3, 1) for width in down[1:])  # for a loss of the training; in the file
        self.stylegan_decoder = Decoder(decoder, style)
        self.condition_scale, self.condition_shift = (
            nn.ModuleList(_condition(width, wide) for width, wide in zip(down[1:], decoder[1:])) for _ in range(2)
        )

    def forward(self, x: Tensor, noises: list[Tensor]) -> Tensor:
        """(B, channels, S, S) -> (B, 3, S, S) in [0, 1].

        Args:
            noises: One (B or 1, 1, s, s) for each convolution of the generator: :meth:`draw_noises` or ``stylegan_decoder.kept_noises``.
        """
        x = leaky_relu(self.conv_body_first(x), _SLOPE)
        skips = []
        for block in self.conv_body_down:
            x = block(x)
            skips.append(x)
        x = leaky_relu(self.final_conv(x), _SLOPE)
        code = self.final_linear(x.flatten(1))
        conditions = []
        for block, scale, shift in zip(self.conv_body_up, self.condition_scale, self.condition_shift):
            x = block(x + skips.pop())
            conditions.append((scale(x), shift(x)))
        return self.stylegan_decoder(code, conditions, noises).sigmoid()

    def draw_noises(self, seeds: list[int]) -> list[Tensor]:
        """Noise of each picture from its own seed, so that it depends neither on the batch nor on the device.

        The trained model draws new noise for every picture, also when it is used.
        """
        kept = self.stylegan_decoder.kept_noises()
        drawn = []
        for seed in seeds:
            source = torch.Generator().manual_seed(seed)
            drawn.append([torch.randn(noise.shape, generator=source) for noise in kept])
        return [torch.cat(level).to(like) for level, like in zip(zip(*drawn), kept)]


def _condition(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, before, 3, padding=1), nn.LeakyReLU(_SLOPE), nn.Conv2d(before, after, 3, padding=1))
