"""Checkpoints that hold more than tensors: what a training framework put beside them is read as nothing, and nothing of it runs.

``torch.load(weights_only=True)`` refuses a file with a numpy array or a logger's buffer in its metadata. Every class that such a file names outside
of torch is read as an inert object here, so that the tensors can be had.
"""

from __future__ import annotations

import pickle
import pickletools
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

_LEGACY_PARTS = 4  # pickles before the storages of torch's older format: magic number, version, machine, object


class Inert:
    """Made by any arguments, takes any state, keeps nothing."""

    def __new__(cls, *_: Any, **__: Any) -> Inert:
        return object.__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __setstate__(self, state: Any) -> None:
        """Nothing is kept."""


def inert_globals(path: Path) -> list[tuple[Any, str]]:
    """(stand-in, full name) of everything outside of torch that a checkpoint names, for ``torch.serialization.safe_globals``.

    What torch.load knows by itself (``collections.OrderedDict``) it still reads as what it is.
    A file that is no checkpoint gives none; who loads it says what is wrong with it.
    """
    try:
        with path.open("rb") as stream:
            names = set(_globals_of_archive(path) if zipfile.is_zipfile(path) else _globals_of_legacy(stream))
    except (OSError, ValueError, EOFError, KeyError, IndexError, zipfile.BadZipFile, pickle.UnpicklingError):
        return []
    return [(type("Inert", (Inert,), {}), name) for name in sorted(names) if not name.startswith("torch.")]


def _globals_of_archive(path: Path) -> Iterator[str]:
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.rpartition("/")[2] == "data.pkl":
                with archive.open(name) as stream:
                    yield from _globals(stream)


def _globals_of_legacy(stream: IO[bytes]) -> Iterator[str]:
    for _ in range(_LEGACY_PARTS):
        yield from _globals(stream)


def _globals(stream: IO[bytes]) -> Iterator[str]:
    """Full names in one pickle of protocol 2, the only one that torch reads; the stream stands behind it afterwards."""
    for code, argument, _ in pickletools.genops(stream):
        if code.name == "GLOBAL":
            module, name = str(argument).split(" ", 1)
            if (module, name) in NAME_MAPPING:  # protocol 2 writes Python 2's names, and torch reads them as today's
                module, name = NAME_MAPPING[module, name]
            yield f"{IMPORT_MAPPING.get(module, module)}.{name}"
