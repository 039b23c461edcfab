"""Attention processors of the two UNets: reference attention, and attention to a single token.

Source: MusePose (after AnimateAnyone): every spatial self-attention of the denoising network also attends to the tokens that the same layer of the
reference network saw. Only the conditional half of classifier-free guidance does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.attention import BasicTransformerBlock
from torch import Tensor, nn

Bank = dict[str, Tensor]
"""Block name -> (1, tokens, channels): what the block's self-attention saw in the reference network."""

Projected = Mapping[str, tuple[Tensor, Tensor]]
"""Block name -> keys and values, each (1, heads, tokens, channels / heads)."""


@dataclass
class Call:
    """What the processors of one network share during one call.

    Attributes:
        projected: The bank's keys and values; None = no reference.
        conditioned: Of each batch element, does it see the reference? Elements that do come after those that do not.
        frames: Frames per batch element; rows of the hidden states are batch-major.
    """

    projected: Projected | None = None
    conditioned: tuple[bool, ...] = ()
    frames: int = 1


def spatial_blocks(unet: nn.Module) -> Iterator[tuple[str, BasicTransformerBlock]]:
    """Name and module of every transformer block that works within a frame, in the order of the module tree."""
    for name, module in unet.named_modules():
        if isinstance(module, BasicTransformerBlock) and "motion_modules" not in name:
            yield name, module


def heads(attn: Any, x: Tensor) -> Tensor:
    """(B, tokens, channels) -> (B, heads, tokens, channels / heads)."""
    batch, tokens, channels = x.shape
    return x.view(batch, tokens, attn.heads, channels // attn.heads).transpose(1, 2)


def _attend(attn: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    out = F.scaled_dot_product_attention(query, key, value)
    return attn.to_out[0](out.transpose(1, 2).flatten(2))


class SelfAttention:
    """Self-attention within a frame, and for conditioned rows attention to the reference's tokens as well."""

    def __init__(self, name: str, call: Call) -> None:
        self.name, self.call = name, call

    def __call__(self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **_: Any) -> Tensor:
        query, key, value = (heads(attn, project(hidden_states)) for project in (attn.to_q, attn.to_k, attn.to_v))
        plain = self.call.conditioned.count(False) * self.call.frames  # rows in front that do not see the reference
        if self.call.projected is None or plain == len(hidden_states):
            return _attend(attn, query, key, value)
        seen = (
            torch.cat((own[plain:], extra.expand(len(own) - plain, -1, -1, -1)), 2)
            for own, extra in zip((key, value), self.call.projected[self.name])
        )
        out = _attend(attn, query[plain:], *seen)
        return torch.cat((_attend(attn, query[:plain], key[:plain], value[:plain]), out)) if plain else out


class SingleTokenAttention:
    """Cross-attention to one token: the softmax over a single score is one, so every query receives that token's value. Exact."""

    def __call__(self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **_: Any) -> Tensor:
        if encoder_hidden_states is None or encoder_hidden_states.shape[1] != 1:
            found = "none" if encoder_hidden_states is None else str(encoder_hidden_states.shape[1])
            raise ValueError(f"the image embedding must be one token, found {found}")
        return attn.to_out[0](attn.to_v(encoder_hidden_states)).expand(-1, hidden_states.shape[1], -1)


@dataclass
class Record:
    """Remembers what the self-attention of every block saw."""

    bank: Bank = field(default_factory=dict)

    def processor(self, name: str) -> Any:
        """Plain self-attention of block ``name`` that leaves its input in the bank."""
        plain = SelfAttention(name, Call())

        def remember(attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **options: Any) -> Tensor:
            self.bank[name] = hidden_states
            return plain(attn, hidden_states, **options)

        return remember


def project(unet: nn.Module, bank: Bank) -> Projected:
    """Keys and values of ``bank`` by the self-attentions of ``unet``: they depend on neither step nor window, so once is enough.

    Args:
        unet: The denoising network; its blocks carry the reference network's names.
    """
    return {
        name: (heads(block.attn1, block.attn1.to_k(bank[name])), heads(block.attn1, block.attn1.to_v(bank[name])))
        for name, block in spatial_blocks(unet)
    }
