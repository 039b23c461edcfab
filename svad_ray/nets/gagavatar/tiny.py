"""A small network of rule-made weights in the published layout, for trials on a machine without the real file. What it paints is noise."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from svad_ray.models.brought import RULE_MADE
from svad_ray.nets.gagavatar.load import FILE
from svad_ray.nets.gagavatar.network import GAGAvatar
from svad_ray.nets.gagavatar.sizes import DinoSizes, Sizes

TINY = Sizes(
    dino=DinoSizes(image=56, dim=64, heads=1, depth=4),
    levels=(16, 16, 16, 16),
    feature=32,
    picture=64,
    down=(16, 16, 8, 8, 8),
    decoder=(16, 16, 16, 8, 8),
    style=16,
)


def rule_weights(net: str, module: nn.Module) -> dict[str, Tensor]:
    """Weights that follow from their names: matrices of unit gain, norms near one, small biases, modulations about one."""
    state = {}
    for key, old in module.state_dict().items():
        drawn = np.random.default_rng(zlib.crc32(f"{net}:{key}".encode())).standard_normal(tuple(old.shape), dtype=np.float32)
        if key.endswith("bias"):
            drawn = 0.02 * drawn + key.endswith("modulation.bias")
        elif drawn.ndim == 1:
            drawn = 1 + 0.1 * drawn
        elif ".noises." not in key:
            drawn = drawn / np.float32(np.sqrt(np.prod(drawn.shape[1:])))
        state[key] = torch.from_numpy(drawn.astype(np.float32))
    return state


def write_tiny(folder: str | Path, *, sizes: Sizes = TINY) -> Path:
    """Write ``GAGAvatar.pt`` into ``folder``, with a tensor of the loss networks as the real file has them; returns the folder."""
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    (root / RULE_MADE).write_text("These weights come from a rule, not from training: what they paint is noise.\n", encoding="utf-8")
    with torch.device("meta"):
        network = GAGAvatar(sizes)
    model = rule_weights("gagavatar", network) | {"percep_loss.lpips.lin0.weight": torch.zeros(1)}
    torch.save({"meta_cfg": {"name": "tiny"}, "model": model}, root / FILE)
    return root
