"""A pipeline of diffusers from a local folder that draws or edits one picture. Nothing is fetched.

Of a folder only the class that its ``model_index.json`` names counts, and only one that diffusers itself has; Python files in it are not run.
A class of one's own is named by ``picture.pipeline``, and run only when ``picture.trust_code`` says so.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from svad_ray.backends import Backend, ModelFile
from svad_ray.config import PictureConfig
from svad_ray.errors import BackendUnavailable, ConfigError, InputError, WeightsMissing
from svad_ray.stages.base import Progress, silent
from svad_ray.stages.picture.prompts import framed
from svad_ray.stages.picture.recipes import CUSTOM, FREE, RECIPES, Recipe
from svad_ray.subject import Photo

INDEX = "model_index.json"
_STEP = 32  # pixels: every pipeline here takes multiples of it
_EDIT_PIXELS = 1024 * 1024  # about what the editing models were trained on
_LOADED_BY = ("weights", "pipeline", "trust_code", "dtype", "offload", "quantize")  # of the configuration; the rest is how a picture is asked for


class Draw:
    """``setup``, then pictures: a prompt alone draws one, a prompt and a photo edit it."""

    version: ClassVar[int] = 1
    backend: ClassVar[Backend] = Backend(
        name="diffusers",
        stage="picture",
        summary="a pipeline of diffusers, by the class that its folder names",
        code_licence="Apache-2.0",
        weights_licence="of the model in the folder",
        commercial=False,
        commercial_reason="depends on the model",
        files=(ModelFile(INDEX, "a folder of diffusers: " + ", ".join(recipe.model for recipe in RECIPES.values()), "see docs/pictures.md"),),
        memory_gib=33,
        device="cuda",
    )

    @classmethod
    def described(cls, config: PictureConfig) -> Backend:
        """With the terms of the model that the folder holds, as far as its class tells them."""
        name, recipe = chosen(config)
        licence = config.licence or recipe.licence
        free = licence in FREE or (not config.licence and recipe.commercial)
        reason = f"{licence}{'' if free else ' (say picture.licence if the model in the folder has other terms)'}"
        summary = f"{name} of diffusers" if not config.pipeline else f"{name}, a pipeline of the user's own"
        return replace(cls.backend, summary=summary, weights_licence=licence, commercial=free, commercial_reason=reason, memory_gib=recipe.memory_gib)

    def __init__(self, config: PictureConfig | None = None) -> None:
        self.config = config or PictureConfig()

    def setup(self) -> None:
        """Load the pipeline.

        Raises:
            WeightsMissing: No folder is configured, or it holds no pipeline. InputError: It is damaged, or of a class that is not known here.
            ConfigError: Code of one's own that is not trusted. BackendUnavailable: A package or a GPU that the options need is missing.
        """
        self.name, self.recipe = chosen(self.config)
        self.pipe = _loaded(self.config, _own_class(self.config) if self.config.pipeline else _class_of(self.name))

    def for_config(self, config: PictureConfig) -> Draw | None:
        """One that is set up and asks this one's pipeline as ``config`` says; None where that means another pipeline."""
        if any(getattr(self.config, name) != getattr(config, name) for name in _LOADED_BY):
            return None
        other = type(self)(config)
        other.name, other.recipe, other.pipe = self.name, self.recipe, self.pipe
        return other

    def __call__(self, prompt: str, photo: Photo | None = None, *, seed: int = 0, progress: Progress = silent) -> np.ndarray:
        """One picture: (H, W, 3) uint8 RGB.

        Args:
            prompt: In words, without framing. photo: What is edited; None: drawn from the prompt alone. seed: Of the noise.

        Raises:
            InputError: The prompt is empty or too long, or the model cannot do this. BackendUnavailable: Out of memory.
        """
        import torch

        if not (self.recipe.edits if photo is not None else self.recipe.draws):
            raise InputError(
                f"{self.name} {'draws pictures and does not edit any' if photo is not None else 'edits pictures and draws none from a prompt alone'}",
                expected=" or ".join(name for name, r in RECIPES.items() if (r.edits if photo is not None else r.draws)),
                remedy="--set picture.weights=FOLDER of such a model",
            )
        c, taken = self.config, inspect.signature(self.pipe.__call__).parameters
        height, width = (c.height, c.width) if photo is None else edit_size(*photo.image.shape[:2])
        steps = c.steps or self.recipe.steps
        text = framed(prompt, edit=photo is not None) if c.framing else prompt
        given = {"prompt": text, "height": height, "width": width, "num_inference_steps": steps, "output_type": "np"} | dict(self.recipe.extra)
        given |= {self.recipe.guided_by: self.recipe.guidance if c.guidance is None else c.guidance}
        given |= {"generator": torch.Generator().manual_seed(seed), "callback_on_step_end": _told(progress, steps)}
        if photo is not None:
            given["image"] = _as_pil(photo.image)
        try:
            made = self.pipe(**{name: value for name, value in given.items() if name in taken})
        except torch.cuda.OutOfMemoryError as error:
            remedy = "--set picture.offload=model (or sequential), or --set picture.quantize=nf4, or a smaller picture.height and picture.width"
            raise BackendUnavailable(f"{self.name} does not fit into the GPU's memory", remedy=remedy) from error
        return _pixels(made.images[0])


