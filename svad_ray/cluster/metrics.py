"""The figures of a bulk run as Prometheus metrics, exported by Ray's own agent beside its system metrics."""

from __future__ import annotations

from collections.abc import Mapping

from ray.util.metrics import Counter, Gauge, Histogram

_SECONDS = [1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10_000.0, 30_000.0]


class BulkMetrics:
    """Counters and gauges of one run, labelled with its name."""

    def __init__(self, run: str) -> None:
        labels = {"run": run}
        self.subjects = Gauge("svad_ray_subjects", "Subjects by state", tag_keys=("run", "state"))
        self.frames = Counter("svad_ray_frames", "Frames that came out of the frame stages", tag_keys=("run",))
        self.quarantined = Counter("svad_ray_quarantined", "Subjects given up, by step", tag_keys=("run", "step"))
        self.attempts = Counter("svad_ray_lost_tasks", "Training tasks lost with their worker or node", tag_keys=("run",))
        self.seconds = Histogram("svad_ray_stage_seconds", "Wall seconds a subject, by stage", boundaries=_SECONDS, tag_keys=("run", "stage"))
        for metric in (self.subjects, self.frames, self.quarantined, self.attempts, self.seconds):
            metric.set_default_tags(labels)

    def states(self, counts: Mapping[str, int]) -> None:
        """How many subjects are in each state now."""
        for state, count in counts.items():
            self.subjects.set(count, tags={"state": state})

    def finished(self, stages: Mapping[str, Mapping[str, float]]) -> None:
        """A subject is committed; its stages' costs."""
        for name, usage in stages.items():
            self.seconds.observe(max(usage["wall_s"], 1e-6), tags={"stage": name})
