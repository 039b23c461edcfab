"""CLIP's image encoder from a folder that the user gives: transformers' layout, or open_clip's. There is no other network behind the name.

Source: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision" (2021): the cosine of two projected image embeddings.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from svad_ray.errors import InputError, WeightsMissing

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_FILES = ("model.safetensors", "pytorch_model.bin")
_OPEN = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")
_OPEN_CONFIG = "open_clip_config.json"
_REMEDY = "give --clip a folder with config.json and model.safetensors of a CLIP model, or leave the metric 'clip' out"
_LICENCE = "its own licence (OpenAI's weights: MIT)"


class ClipSimilarity:
    """``ClipSimilarity(folder)(a, b)``: cosine of two pictures' CLIP embeddings, in [-1, 1].

    Attributes:
        name: What is measured with: the folder's name, the kind of network, and the first digits of the weights' sha256.

    Args:
        folder: Of a checkpoint: transformers' ``CLIPModel`` or ``CLIPVisionModelWithProjection``, or open_clip's files of a vision transformer.

    Raises:
        WeightsMissing: No folder was given, or it holds no such checkpoint. InputError: It is damaged or of another network.
    """

    def __init__(self, folder: str | Path) -> None:
        path = Path(folder) if folder else None
        if path is None or not path.is_dir():
            found = "CLIP similarity was asked for, but no checkpoint was given" if path is None else f"there is no folder {path}"
            raise WeightsMissing(found, expected=f"a CLIP checkpoint of yours, under {_LICENCE}", remedy=_REMEDY)
        weights = _first(path, _FILES)
        if weights is not None and (path / "config.json").is_file():
            self.model, kind = _transformers_model(path), "transformers"
        elif (weights := _first(path, _OPEN)) is not None and (path / _OPEN_CONFIG).is_file():
            self.model, kind = _open_clip_model(path, weights), "open_clip"
        else:
            raise WeightsMissing(
                f"{path} holds no CLIP checkpoint",
                expected=f"config.json with {' or '.join(_FILES)}; or {_OPEN_CONFIG} with {_OPEN[0]}",
                remedy=_REMEDY,
            )
        self.side = int(self.model.config.image_size)
        mean, std = _normalisation(path)
        self._mean, self._std = (torch.tensor(values).view(3, 1, 1) for values in (mean, std))
        self.name = f"{path.name} ({kind}, {self.side} px, sha256 {_digest(weights)})"

    def __call__(self, a: np.ndarray, b: np.ndarray) -> float:
        """a, b: (H, W, 3) float RGB in [0, 1]."""
        x, y = self.embedding(a), self.embedding(b)
        return float(x @ y / (np.linalg.norm(x) * np.linalg.norm(y)))

    @torch.inference_mode()
    def embedding(self, image: np.ndarray) -> np.ndarray:
        """(E,) float64: the projected embedding, not normalised."""
        return self.model(pixel_values=self.pixels(image)[None]).image_embeds[0].double().numpy()

    def pixels(self, image: np.ndarray) -> Tensor:
        """(3, side, side): white added to a square, bicubic with antialiasing, normalised. A cropped person would lose head and feet."""
        from svad_ray.nets.efficientnet_lite import squared

        longest = max(image.shape[:2])
        x = torch.from_numpy(squared(image, longest).transpose(2, 0, 1).copy())[None]
        if longest != self.side:
            x = torch.nn.functional.interpolate(x, (self.side, self.side), mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
        return (x[0] - self._mean) / self._std


def _first(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _transformers_model(folder: Path) -> Any:
    from transformers import CLIPVisionModelWithProjection

    kind = _json(folder / "config.json").get("model_type")
    if kind not in ("clip", "clip_vision_model"):
        raise InputError(f"{folder} holds a network of the kind {kind!r}", expected="a CLIP model", remedy=_REMEDY)
    try:
        model, told = CLIPVisionModelWithProjection.from_pretrained(folder, local_files_only=True, output_loading_info=True, weights_only=True)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise InputError(f"the CLIP checkpoint in {folder} cannot be read: {str(error).splitlines()[0]}", remedy="download it again") from error
    if lacking := sorted(told["missing_keys"]):
        raise InputError(f"{folder} lacks {len(lacking)} tensors of CLIP's image encoder: {', '.join(lacking[:4])}", remedy="download it again")
    return model.float().eval()


def _open_clip_model(folder: Path, weights: Path) -> Any:
    """open_clip's vision transformer, its tensors under transformers' names."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    from svad_ray.nets.checkpoint import fill, read_state

    config = _json(folder / _OPEN_CONFIG).get("model_cfg", {})
    vision = config.get("vision_cfg", {})
    if not isinstance(vision.get("layers"), int) or "timm_model_name" in vision:
        raise InputError(f"{folder} holds an image encoder that is no plain vision transformer", expected="open_clip's ViT", remedy=_REMEDY)
    width, heads = int(vision["width"]), int(vision["width"]) // int(vision.get("head_width", 64))
    with torch.device("meta"):
        model = CLIPVisionModelWithProjection(
            CLIPVisionConfig(
                hidden_size=width,
                intermediate_size=int(width * vision.get("mlp_ratio", 4)),
                projection_dim=int(config["embed_dim"]),
                num_hidden_layers=int(vision["layers"]),
                num_attention_heads=heads,
                image_size=int(vision["image_size"]),
                patch_size=int(vision["patch_size"]),
                hidden_act="quick_gelu" if config.get("quick_gelu") else "gelu",
            )
        )
    state = read_state(weights, missing=lambda: WeightsMissing(f"{weights} is not there", remedy=_REMEDY), inside=("state_dict",))
    ids = {"vision_model.embeddings.position_ids": torch.arange((int(vision["image_size"]) // int(vision["patch_size"])) ** 2 + 1)[None]}
    return _with_ids(fill(model, _renamed(state, width), weights, what="CLIP image encoder"), ids).eval()


def _with_ids(model: Any, ids: dict[str, Tensor]) -> Any:
    """Position numbers are computed and in no file."""
    for name, value in ids.items():
        owner, _, leaf = name.rpartition(".")
        model.get_submodule(owner).register_buffer(leaf, value, persistent=False)
    return model


_WHOLE = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
}
_LAYER = {
    "ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2", "attn.out_proj": "self_attn.out_proj",
}  # fmt: skip


def _renamed(state: dict[str, Tensor], width: int) -> dict[str, Tensor]:
    out = {ours: state[theirs] for theirs, ours in _WHOLE.items() if theirs in state}
    if "visual.proj" in state:
        out["visual_projection.weight"] = state["visual.proj"].T.contiguous()
    head = "visual.transformer.resblocks."
    for key, value in state.items():
        if not key.startswith(head):
            continue
        number, _, rest = key[len(head) :].partition(".")
        into = f"vision_model.encoder.layers.{number}."
        if rest.startswith("attn.in_proj_"):
            for name, part in zip(("q", "k", "v"), value.split(width)):
                out[f"{into}self_attn.{name}_proj.{rest.removeprefix('attn.in_proj_')}"] = part.clone()
        else:
            part_name, _, leaf = rest.rpartition(".")
            out[f"{into}{_LAYER.get(part_name, part_name)}.{leaf}"] = value
    return out


def _normalisation(folder: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The checkpoint's own mean and deviation, else CLIP's."""
    for name, inside in (("preprocessor_config.json", None), (_OPEN_CONFIG, "preprocess_cfg")):
        if (folder / name).is_file():
            says = _json(folder / name)
            says = says.get(inside, {}) if inside else says
            return tuple(says.get("image_mean", says.get("mean", MEAN))), tuple(says.get("image_std", says.get("std", STD)))
    return MEAN, STD


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}", expected="the checkpoint's own description", remedy="download it again") from error


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:12]
