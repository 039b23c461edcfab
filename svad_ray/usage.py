"""What a piece of work cost: wall time, CPU time of all threads, peak memory and, where it can be read, energy; and what machine it was."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import sys
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_POWERCAP = Path("/sys/class/powercap")
_GIB = 1024**3


@dataclass(frozen=True)
class Usage:
    """Cost of a piece of work.

    Attributes:
        wall_s, cpu_s: Seconds on the clock, and of all threads together.
        peak_gib: Highest resident memory of the process meanwhile; where the system cannot say that, since the process began.
        gpu_gib: Highest memory that torch held on the GPU meanwhile; 0 without one.
        energy_j: Joules that the whole machine's processors and GPUs took meanwhile, by their own counters, whoever else used them;
            None where no counter can be read.
    """

    wall_s: float
    cpu_s: float
    peak_gib: float
    gpu_gib: float = 0.0
    energy_j: float | None = None

    def plus(self, other: Usage) -> Usage:
        """Both one after the other."""
        known = [u.energy_j for u in (self, other) if u.wall_s]  # what took no time takes no energy, known or not
        energy = sum(e for e in known if e is not None) if known and None not in known else None
        peak, gpu = max(self.peak_gib, other.peak_gib), max(self.gpu_gib, other.gpu_gib)
        return Usage(self.wall_s + other.wall_s, self.cpu_s + other.cpu_s, peak, gpu, energy)


class Meter:
    """Measures from its making until ``read``."""

    def __init__(self) -> None:
        _forget_peak()
        self._energy = EnergyCounters.found()
        self._joules = self._energy.read()
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> Usage:
        """Cost since the meter was made."""
        energy = self._energy.since(self._joules)
        return Usage(
            round(time.perf_counter() - self._wall, 3),
            round(time.process_time() - self._cpu, 3),
            round(_peak_gib(), 3),
            round(_gpu_peak_gib(), 3),
            None if energy is None else round(energy, 1),
        )


@dataclass(frozen=True)
class EnergyCounters:
    """The processors' RAPL counters and the GPUs' own, as far as this process may read them.

    Attributes:
        rapl: (file of microjoules, value at which it starts again) of each processor package.
        nvml: NVIDIA's library, and a handle of each GPU.
    """

    rapl: tuple[tuple[Path, int], ...] = ()
    nvml: tuple[Any, tuple[Any, ...]] | None = None

    @classmethod
    @lru_cache(maxsize=1)
    def found(cls) -> EnergyCounters:
        """Those of this machine."""
        return cls(_rapl_counters(_POWERCAP), _nvml_counters())

    def read(self) -> dict[str, float]:
        """Counter -> joules. Empty where none can be read."""
        out: dict[str, float] = {}
        for path, _ in self.rapl:
            try:
                out[str(path)] = int(path.read_text()) / 1e6
            except (OSError, ValueError):
                continue
        if self.nvml is not None:
            library, handles = self.nvml
            for number, handle in enumerate(handles):
                value = ctypes.c_ulonglong()
                if library.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(value)) == 0:
                    out[f"gpu {number}"] = value.value / 1000
        return out

    def since(self, before: dict[str, float]) -> float | None:
        """Joules since ``read`` gave ``before``; None when no counter could be read then and now."""
        now, turn = self.read(), {str(path): most / 1e6 for path, most in self.rapl}
        both = before.keys() & now.keys()
        return sum((now[name] - before[name]) % turn.get(name, float("inf")) for name in both) if both else None

    @property
    def said(self) -> str:
        """Which counters there are, for a person."""
        readable = self.read()
        cpu, gpu = sum(not name.startswith("gpu") for name in readable), sum(name.startswith("gpu") for name in readable)
        named = [f"RAPL of {cpu} processor{'s' * (cpu > 1)}"] * bool(cpu) + [f"NVML of {gpu} GPU{'s' * (gpu > 1)}"] * bool(gpu)
        return " and ".join(named) or "not readable"


def _rapl_counters(root: Path) -> tuple[tuple[Path, int], ...]:
    found = []
    for folder in sorted(root.glob("intel-rapl:*")):
        if folder.name.count(":") > 1:
            continue  # a part of a package, which the package's own counter has in it
        try:
            found.append((folder / "energy_uj", int((folder / "max_energy_range_uj").read_text()) + 1))
            (folder / "energy_uj").read_text()
        except (OSError, ValueError):
            found = [entry for entry in found if entry[0].parent != folder]
    return tuple(found)


def _nvml_counters() -> tuple[Any, tuple[Any, ...]] | None:
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    count = ctypes.c_uint()
    if library.nvmlInit_v2() or library.nvmlDeviceGetCount_v2(ctypes.byref(count)):
        return None
    handles = []
    for number in range(count.value):
        handle = ctypes.c_void_p()
        if library.nvmlDeviceGetHandleByIndex_v2(number, ctypes.byref(handle)) == 0:
            handles.append(handle)
    return (library, tuple(handles)) if handles else None


def hardware() -> dict[str, str]:
    """The machine in words: processor, cores that may be used, memory, GPUs, and what tells its energy."""
    gpus = _gpu_names()
    return {
        "processor": _processor(),
        "cores": str(cores()),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / _GIB:.0f} GiB",
        "gpu": ", ".join(gpus) or "none",
        "energy": EnergyCounters.found().said,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _gpu_names() -> list[str]:
    counters = EnergyCounters.found().nvml
    if counters is None:
        return []
    library, handles = counters
    names = []
    for handle in handles:
        text = ctypes.create_string_buffer(96)
        names.append(text.value.decode() if library.nvmlDeviceGetName(handle, text, 96) == 0 else "GPU")
    return names


def _forget_peak() -> None:
    torch = sys.modules.get("torch")  # who has not loaded it holds no GPU memory
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()
    try:
        _CLEAR.write_text("5")  # resets the high-water mark VmHWM
    except OSError:
        return  # other systems, sandboxes: the peak then counts from the start of the process


def _gpu_peak_gib() -> float:
    torch = sys.modules.get("torch")
    return torch.cuda.max_memory_allocated() / _GIB if torch is not None and torch.cuda.is_initialized() else 0.0


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
