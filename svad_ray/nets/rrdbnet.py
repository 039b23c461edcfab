"""RRDBNet, the generator of ESRGAN and Real-ESRGAN.

Source: Wang et al., "ESRGAN" (2018) for the blocks, "Real-ESRGAN" (2021) for the pixel-unshuffle of the x2 and x1
variants. Parameter names are those of the official checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from svad_ray.errors import InputError, WeightsMissing
from svad_ray.nets.checkpoint import read_state
from svad_ray.nets.ncnn import read_ncnn

SLOPE = 0.2  # LeakyReLU
RESIDUAL = 0.2  # every dense block and every block of three adds this share of itself
UNSHUFFLE = {4: 1, 2: 2, 1: 4}  # output scale -> how much the input is folded into channels first


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


class DenseBlock(nn.Module):
    """Five convolutions, each of which sees all maps before it."""

    def __init__(self, features: int, grow: int) -> None:
        super().__init__()
        for i in range(1, 5):
            self.add_module(f"conv{i}", _conv(features + (i - 1) * grow, grow))
        self.conv5 = _conv(features + 4 * grow, features)

    def forward(self, x: Tensor) -> Tensor:
        maps = x
        for i in range(1, 5):
            maps = torch.cat((maps, F.leaky_relu(getattr(self, f"conv{i}")(maps), SLOPE, inplace=True)), 1)
        return torch.add(x, self.conv5(maps), alpha=RESIDUAL)


class ResidualInResidual(nn.Module):
    """Three dense blocks with one residual round them."""

    def __init__(self, features: int, grow: int) -> None:
        super().__init__()
        self.rdb1, self.rdb2, self.rdb3 = (DenseBlock(features, grow) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return torch.add(x, self.rdb3(self.rdb2(self.rdb1(x))), alpha=RESIDUAL)


class RRDBNet(nn.Module):
    """RGB image in [0, 1] -> the image ``scale`` times larger (values may leave [0, 1] a little).

    Args:
        scale: 4, 2 or 1. The body always runs at a quarter of the output; 2 and 1 fold the input into channels.
        blocks: Residual-in-residual blocks (23 in RealESRGAN_x4plus).
        features: Channels of the trunk.
        grow: Channels that each dense convolution adds.
    """

    def __init__(self, *, scale: int = 4, blocks: int = 23, features: int = 64, grow: int = 32) -> None:
        super().__init__()
        if scale not in UNSHUFFLE:
            raise InputError(f"RRDBNet has no scale {scale}.", expected="1, 2 or 4")
        self.scale, self.multiple, self.grow = scale, UNSHUFFLE[scale], grow
        self.conv_first = _conv(3 * self.multiple**2, features)
        self.body = nn.Sequential(*(ResidualInResidual(features, grow) for _ in range(blocks)))
        self.conv_body, self.conv_up1, self.conv_up2, self.conv_hr = (_conv(features, features) for _ in range(4))
        self.conv_last = _conv(features, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 3, scale H, scale W); H and W must be multiples of ``multiple``."""
        x = self.conv_first(F.pixel_unshuffle(x, self.multiple) if self.multiple > 1 else x)
        x = x + self.conv_body(self.body(x))
        for conv in (self.conv_up1, self.conv_up2):
            x = F.leaky_relu(conv(F.interpolate(x, scale_factor=2, mode="nearest")), SLOPE)
        return self.conv_last(F.leaky_relu(self.conv_hr(x), SLOPE))


def conv_names(blocks: int) -> list[str]:
    """Names of all convolutions in the order in which the network applies them."""
    body = [f"body.{n}.rdb{m}.conv{k}" for n in range(blocks) for m in (1, 2, 3) for k in (1, 2, 3, 4, 5)]
    return ["conv_first", *body, "conv_body", "conv_up1", "conv_up2", "conv_hr", "conv_last"]


def rrdbnet_from_state(state: Mapping[str, Tensor]) -> RRDBNet:
    """The network that a state dict belongs to: its sizes are read off the shapes, then every key must fit.

    Args:
        state: Official names -> tensors (already taken out of ``params_ema`` / ``params``).

    Raises:
        InputError: Not the state of an RRDBNet.
    """
    try:
        first, dense = state["conv_first.weight"], state["body.0.rdb1.conv1.weight"]
        blocks = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("body."))
        scale = {3 * folded**2: scale for scale, folded in UNSHUFFLE.items()}[first.shape[1]]
        net = RRDBNet(scale=scale, blocks=blocks, features=first.shape[0], grow=dense.shape[0])
        net.load_state_dict(dict(state))
    except (KeyError, ValueError, RuntimeError) as error:
        raise InputError(
            f"The weights do not belong to an RRDBNet: {error}",
            expected="a RealESRGAN checkpoint (conv_first, body.N.rdbM.convK, conv_body, conv_up1, conv_up2, conv_hr, conv_last)",
            remedy="check which file is named in the configuration",
        ) from error
    return net.eval().requires_grad_(False)


def load_rrdbnet(path: Path, *, missing: Callable[[], WeightsMissing]) -> RRDBNet:
    """RRDBNet from an official checkpoint, averaged parameters first. Raises as ``checkpoint.read_state``, and InputError for another network."""
    return rrdbnet_from_state(read_state(path, missing=missing, inside=("params_ema", "params")))


def load_rrdbnet_ncnn(param: Path, binary: Path) -> RRDBNet:
    """RRDBNet from the ncnn conversion of an official checkpoint (half-precision weights, float32 biases)."""
    layers = [layer for layer in read_ncnn(param, binary) if layer.kind == "Convolution"]
    blocks, rest = divmod(len(layers) - 6, 15)
    if rest or blocks < 1:
        raise InputError(f"{param} has {len(layers)} convolutions.", expected="6 + 15 for each block of an RRDBNet", remedy="pull the model again")
    state: dict[str, Tensor] = {}
    for name, layer in zip(conv_names(blocks), layers, strict=True):
        if layer.bias is None:
            raise InputError(f"{param}: the convolution {layer.name} has no bias.", expected="a bias in every convolution of an RRDBNet")
        state[f"{name}.weight"], state[f"{name}.bias"] = torch.from_numpy(layer.weight), torch.from_numpy(layer.bias)
    return rrdbnet_from_state(state)
