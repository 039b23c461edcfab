"""What is learned, under the names that the original's snapshots use."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

PLANES, CHANNELS, HIDDEN = 3, 32, 128
BODY_POSE = 21 * 6
BODY_EXTENT, FACE_EXTENT = 2.0, 0.3  # metres a side of the cubes that the triplanes span


class RowNorm(nn.GroupNorm):
    """Group normalisation of rows (N, C), as a layer normalisation of each group: the same numbers, several times quicker on a CPU."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(N, C)."""
        groups = input.unflatten(1, (self.num_groups, -1))
        return F.layer_norm(groups, groups.shape[2:], eps=self.eps).flatten(1) * self.weight + self.bias


def _hidden(inputs: int, layers: int = 3) -> list[nn.Module]:
    widths = [inputs, *[HIDDEN] * layers]
    return [m for a, b in pairwise(widths) for m in (nn.Linear(a, b), RowNorm(4, b), nn.ReLU())]


class AvatarNetworks(nn.Module):
    """Two triplanes, eight networks, the person's shape and joint offsets: about 3.4 million numbers at full size.

    Args:
        betas: Shape coefficients of the body. triplane: Side of the triplanes.
        joint_offset: (55, 3) metres, where it starts. betas_start: (betas,) where the shape starts.
    """

    def __init__(self, betas: int, *, triplane: int = 128) -> None:
        super().__init__()
        self.triplane = nn.Parameter(torch.zeros(PLANES, CHANNELS, triplane, triplane))
        self.triplane_face = nn.Parameter(torch.zeros(PLANES, CHANNELS, triplane, triplane))
        feature = PLANES * CHANNELS
        self.geo_net = nn.Sequential(*_hidden(feature))
        self.mean_offset_net, self.scale_net = nn.Sequential(nn.Linear(HIDDEN, 3)), nn.Sequential(nn.Linear(HIDDEN, 1))
        self.geo_offset_net = nn.Sequential(*_hidden(feature + BODY_POSE))
        self.mean_offset_offset_net, self.scale_offset_net = nn.Sequential(nn.Linear(HIDDEN, 3)), nn.Sequential(nn.Linear(HIDDEN, 1))
        self.rgb_net = nn.Sequential(*_hidden(feature), nn.Linear(HIDDEN, 3))
        self.rgb_offset_net = nn.Sequential(*_hidden(feature + BODY_POSE + 3), nn.Linear(HIDDEN, 3))
        self.shape_param = nn.Parameter(torch.zeros(betas))
        self.joint_offset = nn.Parameter(torch.zeros(55, 3))

    def features(self, where: torch.Tensor, face: torch.Tensor) -> torch.Tensor:
        """(N, 96) features of the points ``where`` (N, 3) metres; ``face`` (N,) bool points read the face's triplane instead."""
        body = _sample(self.triplane, (where - where.mean(0)) / (BODY_EXTENT / 2))
        if not face.any():
            return body
        near = where[face]
        local = _sample(self.triplane_face, (near - near.mean(0)) / (FACE_EXTENT / 2))
        return body.index_copy(0, torch.nonzero(face)[:, 0], local)


def _sample(planes: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    """(N, 3 C) bilinear samples of planes (3, C, S, S) at (N, 3) in [-1, 1]; zero outside."""
    grids = where[:, [0, 1, 0, 2, 1, 2]].reshape(-1, PLANES, 2).transpose(0, 1)[:, :, None]
    found = F.grid_sample(planes, grids, mode="bilinear", padding_mode="zeros", align_corners=False)
    return found[..., 0].permute(2, 0, 1).flatten(1)
