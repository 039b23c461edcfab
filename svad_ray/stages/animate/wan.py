"""An alternative animate backend: a pipeline of diffusers driven by pose and face videos (Wan-Animate)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from svad_ray.backends import Backend, ModelFile
from svad_ray.stages.animate.driven import DrivenAnimate
from svad_ray.stages.base import Progress


class WanAnimate(DrivenAnimate):
    """Whatever pipeline the folder ``animate.weights`` holds, if it takes a photo, a pose video and a face video.

    The face video repeats the photo's own face: a turn-around asks for its expression. ``diffusion.window`` is the segment, rounded to 4 n + 1.
    """

    backend: ClassVar[Backend] = Backend(
        name="wan-animate",
        stage="animate",
        summary="Wan-Animate through its diffusers pipeline, driven by the pose sequence and the photo's face",
        code_licence="Apache-2.0",
        weights_licence="Wan2.2-Animate: Apache-2.0",
        commercial=True,
        commercial_reason="Apache-2.0 code and weights (of the pipeline named here; another one in the folder has its own terms)",
        models=("makehuman", "mediapipe"),
        files=(ModelFile("model_index.json", "Wan-AI/Wan2.2-Animate-14B-Diffusers, the whole folder", "Apache-2.0"),),
        memory_gib=48,
        device="cuda",
    )
    version: ClassVar[int] = 4  # 4: the photo's fit knows strides better, and open coats

    def _load(self) -> None:
        from svad_ray.nets.device import device_and_dtype
        from svad_ray.nets.wan_animate import WanOptions, check, load_pipeline

        c, size = self.config.diffusion, self.config.size
        segment = max(5, round((c.window - 1) / 4) * 4 + 1)
        self.options = WanOptions(steps=c.steps, guidance=c.guidance, segment=segment, seed=self.config.seed)
        check(size, size, self.options)
        device, dtype = device_and_dtype(c.dtype)
        self.pipe = load_pipeline(self.config.weights, dtype=dtype, device=device)

    def _generate(self, reference: np.ndarray, poses: np.ndarray, face: np.ndarray, progress: Progress) -> Iterator[np.ndarray]:
        from svad_ray.nets.wan_animate import generate

        size = self.config.size
        yield generate(self.pipe, reference, poses, np.repeat(face[None], len(poses), 0), width=size, height=size, options=self.options)
