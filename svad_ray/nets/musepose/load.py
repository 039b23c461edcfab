"""The published checkpoint files -> ``Networks``. Nothing is guessed: every tensor is expected by name and shape, and nothing in a file is executed.

Layout below one folder, as the MusePose project describes it::

    MusePose/{denoising_unet,reference_unet,pose_guider,motion_module}.pth
    sd-image-variations-diffusers/unet/{config.json,diffusion_pytorch_model.bin}
    sd-image-variations-diffusers/image_encoder/{config.json,pytorch_model.bin}
    sd-vae-ft-mse/{config.json,diffusion_pytorch_model.bin}

``denoising_unet.pth`` may hold the motion modules or leave them to ``motion_module.pth``, and may leave spatial tensors to the base UNet.
A ``.safetensors`` file of the same stem is taken instead where there is one.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import CLIPVisionModelWithProjection
from transformers.utils import logging as transformers_logging

from svad_ray.errors import InputError, WeightsMissing
from svad_ray.models.brought import fingerprint, is_rule_made
from svad_ray.nets.checkpoint import fill, foreign, read_state, some
from svad_ray.nets.musepose.keys import is_motion, is_position_table, to_diffusers
from svad_ray.nets.musepose.networks import Denoiser, Networks, PoseGuider, ReferenceNet, Sizes, build_denoising, build_reference

BASE, ENCODER, VAE = "sd-image-variations-diffusers/unet", "sd-image-variations-diffusers/image_encoder", "sd-vae-ft-mse"
DENOISING, REFERENCE, GUIDER, MOTION = (f"MusePose/{name}.pth" for name in ("denoising_unet", "reference_unet", "pose_guider", "motion_module"))
SOURCES = {"MusePose": "the MusePose project", "sd-image-variations-diffusers": "lambdalabs, OpenRAIL", "sd-vae-ft-mse": "stabilityai, MIT"}
UNUSED_BY_REFERENCE = ("conv_norm_out.weight", "conv_norm_out.bias", "conv_out.weight", "conv_out.bias")


def load_networks(folder: str | Path, *, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Networks:
    """All five networks from the checkpoint folder.

    Raises:
        WeightsMissing: A file is not there; the message names it and its source.
        InputError: A file is damaged, of another model, or lacks tensors; the message names them.
    """
    root = Path(folder)
    sizes = read_sizes(root)
    denoising, reference, guider = load_own(root, sizes, dtype=dtype)
    encoder = _pretrained(CLIPVisionModelWithProjection, root, ENCODER)
    if encoder.config.projection_dim != sizes.context:
        raise InputError(
            f"{root / ENCODER} gives image embeddings of {encoder.config.projection_dim} channels",
            expected=f"{sizes.context}, as {root / BASE}/config.json says",
            remedy="take both from the same release",
        )
    networks = Networks(Denoiser(denoising), ReferenceNet(reference), guider, encoder, _pretrained(AutoencoderKL, root, VAE))
    networks.facts = {
        "rule_made": is_rule_made(root),
        "fingerprint": fingerprint(root),
        "parameters": {name: sum(p.numel() for p in part.parameters()) for name, part in networks.parts.items()},
    }
    return networks.to(device, dtype)


def load_own(root: Path, sizes: Sizes, *, dtype: torch.dtype = torch.float32) -> tuple[Any, Any, PoseGuider]:
    """The three networks of MusePose's own files: denoising, reference, pose guider. Raises as ``load_networks``."""
    with torch.device("meta"):
        denoising, reference = build_denoising(sizes), build_reference(sizes)
        guider = PoseGuider(sizes.channels[0], sizes.guider)
    beside = "download the file again, and motion_module.pth and the base UNet beside it"
    tables = _position_tables(denoising)
    fill(denoising, denoising_state(root, denoising), root / DENOISING, dtype=dtype, computed=tables, remedy=beside)
    fill(reference, _reference_state(root, reference), root / REFERENCE, dtype=dtype)
    fill(guider, read_tensors(root, GUIDER), root / GUIDER, dtype=dtype)
    return denoising, reference, guider


