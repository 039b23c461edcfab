"""Our pipeline on one photo of a protocol, with what it cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from svad_ray import pipeline
from svad_ray.body import load_body
from svad_ray.deliver import switched_off, unreal_weights, usage_record
from svad_ray.local import LocalRunner, prepare
from svad_ray.protocols.orders import Order
from svad_ray.store import ArtefactStore
from svad_ray.subject import Avatar, BodyTrack, Photo


@dataclass(frozen=True)
class Made:
    """The avatar of a photo, the body's fit to that photo, the body, and the run's costs and warnings."""

    avatar: Avatar
    photo_track: BodyTrack
    body: Any
    usage: dict[str, Any]
    warnings: tuple[str, ...]


def made_of(photo: Photo, order: Order, tell: Callable[[str, float], None]) -> Made:
    """Run the pipeline with the order's settings; steps that are committed below its ``out`` are not done again.

    Raises:
        QualityRejected: The photo is refused. SvadError: As ``pipeline.create``.
    """
    settings = order.parsed
    prepare(settings)
    body = load_body(settings.animate.body or None)
    run = LocalRunner(ArtefactStore(f"{order.out}/work"), settings, body_id=body.id, progress=tell)
    created = pipeline.create(photo, settings, run)
    warnings = (*unreal_weights(settings), *switched_off(settings), *created.warnings)
    return Made(created.avatar.value, created.animation.value.photo_track, body, usage_record(list(run.records.values())), warnings)
