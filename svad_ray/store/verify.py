"""Is everything below a root what was committed? Every marker, manifest and byte is read; nothing is changed (``repair`` does that).

What may lie there::

    work/<stage>/<digest>/...           artefacts of the stages
    subjects/<folder>/<digest>/...      what subjects take home; the marker's facts name the artefacts it was made from
    ledger/<folder>/<digest>/...        records of attempts (JSON) and QUARANTINED.json

A run that is going on is no fault: an attempt without a marker counts as left behind only when nobody has written to it for hours.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from svad_ray.errors import InputError
from svad_ray.store.artefacts import CHECKPOINT, MANIFEST, MARKER
from svad_ray.store.files import Files
from svad_ray.store.keys import Key

WORK, SUBJECTS, LEDGER, QUARANTINED = "work", "subjects", "ledger", "QUARANTINED.json"
TORN_MARKER, MISSING, CHANGED, TORN_RECORD = "torn marker", "missing file", "changed file", "torn record"
ORPHAN, EXTRA, STALE = "orphan attempt", "extra file", "stale checkpoint"
UNKNOWN, UNREADABLE, DANGLING, UNFINISHED = "unknown file", "unreadable", "dangling reference", "unfinished subject"
DAMAGE = (TORN_MARKER, MISSING, CHANGED, TORN_RECORD)
GARBAGE = (ORPHAN, EXTRA, STALE)
OLD_S = 24 * 3600.0
_CHUNK = 8 << 20
_ATTEMPT = re.compile(r"attempt-[0-9A-Za-z]+")
_STAGED = re.compile(r".+\.[0-9a-f]{12}")  # what a killed writer leaves of a file that was to appear at once
Tell = Callable[[int, int], None]
Entries = dict[str, tuple[float | None, bool]]
"""Name below a folder -> seconds since it was written (None: unknown), and whether it is a file."""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong.

    Attributes:
        kind: One of ``DAMAGE``, ``GARBAGE`` or the other names of this module.
        path: Of the file or folder, below the root.
        detail: What was found, in words.
        folder: Of the artefact it belongs to, below the root ("work/fit/<digest>"); "" when it belongs to none.
        age_s: Seconds since it was last written; None where the file system does not say.
    """

    kind: str
    path: str
    detail: str
    folder: str = ""
    age_s: float | None = None


@dataclass
class Report:
    """What was looked at, and what is wrong with it, in the order of the paths.

    Attributes:
        root: Where. artefacts: Committed artefacts, sound or not. files, bytes: That were read and compared.
        subjects, quarantined: How many are finished and given up.
        in_progress: Attempts and checkpoints that are too young to be called left behind.
        seconds: On the clock.
    """

    root: str
    artefacts: int = 0
    files: int = 0
    bytes: int = 0
    subjects: int = 0
    quarantined: int = 0
    in_progress: int = 0
    seconds: float = 0.0
    faults: list[Fault] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Nothing is wrong."""
        return not self.faults

    def counts(self) -> dict[str, int]:
        """Kind of fault -> how many."""
        return dict(Counter(fault.kind for fault in self.faults))

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "sound": self.sound, "counts": self.counts()}


@dataclass
class Look:
    """What looking at one folder gave."""

    committed: bool = False
    files: int = 0
    bytes: int = 0
    young: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)


def run_roots(root: str) -> list[str]:
    """The root itself where a run wrote there, or the root of each avatar in a service's store.

    Raises:
        InputError: Neither.
    """
    files = Files(root)
    if {WORK, SUBJECTS} & set(files.names()):
        return [root]
    avatars = [f"{root}/avatars/{name}" for name in files.names("avatars") if {WORK, SUBJECTS} & set(files.names(f"avatars/{name}"))]
    if not avatars:
        found = f"nothing in {root} was written by svad-ray"
        raise InputError(found, expected=f"a folder that holds {WORK}/ or {SUBJECTS}/", remedy="give the output folder of the run")
    return avatars


def verify(
    root: str, *, wanted: Mapping[Key, str] | None = None, older_s: float = OLD_S, threads: int = 8, tell: Tell = lambda done, total: None
) -> Report:
    """Read everything below ``root`` and say what is wrong.

    Args:
        root: Output of ``svad-ray create`` or of a bulk run; any fsspec address.
        wanted: Subjects of the list (key -> subject id): each must be committed or quarantined. None = not compared.
        older_s: From this age on, what no marker names counts as left behind.
        threads: Folders looked at together.
        tell: Told how many folders are done, of how many.
    """
    began, files = time.monotonic(), Files(root)
    folders = [
        f"{store}/{stage}/{digest}" for store in (WORK, SUBJECTS) for stage in files.names(store) for digest in files.names(f"{store}/{stage}")
    ]
    report, looks = Report(root), dict[str, Look]()
    with ThreadPoolExecutor(threads) as pool:
        for folder, look in zip(folders, pool.map(lambda folder: look_at(files, folder, older_s=older_s), folders)):
            looks[folder] = look
            tell(len(looks), len(folders))
    for look in looks.values():
        report.artefacts += look.committed
        report.files, report.bytes, report.in_progress = report.files + look.files, report.bytes + look.bytes, report.in_progress + look.young
        report.faults += look.faults
    finished = {folder for folder, look in looks.items() if look.committed and folder.startswith(SUBJECTS)}
    given_up, torn = _ledger(files)
    report.subjects, report.quarantined = len(finished), len(given_up)
    report.faults += torn + list(_dangling(looks)) + list(_unfinished(wanted or {}, finished, given_up))
    report.faults.sort(key=lambda fault: (fault.path, fault.kind))
    report.seconds = time.monotonic() - began
    return report


def look_at(files: Files, folder: str, *, older_s: float) -> Look:
    """Check one artefact's folder. Where it seems damaged it is looked at again: it may have been made anew meanwhile."""
    look = _look(files, folder, older_s)
    return _look(files, folder, older_s) if any(fault.kind in DAMAGE for fault in look.faults) else look


