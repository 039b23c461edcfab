"""``checkpoint_BFRffusion_FFHQ.ckpt`` -> ``Networks``: one file in the layout of latent diffusion, taken apart by name, strictly."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from torch import Tensor, nn

from svad_ray.errors import InputError
from svad_ray.models.brought import fingerprint, is_rule_made
from svad_ray.nets.bfrffusion.control import FaceFeatures, TimePrompt
from svad_ray.nets.bfrffusion.networks import Networks, Sizes, build_unet, build_vae
from svad_ray.nets.checkpoint import fill, foreign, read_state
from svad_ray.nets.faces.files import missing

FILE, SOURCE, LICENCE = "checkpoint_BFRffusion_FFHQ.ckpt", "the BFRffusion project", "MIT; Stable Diffusion 2.1: OpenRAIL++-M"
SIZES_FILE = "bfrffusion_sizes.json"  # beside a checkpoint of other sizes than the published one
UNET, FEATURES, PROMPT, VAE = "model.diffusion_model.", "control_model.", "cond_stage_model.", "first_stage_model."
_SCHEDULE = (
    "betas alphas_cumprod alphas_cumprod_prev sqrt_alphas_cumprod sqrt_one_minus_alphas_cumprod log_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod sqrt_recipm1_alphas_cumprod posterior_variance posterior_log_variance_clipped",
    "posterior_mean_coef1 posterior_mean_coef2 logvar",
)
SCHEDULE = frozenset(name for line in _SCHEDULE for name in line.split())
"""Tables that are computed from the schedule and not trained."""


def load_networks(folder: str | Path, *, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Networks:
    """The networks of the checkpoint in ``folder``.

    Raises:
        WeightsMissing: The file is not there. InputError: It is damaged, of another model, or lacks tensors; the message names them.
    """
    root = Path(folder)
    path = root / FILE
    state = read_state(path, missing=lambda: missing(path, SOURCE, LICENCE), inside=("state_dict",), beside=True)
    networks = from_state(state, path, read_sizes(root), dtype=dtype)
    networks.facts = {"rule_made": is_rule_made(root), "fingerprint": fingerprint(root)}
    return networks.to(device)


def from_state(state: Mapping[str, Tensor], path: Path, sizes: Sizes, *, dtype: torch.dtype = torch.float32) -> Networks:
    """The networks of published names and tensors."""
    prefixes = (UNET, FEATURES, PROMPT, VAE)
    if stray := sorted(key for key in state if not key.startswith(prefixes) and key not in SCHEDULE):
        raise foreign(path, stray, "checkpoint of BFRffusion")
    unet, features, prompt, vae = empty(sizes)
    parts = {prefix: {key: value for key, value in state.items() if key.startswith(prefix)} for prefix in prefixes}
    for prefix, module in ((FEATURES, features), (PROMPT, prompt)):
        fill(module, {key.removeprefix(prefix): value for key, value in parts[prefix].items()}, path, dtype=dtype)
    fill(unet, _converted(convert_ldm_unet_checkpoint, parts[UNET], dict(unet.config), path), path, dtype=dtype)
    fill(vae, _converted(convert_ldm_vae_checkpoint, parts[VAE], dict(vae.config), path), path, dtype=dtype)
    return Networks(unet, features, prompt, vae)


def empty(sizes: Sizes) -> tuple[Any, FaceFeatures, TimePrompt, Any]:
    """UNet, features, prompt and autoencoder without memory."""
    with torch.device("meta"):
        features, prompt = FaceFeatures(sizes.channels, sizes.time), TimePrompt(sizes.hidden, sizes.context, heads=sizes.prompt_heads)
        return build_unet(sizes), features, prompt, build_vae(sizes)


def _converted(convert: Any, part: dict[str, Tensor], config: dict[str, Any], path: Path) -> dict[str, Tensor]:
    """Names of latent diffusion -> names of diffusers."""
    try:
        return convert(dict(part), config=config)
    except (KeyError, IndexError, ValueError) as error:
        raise InputError(
            f"{path} is partial: a tensor that the conversion to diffusers' names needs is not there: {error}",
            expected="every tensor of the published file",
            remedy="download the file again",
        ) from error


def read_sizes(root: Path) -> Sizes:
    """The published sizes, or those that ``bfrffusion_sizes.json`` gives."""
    path = root / SIZES_FILE
    if not path.exists():
        return Sizes()
    try:
        return Sizes(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, OSError) as error:
        raise InputError(f"{path} gives no sizes: {error}", expected=f"numbers for {', '.join(asdict(Sizes()))}", remedy="remove it") from error


def parameters(networks: Networks) -> dict[str, int]:
    """How many each network has."""
    return {name: sum(p.numel() for p in nn.Module.parameters(part)) for name, part in networks.parts.items()}
