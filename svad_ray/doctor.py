"""What is here and what is missing: machine, packages, model files, backends and their licences. Everything comes from descriptors."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
from dataclasses import dataclass
from pathlib import Path

import psutil

from svad_ray import models
from svad_ray.backends import EMBEDDED, STAGES, Backend, descriptors
from svad_ray.body import load_body
from svad_ray.config import Settings
from svad_ray.deliver import described
from svad_ray.errors import BackendUnavailable, SvadError
from svad_ray.models.brought import is_rule_made, lacking_files
from svad_ray.stages.picture.draw import Draw
from svad_ray.stages.picture.recipes import RECIPES, Recipe
from svad_ray.usage import cores

_GIB = 1024**3
_NEEDED_GIB, _NEEDED_DISK_GIB = 4.0, 2.0
_EXTRAS = {
    "face": "dlib",
    "mmpose": "mmpose",
    "onnx": "onnxruntime",
    "realesrgan": "realesrgan",
}  # extra -> the package that tells whether it is there


@dataclass(frozen=True)
class Finding:
    """One line of the diagnosis. ``state`` is "ok", "note" (works, but) or "missing" (something will not run); ``remedy`` says what to do."""

    subject: str
    found: str
    state: str = "ok"
    remedy: str = ""


def examine(settings: Settings) -> list[Finding]:
    """Everything that a run with ``settings`` depends on."""
    return [*_machine(settings), *_packages(), *_model_files(settings), _body(settings), *_extras(settings), *_backends(settings)]


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
        _enough("disk of models", _cache_disk(settings), _NEEDED_DISK_GIB, "free some space or set --cache-dir on another disk"),
    ]


def _cache_disk(settings: Settings) -> float:
    folder = models.cache_root(settings.cache_dir or None).absolute()
    return shutil.disk_usage(next(place for place in (folder, *folder.parents) if place.exists())).free / _GIB


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
    gpu = f"{torch.cuda.get_device_name(0)}, torch for CUDA {torch.version.cuda}" if torch.cuda.is_available() else _no_gpu(torch.version.cuda)
    h264 = "libx264" in av.codecs_available
    return [
        Finding("packages", versions),
        Finding("CUDA device", gpu),
        *_gsplat(),
        Finding(
            "video",
            "H.264 through PyAV, no ffmpeg program needed" if h264 else "PyAV has no libx264",
            "ok" if h264 else "missing",
            "" if h264 else "pip install --force-reinstall av",
        ),
    ]


def _no_gpu(built_for: str | None) -> str:
    """Why there is none, as far as it can be seen."""
    if built_for and Path("/proc/driver/nvidia/version").exists():
        return f"none that torch (CUDA {built_for}) can use, but a driver is there: compare its version with `nvidia-smi`; everything runs on the CPU"
    return "none; everything runs on the CPU" + ("" if built_for else " (this torch is built without CUDA)")


def _gsplat() -> list[Finding]:
    """On a GPU: are gsplat's kernels built, or can they be?"""
    import torch

    if not torch.cuda.is_available():
        return []
    if importlib.util.find_spec("gsplat.csrc") is not None:
        return [Finding("gsplat kernels", "built")]
    if shutil.which("nvcc"):
        return [
            Finding("gsplat kernels", "not built yet: the first use compiles them, which takes minutes", "note", "use gsplat once before a long run")
        ]
    remedy = f"install a gsplat wheel built for torch {torch.__version__}, or the CUDA toolkit with nvcc"
    return [Finding("gsplat kernels", "not built, and there is no nvcc to build them", "missing", remedy)]


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
    try:
        body = load_body(path)
    except SvadError as error:
        return Finding("body", error.found, "missing", error.remedy or "check the file, or leave `body` empty for the open body")
    return Finding("body", f"{path}: {len(body.v_template)} vertices; {body.licence}")


def _extras(settings: Settings) -> list[Finding]:
    """Packages beyond the core that the settings ask for."""
    wanted = {b.extra for b in descriptors() if settings.stage(b.stage).backend == b.name} & _EXTRAS.keys()
    if settings.drift.measure != "off" or settings.identity.landmarks == "dlib":
        wanted.add("face")
    if settings.restore.backend == "bfrffusion" and settings.restore.faces.enlarger == "realesrgan":
        wanted.add("realesrgan")
    return [_extra(name, _EXTRAS[name]) for name in sorted(wanted)]


