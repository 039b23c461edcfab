"""A complete checkpoint folder of small networks whose weights come from a rule, not from training.

For trials of everything round the networks (tests, benchmarks, ``svad-ray create`` on a machine without the real files). The clip that it makes
is noise; ``RULE_MADE`` lies beside the files so that every report says so.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from svad_ray.models.brought import RULE_MADE
from svad_ray.nets.musepose.load import BASE, DENOISING, ENCODER, GUIDER, MOTION, REFERENCE, UNUSED_BY_REFERENCE, VAE
from svad_ray.nets.musepose.networks import PoseGuider, Sizes, build_denoising, build_reference

TINY = Sizes(channels=(32, 64, 64, 64), layers=1, context=32, heads=8)


def rule_weights(net: str, module: nn.Module) -> dict[str, Tensor]:
    """Weights that follow from their names: matrices of unit gain, norms near one, small biases."""
    state = {}
    for key, old in module.state_dict().items():
        if not old.is_floating_point() or key.endswith(".pe"):
            state[key] = old
            continue
        drawn = np.random.default_rng(zlib.crc32(f"{net}:{key}".encode())).standard_normal(tuple(old.shape), dtype=np.float32)
        if key.endswith("bias"):
            drawn = 0.02 * drawn
        elif drawn.ndim == 1:
            drawn = 1 + 0.1 * drawn
        else:
            drawn = drawn / np.float32(np.sqrt(np.prod(drawn.shape[1:])))
        state[key] = torch.from_numpy(drawn.astype(np.float32))
    return state


def write_tiny(folder: str | Path, *, sizes: Sizes = TINY) -> Path:
    """Write the folder in the published layout; returns it. The motion modules lie in their own file."""
    root = Path(folder)
    for part in ("MusePose", BASE):
        (root / part).mkdir(parents=True, exist_ok=True)
    (root / RULE_MADE).write_text("These weights come from a rule, not from training: what they generate is noise.\n", encoding="utf-8")
    denoising, reference = build_denoising(sizes), build_reference(sizes)
    weights = rule_weights("denoising_unet", denoising)
    torch.save({key: value for key, value in weights.items() if "motion_modules" not in key}, root / DENOISING)
    torch.save({_published(key): value for key, value in weights.items() if "motion_modules" in key and not key.endswith(".pe")}, root / MOTION)
    torch.save({k: v for k, v in rule_weights("reference_unet", reference).items() if k not in UNUSED_BY_REFERENCE}, root / REFERENCE)
    torch.save(rule_weights("pose_guider", PoseGuider(sizes.channels[0], sizes.guider)), root / GUIDER)
    reference.save_config(root / BASE)
    torch.save(rule_weights("base", reference), root / BASE / "diffusion_pytorch_model.bin")
    image_encoder(sizes.context).save_pretrained(root / ENCODER)
    vae().save_pretrained(root / VAE)
    return root


def _published(key: str) -> str:
    """diffusers' name of a motion tensor -> the published one."""
    for of_diffusers, published in (("attn1", "attention_blocks.0"), ("attn2", "attention_blocks.1"), ("norm1", "norms.0"), ("norm2", "norms.1")):
        key = key.replace(f".{of_diffusers}.", f".{published}.")
    head, _, tail = key.replace(".norm3.", ".ff_norm.").partition(".motion_modules.")
    number, _, rest = tail.partition(".")
    return f"{head}.motion_modules.{number}.temporal_transformer.{rest}"


def image_encoder(channels: int) -> CLIPVisionModelWithProjection:
    """A small CLIP image encoder."""
    config = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, projection_dim=channels, num_hidden_layers=2, num_attention_heads=4, patch_size=32
    )
    model = CLIPVisionModelWithProjection(config)
    model.load_state_dict(rule_weights("image_encoder", model))
    return model


def vae() -> AutoencoderKL:
    """A small autoencoder."""
    model = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 16, 32, 32),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=128,
    )
    model.load_state_dict(rule_weights("vae", model))
    return model
