"""Which subject goes into which part. Written once and then only added to, so that every rerun and every worker means the same."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from svad_ray.errors import ConfigError, StoreError
from svad_ray.export.frames.formats import PARQUET, SUFFIX
from svad_ray.export.frames.sample import MEANING
from svad_ray.export.frames.subjects import FinishedSubject
from svad_ray.store.files import Files

HEAD = "dataset.json"
_FORMAT = 2


@dataclass(frozen=True)
class FrameOptions:
    """How frames are written.

    Attributes:
        format: "parquet" or "webdataset". image: "png" (exact) or "jpeg". jpeg_quality: 1 to 100.
        every: Take each n-th frame of a subject.
        max_frames, max_mib: A shard holds no more; a part is about one shard.
    """

    format: str = PARQUET
    image: str = "png"
    jpeg_quality: int = 95
    every: int = 1
    max_frames: int = 2048
    max_mib: int = 256

    def __post_init__(self) -> None:
        if self.format not in SUFFIX:
            raise ConfigError(f"there is no format '{self.format}'", expected=" or ".join(SUFFIX))
        if self.image not in ("png", "jpeg"):
            raise ConfigError(f"pictures cannot be written as '{self.image}'", expected="png or jpeg")
        for name, low, high in (("jpeg_quality", 1, 100), ("every", 1, 10**6), ("max_frames", 1, 10**6), ("max_mib", 1, 4096)):
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"{name} is {getattr(self, name)}", expected=f"{low} to {high}")


@dataclass
class Plan:
    """Parts, and what became of them.

    Attributes:
        parts: Number -> its subjects. records: Number -> what was written, for parts that are done.
    """

    parts: dict[int, list[FinishedSubject]] = field(default_factory=dict)
    records: dict[int, dict[str, Any]] = field(default_factory=dict)

    @property
    def open(self) -> list[int]:
        """Parts that are not done."""
        return sorted(self.parts.keys() - self.records.keys())

    def taken(self) -> set[str]:
        """Keys of subjects that are written or on their way; who was left out is not."""
        pending = {subject.key for number in self.open for subject in self.parts[number]}
        return pending | {subject["key"] for record in self.records.values() for subject in record["subjects"]}


def record_name(number: int) -> str:
    """File that says that a part is done."""
    return f"parts/{number:05d}.json"


def claim(files: Files, options: FrameOptions) -> None:
    """Make the target this dataset's.

    Raises:
        ConfigError: A dataset with other options lies there.
    """
    says = {"format": _FORMAT, "options": asdict(options), "meaning": MEANING}
    if files.create(HEAD, json.dumps(says, indent=1).encode()):
        return
    known = _json(files, HEAD)
    if known.get("format") != _FORMAT or known.get("options") != says["options"]:
        found = f"{files.root} holds a dataset with other options: {known.get('options')}"
        raise ConfigError(found, expected=f"{says['options']}", remedy="give the same options, or another target")


def read_plan(files: Files) -> Plan:
    """Everything that is planned and done."""
    plan = Plan()
    for name in files.names("plans"):
        says = _json(files, f"plans/{name}")
        for i, part in enumerate(says["parts"]):
            plan.parts[says["first"] + i] = [FinishedSubject.from_json(subject) for subject in part]
    for name in files.names("parts"):
        record = _json(files, f"parts/{name}")
        plan.records[record["number"]] = record
    return plan


def extend_plan(files: Files, subjects: Sequence[FinishedSubject], options: FrameOptions) -> Plan:
    """The plan with every subject in it; whoever else extends it at the same time is heeded."""
    while True:
        plan = read_plan(files)
        taken = plan.taken()
        new = [subject for subject in subjects if subject.key not in taken]
        if not new:
            return plan
        says = {"first": max(plan.parts, default=-1) + 1, "parts": [[s.to_json() for s in part] for part in grouped(new, options)]}
        number = 1 + max((int(name.split(".")[0]) for name in files.names("plans")), default=-1)
        files.create(f"plans/{number:04d}.json", json.dumps(says).encode())


def grouped(subjects: Sequence[FinishedSubject], options: FrameOptions) -> list[list[FinishedSubject]]:
    """Consecutive subjects, together no more frames than a shard holds; a larger one alone."""
    parts: list[list[FinishedSubject]] = []
    room = 0
    for subject in subjects:
        frames = math.ceil(subject.frames / options.every)
        if not parts or frames > room:
            parts.append([])
            room = options.max_frames
        parts[-1].append(subject)
        room -= frames
    return parts


def _json(files: Files, name: str) -> dict[str, Any]:
    try:
        return json.loads(files.read(name) or b"")
    except ValueError as error:
        raise StoreError(f"{files.path(name)} is damaged", remedy="remove this file and run again") from error
