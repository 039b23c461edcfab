"""Acts on what ``verify`` found: removes what is provably garbage, and moves damaged artefacts aside so that a rerun makes them again.

Nothing that a marker names is ever deleted. Damaged artefacts end below ``damaged/``, with their bytes, for whoever wants to know why.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field

from svad_ray.store.artefacts import MARKER
from svad_ray.store.files import Files, plain_errors
from svad_ray.store.verify import (
    DAMAGE,
    DANGLING,
    EXTRA,
    GARBAGE,
    OLD_S,
    SUBJECTS,
    TORN_RECORD,
    WORK,
    Fault,
    Report,
    damaged_folders,
    look_at,
    references,
)

ASIDE = "damaged"


@dataclass
class Repair:
    """What was done.

    Attributes:
        removed: Garbage, paths below the root. moved: What was put aside: path -> where it lies now.
        left: Faults that stay: unknown files, unreadable ones, young garbage, unfinished subjects, references unless asked for.
    """

    removed: list[str] = field(default_factory=list)
    moved: dict[str, str] = field(default_factory=dict)
    left: list[Fault] = field(default_factory=list)


def repair(report: Report, *, older_s: float = OLD_S, remake_subjects: bool = False) -> Repair:
    """Remove garbage, move damaged artefacts aside. Everything is looked at once more just before it is touched.

    Args:
        report: Of ``verify``.
        older_s: Garbage that was written to within this time is left alone.
        remake_subjects: Also put aside deliveries whose artefacts are not there (any more), so that a rerun makes both again.
            Otherwise they stay: what the subject takes home is whole.

    Raises:
        StoreError: The root cannot be written.
    """
    files, done = Files(report.root), Repair()
    for fault in report.faults:
        if fault.kind == TORN_RECORD:
            _put_aside(files, fault.path, done)
        elif fault.kind in GARBAGE:
            _remove(files, fault, older_s, done)
        elif fault.kind not in DAMAGE and not (fault.kind == DANGLING and remake_subjects):
            done.left.append(fault)
    for folder in damaged_folders(report.faults):
        if any(fault.kind in DAMAGE for fault in look_at(files, folder, older_s=older_s).faults):
            _uncommit(files, folder, done)
    if remake_subjects:
        for folder in _without_artefacts(files):
            _uncommit(files, folder, done)
    return done


def _remove(files: Files, fault: Fault, older_s: float, done: Repair) -> None:
    """Remove garbage that is still garbage, and old."""
    again = look_at(files, fault.folder, older_s=0.0)
    same = [now for now in again.faults if (now.kind, now.path) == (fault.kind, fault.path)]
    if not same:
        return
    if same[0].age_s is None or same[0].age_s < older_s or (fault.kind == EXTRA and any(now.kind in DAMAGE for now in again.faults)):
        done.left.append(fault)
        return
    with plain_errors(files.root):
        files.remove(fault.path)
    done.removed.append(fault.path)


def _uncommit(files: Files, folder: str, done: Repair) -> None:
    """The marker first: from then on the artefact counts as never made, whatever becomes of the rest of the move."""
    attempt = _attempt(files, folder)
    aside = _put_aside(files, f"{folder}/{MARKER}", done)
    if attempt and aside and files.fs.exists(files.path(f"{folder}/{attempt}")):
        _move(files, f"{folder}/{attempt}", f"{aside.rsplit('/', 1)[0]}/{attempt}")


def _attempt(files: Files, folder: str) -> str:
    try:
        return str(json.loads(files.read(f"{folder}/{MARKER}") or b"")["attempt"])
    except (ValueError, KeyError, TypeError):
        return ""


def _put_aside(files: Files, path: str, done: Repair) -> str:
    """Move one file below ``damaged/``; "" when it is gone already."""
    if files.read(path) is None:
        return ""
    folder, _, name = path.rpartition("/")
    target = f"{ASIDE}/{folder}/{uuid.uuid4().hex[:12]}/{name}"
    _move(files, path, target)
    done.moved[path] = target
    return target


def _move(files: Files, path: str, target: str) -> None:
    with plain_errors(files.root):
        files.fs.makedirs(files.path(target).rsplit("/", 1)[0], exist_ok=True)
        files.fs.mv(files.path(path), files.path(target), recursive=True)


def _without_artefacts(files: Files) -> list[str]:
    """Deliveries that name an artefact which is not committed now."""
    lacking = []
    for marker in files.glob(f"{SUBJECTS}/*/*/{MARKER}"):
        folder = marker.rsplit("/", 1)[0]
        try:
            facts = json.loads(files.read(marker) or b"{}").get("facts", {})
        except (ValueError, AttributeError):
            continue
        if any(files.read(f"{WORK}/{name}/{MARKER}") is None for name in references(facts)):
            lacking.append(folder)
    return lacking
