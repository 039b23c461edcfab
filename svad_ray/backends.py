"""Backends: what can stand behind each stage, described by data, imported only when chosen.

A backend is a class named in ``_CLASSES``; its descriptor is its class attribute ``backend``. Those of the paper run on checkpoints that the user
brings, and say which files they need when they are set up without them.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from svad_ray.errors import BackendUnavailable, ConfigError

STAGES = ("perceive", "animate", "identity", "restore", "fit", "avatar")


@dataclass(frozen=True)
class ModelFile:
    """A checkpoint that the user brings.

    Attributes:
        name: File name as its source calls it.
        source: Where its owner offers it.
        licence: Under which terms.
        or_else: Name of another file that serves as well; empty = none does.
        optional: The backend runs without it, and says what then is missing.
    """

    name: str
    source: str
    licence: str
    or_else: str = ""
    optional: bool = False


@dataclass(frozen=True)
class Backend:
    """Descriptor of one backend; the doctor, provenance and the licence table are generated from it.

    Attributes:
        name: How configuration calls it.
        stage: One of ``STAGES``.
        summary: One line: what does the work.
        code_licence: Licence of the code that runs.
        weights_licence: Licence of the model files; "none needed" without any.
        commercial: May its output be used commercially?
        commercial_reason: Why (not).
        models: Embedded model packages (``svad_ray.models``) that it reads.
        files: Checkpoints that the user brings.
        extra: The extra of this package to install; empty = the core is enough.
        memory_gib: Peak memory for one subject at the default settings.
        device: "cpu" or "cuda".
        batch: How many frames one call may hold; 1 = one subject a call.
    """

    name: str
    stage: str
    summary: str
    code_licence: str
    weights_licence: str
    commercial: bool
    commercial_reason: str
    models: tuple[str, ...] = ()
    files: tuple[ModelFile, ...] = ()
    extra: str = ""
    memory_gib: float = 1.0
    device: str = "cpu"
    batch: int = 1


_CLASSES: dict[tuple[str, str], str] = {
    ("perceive", "mediapipe"): "svad_ray.stages.perceive.embedded:MediaPipePerceive",
    ("perceive", "dwpose"): "svad_ray.stages.perceive.dwpose:DWPosePerceive",
    ("perceive", "dwpose-sam"): "svad_ray.stages.perceive.sam:DWPoseSamPerceive",
    ("perceive", "mmpose"): "svad_ray.stages.perceive.mmpose:MMPosePerceive",
    ("animate", "reprojection"): "svad_ray.stages.animate.embedded:ReprojectionAnimate",
    ("animate", "musepose"): "svad_ray.stages.animate.musepose:MusePoseAnimate",
    ("animate", "wan-animate"): "svad_ray.stages.animate.wan:WanAnimate",
    ("identity", "lifted-head"): "svad_ray.stages.identity.embedded:LiftedHeadIdentity",
    ("identity", "gagavatar"): "svad_ray.stages.identity.gagavatar:GAGAvatarIdentity",
    ("identity", "off"): "svad_ray.stages.off:NoIdentity",
    ("restore", "realesrgan"): "svad_ray.stages.restore.embedded:RealEsrganRestore",
    ("restore", "bfrffusion"): "svad_ray.stages.restore.bfrffusion:BFRffusionRestore",
    ("restore", "off"): "svad_ray.stages.off:NoRestore",
    ("fit", "body-fit"): "svad_ray.stages.fit.embedded:BodyFit",
    ("fit", "smplx-exavatar"): "svad_ray.stages.fit.paper:PaperFit",
    ("avatar", "gaussian"): "svad_ray.stages.avatar.gaussian:GaussianAvatar",
    ("avatar", "exavatar"): "svad_ray.stages.avatar.exavatar:ExAvatar",
}

ENTRY_POINTS = "svad_ray.backends"
"""Group in which installed packages name backends of their own: ``"restore.unsharp" = "their_package.module:Class"``."""

EMBEDDED: dict[str, str] = {
    "perceive": "mediapipe",
    "animate": "reprojection",
    "identity": "lifted-head",
    "restore": "realesrgan",
    "fit": "body-fit",
    "avatar": "gaussian",
}


def registry() -> dict[tuple[str, str], str]:
    """(stage, name) -> "module:Class" of every backend that this version brings."""
    return dict(_CLASSES)


def register(stage: str, name: str, path: str) -> None:
    """Let ``stage`` be configured with a backend of one's own, in this process.

    Worker processes know those of ``ENTRY_POINTS`` and of a ``fulfil.Kit``.

    Args:
        path: "module:Class"; the class is as docs/architecture.md ("Adding a backend") says.

    Raises:
        ConfigError: There is no such stage, the name is taken, or the path is none.
    """
    if stage not in STAGES:
        raise ConfigError(f"there is no stage '{stage}'", expected=" or ".join(STAGES))
    if ":" not in path or (stage, name) in _CLASSES or _own.get((stage, name), path) != path:
        raise ConfigError(f"the {stage} backend '{name}' cannot be '{path}'", expected="a free name, and module:Class")
    _own[stage, name] = path


_own: dict[tuple[str, str], str] = {}


@lru_cache(maxsize=1)
def _installed() -> dict[tuple[str, str], str]:
    """What installed packages bring; names of this version's backends stay this version's."""
    found = {}
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        stage, _, name = point.name.partition(".")
        if stage in STAGES and name and (stage, name) not in _CLASSES:
            found[stage, name] = point.value
    return found


def _known() -> dict[tuple[str, str], str]:
    return {**_installed(), **_own, **_CLASSES}


def names(stage: str) -> tuple[str, ...]:
    """Every name that ``stage`` may be configured with."""
    return tuple(name for s, name in _known() if s == stage)


def load(stage: str, name: str) -> type[Any]:
    """The backend's class, imported now.

    Raises:
        ConfigError: No backend of that name.
        BackendUnavailable: A package that it needs is not installed.
    """
    known = _known()
    if (stage, name) not in known:
        raise ConfigError(f"the {stage} stage has no backend '{name}'", expected=" or ".join(names(stage)), remedy=f"set {stage}.backend")
    module, kind = known[stage, name].split(":")
    try:
        return getattr(importlib.import_module(module), kind)
    except ModuleNotFoundError as error:
        raise BackendUnavailable(
            f"the {stage} backend '{name}' needs the package '{error.name}', which is not installed", remedy="install svad-ray with its dependencies"
        ) from error


def descriptors() -> tuple[Backend, ...]:
    """Descriptors of every backend. Imports them all."""
    return tuple(load(stage, name).backend for stage, name in _CLASSES)
