"""What a piece of work cost: wall time, CPU time of all threads, and peak memory; and how many cores there are to spend."""

from __future__ import annotations

import os
import resource
import time
from dataclasses import dataclass
from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_GIB = 1024**3


@dataclass(frozen=True)
class Usage:
    """Cost of a piece of work.

    Attributes:
        wall_s, cpu_s: Seconds on the clock, and of all threads together.
        peak_gib: Highest resident memory of the process meanwhile; where the system cannot say that, since the process began.
    """

    wall_s: float
    cpu_s: float
    peak_gib: float

    def plus(self, other: Usage) -> Usage:
        """Both one after the other."""
        return Usage(self.wall_s + other.wall_s, self.cpu_s + other.cpu_s, max(self.peak_gib, other.peak_gib))


class Meter:
    """Measures from its making until ``read``."""

    def __init__(self) -> None:
        _forget_peak()
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> Usage:
        """Cost since the meter was made."""
        return Usage(round(time.perf_counter() - self._wall, 3), round(time.process_time() - self._cpu, 3), round(_peak_gib(), 3))


def _forget_peak() -> None:
    try:
        _CLEAR.write_text("5")  # resets the high-water mark VmHWM
    except OSError:
        return  # other systems, sandboxes: the peak then counts from the start of the process


def _peak_gib() -> float:
    try:
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / _GIB
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / _GIB


def cores() -> int:
    """Cores that this process may use: its affinity, and the quota of its control group."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            allowed = min(allowed, max(1, round(int(quota) / int(period))))
    except (OSError, ValueError):
        pass  # no control groups here: the affinity is all there is
    return allowed
