"""DINOv2's vision transformer under the names of its published checkpoints.

Source: DINOv2 (Oquab et al. 2023). Only what GAGAvatar reads of it: the patches of the last layers, normalised.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from svad_ray.nets.gagavatar.sizes import DinoSizes

EPS = 1e-6  # of its norms


class LayerScale(nn.Module):
    """One factor for each channel."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Attention(nn.Module):
    """Self-attention with one matrix for queries, keys and values."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two layers, four times as wide between them."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(gelu(self.fc1(x)))


class Block(nn.Module):
    """Attention and MLP, each added to what came in."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attn, self.ls1 = nn.LayerNorm(dim, eps=EPS), Attention(dim, heads), LayerScale(dim)
        self.norm2, self.mlp, self.ls2 = nn.LayerNorm(dim, eps=EPS), Mlp(dim), LayerScale(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class PatchEmbed(nn.Module):
    """Picture -> one vector for each patch."""

    def __init__(self, sizes: DinoSizes) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, sizes.dim, sizes.patch, sizes.patch)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images).flatten(2).transpose(1, 2)


class Dino(nn.Module):
    """The transformer for pictures of the size that its position table was made for."""

    def __init__(self, sizes: DinoSizes) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, sizes.dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, sizes.side**2 + 1, sizes.dim))
        self.mask_token = nn.Parameter(torch.zeros(1, sizes.dim))  # for training; in the file
        self.patch_embed = PatchEmbed(sizes)
        self.blocks = nn.ModuleList(Block(sizes.dim, sizes.heads) for _ in range(sizes.depth))
        self.norm = nn.LayerNorm(sizes.dim, eps=EPS)

    def forward(self, images: Tensor, *, last: int = 4) -> Tensor:
        """(B, 3, S, S) normalised pictures -> (last, B, patches, dim): normalised patches of the last layers; the class token is left out."""
        x = self.patch_embed(images)
        x = torch.cat((self.cls_token.expand(len(x), -1, -1), x), 1) + self.pos_embed
        layers = []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number >= len(self.blocks) - last:
                layers.append(self.norm(x)[:, 1:])
        return torch.stack(layers)
