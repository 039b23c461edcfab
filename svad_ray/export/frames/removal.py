"""Take subjects out of a frames dataset: out of its shards, annotations, index and plans."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Collection
from typing import Any

from svad_ray.export.frames import coco
from svad_ray.export.frames.dataset import write_index
from svad_ray.export.frames.plan import HEAD, read_plan, record_name
from svad_ray.store.files import Files


def remove_subjects(target: str, names: Collection[str]) -> list[str]:
    """Rewrite every file of the dataset at ``target`` that holds a frame of one of these subjects, by subject id.

    Returns:
        Keys of the subjects that were taken out. Repeating it is harmless; an interrupted removal is finished by the next one.
    """
    files = Files(target)
    if files.read(HEAD) is None:
        return []
    plan, removed = read_plan(files), set()
    keys = {s["key"] for record in plan.records.values() for s in record["subjects"] if s["subject_id"] in names}
    keys |= {s.key for part in plan.parts.values() for s in part if s.subject_id in names}
    for number, record in plan.records.items():
        here = {s["key"] for s in record["subjects"]} & keys
        if here or any(entry["key"] in keys for entry in record["left_out"]):
            removed |= here
            _clean_part(files, number, record, here)
    for name in files.names("plans"):
        says = json.loads(files.read(f"plans/{name}") or b"{}")
        parts = [[s for s in part if s["key"] not in keys] for part in says["parts"]]
        if parts != says["parts"]:
            removed |= keys
            files.write(f"plans/{name}", json.dumps({**says, "parts": parts}).encode())
    if removed:
        write_index(files, read_plan(files))
    return sorted(removed)


def _clean_part(files: Files, number: int, record: dict[str, Any], keys: set[str]) -> None:
    """Shards first, the record last: until then the record still says that the subject is here, and a repetition goes on."""
    shards = []
    for shard in record["shards"]:
        if not any(span["key"] in keys for span in shard["spans"]):
            shards.append(shard)
            continue
        content = files.read(shard["name"])
        kept = content and (_without_rows if shard["name"].endswith(".parquet") else _without_members)(content, keys)
        if not kept:
            files.remove(shard["name"])
            continue
        files.write(shard["name"], kept)
        spans, offset = [], 0
        for span in (span for span in shard["spans"] if span["key"] not in keys):
            spans.append({**span, "offset": offset})
            offset += span["count"]
        facts = {"count": offset, "bytes": len(kept), "sha256": hashlib.sha256(kept).hexdigest()}
        shards.append({**shard, **facts, "spans": spans})
    page = json.loads(files.read(coco.part_name(number)) or b"{}")
    stems = tuple(_stem(key) for key in keys)
    gone = {image["id"] for image in page.get("images", ()) if image["file_name"].startswith(stems)} if stems else set()
    for name, identity in (("images", "id"), ("annotations", "image_id")):
        page[name] = [entry for entry in page.get(name, ()) if entry[identity] not in gone]
    files.write(coco.part_name(number), json.dumps(page, separators=(",", ":")).encode())
    says = {**record, "shards": shards, "subjects": [s for s in record["subjects"] if s["key"] not in keys]}
    left_out = [entry for entry in record["left_out"] if entry["key"] not in keys]
    files.write(record_name(number), json.dumps({**says, "left_out": left_out}, indent=1).encode())


def _stem(key: str) -> str:
    """What names of the subject's samples begin with; see ``FinishedSubject.sample_key``."""
    folder, _, rest = key.partition("/")
    return f"{folder}-{rest[:8]}-"


def _without_rows(content: bytes, keys: set[str]) -> bytes:
    """A parquet shard without the subjects' rows; empty when none is left."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table, stems = pq.read_table(io.BytesIO(content)), tuple(_stem(key) for key in keys)
    kept = table.filter(pa.array([not name.startswith(stems) for name in table["key"].to_pylist()]))
    if not len(kept):
        return b""
    buffer = io.BytesIO()
    pq.write_table(kept, buffer, compression="ZSTD", use_dictionary=False)
    return buffer.getvalue()


def _without_members(content: bytes, keys: set[str]) -> bytes:
    """A tar without the subjects' files; empty when none is left."""
    buffer, stems, count = io.BytesIO(), tuple(_stem(key) for key in keys), 0
    with tarfile.open(fileobj=io.BytesIO(content)) as old, tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as new:
        for member in old:
            if not member.name.startswith(stems):
                new.addfile(member, old.extractfile(member))
                count += 1
    return buffer.getvalue() if count else b""
