"""Compile a kernel once per machine: numba with an on-disk cache that notices every change.

numba's own cache looks at the file of the compiled function alone, so a change in a helper module or a constant elsewhere would go on
running the old code. Here the folder's name is a hash of all kernel sources, numba's and llvmlite's versions and the CPU.
Two processes that save at the same time are kept apart by a lock file, since numba's index would otherwise mix up their entries.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding
import numba
import platformdirs
from numba.core import caching, config

OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "boundscheck": False}


@cache
def source_key() -> str:
    """Name of the cache folder: changes with any kernel source, numba, llvmlite or the CPU."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    cpu = (llvmlite.binding.get_host_cpu_name(), llvmlite.binding.get_host_cpu_features().flatten())
    digest.update(repr((numba.__version__, llvmlite.__version__, cpu)).encode())
    return digest.hexdigest()[:20]


def _candidates() -> list[Path]:
    wish = getattr(config, "CACHE_DIR", "")  # NUMBA_CACHE_DIR
    if wish:
        return [Path(wish) / "svad_ray_splat"]
    return [Path(__file__).parent / "__pycache__", Path(platformdirs.user_cache_dir("svad-ray")) / "kernels"]


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


@cache
def cache_folder() -> Path | None:
    """Where compiled kernels lie: ``NUMBA_CACHE_DIR``, else beside the sources, else the user's cache; None where nothing is writable."""
    for base in _candidates():
        if _writable(base / source_key()):
            return base / source_key()
    tried = ", ".join(str(base) for base in _candidates())
    warnings.warn(f"no writable folder for compiled kernels ({tried}): every process compiles again; set NUMBA_CACHE_DIR", stacklevel=2)
    return None


class _Locator(caching._CacheLocator):
    def __init__(self, function: Callable[..., Any], folder: Path) -> None:
        self._name, self._folder = function.__qualname__, folder
        self._py_file, self._lineno = function.__code__.co_filename, function.__code__.co_firstlineno  # numba's warnings read these

    def get_cache_path(self) -> str:
        return str(self._folder)

    def get_source_stamp(self) -> str:
        return source_key()

    def get_disambiguator(self) -> str:
        return self._name

    @classmethod
    def from_function(cls, py_func: Callable[..., Any], py_file: str) -> _Locator | None:
        folder = cache_folder()
        return None if folder is None else cls(py_func, folder)


class _Impl(caching.CompileResultCacheImpl):
    _locator_classes = [_Locator]  # noqa: RUF012  (numba's own name, read-only)


class _KernelCache(caching.FunctionCache):
    _impl_class = _Impl

    def save_overload(self, sig: Any, data: Any) -> None:
        with open(os.path.join(self.cache_path, ".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            super().save_overload(sig, data)


def kernel(function: Callable[..., Any]) -> Any:
    """Compile ``function`` at its first call, strictly (no reordering of floating point), without the interpreter lock, cached on disk."""
    compiled = numba.njit(**OPTIONS)(function)
    if cache_folder() is not None:
        compiled._cache = _KernelCache(function)
    return compiled


def contracted_kernel(function: Callable[..., Any]) -> Any:
    """As `kernel`, but products and sums may fuse: for per-Gaussian maths whose forward and backward need not agree to the last bit.

    Not for compositing: there a test must fall the same way forward and backward, and looser arithmetic lets LLVM turn selected stores
    into masked ones, which are slow on AMD.
    """
    compiled = numba.njit(fastmath={"contract"}, **OPTIONS)(function)
    if cache_folder() is not None:
        compiled._cache = _KernelCache(function)
    return compiled
