"""Every export gets a signed record: pictures and videos inside (C2PA), files beside (``NAME.provenance.json``), folders in ``provenance.json``."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import svad_ray
from svad_ray.errors import InputError
from svad_ray.export.atomic import atomic_path
from svad_ray.provenance import content, jws
from svad_ray.provenance.identity import Identity, fingerprint

FOLDER, SUFFIX = "provenance.json", ".provenance.json"
RECEIPT = "svad-ray deletion"  # type of a signed record that is of no file


@dataclass(frozen=True)
class Checked:
    """What looking at an export's record gave.

    Attributes:
        path: Of the export. record: What was signed; empty when there is none.
        wrong: What is wrong with it, in sentences; empty when file and record are as they were signed.
        trusted: The signer is the one that was asked for.
        signer: Short name of the signer; "" where the record does not give it away (C2PA of another installation).
    """

    path: Path
    record: dict[str, Any] = field(default_factory=dict)
    wrong: tuple[str, ...] = ()
    trusted: bool = False
    signer: str = ""

    @property
    def good(self) -> bool:
        """Unchanged, and by the right signer."""
        return self.trusted and not self.wrong


def sidecar(path: Path) -> Path:
    """The record's place beside a file that cannot hold one."""
    return path.with_name(path.name + SUFFIX)


def record_of(name: str, kind: str, avatar: Mapping[str, Any]) -> dict[str, Any]:
    """What is signed of an export, besides its bytes: JSON values only, no clock.

    Args:
        kind: Format of the export. avatar: Provenance of the avatar: photo, consent, backends, licences.
    """
    says = "made by svad-ray from the likeness that 'avatar' names; not a recording of a person"
    return {"type": "svad-ray provenance", "version": 1, "made_by": f"svad-ray {svad_ray.__version__}", "name": name, "format": kind} | {
        "statement": says,
        "avatar": dict(avatar),
    }


def seal(path: Path, kind: str, avatar: Mapping[str, Any], by: Identity) -> None:
    """Sign a finished file; the record goes into pictures and videos, and beside every other.

    Raises:
        InputError: It cannot be written.
    """
    record = record_of(path.name, kind, avatar)
    if path.suffix.lower() in content.KINDS:
        with atomic_path(path) as temporary:
            content.embed(path, temporary, record, by)
        return
    _write(sidecar(path), {**record, "files": {path.name: _facts(path)}}, by)


def seal_folder(folder: Path, kind: str, avatar: Mapping[str, Any], by: Identity) -> None:
    """Sign everything in a folder with one record in it. Raises as ``seal``."""
    files = {path.relative_to(folder).as_posix(): _facts(path) for path in _members(folder)}
    _write(folder / FOLDER, {**record_of(folder.name, kind, avatar), "files": files}, by)


def _write(path: Path, record: Mapping[str, Any], by: Identity) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(jws.sign(record, by))


def check(path: Path, root: bytes) -> Checked:
    """Compare an export with its record.

    Args:
        path: A file, a folder, a record itself, or a receipt. root: PEM of the root's certificate of whoever should have signed it.

    Raises:
        InputError: There is nothing there.
    """
    if not path.exists():
        raise InputError(f"there is no {path}", expected="an exported file or folder", remedy="check the path")
    if path.is_file() and path.suffix.lower() in content.KINDS:
        found = content.read(path, root)
        if found is not None:
            record, wrong, trusted = found
            return Checked(path, record, tuple(wrong), trusted, fingerprint(root) if trusted else "")
    place = path if path.name.endswith(FOLDER) else path / FOLDER if path.is_dir() else sidecar(path)
    if not place.is_file():
        return _receipt(path, root)
    try:
        signed = jws.read(place.read_bytes())
    except jws.Broken as error:
        return Checked(path, wrong=(str(error),))
    listed, base = dict(signed.payload.get("files", {})), place.parent
    wrong = [fault for name, facts in listed.items() if (fault := _fault(base, name, facts))]
    if place.name == FOLDER:
        wrong += [f"{name} is not in the record" for name in _names(base) if name not in listed]
    elif path != place and path.name not in listed:
        wrong.append(f"the record is of {', '.join(listed)}")
    return Checked(path, signed.payload, tuple(wrong), signed.root == root, fingerprint(signed.root))


def _receipt(path: Path, root: bytes) -> Checked:
    """A deletion's receipt holds its own signature; everything else that has no record beside it has none."""
    content = path.read_bytes() if path.is_file() and path.suffix.lower() == ".json" else b""
    if b'"protected"' in content:
        try:
            signed = jws.read(content)
        except jws.Broken as error:
            return Checked(path, wrong=(str(error),))
        if signed.payload.get("type") == RECEIPT:
            return Checked(path, signed.payload, (), signed.root == root, fingerprint(signed.root))
    return Checked(path, wrong=("it has no record",))


def _fault(base: Path, name: str, facts: Mapping[str, Any]) -> str:
    path = base / name
    if not path.resolve().is_relative_to(base.resolve()):
        return f"{name} leads out of the folder"
    if not path.is_file():
        return f"{name} is missing"
    return "" if _facts(path) == facts else f"{name} was changed after it was signed"


def _facts(path: Path) -> dict[str, Any]:
    with path.open("rb") as stream:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}


def _members(folder: Path) -> Iterable[Path]:
    """Files below a folder, without its record and hidden ones."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != FOLDER)
    return sorted(path for path in files if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def _names(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in _members(folder)]
