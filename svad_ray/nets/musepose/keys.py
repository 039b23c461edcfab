"""Names of the published denoising network's tensors -> names of diffusers' ``UNetMotionModel``.

Spatial names are the same. In the motion modules the wrapper ``temporal_transformer`` falls away, numbered attentions and norms get their numbers
in their names, and the two equal position tables of a block become one.
"""

from __future__ import annotations

import re

_RULES = tuple(
    (re.compile(pattern), to)
    for pattern, to in (
        (r"\.temporal_transformer\.", "."),
        (r"\.attention_blocks\.[01]\.pos_encoder\.pe$", ".pos_embed.pe"),
        (r"\.attention_blocks\.0\.", ".attn1."),
        (r"\.attention_blocks\.1\.", ".attn2."),
        (r"\.norms\.0\.", ".norm1."),
        (r"\.norms\.1\.", ".norm2."),
        (r"\.ff_norm\.", ".norm3."),
    )
)


def to_diffusers(key: str) -> str:
    """The name in diffusers of one published tensor (a bijection but for the position tables)."""
    if "motion_modules" not in key:
        return key
    for pattern, to in _RULES:
        key = pattern.sub(to, key)
    return key


def is_motion(key: str) -> bool:
    """Does the tensor belong to a motion module?"""
    return "motion_modules" in key


def is_position_table(key: str) -> bool:
    """Is it a table of positions? It follows from its shape and is never trained."""
    return key.endswith((".pos_encoder.pe", ".pos_embed.pe"))