def read_sizes(root: Path) -> Sizes:
    """Sizes of the networks from the base UNet's configuration and the pose guider's shapes."""
    path = root / BASE / "config.json"
    config = _config(root, f"{BASE}/config.json")
    kind = config.get("_class_name", "UNet2DConditionModel")
    if kind != "UNet2DConditionModel" or config.get("in_channels", 4) != 4 or config.get("use_linear_projection", False):
        raise InputError(
            f"{path} describes a {kind} with {config.get('in_channels')} input channels, which is another family of models",
            expected="the UNet of Stable Diffusion 1 image variations: UNet2DConditionModel, 4 input channels, convolutional projections",
            remedy="take the folder from lambdalabs/sd-image-variations-diffusers",
        )
    channels = tuple(config.get("block_out_channels", Sizes.channels))
    guider = read_tensors(root, GUIDER)
    try:
        levels = (guider["conv_in.weight"].shape[0], *(guider[f"blocks.{2 * i + 1}.weight"].shape[0] for i in range(3)))
    except KeyError as error:
        raise foreign(root / GUIDER, [str(error.args[0])], "pose guider") from None
    heads = config.get("attention_head_dim", Sizes.heads)
    return Sizes(channels, config.get("layers_per_block", Sizes.layers), config.get("cross_attention_dim", Sizes.context), heads, levels)


def denoising_state(root: Path, unet: nn.Module) -> dict[str, Tensor]:
    """The denoising network's tensors by diffusers' names: its own file first, then motion modules and base UNet for what it leaves out."""
    wanted = {key for key in unet.state_dict() if not is_position_table(key)}
    state = {to_diffusers(key): tensor for key, tensor in read_tensors(root, DENOISING).items() if not is_position_table(key)}
    if stray := sorted(state.keys() - wanted):
        raise foreign(root / DENOISING, stray, "denoising network")
    if any(is_motion(key) for key in wanted - state.keys()):
        motion = {to_diffusers(key): tensor for key, tensor in read_tensors(root, MOTION).items() if not is_position_table(key)}
        if stray := sorted(motion.keys() - wanted):
            raise foreign(root / MOTION, stray, "motion modules")
        state = motion | state
    if wanted - state.keys():
        base = read_tensors(root, f"{BASE}/diffusion_pytorch_model.bin")
        state = {key: tensor for key, tensor in base.items() if key in wanted} | state
    return state


def _reference_state(root: Path, unet: nn.Module) -> dict[str, Tensor]:
    """Its output layers are never used and not in every file."""
    state = read_tensors(root, REFERENCE)
    shapes = unet.state_dict()
    return {key: torch.zeros(shapes[key].shape) for key in UNUSED_BY_REFERENCE} | state


def _position_tables(module: nn.Module) -> dict[str, Tensor]:
    """The sine tables of the motion modules, as diffusers makes them."""
    tables = {}
    for name, part in module.named_modules():
        if isinstance(part, AnimateDiffTransformer3D):
            for i, block in enumerate(part.transformer_blocks):
                old = block.pos_embed
                _, length, channels = old.pe.shape
                with torch.device("cpu"):
                    tables[f"{name}.transformer_blocks.{i}.pos_embed.pe"] = type(old)(channels, max_seq_length=length).pe
    return tables


def read_tensors(root: Path, relative: str) -> dict[str, Tensor]:
    """See ``checkpoint.read_state``."""
    return read_state(root / relative, missing=lambda: _missing(root, relative))


def _pretrained(kind: Any, root: Path, relative: str) -> Any:
    """A network of diffusers or transformers from its folder, complete or not at all."""
    folder = root / relative
    _config(root, f"{relative}/config.json")
    if not any(folder.glob("*.bin")) and not any(folder.glob("*.safetensors")):
        raise _missing(root, f"{relative}/{'diffusion_pytorch_model' if kind is AutoencoderKL else 'pytorch_model'}.bin")
    transformers_logging.disable_progress_bar()
    options = {"low_cpu_mem_usage": False} if kind is AutoencoderKL else {}
    try:
        model, info = kind.from_pretrained(folder, local_files_only=True, output_loading_info=True, **options)
    except (OSError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError, SafetensorError) as error:
        raise InputError(f"{folder} cannot be read as {kind.__name__}: {error}", remedy="download the folder again") from error
    faults = [
        f"{kind_of} {some(sorted(map(str, info[kind_of])))}" for kind_of in ("missing_keys", "unexpected_keys", "mismatched_keys") if info[kind_of]
    ]
    faults = [fault for fault in faults if not fault.startswith("unexpected_keys") or "position_ids" not in fault]
    if faults:
        raise InputError(f"{folder} is not a complete {kind.__name__}: {'; '.join(faults)}", remedy="download the folder again")
    return model


def _config(root: Path, relative: str) -> dict[str, Any]:
    path = root / relative
    if not path.exists():
        raise _missing(root, relative)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise InputError(f"{path} is not JSON: {error}", remedy="download it again") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} holds a {type(values).__name__}", expected="a model's configuration")
    return values


def _missing(root: Path, relative: str) -> WeightsMissing:
    return WeightsMissing(
        f"the animate backend 'musepose' needs {root / relative}, which is not there",
        expected=f"the file from {SOURCES[relative.split('/')[0]]}",
        remedy="put it there, or use the embedded backend: --set animate.backend=reprojection",
    )
