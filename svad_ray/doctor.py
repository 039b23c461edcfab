"""What is here and what is missing: machine, packages, model files, backends and their licences. Everything comes from descriptors."""

from __future__ import annotations

import importlib.metadata
import shutil
from dataclasses import dataclass
from pathlib import Path

import psutil

from svad_ray import models
from svad_ray.backends import Backend, descriptors
from svad_ray.config import Settings
from svad_ray.usage import cores

_GIB = 1024**3
_NEEDED_GIB, _NEEDED_DISK_GIB = 4.0, 2.0


@dataclass(frozen=True)
class Finding:
    """One line of the diagnosis. ``state`` is "ok", "note" (works, but) or "missing" (something will not run); ``remedy`` says what to do."""

    subject: str
    found: str
    state: str = "ok"
    remedy: str = ""


def examine(settings: Settings) -> list[Finding]:
    """Everything that a run with ``settings`` depends on."""
    return [*_machine(settings), *_packages(), *_model_files(settings), _body(settings), *_backends(settings)]


def _machine(settings: Settings) -> list[Finding]:
    memory = psutil.virtual_memory().available / _GIB
    disk = shutil.disk_usage(Path.cwd()).free / _GIB
    threads = settings.threads or cores()
    return [
        Finding(
            "cores", f"{cores()} usable, {threads} threads", "ok" if threads <= cores() else "note", "" if threads <= cores() else "use fewer threads"
        ),
        _enough("memory", memory, _NEEDED_GIB, "close other programs"),
        _enough("disk here", disk, _NEEDED_DISK_GIB, "free some space or use --out on another disk"),
    ]


def _enough(subject: str, gib: float, needed: float, remedy: str) -> Finding:
    short = gib < needed
    return Finding(
        subject, f"{gib:.1f} GiB free" + (f", a run needs {needed:.0f}" if short else ""), "note" if short else "ok", remedy if short else ""
    )


def _packages() -> list[Finding]:
    import av
    import torch

    names = ("torch", "numpy", "numba", "opencv-python", "ai-edge-litert", "gsplat", "ray")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none; everything runs on the CPU"
    h264 = "libx264" in av.codecs_available
    return [
        Finding("packages", versions),
        Finding("CUDA device", gpu),
        Finding(
            "video",
            "H.264 through PyAV, no ffmpeg program needed" if h264 else "PyAV has no libx264",
            "ok" if h264 else "missing",
            "" if h264 else "pip install --force-reinstall av",
        ),
    ]


def _model_files(settings: Settings) -> list[Finding]:
    used = {name for backend in descriptors() if settings.stage(backend.stage).backend == backend.name for name in backend.models}
    out = []
    for status in models.status(cache=settings.cache_dir or None):
        package, pull = status.package, f"svad-ray models pull {status.package.name}"
        if status.state == "ready":
            out.append(Finding(f"models: {package.name}", f"{package.requirement} in {status.folder}"))
        elif status.state == "damaged":
            out.append(Finding(f"models: {package.name}", "; ".join(status.faults), "missing", pull))
        else:
            blocked = package.name in used and models.is_offline(settings.offline or None)
            size = f"{package.archive_bytes / 1e6:.0f} MB"
            out.append(
                Finding(f"models: {package.name}", f"not here yet ({size})", "missing" if blocked else "note", f"{pull}, or first use fetches it")
            )
    return out


def _body(settings: Settings) -> Finding:
    path = settings.animate.body
    if not path:
        return Finding("body", "the open body (CC0), built once on first use")
    there = Path(path).is_file()
    return Finding(
        "body",
        f"{path}{'' if there else ' is not there'}",
        "ok" if there else "missing",
        "" if there else "check the path, or leave `body` empty for the open body",
    )


def _backends(settings: Settings) -> list[Finding]:
    chosen = [b for b in descriptors() if settings.stage(b.stage).backend == b.name]
    out = []
    for backend in chosen:
        missing = "; ".join(f"{f.name} ({f.source})" for f in backend.files)
        state, remedy = ("missing", f"bring {missing}, or choose the embedded profile") if missing else ("ok", "")
        out.append(Finding(f"stage: {backend.stage}", f"{backend.name}: {backend.summary}", state, remedy))
    return out


def licence_markdown() -> str:
    """The tables of backends and model packages for the documentation."""
    rows = ["| stage | backend | runs | code | weights | commercial use | needs |", "|---|---|---|---|---|---|---|"]
    rows += [_backend_row(backend) for backend in descriptors()]
    rows += ["", "| model package | version | kept files | licence | commercial use | stages |", "|---|---|---|---|---|---|"]
    rows += [_package_row(package) for package in models.PACKAGES.values()]
    return "\n".join(rows) + "\n"


def _backend_row(b: Backend) -> str:
    needs = ", ".join([*b.models, *(f.name for f in b.files)]) or "nothing"
    runs = "planned, GPU" if b.files else b.device.upper()
    return f"| {b.stage} | {b.name} | {runs} | {b.code_licence} | {b.weights_licence} | {_use(b.commercial, b.commercial_reason)} | {needs} |"


def _package_row(p: models.ModelPackage) -> str:
    use, size = _use(p.commercial, p.commercial_reason), f"{p.kept_bytes / 1e6:.0f} MB"
    return f"| {p.name} | {p.requirement} | {size} | {p.licence} | {use} | {', '.join(p.stages)} |"


def _use(allowed: bool, reason: str) -> str:
    return f"{'yes' if allowed else 'no'}: {reason}"
