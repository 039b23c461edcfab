"""Backends: what can stand behind each stage, described by data, imported only when chosen.

A backend that this version runs is a class named in ``_CLASSES``; its descriptor is its class attribute ``backend``. A backend that is planned
(its checkpoints must be brought by the user) is a descriptor in ``PLANNED``: choosing it says which files it needs and where they come from.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from svad_ray.errors import BackendUnavailable, ConfigError, WeightsMissing

STAGES = ("perceive", "animate", "identity", "restore", "fit", "avatar")


@dataclass(frozen=True)
class ModelFile:
    """A checkpoint that the user brings.

    Attributes:
        name: File name as its source calls it.
        source: Where its owner offers it.
        licence: Under which terms.
        or_else: Name of another file that serves as well; empty = none does.
    """

    name: str
    source: str
    licence: str
    or_else: str = ""


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
    ("restore", "realesrgan"): "svad_ray.stages.restore.embedded:RealEsrganRestore",
    ("restore", "bfrffusion"): "svad_ray.stages.restore.bfrffusion:BFRffusionRestore",
    ("fit", "body-fit"): "svad_ray.stages.fit.embedded:BodyFit",
    ("fit", "smplx-exavatar"): "svad_ray.stages.fit.paper:PaperFit",
    ("avatar", "gaussian"): "svad_ray.stages.avatar.gaussian:GaussianAvatar",
    ("avatar", "exavatar"): "svad_ray.stages.avatar.exavatar:ExAvatar",
}

EMBEDDED: dict[str, str] = {
    "perceive": "mediapipe",
    "animate": "reprojection",
    "identity": "lifted-head",
    "restore": "realesrgan",
    "fit": "body-fit",
    "avatar": "gaussian",
}

_SMPLX = ModelFile("SMPLX_NEUTRAL.npz", "smpl-x.is.tue.mpg.de, after registration", "SMPL-X licence, non-commercial research")
_FLAME = ModelFile("FLAME_NEUTRAL.pkl", "flame.is.tue.mpg.de, after registration", "FLAME licence, non-commercial research")

PLANNED: tuple[Backend, ...] = (
)


def registry() -> dict[tuple[str, str], str]:
    """(stage, name) -> "module:Class" of every backend that this version runs."""
    return dict(_CLASSES)


def names(stage: str) -> tuple[str, ...]:
    """Every name that ``stage`` may be configured with, planned ones included."""
    return (*(name for s, name in _CLASSES if s == stage), *(b.name for b in PLANNED if b.stage == stage))


def load(stage: str, name: str) -> type[Any]:
    """The backend's class, imported now.

    Raises:
        ConfigError: No backend of that name.
        WeightsMissing: A planned backend, which needs the user's checkpoints.
        BackendUnavailable: A package that it needs is not installed.
    """
    planned = next((b for b in PLANNED if (b.stage, b.name) == (stage, name)), None)
    if planned is not None:
        raise _not_yet(planned)
    if (stage, name) not in _CLASSES:
        raise ConfigError(f"the {stage} stage has no backend '{name}'", expected=" or ".join(names(stage)), remedy=f"set {stage}.backend")
    module, kind = _CLASSES[stage, name].split(":")
    try:
        return getattr(importlib.import_module(module), kind)
    except ModuleNotFoundError as error:
        raise BackendUnavailable(
            f"the {stage} backend '{name}' needs the package '{error.name}', which is not installed", remedy="install svad-ray with its dependencies"
        ) from error


def _not_yet(backend: Backend) -> WeightsMissing:
    files = "; ".join(f"{f.name} from {f.source} ({f.licence})" for f in backend.files)
    return WeightsMissing(
        f"the {backend.stage} backend '{backend.name}' runs on checkpoints that are not shipped, and this version cannot load them yet",
        expected=files,
        remedy=f"use the embedded backend: --set {backend.stage}.backend={EMBEDDED[backend.stage]}",
    )


def descriptors() -> tuple[Backend, ...]:
    """Descriptors of every backend, running ones first. Imports the running ones."""
    return (*(load(stage, name).backend for stage, name in _CLASSES), *PLANNED)
