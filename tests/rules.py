"""The rule that made the recorded weights (its README has it), for every network."""

import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn


def rule_tensor(net: str, key: str, shape, factor: float = 1.0) -> np.ndarray:
    """Weights of a published key."""
    drawn = np.random.default_rng(zlib.crc32(f"{net}:{key}".encode())).standard_normal(tuple(shape), dtype=np.float32)
    leaf = key.rsplit(".", 1)[-1]
    if leaf == "running_var":
        drawn = 1 + 0.1 * np.abs(drawn)
    elif leaf == "running_mean":
        drawn = 0.1 * drawn
    elif leaf == "bias":
        drawn = 0.02 * drawn
    elif leaf == "weight" and len(shape) == 1:
        drawn = 1 + 0.1 * drawn
    else:
        fan_in = int(np.prod(shape[1:])) if len(shape) >= 2 else 1
        drawn = drawn * np.float32(np.sqrt(1.0 / fan_in))
    return (drawn * np.float32(factor)).astype(np.float32)


def rule_input(name: str, shape, scale: float = 1.0) -> np.ndarray:
    """An input that is not stored."""
    drawn = np.random.default_rng(zlib.crc32(f"input:{name}".encode())).standard_normal(tuple(shape), dtype=np.float32)
    return (drawn * np.float32(scale)).astype(np.float32)


def rule_state(net: str, shapes, factors=lambda key: 1.0) -> dict[str, torch.Tensor]:
    """Published names -> tensors; counters of batch normalisation are left out."""
    kept = {key: shape for key, shape in shapes.items() if not key.endswith("num_batches_tracked")}
    return {key: torch.from_numpy(rule_tensor(net, key, shape, factors(key))) for key, shape in kept.items()}


def rule_made(net: str, module: nn.Module, factors=lambda key: 1.0) -> nn.Module:
    """``module`` filled under its own names, which are the published ones."""
    state = rule_state(net, {key: tuple(value.shape) for key, value in module.state_dict().items()}, factors)
    missing, unexpected = module.load_state_dict(state, strict=False)
    assert not unexpected and all(key.endswith("num_batches_tracked") for key in missing), (missing, unexpected)
    return module.eval().requires_grad_(False)


def golden_or_skip(path: Path):
    """A recorded file; the larger ones are not kept beside the tests."""
    if not path.exists():
        pytest.skip(f"{path.name} is not among the recorded files kept here; set SVAD_GOLDEN to a folder that has it")
    return np.load(path)


def avatar_rule(key: str, shape, conv_gain: float = 1.0) -> np.ndarray:
    """Weights of a published key in the recordings from the clip to the avatar, whose rule is another one."""
    drawn = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(tuple(shape), dtype=np.float32)
    leaf = key.rsplit(".", 1)[-1]
    if leaf == "running_var":
        return 1 + 0.1 * np.abs(drawn)
    if leaf == "bias":
        return 0.02 * drawn
    if len(shape) == 1 and leaf in ("weight", "g", "scale", "gamma"):
        return 1 + 0.1 * drawn
    if leaf in ("pos_embed", "cls_token", "mask_token", "triplane", "triplane_face"):
        return 0.2 * drawn
    if leaf == "positional_encoding_gaussian_matrix":
        return drawn
    if len(shape) < 2:
        return 0.02 * drawn
    return drawn * np.float32(np.sqrt((conv_gain if len(shape) == 4 else 1.0) / np.prod(shape[1:])))
