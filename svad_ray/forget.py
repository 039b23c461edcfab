"""Forget a subject: remove everything that was made of them, look whether anything is left, and say so in a signed receipt.

What is removed of a bulk run's output: the deliveries, every artefact that their markers name and no other subject's does, the ledger's records, the
row of the status table, and the subject's frames in frames datasets. Of an output folder of ``create``: all that it wrote. A service removes its own
(``DELETE /v1/avatars/{id}``). Artefacts of work that never ended in an avatar name no subject; ``orphans`` removes all of those.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

import svad_ray
from svad_ray.errors import ArtefactDamaged, InputError, StoreError
from svad_ray.export.frames.removal import remove_subjects
from svad_ray.ledger.requests import folder_name
from svad_ray.ledger.status import NAME as STATUS
from svad_ray.provenance.identity import Identity
from svad_ray.provenance.jws import sign
from svad_ray.provenance.photos import photo_hashes
from svad_ray.provenance.seal import RECEIPT
from svad_ray.store import ArtefactStore, Key
from svad_ray.store.files import Files
from svad_ray.store.verify import LEDGER, SUBJECTS, WORK

CREATED = ("avatar", "avatar.ply", "avatar.splat", "avatar.glb", "mesh.glb", "motion.npz", "fit.npz", "exavatar", "svad", "frames", "photo.png",
           "turntable.mp4", "clip.mp4", "clip.png", "report.html", "truth.png", "avatar.spz", "usage.json")  # fmt: skip
_DAMAGED = "damaged"  # where ``store.repair`` moves what it finds
_READ = (".json", ".parquet", ".tar")  # files in which a name may stand; others hold numbers and pixels under names that the scan compares
_LARGE = 64 << 20


@dataclass
class Forgotten:
    """What was removed, and what a look at the rest found.

    Attributes:
        subject_sha256: Of the subject's id: the receipt names nobody. photos: sha256 of their photos.
        artefacts: Keys that were removed. shared: Keys that other subjects' deliveries name as well (the same photo); they stay.
        files, size: That are gone, and their bytes. frames: Keys in frames datasets that are gone. unattributed: Artefacts that no delivery names.
        looked_at: Files that were read or whose names were compared afterwards. left: Those in which the subject still stands.
    """

    subject_sha256: str
    photos: list[str] = field(default_factory=list)
    artefacts: list[str] = field(default_factory=list)
    shared: list[str] = field(default_factory=list)
    files: int = 0
    size: int = 0
    frames: list[str] = field(default_factory=list)
    unattributed: int = 0
    looked_at: int = 0
    left: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Nothing is left, and nothing is there that might be theirs."""
        return not self.left and not self.unattributed and not self.shared

    def receipt(self, by: Identity, *, at: datetime | None = None) -> bytes:
        """The signed receipt, as a file's content."""
        when = (at or datetime.now(UTC)).isoformat(timespec="seconds")
        return sign({"type": RECEIPT, "made_by": f"svad-ray {svad_ray.__version__}", "at": when, "complete": self.complete} | asdict(self), by)


def forget(root: str, subject_id: str, *, datasets: Sequence[str] = (), orphans: bool = False) -> Forgotten:
    """Remove everything of a subject below ``root`` and look for what is left. End a run on it first.

    Args:
        root: Output of a bulk run or of ``create``; any fsspec address. subject_id: For an output of ``create``, its folder's name.
        datasets: Frames datasets that may hold the subject.
        orphans: Remove artefacts that no delivery names too; unfinished subjects are begun anew by the next run.

    Raises:
        InputError: Nothing there is this subject's. StoreError: It cannot be removed.
    """
    files, says = Files(root), Forgotten(hashlib.sha256(subject_id.encode()).hexdigest())
    here = set(files.names())
    if not here & {WORK, SUBJECTS, LEDGER}:
        raise InputError(f"nothing in {root} was written by svad-ray", expected="the output folder of batch or create", remedy="check --out")
    if SUBJECTS in here or LEDGER in here:
        found = _forget_subject(files, root, subject_id, says, orphans)
    else:
        found = _forget_created(files, root, subject_id, says)
    for dataset in datasets:
        says.frames += remove_subjects(dataset, {subject_id})
    if not (found or says.frames):
        raise InputError(f"nothing in {root} is of '{subject_id}'", expected="a subject id as in the run's list", remedy="see status.parquet")
    needles = [*(json.dumps(subject_id, ensure_ascii=plain) for plain in (True, False)), folder_name(subject_id), *says.photos]
    for place in (root, *datasets):
        _scan(Files(place), [needle.encode() for needle in needles], says)
    return says


