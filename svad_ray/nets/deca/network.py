"""The encoder, its file, and the meaning of its numbers.

Source: Feng et al., "Learning an Animatable Detailed 3D Face Model from In-The-Wild Images" (2021), section 3; of the published file only
``E_flame`` is used (spec: avatar 2, 3.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from svad_ray.nets.checkpoint import fill, read_state
from svad_ray.nets.initialiser_files import missing
from svad_ray.nets.resnet import ResNet

FILE, SOURCE, LICENCE = "deca_model.tar", "the DECA project", "Max Planck, non-commercial research"
_HIDDEN = 1024
_PARTS = {"shape": 100, "texture": 50, "expression": 50, "pose": 6, "camera": 3, "light": 27}


@dataclass(frozen=True)
class DecaCode:
    """What the encoder says of N faces.

    Attributes:
        shape: (N, 100). texture: (N, 50). expression: (N, 50). global_orient, jaw_pose: (N, 3) axis-angle.
        camera: (N, 3) scale and shift of the weak perspective. light: (N, 9, 3) spherical harmonics.
    """

    shape: Tensor
    texture: Tensor
    expression: Tensor
    global_orient: Tensor
    jaw_pose: Tensor
    camera: Tensor
    light: Tensor


class DecaEncoder(nn.Module):
    """ResNet-50 and two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = ResNet(50)
        self.layers = nn.Sequential(nn.Linear(2048, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, sum(_PARTS.values())))

    def forward(self, faces: Tensor) -> Tensor:
        """(N, 3, 224, 224) RGB in [0, 1] -> (N, 236) code."""
        return self.layers(self.features(faces))

    def features(self, faces: Tensor) -> Tensor:
        """(N, 2048) means of the deepest features."""
        return self.encoder(faces)[-1].mean((2, 3))


def split_code(code: Tensor) -> DecaCode:
    """(N, 236) -> its parts."""
    shape, texture, expression, pose, camera, light = code.split(list(_PARTS.values()), dim=1)
    return DecaCode(shape, texture, expression, pose[:, :3], pose[:, 3:], camera, light.reshape(-1, 9, 3))


def load_deca(folder: str | Path) -> DecaEncoder:
    """The encoder of the published file in ``folder``; the detail networks in it are not read.

    Raises:
        WeightsMissing: It is not there. InputError: It is damaged, partial, or another network.
    """
    path = Path(folder) / FILE
    state = read_state(path, missing=lambda: missing(path, SOURCE, LICENCE), inside=("E_flame",), beside=True)
    with torch.device("meta"):
        net = DecaEncoder()
    return fill(net, state, path, what="coarse encoder of DECA").eval().requires_grad_(False)
