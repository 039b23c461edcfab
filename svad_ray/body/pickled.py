"""Arrays out of pickled body files without running anything that they name.

The files of SMPL-X's and FLAME's makers are pickles of a dictionary whose arrays are numpy's, scipy's sparse matrices, or chumpy's wrappers of
arrays. Here numpy's arrays are read as they are, everything else is read as an inert record of its state, and the arrays are taken out of those.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import IO, Any

import numpy as np
from scipy.sparse import csc_matrix

from svad_ray.errors import InputError

_REAL = {
    ("numpy", "dtype"): np.dtype,
    ("numpy", "ndarray"): np.ndarray,
    ("collections", "OrderedDict"): dict,
}
_BUILT_IN = {"object": object, "int": int, "float": float, "bool": bool, "set": set, "dict": dict, "list": list, "tuple": tuple, "str": str}
_ARRAY_MODULES = {"numpy.core.multiarray", "numpy._core.multiarray"}


class Record:
    """What stood in the file in place of an object: its state, and nothing that acts."""

    def __new__(cls, *_: Any, **__: Any) -> Record:
        return object.__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        self.state: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        parts = state if isinstance(state, tuple) else (state,)
        self.state = {str(key): value for part in parts if isinstance(part, Mapping) for key, value in part.items()}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module in _ARRAY_MODULES and name in ("_reconstruct", "scalar"):
            return getattr(import_module("numpy._core.multiarray"), name)
        if (module, name) in _REAL:
            return _REAL[module, name]
        if module in ("builtins", "__builtin__") and name in _BUILT_IN:
            return _BUILT_IN[name]
        if (module, name) in (("copyreg", "_reconstructor"), ("copy_reg", "_reconstructor")):
            return _reconstructed
        if (module, name) == ("_codecs", "encode"):  # bytes of a pickle that Python 3 wrote in protocol 2
            return _encoded
        return type("Record", (Record,), {})


def _reconstructed(kind: Any, *_: Any) -> Any:
    return kind() if isinstance(kind, type) and issubclass(kind, Record) else Record()


def _encoded(text: str, coding: str = "latin1") -> bytes:
    return text.encode(coding if coding in ("latin1", "utf-8", "ascii") else "latin1")


def read_pickle(path: Path) -> dict[str, Any]:
    """The dictionary in a pickled body file: numpy arrays and plain values; what cannot be an array is left out.

    Raises:
        InputError: The file is damaged, or holds no dictionary.
    """
    with path.open("rb") as stream:
        return arrays_of(_load(stream, path), path)


def read_npy_dictionary(path: Path) -> dict[str, Any]:
    """The dictionary in an ``.npy`` file that pickles one (DECA's landmark embedding, FLAME's contour embedding). Raises as ``read_pickle``."""
    with path.open("rb") as stream:
        try:
            version = np.lib.format.read_magic(stream)
            read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            read_header(stream)
        except ValueError as error:
            raise InputError(f"{path.name} cannot be read as an npy file ({error})", remedy="download it again") from error
        value = _load(stream, path)
    while isinstance(value, (np.ndarray, list)) and np.size(value) == 1:
        value = np.ravel(np.asarray(value, object))[0]
    return arrays_of(value, path)


def _load(stream: IO[bytes], path: Path) -> Any:
    try:
        return _Reader(stream, encoding="latin1").load()
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, IndexError, KeyError, AttributeError, UnicodeDecodeError, ImportError) as error:
        raise InputError(
            f"{path.name} cannot be read ({path.stat().st_size} bytes): {error or type(error).__name__}",
            expected="a pickled dictionary of arrays, complete",
            remedy="download it again and compare its size",
        ) from error


def arrays_of(value: Any, path: Path) -> dict[str, Any]:
    """The entries that are arrays or plain values."""
    if not isinstance(value, Mapping):
        raise InputError(f"{path.name} holds a {type(value).__name__}", expected="a dictionary of arrays", remedy="use the published file")
    plain = {str(key): _array(entry) for key, entry in value.items()}
    return {key: entry for key, entry in plain.items() if entry is not None}


def _array(value: Any) -> Any:
    if isinstance(value, Record):
        state = value.state
        if {"data", "indices", "indptr"} <= state.keys():
            return csc_matrix((state["data"], state["indices"], state["indptr"]), shape=state.get("_shape", state.get("shape"))).toarray()
        return _array(state["x"]) if "x" in state else None
    if isinstance(value, np.ndarray) and value.dtype == object:
        return None
    return value
