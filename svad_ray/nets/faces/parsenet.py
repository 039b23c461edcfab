"""ParseNet: which part of a face every pixel of an aligned crop shows.

Source: facexlib's ``parsing_parsenet.pth`` (spec: generation 6); 19 classes of CelebAMask-HQ.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from svad_ray.nets.checkpoint import fill, read_state
from svad_ray.nets.faces.files import missing

FILE, SOURCE, LICENCE = "parsing_parsenet.pth", "the facexlib project", "MIT"
CLASSES = 19
_SLOPE = 0.2
_DEPTH = 10


class _Norm(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)


class _Layer(nn.Module):
    """(doubling,) reflection, convolution (, normalisation) (, activation)."""

    def __init__(self, inputs: int, outputs: int, *, scale: str = "", normed: bool = False, active: bool = False) -> None:
        super().__init__()
        self.conv2d = nn.Conv2d(inputs, outputs, 3, 2 if scale == "down" else 1, bias=not normed)
        self.norm = _Norm(outputs) if normed else None
        self.up, self.active = scale == "up", active

    def forward(self, x: Tensor) -> Tensor:
        if self.up:
            x = F.interpolate(x, scale_factor=2, mode="nearest")
        x = self.conv2d(F.pad(x, (1, 1, 1, 1), "reflect"))
        if self.norm is not None:
            x = self.norm(x)
        return F.leaky_relu(x, _SLOPE) if self.active else x


class _Block(nn.Module):
    """Two layers and a shortcut; halving happens in the second, doubling in the first."""

    def __init__(self, inputs: int, outputs: int, scale: str = "") -> None:
        super().__init__()
        self.shortcut_func = None if not scale and inputs == outputs else _Layer(inputs, outputs, scale=scale)
        self.conv1 = _Layer(inputs, outputs, scale=scale if scale == "up" else "", normed=True, active=True)
        self.conv2 = _Layer(outputs, outputs, scale=scale if scale == "down" else "", normed=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(self.conv1(x))
        return y + (x if self.shortcut_func is None else self.shortcut_func(x))


class ParseNet(nn.Module):
    """The network.

    Args:
        first: Channels at full size; two halvings double them, two more do not.
    """

    def __init__(self, first: int = 64) -> None:
        super().__init__()
        last = 4 * first
        widths = ((first, 2 * first), (2 * first, last), (last, last), (last, last))
        self.encoder = nn.Sequential(_Layer(3, first), *(_Block(*width, "down") for width in widths))
        self.body = nn.Sequential(*(_Block(last, last) for _ in range(_DEPTH)))
        self.decoder = nn.Sequential(*(_Block(outputs, inputs, "up") for inputs, outputs in reversed(widths)))
        self.out_img_conv, self.out_mask_conv = _Layer(first, 3), _Layer(first, CLASSES)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, 512, 512) RGB in [-1, 1] -> (N, 19, 512, 512) logits, and the (N, 3, 512, 512) picture that it was trained to draw besides."""
        features = self.encoder(x)
        features = self.decoder(features + self.body(features))
        return self.out_mask_conv(features), self.out_img_conv(features)


def labels(net: ParseNet, faces: np.ndarray) -> np.ndarray:
    """(N, 512, 512, 3) uint8 RGB -> (N, 512, 512) uint8 classes, one face after the other."""
    parameter = next(net.parameters())
    found = []
    for face in faces:
        x = torch.from_numpy(np.ascontiguousarray(face)).to(parameter.device, torch.float32).permute(2, 0, 1)[None] / 255
        with torch.inference_mode():
            logits, _ = net(((x - 0.5) / 0.5).to(parameter.dtype))
        found.append(logits[0].argmax(0).to(torch.uint8).cpu().numpy())
    return np.stack(found)


def load_parsenet(path: str | Path, *, dtype: torch.dtype = torch.float32, device: str = "cpu") -> ParseNet:
    """The published network. Raises WeightsMissing or InputError, which name the file and the tensors."""
    path = Path(path)
    state = read_state(path, missing=lambda: missing(path, SOURCE, LICENCE))
    first = state.get("encoder.0.conv2d.weight", torch.empty(64))
    with torch.device("meta"):
        net = ParseNet(len(first))
    return fill(net, state, path, what="ParseNet", dtype=dtype).to(device).eval().requires_grad_(False)
