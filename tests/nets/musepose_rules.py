"""The rule that made the recorded weights, and the reduced networks filled by it."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from svad_ray.nets.musepose.keys import is_position_table, to_diffusers
from svad_ray.nets.musepose.networks import Denoiser, Networks, PoseGuider, ReferenceNet, Sizes, build_denoising, build_reference

REDUCED = Sizes(channels=(32, 64, 64, 64), layers=2, context=32, heads=8)


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


def rule_fill(net: str, module: nn.Module, shapes: dict | None = None, rename=lambda key: key) -> nn.Module:
    """Fill ``module`` from published ``shapes`` (its own by default); every tensor that is not a buffer must be covered."""
    state = module.state_dict()
    shapes = shapes or {key: list(value.shape) for key, value in state.items()}
    buffers = {name for name, _ in module.named_buffers()}
    wanted = {rename(key): torch.from_numpy(rule_tensor(net, key, shape)) for key, shape in shapes.items() if not is_position_table(key)}
    wanted = {key: value for key, value in wanted.items() if key not in buffers}
    missing = state.keys() - wanted.keys() - buffers
    assert not (missing - {"conv_norm_out.weight", "conv_norm_out.bias", "conv_out.weight", "conv_out.bias"}), missing
    module.load_state_dict({**state, **wanted}, strict=True)
    return module.eval().requires_grad_(False)


def reduced_networks(golden: Path) -> Networks:
    keys = json.loads((golden / "muse_keys_reduced.json").read_text())
    denoising = rule_fill("denoising_unet", build_denoising(REDUCED), keys["denoising_unet"]["shapes"], to_diffusers)
    reference = rule_fill("reference_unet", build_reference(REDUCED), keys["reference_unet"]["shapes"])
    encoder = CLIPVisionModelWithProjection(CLIPVisionConfig(**keys["image_encoder"]["config"]))
    vae = AutoencoderKL(**keys["vae"]["config"])
    return Networks(
        Denoiser(denoising),
        ReferenceNet(reference),
        rule_fill("pose_guider", PoseGuider(32), keys["pose_guider"]["shapes"]),
        rule_fill("image_encoder", encoder, keys["image_encoder"]["shapes"]),
        rule_fill("vae", vae, keys["vae"]["shapes"]),
    )


def golden_or_skip(path: Path):
    """A recorded file; the larger ones are not kept beside the tests."""
    if not path.exists():
        pytest.skip(f"{path.name} is not among the recorded files kept here; set SVAD_GOLDEN to a folder that has it")
    return np.load(path)
