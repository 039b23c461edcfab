"""Running an enlarging network over a whole image, in tiles where memory is short.

Source: the procedure of Real-ESRGAN's ``RealESRGANer`` (reflect padding right and below, tiles with a margin that is cut
off again, rounding to 8 bits, Lanczos to another factor). Ours works in RGB and has no alpha and no 16-bit branch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
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


def forward_tiled(net: EnlargingNet, image: Tensor, *, tile: int = 0, tile_pad: int = 10, batch: int = 1) -> Tensor:
    """``net(image)`` computed tile by tile.

    Equal to the untiled result where ``tile_pad`` covers the network's receptive field; an RRDBNet's is so wide that
    its tiles differ a little from the whole (4.8e-3 at most on amplified test weights).

    Args:
        net: The network.
        image: (N, 3, H, W) in [0, 1], H and W multiples of ``net.multiple``.
        tile: Edge of a tile in input pixels; 0 = the whole image at once.
        tile_pad: Margin round each tile, cut off at the image's border.
        batch: Tiles of one size that the network sees at once.

    Returns:
        (N, 3, scale H, scale W).
    """
    height, width = image.shape[2:]
    with torch.inference_mode():
        if tile <= 0 or (height <= tile and width <= tile):
            return torch.cat([net(part) for part in image.split(batch)])
        out = image.new_empty(len(image), 3, height * net.scale, width * net.scale)
        for pieces in _of_one_size(_tiles(image.shape, tile, tile_pad)):
            for start in range(0, len(pieces), batch):
                together = pieces[start : start + batch]
                made = net(torch.cat([image[piece.image : piece.image + 1, :, piece.seen[0], piece.seen[1]] for piece in together]))
                for piece, one in zip(together, made):
                    piece.put(out, one, net.scale)
        return out


@dataclass(frozen=True)
class _Piece:
    """A tile: number of its image, rows and columns that it gives, and those that the network sees."""

    image: int
    given: tuple[slice, slice]
    seen: tuple[slice, slice]

    def put(self, out: Tensor, made: Tensor, scale: int) -> None:
        """Write the part of (3, h, w) that is given."""
        here = tuple(slice(part.start * scale, part.stop * scale) for part in self.given)
        inner = tuple(slice((g.start - s.start) * scale, (g.stop - s.start) * scale) for g, s in zip(self.given, self.seen))
        out[self.image, :, here[0], here[1]] = made[:, inner[0], inner[1]]


def _tiles(shape: tuple[int, ...], tile: int, pad: int) -> list[_Piece]:
    def cuts(length: int) -> list[tuple[slice, slice]]:
        starts = range(0, length, tile)
        given = [slice(start, min(start + tile, length)) for start in starts]
        return [(one, slice(max(one.start - pad, 0), min(one.stop + pad, length))) for one in given]

    return [
        _Piece(number, (rows, columns), (rows_seen, columns_seen))
        for number in range(shape[0])
        for rows, rows_seen in cuts(shape[2])
        for columns, columns_seen in cuts(shape[3])
    ]


def _of_one_size(pieces: Iterable[_Piece]) -> list[list[_Piece]]:
    """The pieces sorted by how much the network sees of them."""
    sizes: dict[tuple[int, int], list[_Piece]] = {}
    for piece in pieces:
        rows, columns = piece.seen
        sizes.setdefault((rows.stop - rows.start, columns.stop - columns.start), []).append(piece)
    return list(sizes.values())


def enlarge(
    net: EnlargingNet, image: np.ndarray, *, tile: int = 0, tile_pad: int = 10, pre_pad: int = 0, outscale: float | None = None, batch: int = 1
) -> np.ndarray:
    """An image enlarged by the network.

    Args:
        net: The network.
        image: (H, W, 3) uint8 RGB.
        tile, tile_pad, batch: See :func:`forward_tiled`.
        pre_pad: Reflected pixels added right and below, and cut off again.
        outscale: Factor of the result; another factor than the network's is reached with Lanczos. None = the network's.

    Returns:
        (H outscale, W outscale, 3) uint8 RGB.
    """
    height, width = image.shape[:2]
    x = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None].float() / 255
    if isinstance(net, torch.nn.Module):
        parameter = next(net.parameters())
        x = x.to(parameter.device, parameter.dtype)
    if pre_pad:
        x = F.pad(x, (0, pre_pad, 0, pre_pad), "reflect")
    if net.multiple > 1:
        x = F.pad(x, (0, -x.shape[3] % net.multiple, 0, -x.shape[2] % net.multiple), "reflect")
    y = forward_tiled(net, x, tile=tile, tile_pad=tile_pad, batch=batch)[0, :, : height * net.scale, : width * net.scale]
    out = (y.float().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().cpu().numpy()
    if outscale is None or outscale == net.scale:
        return out
    return cv2.resize(out, (int(width * outscale), int(height * outscale)), interpolation=cv2.INTER_LANCZOS4)
