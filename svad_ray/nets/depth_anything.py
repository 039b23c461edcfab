"""Depth Anything V2: how near everything in one picture is, up to scale and shift.

The network is the one in transformers; the published files ``depth_anything_v2_vit?.pth`` are read under their own names, and so are the converted
ones, whose names are those of transformers. Where the table of positions does not fit the picture it is resized as the published code does it,
which transformers does slightly differently.

Source: Yang et al., Depth Anything V2 (2024).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate
from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config
from transformers.models.dinov2.modeling_dinov2 import Dinov2Embeddings

from svad_ray.errors import InputError, WeightsMissing
from svad_ray.nets.checkpoint import absent, fill, read_state

SOURCE = "the Depth Anything V2 project"
PATCH, SIDE = 14, 37  # pixels of a patch; patches a side that the table of positions was made for
INPUT = PATCH * SIDE
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_SHIFT = 0.1  # added to the number of patches before the table's scale is computed


@dataclass(frozen=True)
class DepthSize:
    """One of the published networks: its file, the file's licence, and its widths. ``taps`` are numbers of blocks, counted from 1."""

    file: str
    licence: str
    dim: int
    depth: int
    heads: int
    features: int
    channels: tuple[int, int, int, int]
    taps: tuple[int, int, int, int]


_FREE, _RESEARCH = "Apache-2.0", "CC-BY-NC-4.0, non-commercial"
SIZES = {
    "small": DepthSize("depth_anything_v2_vits.pth", _FREE, 384, 12, 6, 64, (48, 96, 192, 384), (3, 6, 9, 12)),
    "base": DepthSize("depth_anything_v2_vitb.pth", _RESEARCH, 768, 12, 12, 128, (96, 192, 384, 768), (3, 6, 9, 12)),
    "large": DepthSize("depth_anything_v2_vitl.pth", _RESEARCH, 1024, 24, 16, 256, (256, 512, 1024, 1024), (5, 12, 18, 24)),
}


class _Embeddings(Dinov2Embeddings):
    """Patches and positions; the table is resized by scale factors, not to an exact size."""

    def interpolate_pos_encoding(self, embeddings: Tensor, height: int, width: int) -> Tensor:
        """(1, 1 + patches, dim) positions for a picture of ``height`` x ``width``."""
        table = self.position_embeddings
        side = math.isqrt(table.shape[1] - 1)
        rows, columns = height // PATCH, width // PATCH
        if rows == columns == side:
            return table
        grid = table[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2).float()
        scale = ((rows + _SHIFT) / side, (columns + _SHIFT) / side)
        grid = interpolate(grid, scale_factor=scale, mode="bicubic", align_corners=False).to(table.dtype)
        return torch.cat((table[:, :1], grid.permute(0, 2, 3, 1).flatten(1, 2)), 1)


