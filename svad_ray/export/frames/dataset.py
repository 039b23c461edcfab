"""The export as a whole: plan, write part by part wherever that is best done, index. Run again, it does what is missing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from typing import Any

from svad_ray.errors import ArtefactDamaged, InputError, StoreError
from svad_ray.export.frames import coco
from svad_ray.export.frames.formats import SUFFIX, cost, overhead, shard_bytes
from svad_ray.export.frames.plan import FrameOptions, Plan, claim, extend_plan, read_plan, record_name
from svad_ray.export.frames.sample import Sample
from svad_ray.export.frames.subjects import FinishedSubject, LeftOut, find_subjects, labelled_frames
from svad_ray.store.files import Files
from svad_ray.store.tables import write_table

_MIB = 1 << 20
Order = dict[str, Any]
Record = dict[str, Any]
Run = Callable[[Sequence[Order]], Iterable[Record]]
"""Does orders somewhere with ``export_part``; gives their records in any order."""


@dataclass(frozen=True)
class ExportSummary:
    """What the dataset holds now.

    Attributes:
        subjects, frames, shards, bytes: Of the whole dataset. written: Parts that this run wrote.
        left_out: Subjects that could not be exported; the next run tries them again.
    """

    subjects: int
    frames: int
    shards: int
    bytes: int
    written: int
    left_out: tuple[LeftOut, ...]


def export_frames(
    source: str,
    target: str,
    options: FrameOptions | None = None,
    *,
    body: str = "",
    run: Run | None = None,
    workers: int = 1,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> ExportSummary:
    """Write the labelled frames of every finished subject below ``source`` as a dataset below ``target``; what is there already stays.

    Args:
        source, target: Any fsspec addresses.
        body: File of the body that the subjects were fitted with; "" = the open one.
        run: Where parts are done; None = here, in ``workers`` threads.
        tell: Told how many parts are done, of how many.

    Raises:
        ConfigError: The target holds a dataset with other options.
        InputError: There is nothing to export.
        StoreError: The target cannot be written; what is finished is kept.
    """
    options, files = options or FrameOptions(), Files(target)
    subjects, left_out = find_subjects(source)
    claim(files, options)
    plan = extend_plan(files, subjects, options)
    orders = [_order(target, number, plan.parts[number], options, body) for number in plan.open]
    tell(0, len(orders))
    for done, record in enumerate((run or (lambda orders: in_threads(orders, workers)))(orders), 1):
        left_out += [LeftOut(**entry) for entry in record["left_out"]]
        tell(done, len(orders))
    written = read_plan(files)
    if missing := [number for number in plan.open if number not in written.records]:
        raise StoreError(f"{len(missing)} parts of {target} were not written", remedy="run again")
    totals = write_index(files, written)
    return ExportSummary(**totals, written=len(orders), left_out=tuple(left_out))


def in_threads(orders: Sequence[Order], workers: int) -> Iterator[Record]:
    """Records as they are done, from threads of this process; the body is loaded once."""
    with ThreadPoolExecutor(max(1, workers)) as pool:
        tasks = [pool.submit(export_part, order) for order in orders]
        try:
            for task in as_completed(tasks):
                yield task.result()
        finally:
            for task in tasks:
                task.cancel()


def _order(target: str, number: int, subjects: list[FinishedSubject], options: FrameOptions, body: str) -> Order:
    return {"target": target, "number": number, "subjects": [s.to_json() for s in subjects], "options": asdict(options), "body": body}


def export_part(order: Order) -> Record:
    """Write one part: its shards, its annotations, and last its record. Plain values in and out; doing it twice gives the same bytes.

    A subject that cannot be read is left out, with the reason, and costs its neighbours nothing.

    Raises:
        StoreError: The target cannot be written.
    """
    from svad_ray.body.load import load_body

    options, number, files = FrameOptions(**order["options"]), int(order["number"]), Files(order["target"])
    body = load_body(order["body"] or None)
    writer = _PartWriter(files, number, options)
    left_out: list[LeftOut] = []
    for values in order["subjects"]:
        subject = FinishedSubject.from_json(values)
        try:
            quality = options.jpeg_quality if options.image == "jpeg" else 0
            samples = list(labelled_frames(subject, body, every=options.every, jpeg_quality=quality))
        except (ArtefactDamaged, InputError) as error:
            left_out.append(LeftOut(subject.subject_id, subject.key, str(error)))
            continue
        writer.add(subject, samples)
    record = {**writer.finish(), "left_out": [asdict(entry) for entry in left_out]}
    if not files.create(record_name(number), json.dumps(record, indent=1).encode()):
        return json.loads(files.read(record_name(number)) or b"")
    return record


class _PartWriter:
    """Cuts the frames of a part's subjects into shards that keep both limits."""

    def __init__(self, files: Files, number: int, options: FrameOptions) -> None:
        self.files, self.number, self.options = files, number, options
        self.record: Record = {"number": number, "subjects": [], "shards": []}
        self._held: list[Sample] = []
        self._owners: list[FinishedSubject] = []
        self._bytes = 0
        self._coco: dict[str, Any] = {**coco.head(), "images": [], "annotations": []}

    def add(self, subject: FinishedSubject, samples: list[Sample]) -> None:
        """All frames of one subject."""
        for sample in samples:
            size = cost(sample, self.options.format)
            full = len(self._held) >= self.options.max_frames or self._bytes + size + overhead(self.options.format) > self.options.max_mib * _MIB
            if self._held and full:
                self._write()
            self._held.append(sample)
            self._owners.append(subject)
            self._bytes += size
        says = subject.to_json() | {"frames": len(samples), "body_id": samples[0].values["body_id"], "fps": samples[0].values["fps"]}
        self.record["subjects"].append({name: value for name, value in says.items() if name != "out"})

    def finish(self) -> Record:
        """What was written."""
        if self._held:
            self._write()
        self.files.write(coco.part_name(self.number), json.dumps(self._coco, separators=(",", ":")).encode())
        return self.record

    def _write(self) -> None:
        name = f"shards/frames-{self.number:05d}-{len(self.record['shards']):03d}.{SUFFIX[self.options.format]}"
        content = shard_bytes(self._held, self.options.format)
        self.files.write(name, content)
        entry = {"name": name, "count": len(self._held), "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        self.record["shards"].append({**entry, "spans": _spans(self._held, self._owners)})
        page = coco.annotated(self._held, name, self.number, first=len(self._coco["images"]))
        self._coco["images"] += page["images"]
        self._coco["annotations"] += page["annotations"]
        self._held, self._owners, self._bytes = [], [], 0


def _spans(samples: list[Sample], owners: list[FinishedSubject]) -> list[dict[str, Any]]:
    """Runs of one subject's samples in a shard: where they begin, how many, and the first one's frame number."""
    spans: list[dict[str, Any]] = []
    for i, (sample, owner) in enumerate(zip(samples, owners)):
        if not spans or spans[-1]["key"] != owner.key:
            spans.append({"subject_id": owner.subject_id, "key": owner.key, "offset": i, "count": 0, "first_frame": sample.values["frame"]})
        spans[-1]["count"] += 1
    return spans


def write_index(files: Files, plan: Plan) -> dict[str, int]:
    """Write the index, the table of subjects and the merged annotations; returns the dataset's totals."""
    records = [plan.records[number] for number in sorted(plan.records)]
    shards = [shard for record in records for shard in record["shards"]]
    spans = [{"shard": shard["name"], **{n: shard[n] for n in ("sha256", "bytes")}, **span} for shard in shards for span in shard["spans"]]
    people = [{"part": record["number"], **subject} for record in records for subject in record["subjects"]]
    totals = {
        "subjects": len(people),
        "frames": sum(s["count"] for s in shards),
        "shards": len(shards),
        "bytes": sum(s["bytes"] for s in shards),
    }
    listed = [{**{n: s[n] for n in ("name", "count", "bytes", "sha256")}, "subjects": [span["key"] for span in s["spans"]]} for s in shards]
    coco.merge(files, [record["number"] for record in records])
    write_table(files, "index.parquet", spans)
    write_table(files, "subjects.parquet", people)
    files.write("index.json", json.dumps({"format": 1, **totals, "annotations": coco.MERGED, "shards": listed}, indent=1).encode())
    return totals


def forget_damaged(target: str) -> list[str]:
    """Shards that are missing or not what was written; their parts count as not done, so that the next export writes them again."""
    files = Files(target)
    wrong: list[str] = []
    for number, record in sorted(read_plan(files).records.items()):
        damaged = [shard["name"] for shard in record["shards"] if not _is_whole(files, shard)]
        if damaged:
            files.remove(record_name(number))
        wrong += damaged
    return wrong


def _is_whole(files: Files, shard: dict[str, Any]) -> bool:
    content = files.read(shard["name"])
    return content is not None and hashlib.sha256(content).hexdigest() == shard["sha256"]