def _forget_subject(files: Files, root: str, subject_id: str, says: Forgotten, orphans: bool) -> bool:
    """One subject of a bulk run."""
    subjects, work, folder = ArtefactStore(f"{root}/{SUBJECTS}"), ArtefactStore(f"{root}/{WORK}"), folder_name(subject_id)
    theirs, others = set[str](), set[str]()
    for key in list(subjects.committed_keys()):
        facts = _facts(subjects, key)
        if key.stage == folder:
            theirs |= set(_named(facts.get("keys", {})))
            named = (facts.get("photo_sha256", ""), *facts.get("also_sha256", ()), *facts.get("photos_sha256", ()))
            says.photos += [sha for sha in dict.fromkeys(named) if sha and sha not in says.photos]
        else:
            others |= set(_named(facts.get("keys", {})))
    known = {str(key) for key in work.committed_keys()}
    unnamed = known - theirs - others
    doomed = (theirs - others) | (unnamed if orphans else set())
    says.shared, says.artefacts = sorted(theirs & others & known), sorted(doomed & known)
    places = [f"{WORK}/{key}" for key in sorted(doomed)] + [f"{SUBJECTS}/{folder}", f"{LEDGER}/{folder}"]
    places += [f"{_DAMAGED}/{part}/{folder}" for part in (SUBJECTS, LEDGER)]
    _remove(files, places, says)
    row = _clean_status(files, subject_id)
    says.unattributed = 0 if orphans else len(unnamed)
    return bool(theirs or says.files or row)


def _forget_created(files: Files, root: str, subject_id: str, says: Forgotten) -> bool:
    """An output folder of ``create`` holds one subject and nothing else."""
    name = root.rstrip("/").rsplit("/", 1)[-1]
    if subject_id != name:
        raise InputError(f"{root} is the output of one run of create", expected=f"its name, '{name}', as the subject", remedy="check --out")
    if content := files.read("avatar/avatar.json"):
        says.photos = photo_hashes(json.loads(content)["facts"].get("provenance", {}))
    says.artefacts = [str(key) for key in ArtefactStore(f"{root}/{WORK}").committed_keys()]
    _remove(files, [WORK, *CREATED, *(f"{made}.provenance.json" for made in CREATED)], says)
    return True


def _named(keys: Any) -> Iterator[str]:
    """Keys of artefacts among the facts of a marker; joined clips are names of several, without one of their own."""
    for value in keys.values() if isinstance(keys, dict) else keys if isinstance(keys, list) else ():
        if isinstance(value, str):
            if "/" in value:
                yield value.partition(".")[0]
        else:
            yield from _named(value)


def _facts(store: ArtefactStore, key: Key) -> dict[str, Any]:
    try:
        marker = store.committed(key)
    except ArtefactDamaged as error:
        raise StoreError(f"{key} cannot be read, so what it was made from is not known", remedy="repair the store first: jobs/verify.py") from error
    return marker.facts if marker else {}


def _remove(files: Files, places: Iterable[str], says: Forgotten) -> None:
    for place in places:
        found = files.fs.find(files.path(place), detail=True) if files.fs.exists(files.path(place)) else {}
        says.files += len(found)
        says.size += sum(int(entry.get("size") or 0) for entry in found.values())
        files.remove(place)


def _clean_status(files: Files, subject_id: str) -> bool:
    """Take the subject's rows out of the status table."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    content = files.read(STATUS)
    if not content:
        return False
    table = pq.read_table(io.BytesIO(content))
    kept = table.filter(pc.not_equal(table["subject_id"], subject_id))
    if len(kept) == len(table):
        return False
    buffer = io.BytesIO()
    pq.write_table(kept, buffer, compression="zstd")
    files.write(STATUS, buffer.getvalue())
    return True


def _scan(files: Files, needles: Sequence[bytes], says: Forgotten) -> None:
    """Look for the subject in every name, and in every file that holds words."""
    files.fs.invalidate_cache()
    gone = {f"{WORK}/{key}/" for key in says.artefacts}
    for path, entry in sorted(files.fs.find(files.root, detail=True).items()):
        name = path[len(files.root) + 1 :]
        says.looked_at += 1
        named = any(needle in name.encode() for needle in needles) or any(name.startswith(folder) for folder in gone)
        if named or (name.endswith(_READ) and _says(files, name, int(entry.get("size") or 0), needles)):
            says.left.append(name)


def _says(files: Files, name: str, size: int, needles: Sequence[bytes]) -> bool:
    """Does a file's text hold one of the needles? Parquet is unpacked first, large tars are read by their members' names and words."""
    if name.endswith(".parquet"):
        import pyarrow as pa
        import pyarrow.parquet as pq

        with files.fs.open(files.path(name), "rb") as stream:
            table = pq.ParquetFile(stream)
            words = [f.name for f in table.schema_arrow if pa.types.is_string(f.type)]
            text = "\0".join(json.dumps(value) for column in table.read(columns=words).columns for value in column.to_pylist()).encode()
        return any(needle in text for needle in needles)
    with files.fs.open(files.path(name), "rb") as stream:
        longest, rest = max(map(len, needles)), b""
        while piece := stream.read(_LARGE):
            if any(needle in rest + piece for needle in needles):
                return True
            rest = piece[-longest:]
    return False