def chosen(config: PictureConfig) -> tuple[str, Recipe]:
    """The class that a configuration means, and how it is asked. Raises as ``Draw.setup``."""
    index = Path(config.weights).expanduser() / INDEX
    if not config.weights or not index.is_file():
        models = ", ".join(f"{recipe.model} ({recipe.licence})" for recipe in RECIPES.values())
        where = f"{config.weights} holds no pipeline of diffusers" if config.weights else "no model that draws pictures is configured"
        raise WeightsMissing(
            f"{where}: pictures need one that you bring", expected=f"the folder, with its {INDEX}, of {models}", remedy="--set picture.weights=FOLDER"
        )
    if config.pipeline:
        _own_file(config)
        return config.pipeline.rpartition(":")[2], CUSTOM
    try:
        name = str(json.loads(index.read_text(encoding="utf-8"))["_class_name"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{index} names no pipeline: {error}", remedy="download the folder again") from error
    if name not in RECIPES:
        raise InputError(
            f"{index} names the pipeline '{name}'",
            expected=" or ".join(RECIPES),
            remedy="take another model, or name a class of your own by picture.pipeline=FILE.py:CLASS and picture.trust_code=true",
        )
    return name, RECIPES[name]


def _class_of(name: str) -> Any:
    import diffusers

    return getattr(diffusers, name)


def _own_class(config: PictureConfig) -> Any:
    """The class that ``picture.pipeline`` names; its file is run."""
    path, name = _own_file(config), config.pipeline.rpartition(":")[2]
    spec = importlib.util.spec_from_file_location(f"svad_ray_picture_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path} is no Python file", expected="picture.pipeline=FILE.py:CLASS")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    kind = getattr(module, name, None)
    if not inspect.isclass(kind) or not hasattr(kind, "from_pretrained"):
        raise InputError(f"{path} has no pipeline '{name}'", expected="a class with from_pretrained and __call__, as those of diffusers")
    return kind


def _own_file(config: PictureConfig) -> Path:
    """The file that ``picture.pipeline`` names, which has to be trusted."""
    if not config.trust_code:
        found = f"picture.pipeline names code, {config.pipeline}, which would be run"
        raise ConfigError(found, expected="picture.trust_code=true beside it", remedy="read it first")
    path = Path(config.pipeline.rpartition(":")[0]).expanduser()
    if not path.is_file():
        raise InputError(f"there is no Python file {path}", expected="picture.pipeline=FILE.py:CLASS", remedy="check the path")
    return path


def _loaded(config: PictureConfig, kind: Any) -> Any:
    import torch
    from safetensors import SafetensorError

    gpu = torch.cuda.is_available()
    if not gpu and config.offload != "none":
        raise BackendUnavailable(f"picture.offload={config.offload} moves parts to a GPU, and there is none", remedy="--set picture.offload=none")
    dtype = getattr(torch, config.dtype) if config.dtype != "auto" else torch.bfloat16 if gpu else torch.float32
    options = {"quantization_config": _quantised(config, kind, dtype)} if config.quantize != "none" else {}
    try:
        pipe = kind.from_pretrained(Path(config.weights).expanduser(), dtype=dtype, local_files_only=True, **options)
    except ImportError as error:
        raise BackendUnavailable(
            f"{kind.__name__} needs a package that is not installed: {str(error).strip().splitlines()[0]}", remedy="see docs/extras.md (extra vision)"
        ) from error
    except (OSError, ValueError, RuntimeError, EOFError, SafetensorError) as error:
        raise InputError(f"{config.weights} cannot be read as {kind.__name__}: {error}", remedy="download the folder again") from error
    if hasattr(pipe, "set_progress_bar_config"):
        pipe.set_progress_bar_config(disable=True)
    if config.offload == "model":
        pipe.enable_model_cpu_offload()
    elif config.offload == "sequential":
        pipe.enable_sequential_cpu_offload()
    else:
        pipe = pipe.to("cuda" if gpu else "cpu")
    return pipe


def _quantised(config: PictureConfig, kind: Any, dtype: Any) -> Any:
    """Weights of the large parts in four or eight bits, by bitsandbytes."""
    from diffusers import PipelineQuantizationConfig

    if importlib.util.find_spec("bitsandbytes") is None:
        raise BackendUnavailable(
            f"picture.quantize={config.quantize} needs the package 'bitsandbytes', which is not installed",
            remedy="pip install bitsandbytes, or --set picture.quantize=none",
        )
    large = [part for part in inspect.signature(kind.__init__).parameters if part in ("transformer", "text_encoder", "text_encoder_2")]
    four: dict[str, Any] = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": dtype}
    how, options = ("bitsandbytes_4bit", four) if config.quantize == "nf4" else ("bitsandbytes_8bit", {"load_in_8bit": True})
    return PipelineQuantizationConfig(quant_backend=how, quant_kwargs=options, components_to_quantize=large)


def edit_size(height: int, width: int) -> tuple[int, int]:
    """Of an edited picture: the photo's proportions, about a million pixels, multiples of 32."""
    scale = (_EDIT_PIXELS / (height * width)) ** 0.5
    return max(_STEP, round(height * scale / _STEP) * _STEP), max(_STEP, round(width * scale / _STEP) * _STEP)


def _as_pil(image: np.ndarray) -> Any:
    from PIL import Image

    return Image.fromarray(image)


def _told(progress: Progress, steps: int) -> Callable[..., dict[str, Any]]:
    def tell(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        progress(min(1.0, (step + 1) / steps))
        return tensors

    return tell


def _pixels(made: Any) -> np.ndarray:
    """(H, W, 3) uint8 of what a pipeline gives: floats in [0, 1], or a picture of pillow. What is no number is black."""
    image = np.asarray(made)
    if image.dtype != np.uint8:
        image = (np.nan_to_num(image).clip(0, 1) * 255).round().astype(np.uint8)
    return np.ascontiguousarray(image[..., :3])