def _extra(name: str, package: str) -> Finding:
    if importlib.util.find_spec(package) is not None:
        return Finding(f"extra: {name}", f"the package '{package}' is installed")
    return Finding(f"extra: {name}", f"the package '{package}' is not installed", "missing", f"pip install svad-ray[{name}] (docs/extras.md)")


def _backends(settings: Settings) -> list[Finding]:
    chosen = [_described(settings, stage) for stage in STAGES]
    stages = [finding for backend in chosen for finding in _backend(settings, backend)]
    return [*stages, *_picture(settings), *_files(settings, chosen), *_devices(chosen)]


def _picture(settings: Settings) -> list[Finding]:
    """What would draw a prompt, where a folder is configured."""
    config = settings.picture
    if not config.weights:
        return []
    try:
        backend = Draw.described(config)
    except SvadError as error:
        return [Finding("pictures", error.found, "missing", error.remedy or "leave picture.weights empty: only prompts need it")]
    use = _use(backend.commercial, backend.commercial_reason)
    return [Finding("pictures", f"{backend.summary}, about {backend.memory_gib:.0f} GiB; commercial use: {use}")]


def _files(settings: Settings, chosen: list[Backend]) -> list[Finding]:
    """Of every folder of checkpoints: whether names, shapes and, as far as they are known, hashes are what the stages expect."""
    from svad_ray.checkpoints.check import faults
    from svad_ray.checkpoints.layout import changed_since_import, misnamed

    out = []
    for backend in chosen:
        folder = str(getattr(settings.stage(backend.stage), "weights", ""))
        if not backend.files or not folder or not Path(folder).is_dir():
            continue
        found = faults(folder)
        wrong = {name: fault for name, fault in found.items() if fault}
        for path in (Path(folder) / file.name for file in backend.files):
            if path.is_file() and (fault := misnamed(path) or (changed_since_import(path) and "it is not what was imported")):
                wrong[path.name] = str(fault)
        whole = f"{', '.join(sorted(found.keys() - wrong.keys())) or 'nothing'}: tensors as expected, by name and shape"
        remedy = f"download it again, or --set {backend.stage}.backend={EMBEDDED[backend.stage]}"
        out.append(Finding(f"files: {backend.stage}", whole))
        out += [Finding(f"files: {backend.stage}", f"{name}: {fault}", "missing", remedy) for name, fault in sorted(wrong.items())]
    return out


def _devices(chosen: list[Backend]) -> list[Finding]:
    """Memory of the largest stage (they run one after the other), and whether those that are made for a GPU find one."""
    import torch

    gpu = torch.cuda.is_available()
    rated = [backend for backend in chosen if backend.name != "musepose"]  # whose memory is computed
    most = max(rated, key=lambda backend: backend.memory_gib)
    free = torch.cuda.mem_get_info()[0] / _GIB if gpu and most.device == "cuda" else psutil.virtual_memory().available / _GIB
    short = most.memory_gib > free
    text = f"{most.stage} ({most.name}) takes the most: about {most.memory_gib:.0f} GiB; {free:.1f} GiB are free"
    remedy = (
        f"--set {most.stage}.backend={EMBEDDED[most.stage]} takes less" if short and most.name != EMBEDDED[most.stage] else "close other programs"
    )
    out = [Finding("memory: stages", text, "note" if short else "ok", remedy if short else "")]
    slow = [backend for backend in chosen if backend.device == "cuda"]
    if slow and not gpu:
        named = ", ".join(f"{backend.stage} ({backend.name})" for backend in slow)
        remedy = "use a machine with one, or " + " ".join(f"--set {backend.stage}.backend={EMBEDDED[backend.stage]}" for backend in slow)
        out.append(Finding("CUDA: stages", f"{named} are made for a GPU, and there is none: hours to days on a CPU", "note", remedy))
    return out


def _described(settings: Settings, stage: str) -> Backend:
    """The descriptor with these settings; the plain one where a package is missing, which has a line of its own."""
    try:
        return described(settings, stage)
    except BackendUnavailable:
        return next(b for b in descriptors() if (b.stage, b.name) == (stage, settings.stage(stage).backend))


