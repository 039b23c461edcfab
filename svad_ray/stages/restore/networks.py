"""The two Real-ESRGAN networks of the embedded profile and what they cost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from svad_ray import models
from svad_ray.nets.rrdbnet import RRDBNet, load_rrdbnet_ncnn
from svad_ray.nets.srvgg import SRVGGNetCompact, load_srvgg_ncnn
from svad_ray.nets.upscale import enlarge

# Seconds per input pixel on two idle cores, recorded once (64 x 64 in 1.55 s, 128 x 128 in 0.16 s). Plans are made from these and never from
# the clock, so that a run that is taken up again, or repeated on a busy machine, decides the same for every frame.
LARGE_S = 1.55 / 64**2
COMPACT_S = 0.16 / 128**2


@dataclass(frozen=True)
class Networks:
    """RealESRGAN_x4plus and realesr-animevideov3-x4, ready to run."""

    large: RRDBNet
    compact: SRVGGNetCompact

    @staticmethod
    def load() -> Networks:
        """Both from the embedded model package "realesrgan"."""
        folder = models.ensure("realesrgan")
        return Networks(
            load_rrdbnet_ncnn(folder / "realesrgan-x4plus.param", folder / "realesrgan-x4plus.bin"),
            load_srvgg_ncnn(folder / "realesr-animevideov3-x4.param", folder / "realesr-animevideov3-x4.bin"),
        )

    def enlarge(self, method: str, image: np.ndarray) -> np.ndarray:
        """(4 H, 4 W, 3) uint8 by "x4plus" or "compact"."""
        return enlarge(self.large if method == "x4plus" else self.compact, image)
