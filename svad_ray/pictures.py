"""The photo of a request that brings a prompt: drawn, or edited, once, kept like every other result, with where it came from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from svad_ray.backends import Backend
from svad_ray.config import PictureConfig, Settings
from svad_ray.local import LocalRunner
from svad_ray.stages.base import PerceiveStage
from svad_ray.stages.picture.draw import Draw
from svad_ray.stages.picture.person import person
from svad_ray.stages.picture.prompts import checked
from svad_ray.store.keys import digest
from svad_ray.subject import Photo


def check_request(prompt: str, config: PictureConfig) -> Backend:
    """Find out before the work whether a prompt can be drawn; the descriptor of what would draw it.

    Raises:
        InputError: The prompt is empty or too long. WeightsMissing: No model is configured, or it is not there.
    """
    checked(prompt)
    return Draw.described(config)


def made_photo(
    prompt: str,
    photo: Photo | None,
    settings: Settings,
    run: LocalRunner,
    *,
    perceive: PerceiveStage,
    draw: Callable[[PictureConfig], Any] = Draw,
) -> Photo:
    """A photo of one whole person, drawn from ``prompt``, or ``photo`` edited by it; its ``origin`` tells how.

    Args:
        draw: Makes what draws; it is set up only where the picture is not kept already.

    Raises:
        SvadError: As ``stages.picture.Draw`` and ``stages.picture.person``.
    """
    text, config = checked(prompt), settings.picture
    backend = Draw.described(config)
    drawing = draw(config)

    def call(step: Any) -> Photo:
        perceive.setup()
        return person(drawing, perceive, config, text, photo, bust=settings.perceive.bust, progress=step.progress)

    seen_by = [perceive.backend.name, str(perceive.version), str(settings.perceive.bust)]
    inputs = [digest(text), photo.sha256 if photo else "", *seen_by]
    made = run.whole("picture", drawing, call, inputs=inputs).value
    return Photo(made.name, made.image, made.sha256, made.notes, origin(text, photo, backend, config))


def origin(prompt: str, photo: Photo | None, backend: Backend, config: PictureConfig) -> dict[str, Any]:
    """What provenance says of a made photo, JSON values only."""
    return {
        "prompt": prompt,
        "edited_from": {"name": photo.name, "sha256": photo.sha256, "notes": list(photo.notes)} if photo else None,
        "drawn_by": backend.summary,
        "weights_licence": backend.weights_licence,
        "commercial_use": backend.commercial,
        "commercial_reason": backend.commercial_reason,
        "seed": config.seed,
    }
