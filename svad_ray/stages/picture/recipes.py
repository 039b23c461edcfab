"""Which pipelines of diffusers draw or edit pictures here, how they are asked, and on which terms their models come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """One class of pipelines.

    Attributes:
        draws, edits: From a prompt alone; from a picture and a prompt.
        model: Which published model it is meant for. licence: Of that model's weights. commercial: Does it allow commercial use?
        steps, guidance: As published. guided_by: The argument that guidance is given by.
        memory_gib: About, in bfloat16, everything on the GPU.
        extra: Further arguments of a call.
    """

    draws: bool
    edits: bool
    model: str
    licence: str
    commercial: bool
    steps: int
    guidance: float
    memory_gib: float
    guided_by: str = "guidance_scale"
    extra: Mapping[str, Any] = field(default_factory=dict)


_APACHE = "Apache-2.0"
_QWEN: dict[str, Any] = {"guided_by": "true_cfg_scale", "extra": {"negative_prompt": " "}}  # without a negative prompt it is not guided
RECIPES: dict[str, Recipe] = {
    "FluxPipeline": Recipe(True, False, "black-forest-labs/FLUX.1-dev", "FLUX.1-dev non-commercial licence", False, 50, 3.5, 33),
    "QwenImagePipeline": Recipe(True, False, "Qwen/Qwen-Image", _APACHE, True, 50, 4.0, 58, **_QWEN),
    "QwenImageEditPipeline": Recipe(False, True, "Qwen/Qwen-Image-Edit", _APACHE, True, 50, 4.0, 58, **_QWEN),
    "QwenImageEditPlusPipeline": Recipe(False, True, "Qwen/Qwen-Image-Edit-2511", _APACHE, True, 40, 4.0, 58, **_QWEN),
    "Flux2KleinPipeline": Recipe(
        True,
        True,
        "black-forest-labs/FLUX.2-klein-4B",
        "klein 4B: Apache-2.0; klein 9B: non-commercial, and its class is the same",
        False,
        4,
        1.0,
        13,
    ),
    "ZImagePipeline": Recipe(True, False, "Tongyi-MAI/Z-Image", _APACHE, True, 50, 5.0, 21),
}
"""By the class in a folder's ``model_index.json``. Distilled variants (Z-Image-Turbo) want other ``picture.steps`` and ``picture.guidance``."""

CUSTOM = Recipe(True, True, "a pipeline of your own (Step1X-Edit: Apache-2.0)", "as you say in picture.licence", False, 28, 6.0, 50)
"""For ``picture.pipeline``, with the numbers of Step1X-Edit, of which diffusers has no class."""
FREE = ("Apache-2.0", "MIT", "BSD-3-Clause", "CC0-1.0")
