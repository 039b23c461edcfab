"""The paper's animate backend: MusePose video diffusion (SVAD section 3.1)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from svad_ray.backends import Backend, ModelFile
from svad_ray.config import AnimateConfig
from svad_ray.stages.animate.driven import DrivenAnimate
from svad_ray.stages.base import Progress

_IMAGE_VARIATIONS, _VAE = "lambdalabs/sd-image-variations-diffusers", "stabilityai/sd-vae-ft-mse"
FILES = (
    *(
        ModelFile(f"MusePose/{name}.pth", "the MusePose project", "as its project states")
        for name in ("denoising_unet", "reference_unet", "motion_module", "pose_guider")
    ),
    *(
        ModelFile(f"sd-image-variations-diffusers/{name}", _IMAGE_VARIATIONS, "CreativeML OpenRAIL-M")
        for name in ("unet/config.json", "unet/diffusion_pytorch_model.bin", "image_encoder/config.json", "image_encoder/pytorch_model.bin")
    ),
    *(ModelFile(f"sd-vae-ft-mse/{name}", _VAE, "MIT") for name in ("config.json", "diffusion_pytorch_model.bin")),
)


class MusePoseAnimate(DrivenAnimate):
    """MusePose on diffusers.

    Attributes:
        predict: Where the windows of a denoising step are computed (``nets.musepose.sample.Predict``); None = in this process.
    """

    backend: ClassVar[Backend] = Backend(
        name="musepose",
        stage="animate",
        summary="MusePose video diffusion driven by the pose sequence",
        code_licence="Apache-2.0",
        weights_licence="MusePose weights; Stable Diffusion image variations OpenRAIL",
        commercial=False,
        commercial_reason="built on OpenRAIL weights whose limits of use the user must accept",
        models=("makehuman", "mediapipe"),
        files=FILES,
        memory_gib=24,
        device="cuda",
    )
    version: ClassVar[int] = 4  # 4: the photo's fit knows strides better, and open coats

    def __init__(self, config: AnimateConfig | None = None) -> None:
        super().__init__(config)
        self.predict: Any = None

    def _load(self) -> None:
        from svad_ray.nets.device import device_and_dtype
        from svad_ray.nets.musepose.load import load_networks
        from svad_ray.nets.musepose.sample import check

        size = self.config.size
        check(size, size, self._options())
        device, dtype = device_and_dtype(self.config.diffusion.dtype)
        self.networks = load_networks(self.config.weights, dtype=dtype, device=device)
        if self.config.diffusion.compile:
            self.networks.compile()

    def _options(self) -> Any:
        from svad_ray.nets.musepose.sample import SamplerOptions

        c = self.config.diffusion
        return SamplerOptions(
            steps=c.steps,
            guidance=c.guidance,
            window=c.window,
            overlap=c.overlap,
            shorten=c.shorten,
            seed=self.config.seed,
            decode_batch=c.decode_batch,
        )

    def _generate(self, reference: np.ndarray, poses: np.ndarray, face: np.ndarray, progress: Progress) -> Iterator[np.ndarray]:
        from svad_ray.nets.musepose.sample import stream

        size = self.config.size
        return stream(self.networks, reference, poses, width=size, height=size, options=self._options(), predict=self.predict, progress=progress)
