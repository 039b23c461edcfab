"""The container of binary glTF 2.0: one JSON document and one buffer. Twelve bytes of header and two chunks need no library."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from svad_ray.export.atomic import atomic_path

VERTICES, INDICES = 34962, 34963  # targets of buffer views
_COMPONENT = {np.dtype(np.float32): 5126, np.dtype(np.uint8): 5121, np.dtype(np.uint16): 5123, np.dtype(np.uint32): 5125}
_SHAPE = {(): "SCALAR", (2,): "VEC2", (3,): "VEC3", (4,): "VEC4", (4, 4): "MAT4"}


class Glb:
    """A glTF document under construction.

    Attributes:
        document: The JSON part; its accessors, buffer views and buffer are kept by :meth:`accessor`.
    """

    def __init__(self, **document: Any) -> None:
        self.document: dict[str, Any] = {**document, "accessors": [], "bufferViews": []}
        self._buffer = bytearray()

    def accessor(self, values: np.ndarray, *, target: int | None = None, bounds: bool = False) -> int:
        """The number of a new accessor.

        Args:
            values: (N,), (N, 2 to 4) or (N, 4, 4); float32, uint8, uint16 or uint32. Matrices are given by rows, and stored by columns.
            target: ``VERTICES`` or ``INDICES`` for what a mesh draws. bounds: Write least and greatest values, as positions and times need.
        """
        shape = values.shape[1:]
        if shape == (4, 4):
            values = values.transpose(0, 2, 1)
        view: dict[str, Any] = {"buffer": 0, "byteOffset": len(self._buffer), "byteLength": values.nbytes}
        entry: dict[str, Any] = {"bufferView": len(self.document["bufferViews"]), "componentType": _COMPONENT[values.dtype], "count": len(values)}
        entry["type"] = _SHAPE[shape]
        if target is not None:
            view["target"] = target
        if bounds:
            entry |= {"min": np.atleast_1d(values.min(0)).tolist(), "max": np.atleast_1d(values.max(0)).tolist()}
        self._buffer += np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<")).tobytes()
        self._buffer += bytes(-len(self._buffer) % 4)
        self.document["bufferViews"].append(view)
        self.document["accessors"].append(entry)
        return len(self.document["accessors"]) - 1

    def write(self, path: str | Path) -> None:
        """The file appears whole or not at all."""
        text = json.dumps({**self.document, "buffers": [{"byteLength": len(self._buffer)}]}, separators=(",", ":"), allow_nan=False).encode()
        text += b" " * (-len(text) % 4)
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            stream.write(struct.pack("<4sII", b"glTF", 2, 12 + 8 + len(text) + 8 + len(self._buffer)))
            stream.write(struct.pack("<I4s", len(text), b"JSON") + text)
            stream.write(struct.pack("<I4s", len(self._buffer), b"BIN\0") + self._buffer)
