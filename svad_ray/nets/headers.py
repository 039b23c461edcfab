"""What lies in a file of weights or tables: names and shapes, from its header wherever the format has one. Nothing in it is run.

Read are safetensors, torch's files (both formats), ONNX, npz and npy, and the pickles of body models.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from torch import Tensor

from svad_ray.body.pickled import arrays_of, read_npy_dictionary, read_pickle
from svad_ray.errors import InputError
from svad_ray.nets.checkpoint import headers_only, read_objects, read_safetensors

Shapes = dict[str, tuple[int, ...]]
SUFFIXES = (".safetensors", ".onnx", ".npz", ".npy", ".pkl", ".pth", ".pt", ".bin", ".ckpt", ".tar")
_ARRAY = "array"  # the name of what a plain npy holds
_GRAPH, _INITIALIZER, _INPUT, _OUTPUT = 7, 5, 11, 12  # fields of ONNX's ModelProto and GraphProto
_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5  # protocol buffers' wire types


def read_shapes(path: str | Path) -> Shapes:
    """Name -> shape of everything in a file; names of nested dictionaries are joined by dots, other objects are left out.

    Of ONNX files "input.NAME" and "output.NAME" (0 where a dimension is free) and the weights; a plain npy is called "array".

    Raises:
        InputError: The file is damaged, or of no format that is read here.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path.name} is of no format that holds weights", expected=", ".join(SUFFIXES))
    try:
        return _READERS.get(path.suffix, _torch)(path)
    except (OSError, ValueError, EOFError, KeyError, IndexError, TypeError, zipfile.BadZipFile) as error:
        raise InputError(f"{path.name} cannot be read ({path.stat().st_size} bytes): {error}", remedy="download it again") from error


def _torch(path: Path) -> Shapes:
    with headers_only():
        return dict(_nested(read_objects(path, beside=True)))


def _safetensors(path: Path) -> Shapes:
    with headers_only():
        return dict(_nested(read_safetensors(path)))


def _nested(value: Any, name: str = "") -> Iterator[tuple[str, tuple[int, ...]]]:
    if isinstance(value, Mapping):
        for key, entry in value.items():
            yield from _nested(entry, f"{name}.{key}" if name else str(key))
    elif isinstance(value, (Tensor, np.ndarray)):
        yield name, tuple(value.shape)


def _pickle(path: Path) -> Shapes:
    return dict(_nested(read_pickle(path)))


def _npz(path: Path) -> Shapes:
    with zipfile.ZipFile(path) as archive:
        members = [name for name in archive.namelist() if name.endswith(".npy")]
        return {name.removesuffix(".npy"): _npy_header(archive.open(name))[0] for name in members}


def _npy(path: Path) -> Shapes:
    with path.open("rb") as stream:
        shape, pickled = _npy_header(stream)
    return dict(_nested(arrays_of(read_npy_dictionary(path), path))) if pickled else {_ARRAY: shape}


def _npy_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool]:
    """Shape, and whether the contents are pickled objects."""
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    return shape, dtype.hasobject


def _onnx(path: Path) -> Shapes:
    with path.open("rb") as stream:
        graphs = [(at, size) for number, at, size in _fields(stream, 0, path.stat().st_size) if number == _GRAPH]
        if not graphs:
            raise ValueError("it holds no graph")
        found: Shapes = {}
        for number, at, size in _fields(stream, *graphs[0]):
            if number == _INITIALIZER:
                found |= _initializer(stream, at, size)
            elif number in (_INPUT, _OUTPUT):
                name, shape = _value(stream, at, size)
                found[f"{'input' if number == _INPUT else 'output'}.{name}"] = shape
    return found


def _fields(stream: IO[bytes], at: int, size: int) -> Iterator[tuple[int, int, int]]:
    """(number, place, length) of the fields of one message; of a number the value instead of the place, and -1. Large contents are leapt over."""
    end = at + size
    while at < end:
        stream.seek(at)
        tag, at = _varint(stream)
        kind, number = tag & 7, tag >> 3
        if kind == _VARINT:
            value, at = _varint(stream)
            yield number, value, -1
        elif kind == _BYTES:
            length, at = _varint(stream)
            if at + length > end:
                raise ValueError(f"it ends inside a field of {length} bytes")
            yield number, at, length
            at += length
        elif kind in (_EIGHT, _FOUR):
            at += 8 if kind == _EIGHT else 4
        else:
            raise ValueError("it is no ONNX file")


def _varint(stream: IO[bytes]) -> tuple[int, int]:
    """A number and the place behind it."""
    value = shift = 0
    while byte := stream.read(1):
        value |= (byte[0] & 0x7F) << shift
        shift += 7
        if byte[0] < 0x80:
            return value, stream.tell()
        if shift > 63:
            break
    raise ValueError("it ends inside a number")


def _initializer(stream: IO[bytes], at: int, size: int) -> Shapes:
    """TensorProto: dims are field 1, one by one or packed; the name is field 8."""
    name, dims = "", []
    for number, place, length in _fields(stream, at, size):
        if number == 1:
            dims += [place] if length < 0 else _packed(stream, place, length)
        elif number == 8:
            name = _text(stream, place, length)
    return {name: tuple(dims)}


def _packed(stream: IO[bytes], at: int, size: int) -> list[int]:
    out, end = [], at + size
    while at < end:
        stream.seek(at)
        value, at = _varint(stream)
        out.append(value)
    return out


def _value(stream: IO[bytes], at: int, size: int) -> tuple[str, tuple[int, ...]]:
    """ValueInfoProto: name 1, type 2 -> tensor type 1 -> shape 2 -> dimensions 1 -> value 1."""
    parts = list(_fields(stream, at, size))
    name = next((_text(stream, place, length) for number, place, length in parts if number == 1), "")
    spans = [(place, length) for number, place, length in parts if number == 2]
    for wanted in (1, 2):
        spans = [(place, length) for span in spans for number, place, length in _fields(stream, *span) if number == wanted]
    dims = [span for outer in spans for number, *span in _fields(stream, outer[0], outer[1]) if number == 1]
    return name, tuple(next((v for number, v, length in _fields(stream, at, size) if number == 1 and length < 0), 0) for at, size in dims)


def _text(stream: IO[bytes], at: int, size: int) -> str:
    stream.seek(at)
    return stream.read(size).decode("utf-8", "replace")


_READERS = {".safetensors": _safetensors, ".onnx": _onnx, ".npz": _npz, ".npy": _npy, ".pkl": _pickle}