def _backend(settings: Settings, backend: Backend) -> list[Finding]:
    """Its line, and what it needs that is not here."""
    folder = getattr(settings.stage(backend.stage), "weights", "")
    lacking = lacking_files(backend, folder)
    where = f" in {folder}" if folder else f" (set {backend.stage}.weights)"
    missing = "; ".join(f"{file.name} ({file.source})" for file in lacking)
    needed = any(not file.optional for file in lacking)
    terms = f"; weights: {backend.weights_licence}; commercial use: {_use(backend.commercial, backend.commercial_reason)}"
    found = f"{backend.name}: {backend.summary}" + (" (weights made by a rule, NOT REAL)" if is_rule_made(folder) else "") + terms
    instead = f", or --set {backend.stage}.backend={EMBEDDED[backend.stage]}" if needed else ", or go without"
    remedy = f"bring {missing}{where}{instead}" if missing else ""
    first = Finding(f"stage: {backend.stage}", found, "missing" if needed else "note" if missing else "ok", remedy)
    return [first, _musepose_memory(settings)] if backend.name == "musepose" else [first]


def _musepose_memory(settings: Settings) -> Finding:
    """What the configured frame size, window and dtype take."""
    import torch

    from svad_ray.nets.musepose.memory import estimate

    size, diffusion = settings.animate.size, settings.animate.diffusion
    gpu = torch.cuda.is_available()
    dtype = diffusion.dtype if diffusion.dtype != "auto" else "float16" if gpu else "float32"
    parts = estimate(size, size, min(diffusion.window, settings.animate.frames), dtype)
    total = parts.pop("total")
    free = torch.cuda.mem_get_info()[0] / _GIB if gpu else psutil.virtual_memory().available / _GIB
    text = f"about {total:.1f} GiB at {size} pixels, window {diffusion.window}, {dtype} (" + ", ".join(f"{k} {v:.1f}" for k, v in parts.items()) + ")"
    enough = total < free
    remedy = "" if enough else f"{free:.1f} GiB are free: set animate.size or animate.diffusion.window lower, or animate.diffusion.dtype=float16"
    return Finding("memory: musepose", text, "ok" if enough else "note", remedy)


def licence_markdown() -> str:
    """The tables of backends and model packages for the documentation."""
    rows = ["| stage | backend | runs | code | weights | commercial use | needs |", "|---|---|---|---|---|---|---|"]
    rows += [_backend_row(backend) for backend in descriptors()]
    rows += [
        "",
        "| pictures: pipeline | meant for | draws | edits | steps, guidance | GPU memory | weights | commercial use |",
        "|---|---|---|---|---|---|---|---|",
    ]
    rows += [_recipe_row(name, recipe) for name, recipe in RECIPES.items()]
    rows += ["", "| model package | version | kept files | licence | commercial use | stages |", "|---|---|---|---|---|---|"]
    rows += [_package_row(package) for package in models.PACKAGES.values()]
    return "\n".join(rows) + "\n"


def _backend_row(b: Backend) -> str:
    needs = ", ".join([*b.models, *(f.name for f in b.files)]) or "nothing"
    use = _use(b.commercial, b.commercial_reason)
    return f"| {b.stage} | {b.name} | {b.device.upper()} | {b.code_licence} | {b.weights_licence} | {use} | {needs} |"


def _recipe_row(name: str, r: Recipe) -> str:
    does = " | ".join("yes" if able else "no" for able in (r.draws, r.edits))
    use = "yes" if r.commercial else "no, unless picture.licence says other terms"
    return f"| {name} | {r.model} | {does} | {r.steps}, {r.guidance:g} | about {r.memory_gib:.0f} GiB | {r.licence} | {use} |"


def _package_row(p: models.ModelPackage) -> str:
    use, size = _use(p.commercial, p.commercial_reason), f"{p.kept_bytes / 1e6:.0f} MB"
    return f"| {p.name} | {p.requirement} | {size} | {p.licence} | {use} | {', '.join(p.stages)} |"


def _use(allowed: bool, reason: str) -> str:
    return f"{'yes' if allowed else 'no'}: {reason}"
