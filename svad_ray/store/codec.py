"""Dataclasses of arrays <-> named files, exactly: every value read back is bit for bit the one written.

Pictures (uint8, H x W x 3, T x H x W x 3 and T x H x W) become lossless PNG files, which a person can open; other arrays go to one
safetensors file; the rest and the shape of the whole is ``data.json``. Only dataclasses of this package are ever made by reading.
"""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import cv2
import numpy as np
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from svad_ray.errors import StoreError

FORMAT = 1
DATA, ARRAYS = "data.json", "arrays.safetensors"
_PNG_FAST = [cv2.IMWRITE_PNG_COMPRESSION, 1]
_SMALLEST_PICTURE = 8  # pixels a side; smaller arrays are no pictures
_TAG = "$"


def encode(value: Any) -> Iterator[tuple[str, bytes]]:
    """(file name, content) of everything that ``decode`` needs; names may hold one "/"."""
    arrays: dict[str, np.ndarray] = {}
    pictures: dict[str, np.ndarray] = {}
    tree = _to_tree(value, "value", arrays, pictures)
    for name, array in pictures.items():
        yield from _write_pictures(name, array)
    if arrays:
        yield ARRAYS, save_tensors(arrays)
    yield DATA, json.dumps({"format": FORMAT, "value": tree}, indent=1, allow_nan=False).encode()


def decode(read: Callable[[str], bytes]) -> Any:
    """The value that was encoded.

    Args:
        read: Gives the content of a file by the name that ``encode`` gave it.

    Raises:
        StoreError: The files were written by a newer format.
    """
    head = json.loads(read(DATA))
    if head.get("format") != FORMAT:
        raise StoreError(
            f"the artefact has format {head.get('format')}", expected=f"format {FORMAT}", remedy="use the version of svad-ray that wrote it"
        )
    arrays = load_tensors(read(ARRAYS)) if _mentions(head["value"], "array") else {}
    return _from_tree(head["value"], arrays, read)


def _to_tree(value: Any, path: str, arrays: dict[str, np.ndarray], pictures: dict[str, np.ndarray]) -> Any:
    def inner(item: Any, name: str) -> Any:
        return _to_tree(item, f"{path}.{name}", arrays, pictures)

    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, np.generic):
        return {_TAG: "scalar", "dtype": value.dtype.str, "hex": value.tobytes().hex()}
    if isinstance(value, float):
        return value if math.isfinite(value) else {_TAG: "float", "value": repr(value)}
    if isinstance(value, np.ndarray):
        return _place_array(value, path, arrays, pictures)
    if isinstance(value, tuple | list):
        return {_TAG: type(value).__name__, "items": [inner(item, str(i)) for i, item in enumerate(value)]}
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise TypeError(f"{path}: only mappings with string keys can be stored")
        return {_TAG: "dict", "items": {key: inner(item, key) for key, item in value.items()}}
    if is_dataclass(value) and not isinstance(value, type):
        kind = f"{type(value).__module__}:{type(value).__qualname__}"
        return {_TAG: "dataclass", "type": kind, "fields": {f.name: inner(getattr(value, f.name), f.name) for f in fields(value) if f.init}}
    raise TypeError(f"{path}: a {type(value).__name__} cannot be stored")


def _place_array(array: np.ndarray, path: str, arrays: dict[str, np.ndarray], pictures: dict[str, np.ndarray]) -> dict[str, Any]:
    if _is_picture(array):
        pictures[path] = array
        return {_TAG: "pictures", "name": path, "shape": list(array.shape)}
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{path}: arrays of {array.dtype} cannot be stored")
    arrays[path] = np.array(array, array.dtype.newbyteorder("="), order="C")
    return {_TAG: "array", "name": path}


def _is_picture(array: np.ndarray) -> bool:
    if array.dtype != np.uint8 or array.ndim not in (3, 4) or array.size == 0:
        return False
    color = array.shape[-1] == 3
    height, width = array.shape[-3:-1] if color else array.shape[-2:]
    return (color or array.ndim == 3) and min(height, width) >= _SMALLEST_PICTURE


def _write_pictures(name: str, array: np.ndarray) -> Iterator[tuple[str, bytes]]:
    single = array.ndim == 3 and array.shape[-1] == 3
    for i, picture in enumerate(array[None] if single else array):
        if picture.ndim == 3:
            picture = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
        done, png = cv2.imencode(".png", np.ascontiguousarray(picture), _PNG_FAST)
        if not done:
            raise StoreError(f"{name}: a picture of shape {picture.shape} could not be written as PNG")
        yield f"{name}/{i:06d}.png", png.tobytes()


def _read_pictures(name: str, shape: tuple[int, ...], read: Callable[[str], bytes]) -> np.ndarray:
    color = shape[-1] == 3
    single = len(shape) == 3 and color
    out = np.empty((1, *shape) if single else shape, np.uint8)
    for i in range(len(out)):
        file = f"{name}/{i:06d}.png"
        picture = cv2.imdecode(np.frombuffer(read(file), np.uint8), cv2.IMREAD_COLOR if color else cv2.IMREAD_GRAYSCALE)
        if picture is None or picture.shape != out.shape[1:]:
            raise StoreError(f"{file} is no picture of shape {out.shape[1:]}", remedy="remove this artefact's folder and run again")
        out[i] = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB) if color else picture
    return out[0] if single else out


def _from_tree(tree: Any, arrays: Mapping[str, np.ndarray], read: Callable[[str], bytes]) -> Any:
    if not isinstance(tree, dict):
        return tree
    kind = tree[_TAG]
    if kind == "array":
        return arrays[tree["name"]]
    if kind == "pictures":
        return _read_pictures(tree["name"], tuple(tree["shape"]), read)
    if kind == "scalar":
        return np.frombuffer(bytes.fromhex(tree["hex"]), tree["dtype"])[0]
    if kind == "float":
        return float(tree["value"])
    if kind == "dict":
        return {key: _from_tree(item, arrays, read) for key, item in tree["items"].items()}
    if kind in ("tuple", "list"):
        items = [_from_tree(item, arrays, read) for item in tree["items"]]
        return tuple(items) if kind == "tuple" else items
    return _class(tree["type"])(**{name: _from_tree(item, arrays, read) for name, item in tree["fields"].items()})


def _class(name: str) -> type[Any]:
    module, _, qualname = name.partition(":")
    kind = getattr(importlib.import_module(module), qualname, None) if module.split(".")[0] == "svad_ray" else None
    if not (isinstance(kind, type) and is_dataclass(kind)):
        raise StoreError(f"the artefact holds a '{name}'", expected="a dataclass of svad_ray", remedy="use the version of svad-ray that wrote it")
    return kind


def _mentions(tree: Any, kind: str) -> bool:
    if isinstance(tree, list):
        return any(_mentions(item, kind) for item in tree)
    return isinstance(tree, dict) and (tree.get(_TAG) == kind or any(_mentions(item, kind) for item in tree.values()))
