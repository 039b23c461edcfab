"""Weights out of ncnn's ``.param`` / ``.bin`` pair.

The text file lists the layers in order; the binary file holds their numbers in the same order without any table of
contents. Only the two layer kinds that carry numbers in super-resolution networks are known; anything else with weights
is refused, because a wrong guess of its size would shift every number behind it.

Source: ncnn's file format (param magic 7767517; weight flag 0x01306B47 = half precision, padded to four bytes).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from svad_ray.errors import InputError

PARAM_MAGIC = "7767517"
FLAG_FLOAT32 = 0
FLAG_FLOAT16 = 0x01306B47
WEIGHTLESS = frozenset({"Input", "Split", "BinaryOp", "Concat", "Eltwise", "Interp", "PixelShuffle", "Reorg", "ReLU", "Crop"})


@dataclass(frozen=True)
class NcnnLayer:
    """One layer that carries numbers.

    Attributes:
        kind: "Convolution" or "PReLU".
        name: ncnn's own name of the layer.
        weight: (out, in, k, k) float32 of a convolution, (channels,) slopes of a PReLU.
        bias: (out,) float32; None for a PReLU or a convolution without bias.
    """

    kind: str
    name: str
    weight: np.ndarray
    bias: np.ndarray | None


class _Numbers:
    """Reads consecutive arrays out of one binary file."""

    def __init__(self, path: Path) -> None:
        self.path, self.data, self.at = path, path.read_bytes(), 0

    def take(self, dtype: str, count: int) -> np.ndarray:
        """The next ``count`` numbers as float32 (or as they are for integers)."""
        kind = np.dtype(dtype)
        if self.at + count * kind.itemsize > len(self.data):
            raise InputError(
                f"{self.path} ends at byte {len(self.data)} while {count} more numbers are due at byte {self.at}.",
                expected="the .bin file that belongs to the .param file beside it",
                remedy="pull the model again; the file is cut short or belongs to another network",
            )
        out = np.frombuffer(self.data, kind, count, self.at)
        self.at += count * kind.itemsize
        return out

    def weights(self, count: int) -> np.ndarray:
        """(count,) float32 behind a storage flag."""
        flag = int(self.take("<u4", 1)[0])
        if flag == FLAG_FLOAT32:
            return self.take("<f4", count).astype(np.float32)
        if flag != FLAG_FLOAT16:
            raise InputError(
                f"{self.path} stores weights in the form 0x{flag:08X} at byte {self.at - 4}.",
                expected="float32 (0) or float16 (0x01306B47)",
                remedy="use the model files of the pinned package; quantised ncnn files are not read",
            )
        half = self.take("<f2", count).astype(np.float32)
        self.at += -(2 * count) % 4
        return half


def read_ncnn(param: Path, binary: Path) -> list[NcnnLayer]:
    """All layers with weights, in the order of the file.

    Args:
        param: The text file.
        binary: The file of numbers.

    Raises:
        InputError: Not an ncnn file, an unknown layer kind, or the binary file is longer or shorter than the text says.
    """
    lines = param.read_text().splitlines()
    if not lines or lines[0].strip() != PARAM_MAGIC:
        raise InputError(f"{param} does not begin with ncnn's {PARAM_MAGIC}.", expected="an ncnn .param text file", remedy="pull the model again")
    numbers = _Numbers(binary)
    layers = [layer for line in lines[2:] if line.strip() and (layer := _layer(line.split(), numbers, param)) is not None]
    if numbers.at != len(numbers.data):
        raise InputError(
            f"{binary} holds {len(numbers.data)} bytes, {param.name} accounts for {numbers.at}.",
            expected="every byte read",
            remedy="pull the model again; the two files belong to different networks",
        )
    return layers


def _layer(words: list[str], numbers: _Numbers, param: Path) -> NcnnLayer | None:
    kind, name, bottoms, tops = words[0], words[1], int(words[2]), int(words[3])
    options = dict(word.split("=", 1) for word in words[4 + bottoms + tops :])
    if kind in WEIGHTLESS:
        return None
    if kind == "PReLU":
        return NcnnLayer(kind, name, numbers.take("<f4", int(options["0"])).copy(), None)
    if kind == "Convolution":
        out, size, total = int(options["0"]), int(options["1"]), int(options["6"])
        weight = numbers.weights(total).reshape(out, -1, size, size)
        return NcnnLayer(kind, name, weight, numbers.take("<f4", out).copy() if options.get("5") == "1" else None)
    raise InputError(
        f"{param} has a layer of kind {kind} ({name}).",
        expected="Convolution, PReLU or one of " + ", ".join(sorted(WEIGHTLESS)),
        remedy="use the model files of the pinned package",
    )