def _look(files: Files, folder: str, older_s: float) -> Look:
    look = Look()
    try:
        content = files.fs.cat_file(files.path(f"{folder}/{MARKER}"))
    except (FileNotFoundError, NotADirectoryError):
        content = None
    except OSError as error:
        look.faults.append(Fault(UNREADABLE, f"{folder}/{MARKER}", str(error), folder))
        return look
    attempt = sha256 = ""
    if content is not None:
        look.committed = True
        try:
            marker = json.loads(content)
            attempt, sha256, look.facts = str(marker["attempt"]), str(marker["manifest_sha256"]), dict(marker["facts"])
            if not _ATTEMPT.fullmatch(attempt):  # it becomes a path
                raise ValueError(f"{attempt!r} is no attempt")
        except (ValueError, KeyError, TypeError) as error:
            detail = f"{len(content)} bytes that are no marker ({error})"
            look.faults.append(Fault(TORN_MARKER, f"{folder}/{MARKER}", detail, folder))
            return look
    entries = _entries(files, folder)
    if attempt:
        _read_attempt(files, folder, attempt, sha256, entries, look)
    _left_behind(files, folder, attempt, entries, older_s, look)
    return look


def _read_attempt(files: Files, folder: str, attempt: str, sha256: str, entries: Entries, look: Look) -> None:
    """Compare every file of the committed attempt with its manifest."""
    path = f"{folder}/{attempt}/{MANIFEST}"
    found = _hashed(files, path, look, folder)
    if found is None:
        return
    if found[1] != sha256:
        look.faults.append(Fault(CHANGED, path, "the manifest is not the one that the marker names", folder))
        return
    listed = json.loads(files.fs.cat_file(files.path(path)))
    for name, entry in listed.items():
        found = _hashed(files, f"{folder}/{attempt}/{name}", look, folder)
        if found is not None and found != (entry["bytes"], entry["sha256"]):
            size = f"{found[0]} bytes instead of {entry['bytes']}" if found[0] != entry["bytes"] else "other bytes of the same number"
            look.faults.append(Fault(CHANGED, f"{folder}/{attempt}/{name}", size, folder))
    for path, (age, is_file) in entries.items():
        inside, _, name = path.partition("/")
        if is_file and inside == attempt and name not in listed and name != MANIFEST:
            look.faults.append(Fault(EXTRA, f"{folder}/{path}", "the manifest does not name it", folder, age))


def _hashed(files: Files, path: str, look: Look, folder: str) -> tuple[int, str] | None:
    """Size and sha256 of a file; None, and a fault, when it cannot be read."""
    whole, size = hashlib.sha256(), 0
    try:
        with files.fs.open(files.path(path), "rb") as stream:
            while chunk := stream.read(_CHUNK):
                whole.update(chunk)
                size += len(chunk)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        look.faults.append(Fault(MISSING, path, "it is not there", folder))
        return None
    except OSError as error:
        look.faults.append(Fault(UNREADABLE, path, str(error), folder))
        return None
    look.files, look.bytes = look.files + 1, look.bytes + size
    return size, whole.hexdigest()


