"""RetinaFace with a ResNet-50: faces and their five landmarks.

Source: Deng et al., "RetinaFace" (2019), in the layout of facexlib's ``detection_Resnet50_Final.pth`` (spec: generation 6).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from svad_ray.nets.checkpoint import fill, read_state
from svad_ray.nets.faces.files import missing
from svad_ray.nets.resnet import ResNet

FILE, SOURCE, LICENCE = "detection_Resnet50_Final.pth", "the facexlib project", "MIT"
MEAN_BGR = (104.0, 117.0, 123.0)
CONFIDENCE, OVERLAP = 0.97, 0.4
_ANCHORS = ((16, 32), (64, 128), (256, 512))
_STRIDES = (8, 16, 32)
_VARIANCES = (0.1, 0.2)
_OUT = 256


def _conv_bn(inputs: int, outputs: int, kernel: int = 3, *, active: bool = True) -> nn.Sequential:
    parts: list[nn.Module] = [nn.Conv2d(inputs, outputs, kernel, 1, kernel // 2, bias=False), nn.BatchNorm2d(outputs)]
    return nn.Sequential(*parts, *([nn.ReLU()] if active else []))


class _Pyramid(nn.Module):
    """Feature pyramid: coarse features are added to finer ones."""

    def __init__(self) -> None:
        super().__init__()
        self.output1, self.output2, self.output3 = (_conv_bn(inputs, _OUT, 1) for inputs in (512, 1024, 2048))
        self.merge1, self.merge2 = _conv_bn(_OUT, _OUT), _conv_bn(_OUT, _OUT)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        fine, middle, coarse = (getattr(self, f"output{i}")(x) for i, x in enumerate(features, 1))
        middle = self.merge2(middle + F.interpolate(coarse, size=middle.shape[2:], mode="nearest"))
        fine = self.merge1(fine + F.interpolate(middle, size=fine.shape[2:], mode="nearest"))
        return [fine, middle, coarse]


class _Context(nn.Module):
    """Three widths of context, side by side."""

    def __init__(self) -> None:
        super().__init__()
        half, quarter = _OUT // 2, _OUT // 4
        self.conv3X3 = _conv_bn(_OUT, half, active=False)
        self.conv5X5_1, self.conv5X5_2 = _conv_bn(_OUT, quarter), _conv_bn(quarter, quarter, active=False)
        self.conv7X7_2, self.conv7x7_3 = _conv_bn(quarter, quarter), _conv_bn(quarter, quarter, active=False)

    def forward(self, x: Tensor) -> Tensor:
        shared = self.conv5X5_1(x)
        return F.relu(torch.cat((self.conv3X3(x), self.conv5X5_2(shared), self.conv7x7_3(self.conv7X7_2(shared))), 1))


class _Head(nn.Module):
    """One 1 x 1 convolution; ``values`` numbers for each of the two anchors of a cell."""

    def __init__(self, values: int) -> None:
        super().__init__()
        self.conv1x1, self.values = nn.Conv2d(_OUT, 2 * values, 1), values

    def forward(self, x: Tensor) -> Tensor:
        return self.conv1x1(x).permute(0, 2, 3, 1).reshape(len(x), -1, self.values)


class RetinaFace(nn.Module):
    """The network alone; ``detect`` makes faces of what it says."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.fpn = ResNet(50), _Pyramid()
        self.ssh1, self.ssh2, self.ssh3 = (_Context() for _ in range(3))
        for name, values in (("ClassHead", 2), ("BboxHead", 4), ("LandmarkHead", 10)):
            self.add_module(name, nn.ModuleList(_Head(values) for _ in _STRIDES))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(N, 3, H, W) BGR minus mean -> boxes (N, A, 4), probabilities (N, A, 2) of background and face, landmarks (N, A, 10), all encoded."""
        levels = [getattr(self, f"ssh{i}")(level) for i, level in enumerate(self.fpn(self.body(x)[1:]), 1)]
        boxes, scores, landmarks = (
            torch.cat([head(level) for head, level in zip(getattr(self, name), levels)], 1) for name in ("BboxHead", "ClassHead", "LandmarkHead")
        )
        return boxes, scores.softmax(-1), landmarks


@lru_cache(maxsize=8)
def priors(height: int, width: int) -> Tensor:
    """(A, 4) anchors of an image: centre and size, in shares of it."""
    levels = []
    for sizes, stride in zip(_ANCHORS, _STRIDES):
        ys, xs = np.mgrid[: -(-height // stride), : -(-width // stride)].reshape(2, -1) + 0.5
        centres = np.stack((xs * stride / width, ys * stride / height), 1)
        of_sizes = [np.concatenate((centres, np.broadcast_to([size / width, size / height], centres.shape)), 1) for size in sizes]
        levels.append(np.stack(of_sizes, 1).reshape(-1, 4))
    return torch.from_numpy(np.concatenate(levels).astype(np.float32))


def decode(boxes: Tensor, landmarks: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor]:
    """(A, 4) and (A, 10) as the network says -> corners x1, y1, x2, y2 and five points x, y, in shares of the image."""
    at, size = anchors[:, :2], anchors[:, 2:]
    centre = at + boxes[:, :2] * _VARIANCES[0] * size
    half = size * torch.exp(boxes[:, 2:] * _VARIANCES[1]) / 2
    points = at[:, None] + landmarks.reshape(-1, 5, 2) * _VARIANCES[0] * size[:, None]
    return torch.cat((centre - half, centre + half), 1), points.reshape(-1, 10)


def suppress(boxes: np.ndarray, scores: np.ndarray, overlap: float = OVERLAP) -> np.ndarray:
    """Numbers of the (N, 4) boxes that stay, best first: none overlaps a better one by more than ``overlap`` of their union."""
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    order, kept = np.argsort(-scores, kind="stable"), []
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(best)
        low, high = np.maximum(boxes[best, :2], boxes[rest, :2]), np.minimum(boxes[best, 2:], boxes[rest, 2:])
        common = np.prod(np.maximum(high - low, 0), axis=1)
        order = rest[common <= overlap * (areas[best] + areas[rest] - common)]
    return np.array(kept, np.int64)


def detect(net: RetinaFace, images: np.ndarray, *, confidence: float = CONFIDENCE, overlap: float = OVERLAP) -> list[np.ndarray]:
    """Faces of each image.

    Args:
        images: (T, H, W, 3) uint8 RGB, seen at their own size.

    Returns:
        T arrays (N, 15) float32: x1, y1, x2, y2, score, then x and y of right eye, left eye, nose, right and left mouth corner (as the viewer sees
        them, left to right); best first.
    """
    parameter = next(net.parameters())
    bgr = torch.from_numpy(np.ascontiguousarray(images[..., ::-1])).to(parameter.device, torch.float32).permute(0, 3, 1, 2)
    with torch.inference_mode():
        out = net((bgr - bgr.new_tensor(MEAN_BGR)[:, None, None]).to(parameter.dtype))
    size = np.array(images.shape[2:0:-1], np.float32)
    anchors, found = priors(images.shape[1], images.shape[2]), []
    for boxes, scores, landmarks in zip(*(part.float().cpu() for part in out)):
        sure = scores[:, 1] > confidence
        corners, points = decode(boxes[sure], landmarks[sure], anchors[sure])
        rows = np.concatenate((corners.numpy() * np.tile(size, 2), scores[sure, 1:].numpy(), points.numpy() * np.tile(size, 5)), 1)
        found.append(rows[suppress(rows[:, :4], rows[:, 4], overlap)])
    return found


def load_retinaface(path: str | Path, *, dtype: torch.dtype = torch.float32, device: str = "cpu") -> RetinaFace:
    """The published network. Raises WeightsMissing or InputError, which name the file and the tensors."""
    path = Path(path)
    state = read_state(path, missing=lambda: missing(path, SOURCE, LICENCE))
    with torch.device("meta"):
        net = RetinaFace()
    return fill(net, _plain_names(state), path, what="RetinaFace with a ResNet-50", dtype=dtype).to(device).eval().requires_grad_(False)


def _plain_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without the prefix that training on several devices leaves."""
    return {key.removeprefix("module."): value for key, value in state.items()}
