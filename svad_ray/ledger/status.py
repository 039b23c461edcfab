"""The table of a bulk run: one row a subject, parquet, beside the artefacts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from svad_ray.store.files import Files
from svad_ray.store.tables import read_table, write_table

WAITING, FRAMES, READY, TRAINING, COMMITTED, QUARANTINED = "waiting", "frames", "ready", "training", "committed", "quarantined"
STATES = (WAITING, FRAMES, READY, TRAINING, COMMITTED, QUARANTINED)
NAME = "status.parquet"


@dataclass
class SubjectStatus:
    """How far one subject is.

    Attributes:
        state: One of ``STATES``; "waiting" has not begun, "frames" is in the frame stages, "ready" waits for its training bundle.
        reason, step: Of a quarantined subject. attempts: Most tries that one of its steps took.
        facts: Of the subject's marker, once committed.
    """

    subject_id: str
    uri: str
    key: str
    state: str = WAITING
    step: str = ""
    reason: str = ""
    attempts: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """Flat: ``seconds.<stage>``, ``cpu_s.<stage>``, ``peak_gib.<stage>`` and ``quality.<figure>`` are columns, and where they are
        known ``gpu_gib.<stage>`` and ``energy_j.<stage>``."""
        flat: dict[str, Any] = {
            "subject_id": self.subject_id,
            "uri": self.uri,
            "key": self.key,
            "state": self.state,
            "step": self.step,
            "reason": self.reason,
            "attempts": self.attempts,
            "photo_sha256": self.facts.get("photo_sha256", ""),
            "warnings": "; ".join(self.facts.get("warnings", ())),
        }
        stages: Mapping[str, Any] = self.facts.get("stages", {})
        flat["seconds"] = sum(stage["wall_s"] for stage in stages.values())
        for name, stage in stages.items():
            flat |= {f"seconds.{name}": stage["wall_s"], f"cpu_s.{name}": stage["cpu_s"], f"peak_gib.{name}": stage["peak_gib"]}
            flat |= {f"{figure}.{name}": stage[figure] for figure in ("gpu_gib", "energy_j") if stage.get(figure)}
        return flat | {f"quality.{name}": value for name, value in self.facts.get("quality", {}).items()}


def write_status(out: str, statuses: Iterable[SubjectStatus]) -> str:
    """Write the table below ``out``, replacing the older one whole; returns its name."""
    write_table(Files(out), NAME, [status.row() for status in statuses])
    return NAME


def read_status(out: str) -> list[dict[str, Any]]:
    """Rows of the table below ``out``; empty when there is none."""
    return read_table(Files(out), NAME) or []
