"""Running an enlarging network over a whole image, in tiles where memory is short.

Source: the procedure of Real-ESRGAN's ``RealESRGANer`` (reflect padding right and below, tiles with a margin that is cut
off again, rounding to 8 bits, Lanczos to another factor). Ours works in RGB and has no alpha and no 16-bit branch.
"""

from __future__ import annotations

from typing import Protocol

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


class EnlargingNet(Protocol):
    """What RRDBNet and SRVGGNetCompact have in common."""

    scale: int
    multiple: int

    def __call__(self, x: Tensor, /) -> Tensor: ...


def forward_tiled(net: EnlargingNet, image: Tensor, *, tile: int = 0, tile_pad: int = 10) -> Tensor:
    """``net(image)`` computed tile by tile.

    Equal to the untiled result where ``tile_pad`` covers the network's receptive field; an RRDBNet's is so wide that
    its tiles differ a little from the whole (4.8e-3 at most on amplified test weights).

    Args:
        net: The network.
        image: (1, 3, H, W) in [0, 1], H and W multiples of ``net.multiple``.
        tile: Edge of a tile in input pixels; 0 = the whole image at once.
        tile_pad: Margin round each tile, cut off at the image's border.

    Returns:
        (1, 3, scale H, scale W).
    """
    height, width = image.shape[2:]
    with torch.inference_mode():
        if tile <= 0 or (height <= tile and width <= tile):
            return net(image)
        out = image.new_empty(1, 3, height * net.scale, width * net.scale)
        for y in range(0, height, tile):
            for x in range(0, width, tile):
                _one_tile(net, image, out, (y, x, min(y + tile, height), min(x + tile, width)), tile_pad)
        return out


def _one_tile(net: EnlargingNet, image: Tensor, out: Tensor, box: tuple[int, int, int, int], pad: int) -> None:
    y0, x0, y1, x1 = box
    top, left = max(y0 - pad, 0), max(x0 - pad, 0)
    piece = net(image[:, :, top : y1 + pad, left : x1 + pad])
    s = net.scale
    out[:, :, y0 * s : y1 * s, x0 * s : x1 * s] = piece[:, :, (y0 - top) * s : (y1 - top) * s, (x0 - left) * s : (x1 - left) * s]


def enlarge(
    net: EnlargingNet, image: np.ndarray, *, tile: int = 0, tile_pad: int = 10, pre_pad: int = 0, outscale: float | None = None
) -> np.ndarray:
    """An image enlarged by the network.

    Args:
        net: The network.
        image: (H, W, 3) uint8 RGB.
        tile, tile_pad: See :func:`forward_tiled`.
        pre_pad: Reflected pixels added right and below, and cut off again.
        outscale: Factor of the result; another factor than the network's is reached with Lanczos. None = the network's.

    Returns:
        (H outscale, W outscale, 3) uint8 RGB.
    """
    height, width = image.shape[:2]
    x = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None].float() / 255
    if pre_pad:
        x = F.pad(x, (0, pre_pad, 0, pre_pad), "reflect")
    if net.multiple > 1:
        x = F.pad(x, (0, -x.shape[3] % net.multiple, 0, -x.shape[2] % net.multiple), "reflect")
    y = forward_tiled(net, x, tile=tile, tile_pad=tile_pad)[0, :, : height * net.scale, : width * net.scale]
    out = (y.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    if outscale is None or outscale == net.scale:
        return out
    return cv2.resize(out, (int(width * outscale), int(height * outscale)), interpolation=cv2.INTER_LANCZOS4)
