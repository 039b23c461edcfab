"""The figures of a bulk run as Prometheus metrics, exported by Ray's own agent beside its system metrics."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from ray.util.metrics import Counter, Gauge, Histogram

from svad_ray.ledger.status import STATES

_SECONDS = [1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10_000.0, 30_000.0]


@cache
def _metrics() -> dict[str, Counter | Gauge | Histogram]:
    """Made once a process: a second metric of the same name would take the first one's values away."""
    return {
        "subjects": Gauge("svad_ray_subjects", "Subjects by state", tag_keys=("run", "state")),
        "frames": Counter("svad_ray_frames", "Frames that came out of the frame stages", tag_keys=("run",)),
        "quarantined": Counter("svad_ray_quarantined", "Subjects given up, by step", tag_keys=("run", "step")),
        "lost": Counter("svad_ray_lost_tasks", "Training tasks lost with their worker or node", tag_keys=("run",)),
        "seconds": Histogram("svad_ray_stage_seconds", "Wall seconds a subject, by stage", boundaries=_SECONDS, tag_keys=("run", "stage")),
    }


class BulkMetrics:
    """Counters and gauges of one run, labelled with its name."""

    def __init__(self, run: str) -> None:
        self.run, self._of = run, _metrics()

    def states(self, counts: Mapping[str, int]) -> None:
        """How many subjects are in each state now."""
        for state in STATES:
            self._of["subjects"].set(counts.get(state, 0), tags={"run": self.run, "state": state})  # type: ignore[union-attr]

    def frames(self, count: int) -> None:
        """So many frames more are restored."""
        self._count("frames", count)

    def quarantined(self, step: str) -> None:
        """One subject more was given up, in this step."""
        self._count("quarantined", 1, step=step)

    def lost(self) -> None:
        """One training task more was lost."""
        self._count("lost", 1)

    def finished(self, stages: Mapping[str, Mapping[str, float]]) -> None:
        """A subject is committed; its stages' costs."""
        for name, usage in stages.items():
            self._of["seconds"].observe(max(usage["wall_s"], 1e-6), tags={"run": self.run, "stage": name})  # type: ignore[union-attr]

    def _count(self, name: str, count: int, **tags: str) -> None:
        self._of[name].inc(count, tags={"run": self.run, **tags})  # type: ignore[union-attr]
