"""The two networks that BFRffusion adds to Stable Diffusion: features of the damaged face (MFEM), and a prompt that depends on time (TTPM).

Source: Chen et al., "Towards Real-World Blind Face Restoration with Generative Diffusion Prior" (2023); layout and numbers of the published
checkpoint (spec: generation 6; generation_proven 1). Parameter names are the published ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEADS = (1, 2, 4, 8)  # of the four depths
_EXPANSION = 2.66  # of the feed-forward parts
_HINT = (16, 16, 32, 32, 96, 96, 256)
_NORM_EPS = 1e-5
TIME_CHANNELS = 320  # of the prompt's time embedding, whatever the size of the rest


def timestep_embedding(timesteps: Tensor, channels: int) -> Tensor:
    """(B,) -> (B, channels) float32: cosines, then sines, of falling frequency."""
    half = channels // 2
    frequencies = torch.exp(-math.log(10_000) * torch.arange(half, dtype=torch.float32, device=timesteps.device) / half)
    angles = timesteps[:, None].float() * frequencies
    return torch.cat((angles.cos(), angles.sin()), -1)


class _ChannelNorm(nn.Module):
    """Layer normalisation over the channels of every pixel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.LayerNorm(channels, eps=_NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x.movedim(1, -1)).movedim(-1, 1)


class _ChannelAttention(nn.Module):
    """Attention between channels instead of pixels."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads, self.temperature = heads, nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.qkv_dwconv = nn.Conv2d(3 * channels, 3 * channels, 3, padding=1, groups=3 * channels, bias=False)
        self.project_out = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        query, key, value = (part.reshape(batch, self.heads, -1, height * width) for part in self.qkv_dwconv(self.qkv(x)).chunk(3, 1))
        weights = (F.normalize(query, dim=-1) @ F.normalize(key, dim=-1).mT * self.temperature).softmax(-1)
        return self.project_out((weights @ value).reshape(batch, channels, height, width))


class _FeedForward(nn.Module):
    """Three branches: two gates, of which one sees its neighbourhood, on a third, which goes on by itself too."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = int(channels * _EXPANSION)
        self.project_in = nn.Conv2d(channels, 3 * hidden, 1, bias=False)
        self.dwconv = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=False)
        self.pwconw = nn.Conv2d(hidden, hidden, 1, bias=False)
        self.project_out = nn.Conv2d(hidden, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        one, two, three = self.project_in(x).chunk(3, 1)
        two, three = self.dwconv(torch.cat((two, three), 1)).chunk(2, 1)
        return self.project_out(F.gelu(one) * three + F.gelu(two) * three + self.pwconw(three))


class _Block(nn.Module):
    """Attention and feed-forward, both shifted, scaled and gated by time."""

    def __init__(self, channels: int, heads: int, time: int) -> None:
        super().__init__()
        self.norm1, self.attn = _ChannelNorm(channels), _ChannelAttention(channels, heads)
        self.norm2, self.ffn = _ChannelNorm(channels), _FeedForward(channels)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(time, 6 * channels))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        shift, scale, gate, shift2, scale2, gate2 = self.adaLN_modulation(time)[..., None, None].chunk(6, 1)
        x = x + gate * self.attn(self.norm1(x) * (1 + scale) + shift)
        return x + gate2 * self.ffn(self.norm2(x) * (1 + scale2) + shift2)


