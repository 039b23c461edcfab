"""A picture that shows one whole person: drawn, looked at with the perceive stage's gates, and drawn again with another seed where they refuse it."""

from __future__ import annotations

import hashlib
from typing import Any

from svad_ray.config import PictureConfig
from svad_ray.errors import QualityRejected
from svad_ray.stages.base import PerceiveStage, Progress, silent
from svad_ray.stages.perceive.gates import check
from svad_ray.stages.picture.prompts import checked
from svad_ray.subject import Photo

NOTE = "drawn by a model, try {attempt} with seed {seed}"


def person(
    draw: Any,
    perceive: PerceiveStage,
    config: PictureConfig,
    prompt: str,
    photo: Photo | None = None,
    *,
    bust: bool = False,
    progress: Progress = silent,
) -> Photo:
    """The first picture that the gates let pass; its ``notes`` say which try it was.

    Args:
        draw: A ``Draw`` that is set up. perceive: A stage that is set up. photo: What is edited.
        bust: Half a body is enough.

    Raises:
        InputError: The prompt is empty or too long. QualityRejected: No picture shows one whole person; the message says what each showed.
    """
    text, refused = checked(prompt), []
    for attempt in range(config.tries):
        seed = config.seed + attempt
        image = draw(text, photo, seed=seed, progress=lambda done, attempt=attempt: progress((attempt + done) / config.tries))
        made = Photo(
            "edited" if photo else "drawn", image, hashlib.sha256(image.tobytes()).hexdigest(), (NOTE.format(attempt=attempt + 1, seed=seed),)
        )
        try:
            check(made, perceive(made), bust=bust)
        except QualityRejected as error:
            refused.append(f"seed {seed}: {error.found}")
            continue
        progress(1.0)
        return made
    raise QualityRejected(
        f"none of {config.tries} pictures of '{text[:80]}' shows what an avatar needs ({'; '.join(refused)})",
        expected="one whole person, head to feet",
        remedy="say more of the person (who, which clothes) and nothing of others or close-ups, or try more: --set picture.tries=8, picture.seed=100",
    )
