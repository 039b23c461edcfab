"""Files that appear whole or not at all: write beside the target, then rename."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkstemp

from svad_ray.errors import InputError


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path in the target's folder that becomes ``path`` when the block ends well, and is removed when it does not.

    Raises:
        InputError: The folder does not exist and cannot be made, is not a folder, cannot be written, or the disk is full.
    """
    target = Path(path)
    temporary = _reserve(target)
    try:
        yield temporary
        temporary.replace(target)
    except OSError as error:
        raise _unwritable(target, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def _reserve(target: Path) -> Path:
    if target.is_dir():
        raise InputError(f"{target} is a folder", expected="a file name to write", remedy=f"give a file inside it, as {target / 'name'}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = mkstemp(prefix=f".{target.stem}-", suffix=target.suffix, dir=target.parent)
        umask = os.umask(0)
        os.umask(umask)
        os.fchmod(handle, 0o666 & ~umask)  # mkstemp makes files private; the finished file gets the caller's usual rights
        os.close(handle)
    except OSError as error:
        raise _unwritable(target, error) from error
    return Path(name)


def _unwritable(target: Path, error: OSError) -> InputError:
    reason = error.strerror or str(error)
    return InputError(
        f"cannot write {target}: {reason}", expected="a writable folder with free space", remedy="choose another output path or free space"
    )
