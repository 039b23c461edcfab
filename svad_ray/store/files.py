"""Small files under one root, on any fsspec file system: created once, or replaced whole.

Everything that several processes agree on (markers, ledgers, leases) rests on ``create``: of several callers exactly one succeeds.
"""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import fsspec
from fsspec.implementations.local import LocalFileSystem

from svad_ray.errors import StoreError


class Files:
    """Files under ``root``, named by relative paths with "/".

    Args:
        root: A folder, or any fsspec address whose file system can create a file only if it is absent (``file://``, ``memory://``, ``s3://``).
        options: Passed to the file system.
    """

    def __init__(self, root: str | os.PathLike[str], **options: object) -> None:
        self.fs, path = fsspec.core.url_to_fs(os.fspath(root), **options)
        self.root = path.rstrip("/")
        self.local = isinstance(self.fs, LocalFileSystem)

    def path(self, name: str) -> str:
        """The file system's path of ``name``."""
        return f"{self.root}/{name}"

    def create(self, name: str, content: bytes) -> bool:
        """Create the file with its whole content; False when it exists. Exactly one of several callers gets True.

        Raises:
            StoreError: The file system has no such operation, or cannot be written.
        """
        path = self.path(name)
        with plain_errors(self.root):
            self.fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
            if self.local:
                return _link_if_absent(path, content)
            try:
                self.fs.pipe_file(path, content, mode="create")
            except FileExistsError:
                return False
            except (TypeError, ValueError, NotImplementedError) as error:
                raise StoreError(
                    f"the file system of {self.root} cannot create a file only if it is absent",
                    expected="a local folder, memory:// or an object store with conditional writes",
                    remedy="choose another place for the store",
                ) from error
        return True

    def probe(self) -> None:
        """Create, create again, read back and remove a file, before work relies on it.

        Raises:
            StoreError: One of these cannot be done here, or the file system breaks its promise (some caching layers create twice).
        """
        name = f".svad-ray-probe-{uuid.uuid4().hex[:12]}"
        try:
            first, second, content = self.create(name, b"x"), self.create(name, b"y"), self.read(name)
        finally:
            self.remove(name)
        if not first or second or content != b"x":
            raise StoreError(
                f"the file system of {self.root} does not keep its promise to create a file only if it is absent",
                expected="a local folder or an object store with conditional writes",
                remedy="choose another place for the results",
            )

    def write(self, name: str, content: bytes) -> None:
        """Write the file, replacing what was there; a reader sees the old content or the new, never a part."""
        path = self.path(name)
        with plain_errors(self.root):
            self.fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
            if not self.local:
                self.fs.pipe_file(path, content)
                return
            staged = f"{path}.{uuid.uuid4().hex[:12]}"
            try:
                with open(staged, "wb") as stream:
                    stream.write(content)
                os.replace(staged, path)
            except BaseException:
                with suppress(OSError):
                    os.unlink(staged)
                raise

    def read(self, name: str) -> bytes | None:
        """The content, or None when there is no such file."""
        try:
            return self.fs.cat_file(self.path(name))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StoreError(f"{self.path(name)} cannot be read ({error})", remedy="check the permissions of the store") from error

    def names(self, folder: str = "") -> list[str]:
        """Names of what lies directly in ``folder``, sorted; empty when there is no such folder."""
        try:
            return sorted(path.rstrip("/").rsplit("/", 1)[-1] for path in self.fs.ls(self.path(folder).rstrip("/"), detail=False, refresh=True))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def glob(self, pattern: str) -> list[str]:
        """Names that match, sorted."""
        self.fs.invalidate_cache()
        return sorted(path[len(self.root) + 1 :] for path in self.fs.glob(self.path(pattern)))

    def remove(self, name: str) -> None:
        """Remove a file or a folder with everything in it; nothing happens when it is not there."""
        with suppress(FileNotFoundError):
            self.fs.rm(self.path(name), recursive=True)


def _link_if_absent(path: str, content: bytes) -> bool:
    """A hard link appears at once and whole, and fails when the name is taken: a torn marker cannot exist."""
    staged = f"{path}.{uuid.uuid4().hex[:12]}"
    try:
        with open(staged, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.link(staged, path)
    except FileExistsError:
        return False
    finally:
        with suppress(FileNotFoundError):
            os.unlink(staged)
    return True


@contextmanager
def plain_errors(root: str) -> Iterator[None]:
    """OSErrors of writing as ``StoreError`` with a remedy."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        remedy = (
            "free some space or choose another folder with --out"
            if full
            else "check that the folder exists and may be written, or choose another with --out"
        )
        raise StoreError(f"the store {root} cannot be written: {error.strerror or error}", remedy=remedy) from error
