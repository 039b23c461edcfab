"""Reading checkpoint files that a user brings: nothing in them is executed, nothing is guessed, and every fault is named."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from svad_ray.errors import InputError, WeightsMissing
from svad_ray.nets.foreign import inert_globals

M = TypeVar("M", bound=nn.Module)
_SHOWN = 5  # tensors named in one message
_COUNTER = "num_batches_tracked"  # of batch normalisation; only training reads it
_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32", "U8": "uint8", "BOOL": "bool"}
_headers: ContextVar[bool] = ContextVar("headers", default=False)


@contextmanager
def headers_only() -> Iterator[None]:
    """Inside, ``read_state`` gives tensors of the right names, shapes and types that hold nothing (on the device "meta").

    A loader that ends well in here would find every tensor of the file in its place. No bytes of the tensors are read where the format allows it.
    """
    token = _headers.set(True)
    try:
        yield
    finally:
        _headers.reset(token)


def read_state(path: Path, *, missing: Callable[[], WeightsMissing], inside: Iterable[str] = (), beside: bool = False) -> dict[str, Tensor]:
    """A file of named tensors; ``.safetensors`` of the same stem is preferred.

    Args:
        missing: Makes the error that is raised when neither file is there.
        inside: Names under which the tensors may lie one level deeper; the first one that is there counts.
        beside: Other objects may lie beside the tensors, and are read as nothing.

    Raises:
        WeightsMissing: See ``missing``. InputError: It is damaged, or holds anything but named tensors.
    """
    if (safe := path.with_suffix(".safetensors")).exists():
        return read_safetensors(safe)
    if not path.exists():
        raise missing()
    state = read_objects(path, beside=beside)
    if isinstance(state, Mapping):
        state = next((state[name] for name in inside if isinstance(state.get(name), Mapping)), state)
    if not isinstance(state, Mapping) or not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()):
        found = f"with the keys {some(sorted(map(str, state)))}" if isinstance(state, Mapping) else type(state).__name__
        raise InputError(f"{path} holds something else than named tensors: {found}", expected="a flat state dict", remedy="use the published file")
    return dict(state)


def read_objects(path: Path, *, beside: bool = False) -> Any:
    """Everything in a file of torch, as it lies there. Arguments and errors as ``read_state``, which asks for less."""
    try:
        allowed: list[Any] = list(inert_globals(path)) if beside else []
        with torch.serialization.safe_globals(allowed):
            return torch.load(path, map_location="meta" if _headers.get() else "cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (RuntimeError, EOFError, OSError, ValueError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0].split(". ")[0] if str(error) else type(error).__name__  # torch goes on to advise running what is in it
        raise InputError(
            f"{path} cannot be read ({path.stat().st_size} bytes): {reason}",
            expected="a file of named tensors, complete",
            remedy="download it again and compare its size",
        ) from error


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file. Raises InputError."""
    try:
        return _safetensors_header(path) if _headers.get() else load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} cannot be read: {error}", remedy="download it again and compare its size") from error


def _safetensors_header(path: Path) -> dict[str, Tensor]:
    """Tensors without contents, of a file that is as long as its header says."""
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        size = path.stat().st_size
        if length > size:
            raise ValueError(f"its header is said to be {length} bytes long, the file has {size}")
        entries = {name: entry for name, entry in json.loads(stream.read(length)).items() if name != "__metadata__"}
    if (end := 8 + length + max((entry["data_offsets"][1] for entry in entries.values()), default=0)) != size:
        raise ValueError(f"it has {size} bytes instead of {end}")
    return {name: torch.empty(entry["shape"], dtype=getattr(torch, _DTYPES[entry["dtype"]]), device="meta") for name, entry in entries.items()}


def fill(
    module: M,
    state: Mapping[str, Tensor],
    path: Path,
    *,
    dtype: torch.dtype = torch.float32,
    what: str = "",
    computed: Mapping[str, Tensor] | None = None,
    remedy: str = "download the file again",
) -> M:
    """Put ``state`` into a module that was built on the meta device; returns it.

    Args:
        what: The network's name for messages. computed: Tensors of the module that no file holds. remedy: When tensors are missing.

    Raises:
        InputError: Tensors are missing, too many, or of another shape or type; the message names them.
    """
    computed = dict(computed or {})
    counters = {key: torch.zeros((), dtype=torch.int64) for key in module.state_dict() if key.endswith(_COUNTER)}
    wanted = {key: value for key, value in module.state_dict().items() if key not in computed and key not in counters}
    given = {key: value for key, value in state.items() if key not in counters}
    if missing := sorted(wanted.keys() - given.keys()):
        raise InputError(
            f"{path} is partial: {len(missing)} of {len(wanted)} tensors are in no file: {some(missing)}",
            expected="every tensor of the published file",
            remedy=remedy,
        )
    if stray := sorted(given.keys() - wanted.keys()):
        raise foreign(path, stray, what or type(module).__name__)
    if wrong := [f"{key} {tuple(given[key].shape)} for {tuple(wanted[key].shape)}" for key in wanted if given[key].shape != wanted[key].shape]:
        raise InputError(f"{path} has {len(wrong)} tensors of another shape: {some(wrong)}", remedy="use files of one release together")
    if wrong := [f"{key} {given[key].dtype}" for key in wanted if not given[key].is_floating_point()]:
        raise InputError(f"{path} has tensors that are not floating point: {some(wrong)}", expected="float32, float16 or bfloat16")
    module.load_state_dict({key: value.to(dtype) for key, value in given.items()} | computed | counters, strict=True, assign=True)
    return module


def absent(path: Path, source: str, licence: str, *, who: str, remedy: str) -> WeightsMissing:
    """The error that names a file that is not there, who needs it, where it comes from, and what to do."""
    return WeightsMissing(f"{who} needs {path}, which is not there", expected=f"{path.name} from {source} ({licence})", remedy=remedy)


def foreign(path: Path, keys: Iterable[str], what: str) -> InputError:
    """The error for tensors that do not belong in a file."""
    keys = list(keys)
    return InputError(
        f"{path} is not the {what}: {len(keys)} tensors do not belong there: {some(keys)}", remedy="check that the file lies under its own name"
    )


def some(names: Iterable[str]) -> str:
    """The first few of many names."""
    names = list(names)
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
