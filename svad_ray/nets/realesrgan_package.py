"""Enlarging by the package ``realesrgan`` itself: its RealESRGANer on the network class of basicsr, as the paper's caller uses them.

The same procedure as ``svad_ray.nets.upscale.enlarge``, which needs no torchvision; this one is for who wants the package's own code to run.
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from svad_ray.errors import BackendUnavailable, InputError, StageFailed
from svad_ray.models.shims import torchvision_functional_tensor
from svad_ray.nets.rrdbnet import RRDBNet


class RealEsrganPackage:
    """RealESRGANer with given weights.

    Args:
        net: A loaded RRDBNet; the package gets its tensors under the same names.
        tile, tile_pad, pre_pad: Input pixels, as ``upscale.enlarge``.
        half: float16, for a GPU. device: None = the GPU where there is one.

    Raises:
        BackendUnavailable: The package is not installed. InputError: Tiles that the network cannot fold.
    """

    def __init__(
        self, net: RRDBNet, *, tile: int = 0, tile_pad: int = 10, pre_pad: int = 0, half: bool = False, device: torch.device | None = None
    ) -> None:
        if tile and (tile % net.multiple or tile_pad % net.multiple):
            raise InputError(f"tiles of {tile} pixels with a margin of {tile_pad}", expected=f"multiples of {net.multiple} for x{net.scale}")
        kind, upsampler = _classes()
        same = kind(3, 3, net.scale, net.conv_first.out_channels, len(net.body), net.grow)
        with tempfile.TemporaryDirectory() as folder:  # the package takes weights from a file only
            path = Path(folder) / "weights.pth"
            torch.save({"params": net.state_dict()}, path)
            self._upsampler = upsampler(net.scale, str(path), model=same, tile=tile, tile_pad=tile_pad, pre_pad=pre_pad, half=half, device=device)
        self._upsampler.model = _Loud(self._upsampler.model)
        self.scale = net.scale

    def __call__(self, image: np.ndarray, *, outscale: float | None = None) -> np.ndarray:
        """The enlarged image.

        Args:
            image: (H, W, 3) uint8 RGB. outscale: Factor of the result, by Lanczos from the network's; None = the network's.

        Returns:
            (H outscale, W outscale, 3) uint8 RGB.

        Raises:
            InputError: Not such an image. StageFailed: The network could not run, as where memory ends.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise InputError(f"an image of {image.dtype} {image.shape}", expected="(height, width, 3) uint8 RGB")
        with contextlib.redirect_stdout(None):  # it prints a line a tile
            enlarged, _ = self._upsampler.enhance(np.ascontiguousarray(image[..., ::-1]), outscale=outscale)
        return np.ascontiguousarray(enlarged[..., ::-1])


class _Loud(nn.Module):
    """A network whose failures reach the caller: the package prints them and puts the tile before in the place of the failed one."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> the network's result."""
        try:
            return self.net(x)
        except RuntimeError as error:
            raise StageFailed(
                f"Real-ESRGAN cannot enlarge {x.shape[3]} x {x.shape[2]} pixels at once: {error}", remedy="use smaller tiles"
            ) from error


def _classes() -> tuple[Any, Any]:
    """basicsr's RRDBNet and realesrgan's RealESRGANer."""
    try:
        torchvision_functional_tensor()
        from basicsr.archs.rrdbnet_arch import RRDBNet as Official
        from realesrgan import RealESRGANer
    except ModuleNotFoundError as error:
        raise BackendUnavailable(
            f"this needs the package '{error.name}', which is not installed", remedy="pip install svad-ray[realesrgan], as docs/extras.md says"
        ) from error
    return Official, RealESRGANer
