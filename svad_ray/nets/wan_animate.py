"""Video diffusion through a pipeline of diffusers that is driven by a pose video and a face video: Wan-Animate, or one with the same inputs.

The pipeline is named by the folder's ``model_index.json``; nothing is fetched and no code of the folder is run.
"""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from PIL import Image

from svad_ray.errors import ConfigError, InputError, WeightsMissing

NEEDED = ("image", "pose_video", "face_video")
SIZE_STEP = 16  # pixels
SOURCE = "Wan-AI/Wan2.2-Animate-14B-Diffusers"


@dataclass(frozen=True)
class WanOptions:
    """How a clip is sampled.

    Attributes:
        steps: Denoising steps of a segment. guidance: 1 = none. segment: Frames of a segment, one more than a multiple of four.
        carried: Frames that a segment takes over from the one before, 1 or 5. prompt: What the pipeline is told in words. seed: Of the noise.
    """

    steps: int = 20
    guidance: float = 1.0
    segment: int = 77
    carried: int = 1
    prompt: str = "a person turning round, plain background"
    seed: int = 99


def load_pipeline(folder: str | Path, *, dtype: torch.dtype, device: str) -> Any:
    """The pipeline in ``folder``.

    Raises:
        WeightsMissing: There is none. InputError: It is damaged, or of a class that takes other inputs.
    """
    index = Path(folder) / "model_index.json"
    if not index.exists():
        raise WeightsMissing(
            f"the animate backend 'wan-animate' needs {index}, which is not there",
            expected=f"the folder of a diffusers pipeline, for example {SOURCE} (Apache-2.0)",
            remedy="set animate.weights to that folder, or use the embedded backend: --set animate.backend=reprojection",
        )
    kind = pipeline_class(index)
    try:
        pipe = kind.from_pretrained(Path(folder), dtype=dtype, local_files_only=True)
    except (OSError, ValueError, RuntimeError, EOFError) as error:
        raise InputError(f"{folder} cannot be read as {kind.__name__}: {error}", remedy="download the folder again") from error
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


def pipeline_class(index: Path) -> Any:
    """The class that ``model_index.json`` names. Raises InputError when it is none of diffusers' or takes other inputs."""
    try:
        name = json.loads(index.read_text(encoding="utf-8"))["_class_name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{index} names no pipeline: {error}", remedy="download the folder again") from error
    kind = getattr(diffusers, str(name), None)
    if not (inspect.isclass(kind) and issubclass(kind, diffusers.DiffusionPipeline)):
        raise InputError(f"{index} names the pipeline '{name}', which this diffusers {diffusers.__version__} does not have")
    taken = inspect.signature(kind.__call__).parameters
    if lacking := [given for given in NEEDED if given not in taken]:
        raise InputError(f"the pipeline {name} does not take {', '.join(lacking)}", expected="a pipeline driven by pose and face videos")
    return kind


def check(width: int, height: int, options: WanOptions) -> None:
    """Raises ConfigError on what the pipeline would refuse or silently round."""
    if width % SIZE_STEP or height % SIZE_STEP:
        raise ConfigError(f"frames of {width}x{height} pixels cannot be generated", expected=f"multiples of {SIZE_STEP}")
    if options.segment % 4 != 1 or options.carried not in (1, 5) or options.segment <= options.carried:
        raise ConfigError(
            f"segments of {options.segment} frames of which {options.carried} are carried over cannot be generated",
            expected="4 n + 1 frames, 1 or 5 carried",
        )


def generate(
    pipe: Any, reference: np.ndarray, poses: np.ndarray, faces: np.ndarray, *, width: int, height: int, options: WanOptions | None = None
) -> np.ndarray:
    """The clip: (T, height, width, 3) uint8 RGB.

    Args:
        reference: (H, W, 3) uint8 RGB photo. poses: (T, h, w, 3) uint8 RGB drawn skeletons.
        faces: (T, s, s, 3) uint8 RGB crops of the face whose expression is wanted.

    Raises:
        ConfigError: Sizes or options that cannot be used. InputError: No poses, or another number of faces.
    """
    options = options or WanOptions()
    check(width, height, options)
    if len(poses) == 0 or len(faces) != len(poses):
        raise InputError(f"{len(poses)} poses and {len(faces)} faces were given", expected="at least one pose, and a face for each")
    frames = len(poses)
    if frames <= options.carried:  # the pipeline makes nothing of so few
        repeat = [-1] * (options.carried + 1 - frames)
        poses, faces = np.concatenate((poses, poses[repeat])), np.concatenate((faces, faces[repeat]))
    made = pipe(
        image=Image.fromarray(reference),
        pose_video=[Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS) for image in poses],
        face_video=[Image.fromarray(image) for image in faces],
        prompt=options.prompt,
        height=height,
        width=width,
        segment_frame_length=options.segment,
        prev_segment_conditioning_frames=options.carried,
        num_inference_steps=options.steps,
        guidance_scale=options.guidance,
        generator=torch.Generator().manual_seed(options.seed),
        output_type="np",
    ).frames[0]
    return (np.asarray(made)[:frames] * 255).round().astype(np.uint8)