class _TimeResidual(nn.Module):
    """The residual block of latent diffusion."""

    def __init__(self, channels: int, time: int) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(nn.GroupNorm(32, channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(time, channels))
        self.out_layers = nn.Sequential(nn.GroupNorm(32, channels), nn.SiLU(), nn.Identity(), nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return x + self.out_layers(self.in_layers(x) + self.emb_layers(time)[..., None, None])


class _Down(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(inputs, outputs, 3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class _Up(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


def _hint_block(outputs: int) -> nn.Sequential:
    """512 -> 64: three of the convolutions halve."""
    parts: list[nn.Module] = []
    widths = (3, *_HINT, outputs)
    for number, (inputs, following) in enumerate(pairwise(widths)):
        parts += [nn.Conv2d(inputs, following, 3, 2 if number in (2, 4, 6) else 1, 1), nn.SiLU()]
    return nn.Sequential(*parts[:-1])


class FaceFeatures(nn.Module):
    """MFEM: features of the damaged face at nine places of the denoising network.

    Args:
        channels: Of the first depth; the others have 2, 4 and 4 times as many. time: Of the time embedding.
    """

    def __init__(self, channels: int = 320, time: int = 1280) -> None:
        super().__init__()
        one, two, four = channels, 2 * channels, 4 * channels
        self.channels = channels
        self.time_embed = nn.Sequential(nn.Linear(channels, time), nn.SiLU(), nn.Linear(time, time))
        self.input_hint_block = _hint_block(channels)
        self.input_blocks = nn.ModuleList([nn.Conv2d(4, channels, 3, padding=1)])
        self.resblock = _TimeResidual(channels, time)
        self.encoder1, self.encoder2, self.encoder3 = (_Block(width, heads, time) for width, heads in zip((one, two, four), HEADS))
        self.down1, self.down2, self.down3 = _Down(one, two), _Down(two, four), _Down(four, four)
        self.mid1, self.mid2, self.mid3 = (_Block(four, HEADS[3], time) for _ in range(3))
        self.up3, self.up2, self.up1 = _Up(four, four), _Up(four, two), _Up(two, one)
        self.reduce_chan_level3, self.reduce_chan_level2, self.reduce_chan_level1 = (
            nn.Conv2d(2 * width, width, 1, bias=False) for width in (four, two, one)
        )
        self.decoder3, self.decoder2, self.decoder1 = (_Block(width, heads, time) for width, heads in zip((four, two, one), HEADS[2::-1]))
        outs = (one, two, four, four, four, four, four, two, one)
        self.zero_convs_module = nn.ModuleList(nn.Sequential(nn.Conv2d(width, width, 1)) for width in outs)

    def forward(self, latents: Tensor, faces: Tensor, timesteps: Tensor) -> list[Tensor]:
        """(B, 4, h, w) noisy latents, (B, 3, 8 h, 8 w) RGB in [0, 1] and (B,) times -> nine features, from the first encoder to the last decoder."""
        time = self.time_embed(timestep_embedding(timesteps, self.channels).to(latents.dtype))
        x = self.resblock(self.input_blocks[0](latents) + self.input_hint_block(faces), time)
        first = self.encoder1(x, time)
        second = self.encoder2(self.down1(first), time)
        third = self.encoder3(self.down2(second), time)
        middle = [self.mid1(self.down3(third), time)]
        for block in (self.mid2, self.mid3):
            middle.append(block(middle[-1], time))
        three = self.decoder3(self.reduce_chan_level3(torch.cat((self.up3(middle[-1]), third), 1)), time)
        two = self.decoder2(self.reduce_chan_level2(torch.cat((self.up2(three), second), 1)), time)
        one = self.decoder1(self.reduce_chan_level1(torch.cat((self.up1(two), first), 1)), time)
        return [conv(x) for conv, x in zip(self.zero_convs_module, (first, second, third, *middle, three, two, one))]


class _CrossAttention(nn.Module):
    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q, self.to_k, self.to_v = (nn.Linear(channels, channels, bias=False) for _ in range(3))
        self.to_out = nn.Sequential(nn.Linear(channels, channels), nn.Identity())

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.to_q(x), self.to_k(context), self.to_v(context)))
        return self.to_out(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class TimePrompt(nn.Module):
    """TTPM: a learned prompt of ``tokens`` tokens that changes with time.

    The trained model normalises along dimension 1, which for the finished prompts (B, tokens, context) is the axis of tokens; kept.

    Args:
        hidden: Inner channels. context: Channels of the prompt. tokens: Of the prompt. heads: Of the attention.
    """

    def __init__(self, hidden: int = 512, context: int = 1024, tokens: int = 77, heads: int = 8) -> None:
        super().__init__()
        self.learnable_param = nn.Parameter(torch.zeros(tokens, context))
        self.time_embed = nn.Sequential(nn.Linear(TIME_CHANNELS, hidden), nn.SiLU(), nn.Linear(hidden, hidden))
        self.transform_in = nn.Sequential(nn.Linear(context, hidden), nn.Tanh(), nn.Linear(hidden, hidden))
        self.atten = _CrossAttention(hidden, heads)
        self.transform_out = nn.Sequential(nn.Linear(hidden, hidden), nn.Tanh(), nn.Linear(hidden, context))

    def forward(self, timesteps: Tensor) -> Tensor:
        """(B,) -> (B, tokens, context)."""
        dtype = self.learnable_param.dtype
        time = F.normalize(self.time_embed(timestep_embedding(timesteps, TIME_CHANNELS).to(dtype)), dim=1)
        time = time[:, None].expand(-1, len(self.learnable_param), -1)
        prompt = F.normalize(self.transform_in(self.learnable_param), dim=1).expand(len(timesteps), -1, -1)
        return F.normalize(self.transform_out(self.atten(prompt, time) + prompt), dim=1)


def places(unet: nn.Module) -> Sequence[nn.Module]:
    """The nine modules of a ``UNet2DConditionModel`` whose output the features are added to, in their order."""
    down, middle, up = unet.get_submodule("down_blocks"), unet.get_submodule("mid_block"), unet.get_submodule("up_blocks")
    names_down = ("0.attentions.1", "1.attentions.1", "2.attentions.1", "3.resnets.1")
    names_up = ("0.resnets.1", "1.attentions.1", "2.attentions.1", "3.attentions.1")
    return [*(down.get_submodule(name) for name in names_down), middle, *(up.get_submodule(name) for name in names_up)]
