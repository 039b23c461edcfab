"""What is learned, under the names that the original's snapshots use."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from svad_ray.splat.threads import even_ranges, run_ranges

PLANES, CHANNELS, HIDDEN = 3, 32, 128
BODY_POSE = 21 * 6
BODY_EXTENT, FACE_EXTENT = 2.0, 0.3  # metres a side of the cubes that the triplanes span


class RowNorm(nn.GroupNorm):
    """Group normalisation of rows (N, C), as a layer normalisation of each group: the same numbers, several times quicker than torch's own."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(N, C)."""
        groups = input.unflatten(1, (self.num_groups, -1))
        return F.layer_norm(groups, groups.shape[2:], eps=self.eps).flatten(1) * self.weight + self.bias


def _hidden(inputs: int, layers: int = 3) -> list[nn.Module]:
    widths = [inputs, *[HIDDEN] * layers]
    return [m for a, b in pairwise(widths) for m in (nn.Linear(a, b), RowNorm(4, b), nn.ReLU())]


class AvatarNetworks(nn.Module):
    """Two triplanes, eight networks, the person's shape and joint offsets: about 3.4 million numbers at full size.

    A triplane lies in memory texel by texel, so that a look-up of its channels is one run of memory.

    Args:
        betas: Shape coefficients of the body. triplane: Side of the triplanes.
    """

    def __init__(self, betas: int, *, triplane: int = 128) -> None:
        super().__init__()
        self.triplane, self.triplane_face = _planes(triplane), _planes(triplane)
        feature = PLANES * CHANNELS
        self.geo_net = nn.Sequential(*_hidden(feature))
        self.mean_offset_net, self.scale_net = nn.Sequential(nn.Linear(HIDDEN, 3)), nn.Sequential(nn.Linear(HIDDEN, 1))
        self.geo_offset_net = nn.Sequential(*_hidden(feature + BODY_POSE))
        self.mean_offset_offset_net, self.scale_offset_net = nn.Sequential(nn.Linear(HIDDEN, 3)), nn.Sequential(nn.Linear(HIDDEN, 1))
        self.rgb_net = nn.Sequential(*_hidden(feature), nn.Linear(HIDDEN, 3))
        self.rgb_offset_net = nn.Sequential(*_hidden(feature + BODY_POSE + 3), nn.Linear(HIDDEN, 3))
        self.shape_param = nn.Parameter(torch.zeros(betas))
        self.joint_offset = nn.Parameter(torch.zeros(55, 3))


def _planes(side: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(PLANES, side, side, CHANNELS).permute(0, 3, 1, 2))


def through(
    net: nn.Module, x: torch.Tensor, *, pose: torch.Tensor | None = None, more: torch.Tensor | None = None, precision: torch.dtype | None = None
) -> torch.Tensor:
    """A network's output for rows (N, C) followed by a pose (P,) that all rows share and by ``more`` (N, M) columns.

    A shared input is only a change of the first bias, so that no row carries it (ours: the same numbers, half the first layer).

    Args:
        precision: Of the matrix products; None = that of the weights. Sums, normalisation and the last layer stay float32.
    """
    if not isinstance(net, nn.Sequential):
        raise TypeError(f"{type(net).__name__} is no stack of layers")
    layers: list[Any] = list(net)
    first = True
    while layers:
        linear, rest = layers[0], layers[1:]
        weight, bias = linear.weight, linear.bias
        if first and pose is not None:
            stop = x.shape[1] + len(pose)
            bias = bias + weight[:, x.shape[1] : stop] @ pose
            weight = torch.cat([weight[:, : x.shape[1]], weight[:, stop:]], 1)
        if first and more is not None:
            x = torch.cat([x, more], 1)
        first = False
        if not rest:
            return F.linear(x, weight, bias)
        x = _layer(x, weight, bias, rest[0], precision)
        layers = rest[2:]
    return x


def _layer(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, norm: Any, precision: torch.dtype | None) -> torch.Tensor:
    """A linear layer, its normalisation and rectifier: in one pass on the CPU, by torch elsewhere."""
    if x.device.type == "cpu" and x.dtype == torch.float32:
        out: torch.Tensor = _Layer.apply(x, weight, bias, norm.weight, norm.bias, norm.num_groups, norm.eps, precision)  # type: ignore[no-untyped-call]
        return out
    if precision is None or x.device.type == "cpu":
        return F.relu(norm(F.linear(x, weight, bias)))
    with torch.autocast(x.device.type, precision):
        return F.relu(norm(F.linear(x, weight, bias)))


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        gain: torch.Tensor,
        shift: torch.Tensor,
        groups: int,
        eps: float,
        precision: torch.dtype | None,
    ) -> torch.Tensor:
        from svad_ray.nets.exavatar.kernels import BLOCK, norm_forward

        x, weight = x.to(precision or x.dtype), weight.to(precision or weight.dtype)
        y = torch.addmm(bias, x, weight.T) if precision is None else (x @ weight.T).float().add_(bias)
        out, inverse = torch.empty_like(y), torch.empty(len(y), groups)
        arrays = (y.numpy(), gain.detach().numpy(), shift.detach().numpy(), inverse.numpy(), out.numpy())
        run_ranges(lambda a, b: norm_forward(a, b, groups, np.float32(eps), *arrays), even_ranges(len(y), block=BLOCK))
        ctx.save_for_backward(x, weight, gain, y, inverse, out)
        ctx.groups = groups
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        from svad_ray.nets.exavatar.kernels import BLOCK, norm_backward

        x, weight, gain, y, inverse, out = ctx.saved_tensors
        v_y, sums = torch.empty_like(y), np.zeros((-(-len(y) // BLOCK), 3, y.shape[1]), np.float32)
        arrays = (y.numpy(), gain.detach().numpy(), inverse.numpy(), out.numpy(), gradients[0].contiguous().numpy(), v_y.numpy(), sums)
        run_ranges(lambda a, b: norm_backward(a, b, ctx.groups, *arrays), even_ranges(len(y), block=BLOCK))
        v_gain, v_shift, v_bias = torch.from_numpy(sums.sum(0, dtype=np.float64).astype(np.float32))
        v_y = v_y.to(x.dtype)
        v_x = (v_y @ weight).float() if ctx.needs_input_grad[0] else None
        return v_x, (v_y.T @ x).float(), v_bias, v_gain, v_shift, None, None, None