class DepthAnything:
    """Pictures -> relative inverse depth.

    Args:
        model: From :func:`build`, filled. batch: Pictures at once.
    """

    def __init__(self, model: DepthAnythingForDepthEstimation, *, batch: int = 4) -> None:
        self.model, self.batch = model.eval().requires_grad_(False), batch

    @torch.inference_mode()
    def __call__(self, frames: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
        """(T, H, W) float32, larger = nearer, of T pictures (H, W, 3) uint8 RGB of one size."""
        device = next(self.model.parameters()).device
        out = []
        for first in range(0, len(frames), self.batch):
            part = np.stack([prepared(frame) for frame in frames[first : first + self.batch]])
            depth = self.model(torch.from_numpy(part).to(device)).predicted_depth
            out.append(interpolate(depth[:, None], frames[0].shape[:2], mode="bilinear", align_corners=True)[:, 0].cpu().numpy())
        return np.concatenate(out) if out else np.zeros((0, 0, 0), np.float32)


def prepared(image: np.ndarray) -> np.ndarray:
    """(3, h, w) float32 that the network sees of an (H, W, 3) uint8 RGB picture: no side below 518 pixels, both multiples of 14, normalised."""
    height, width = image.shape[:2]
    scale = max(INPUT / height, INPUT / width)
    resized = cv2.resize(image / 255.0, (_fitting(scale * width), _fitting(scale * height)), interpolation=cv2.INTER_CUBIC)
    return ((resized - _MEAN) / _STD).transpose(2, 0, 1).astype(np.float32)


def _fitting(length: float) -> int:
    nearest = round(length / PATCH) * PATCH
    return nearest if nearest >= INPUT else math.ceil(length / PATCH) * PATCH


def to_levels(depth: np.ndarray) -> np.ndarray:
    """(H, W) uint8 of an (H, W) map, its own smallest value at 0 and its largest at 255, truncated; a constant map is 0."""
    span = float(depth.max()) - float(depth.min())
    return ((depth - depth.min()) / (span or 1.0) * 255.0).astype(np.uint8)


def build(size: DepthSize) -> DepthAnythingForDepthEstimation:
    """The network of a size, weights at random."""
    backbone = Dinov2Config(
        image_size=INPUT,
        patch_size=PATCH,
        hidden_size=size.dim,
        num_hidden_layers=size.depth,
        num_attention_heads=size.heads,
        out_indices=list(size.taps),
        reshape_hidden_states=False,
        apply_layernorm=True,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        patch_size=PATCH,
        reassemble_hidden_size=size.dim,
        neck_hidden_sizes=list(size.channels),
        fusion_hidden_size=size.features,
    )
    model = DepthAnythingForDepthEstimation(config)
    model.backbone.embeddings = _Embeddings(backbone)
    return model


def load_depth(folder: str | Path, size: str = "small", *, device: str = "cpu") -> DepthAnything:
    """The network filled from ``folder``, every tensor by name and shape.

    Args:
        size: Key of ``SIZES``. Its file lies in ``folder`` under the published name, or with the published name's stem as ``.safetensors``,
            in the original's or in transformers' naming.

    Raises:
        WeightsMissing: The file is not there. InputError: It is damaged, partial, or a network of another size.
    """
    wanted = SIZES[size]
    path = Path(folder) / wanted.file
    state = read_state(path, missing=lambda: _missing(path, wanted), inside=("model", "state_dict"))
    _check_size(path, state, wanted)
    with torch.device("meta"):
        model = build(wanted)
    return DepthAnything(fill(model, renamed(state), path, what=f"Depth Anything V2 of size '{size}'").to(device))


def _missing(path: Path, size: DepthSize) -> WeightsMissing:
    return absent(path, SOURCE, size.licence, who="depth", remedy="put it there, or switch depth off: --set perceive.depth=off")


def _check_size(path: Path, state: Mapping[str, Tensor], wanted: DepthSize) -> None:
    """Raises InputError where the tokens are as wide as another published network's."""
    token = next((state[key] for key in ("pretrained.cls_token", "backbone.embeddings.cls_token") if key in state), None)
    found = next((name for name, size in SIZES.items() if token is not None and token.shape[-1] == size.dim), None)
    if found is not None and SIZES[found] is not wanted:
        raise InputError(
            f"{path} holds the network of size '{found}'", expected=f"the content of {wanted.file}", remedy=f"--set perceive.depth={found}"
        )


_BLOCK = {"attn.proj": "attention.o_proj", "ls1.gamma": "layer_scale1.lambda1", "ls2.gamma": "layer_scale2.lambda1"}
_CONVERTED = {f"attention.attention.{part}": f"attention.{part[0]}_proj" for part in ("query", "key", "value")} | {
    "attention.output.dense": "attention.o_proj"
}  # in converted files, and as transformers calls them since its version 5
_PREFIXES = {
    "pretrained.cls_token": "backbone.embeddings.cls_token",
    "pretrained.mask_token": "backbone.embeddings.mask_token",
    "pretrained.pos_embed": "backbone.embeddings.position_embeddings",
    "pretrained.patch_embed.proj": "backbone.embeddings.patch_embeddings.projection",
    "pretrained.norm": "backbone.layernorm",
    "pretrained.blocks": "backbone.encoder.layer",
    "depth_head.scratch.output_conv1": "head.conv1",
    "depth_head.scratch.output_conv2.0": "head.conv2",
    "depth_head.scratch.output_conv2.2": "head.conv3",
    **{f"depth_head.projects.{i}": f"neck.reassemble_stage.layers.{i}.projection" for i in range(4)},
    **{f"depth_head.resize_layers.{i}": f"neck.reassemble_stage.layers.{i}.resize" for i in range(4)},
    **{f"depth_head.scratch.layer{i + 1}_rn": f"neck.convs.{i}" for i in range(4)},
    **{f"depth_head.scratch.refinenet{i}": f"neck.fusion_stage.layers.{4 - i}" for i in range(1, 5)},
}
_FUSION = {"out_conv": "projection", "resConfUnit": "residual_layer", ".conv1": ".convolution1", ".conv2": ".convolution2"}


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published names, and those of converted files -> transformers' names; unknown ones stay.

    The one matrix for queries, keys and values is split in thirds.
    """
    out: dict[str, Tensor] = {}
    for key, value in state.items():
        name = _renamed(key)
        if ".attn.qkv." in name:
            for part, third in zip("qkv", value.chunk(3)):
                out[name.replace("attn.qkv", f"attention.{part}_proj")] = third
        else:
            out[name] = value
    return out


def _renamed(key: str) -> str:
    prefix = next((p for p in _PREFIXES if key == p or key.startswith(p + ".")), None)
    if prefix is None:
        return _replaced(key, _CONVERTED)
    parts = _BLOCK if prefix == "pretrained.blocks" else _FUSION if "refinenet" in prefix else {}
    return _PREFIXES[prefix] + _replaced(key[len(prefix) :], parts)


def _replaced(name: str, parts: Mapping[str, str]) -> str:
    for old, new in parts.items():
        name = name.replace(old, new)
    return name
