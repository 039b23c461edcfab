"""MusePose's reduced networks, filled by the rule of the recorded weights."""

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from rules import rule_tensor
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from svad_ray.nets.musepose.keys import is_position_table, to_diffusers
from svad_ray.nets.musepose.networks import Denoiser, Networks, PoseGuider, ReferenceNet, Sizes, build_denoising, build_reference

REDUCED = Sizes(channels=(32, 64, 64, 64), layers=2, context=32, heads=8)


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
