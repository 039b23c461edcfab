"""SRVGGNetCompact: Real-ESRGAN's small network, a plain chain of convolutions that learns the residual of enlarging.

Source: Real-ESRGAN's v3 models (realesr-animevideov3, realesr-general-x4v3). Parameter names are the official ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from svad_ray.errors import InputError
from svad_ray.nets.ncnn import read_ncnn

ACTIVATIONS = ("prelu", "relu", "leakyrelu")


def _activation(kind: str, features: int) -> nn.Module:
    if kind == "prelu":
        return nn.PReLU(features)
    if kind == "relu":
        return nn.ReLU(inplace=True)
    if kind == "leakyrelu":
        return nn.LeakyReLU(0.1, inplace=True)
    raise InputError(f"SRVGGNetCompact has no activation {kind!r}.", expected="one of " + ", ".join(ACTIVATIONS))


class SRVGGNetCompact(nn.Module):
    """RGB image in [0, 1] -> the image ``scale`` times larger.

    Args:
        scale: Enlargement of the last pixel shuffle.
        features: Channels of the chain.
        convs: Convolutions between the first and the last one.
        activation: "prelu", "relu" or "leakyrelu" (slope 0.1).
    """

    multiple = 1

    def __init__(self, *, scale: int = 4, features: int = 64, convs: int = 16, activation: str = "prelu") -> None:
        super().__init__()
        self.scale = scale
        self.body = nn.ModuleList([nn.Conv2d(3, features, 3, padding=1), _activation(activation, features)])
        for _ in range(convs):
            self.body.extend([nn.Conv2d(features, features, 3, padding=1), _activation(activation, features)])
        self.body.append(nn.Conv2d(features, 3 * scale**2, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 3, scale H, scale W)."""
        out = x
        for layer in self.body:
            out = layer(out)
        return F.pixel_shuffle(out, self.scale) + F.interpolate(x, scale_factor=self.scale, mode="nearest")


def srvgg_from_state(state: Mapping[str, Tensor], *, activation: str = "prelu") -> SRVGGNetCompact:
    """The network that a state dict belongs to; a chain without slopes must have its activation named.

    Raises:
        InputError: Not the state of a SRVGGNetCompact.
    """
    try:
        first = state["body.0.weight"]
        last = max(int(key.split(".")[1]) for key in state)
        scale = round((state[f"body.{last}.weight"].shape[0] / 3) ** 0.5)
        net = SRVGGNetCompact(scale=scale, features=first.shape[0], convs=last // 2 - 1, activation=activation)
        net.load_state_dict(dict(state))
    except (KeyError, ValueError, IndexError, RuntimeError) as error:
        raise InputError(
            f"The weights do not belong to a SRVGGNetCompact: {error}",
            expected="keys body.0 ... body.N, convolutions and slopes in turn",
            remedy="check which file is named in the configuration",
        ) from error
    return net.eval().requires_grad_(False)


def load_srvgg_ncnn(param: Path, binary: Path) -> SRVGGNetCompact:
    """SRVGGNetCompact from the ncnn conversion of an official checkpoint."""
    state: dict[str, Tensor] = {}
    for number, layer in enumerate(read_ncnn(param, binary)):
        state[f"body.{number}.weight"] = torch.from_numpy(layer.weight)
        if layer.bias is not None:
            state[f"body.{number}.bias"] = torch.from_numpy(layer.bias)
    return srvgg_from_state(state)