def _left_behind(files: Files, folder: str, attempt: str, entries: Entries, older_s: float, look: Look) -> None:
    """What lies beside the marker and its attempt."""
    ages: dict[str, list[float | None]] = {}
    for name, (age, _) in entries.items():
        ages.setdefault(name.split("/")[0], []).append(age)
    kept = _checkpoint(files, folder) if not attempt and CHECKPOINT in ages else ""
    for name, known in sorted(ages.items()):
        if name in (MARKER, attempt) or (kept and name in (CHECKPOINT, kept)):
            continue
        kind, detail = _kind(name, committed=bool(attempt))
        age = min((a for a in known if a is not None), default=None)
        if kind != UNKNOWN and (age is None or age < older_s):
            look.young += 1
        else:
            look.faults.append(Fault(kind, f"{folder}/{name}", detail, folder, age))


def _kind(name: str, *, committed: bool) -> tuple[str, str]:
    if name.startswith("attempt-"):
        return ORPHAN, "the marker names another attempt" if committed else "no marker names it"
    if name.startswith("checkpoint-") or name == CHECKPOINT:
        return STALE, "its work is committed" if committed else "no whole checkpoint names it"
    if _STAGED.fullmatch(name):
        return ORPHAN, "left of a file that was to appear at once"
    return UNKNOWN, "svad-ray does not write such files"


def _checkpoint(files: Files, folder: str) -> str:
    """Folder of the checkpoint in force; "" when its record is torn."""
    try:
        return str(json.loads(files.read(f"{folder}/{CHECKPOINT}") or b"")["attempt"])
    except (ValueError, KeyError, TypeError):
        return ""


def _entries(files: Files, folder: str) -> Entries:
    """Everything below ``folder``, at any depth."""
    base = files.path(folder).rstrip("/")
    try:
        found = files.fs.find(base, withdirs=True, detail=True)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    below = {path.rstrip("/")[len(base) + 1 :]: info for path, info in found.items()}
    return {name: (_age(info), info.get("type") == "file") for name, info in below.items() if name}


def _age(info: Mapping[str, Any]) -> float | None:
    when = next((info[name] for name in ("mtime", "LastModified", "last_modified", "updated", "modified", "created") if info.get(name)), None)
    if isinstance(when, str):
        try:
            when = datetime.fromisoformat(when)
        except ValueError:
            return None
    when = when.timestamp() if isinstance(when, datetime) else when
    return time.time() - when if isinstance(when, int | float) else None


def references(facts: Mapping[str, Any]) -> list[str]:
    """Artefact keys ("fit/<digest>") that a subject's marker names."""
    named: list[str] = []
    keys = facts.get("keys", {})
    for value in keys.values() if isinstance(keys, Mapping) else ():
        named += [item for item in ([value] if isinstance(value, str) else value) if "/" in item]
    return named


def _dangling(looks: Mapping[str, Look]) -> Iterator[Fault]:
    for folder, look in looks.items():
        if folder.startswith(SUBJECTS):
            for name in references(look.facts):
                target = looks.get(f"{WORK}/{name}")
                if target is None or not target.committed:
                    yield Fault(DANGLING, f"{folder}/{MARKER}", f"{WORK}/{name} is not committed", folder)


def _unfinished(wanted: Mapping[Key, str], finished: set[str], given_up: set[Key]) -> Iterator[Fault]:
    for key, subject_id in wanted.items():
        if f"{SUBJECTS}/{key}" not in finished and key not in given_up:
            yield Fault(UNFINISHED, f"{SUBJECTS}/{key}", f"'{subject_id}' is neither committed nor quarantined")


def _ledger(files: Files) -> tuple[set[Key], list[Fault]]:
    """Subjects that were given up, and records that cannot be read."""
    given_up, torn = set(), []
    for name in _entries(files, LEDGER):
        path, parts = f"{LEDGER}/{name}", name.split("/")
        if len(parts) < 3 or not name.endswith(".json"):
            continue
        if not _is_object(files.read(path)):
            torn.append(Fault(TORN_RECORD, path, "no JSON object"))
        elif parts[2] == QUARANTINED:
            given_up.add(Key(parts[0], parts[1]))
    return given_up, torn


def _is_object(content: bytes | None) -> bool:
    try:
        return content is None or isinstance(json.loads(content), dict)  # gone meanwhile: its step succeeded
    except ValueError:
        return False


def damaged_folders(faults: Iterable[Fault]) -> list[str]:
    """Artefact folders with damage, each once."""
    return sorted({fault.folder for fault in faults if fault.kind in DAMAGE and fault.folder})
