"""Identity left out on purpose: the ablation "without identity preservation" of the paper. Chosen by name only; provenance and report say so."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from svad_ray.backends import Backend
from svad_ray.config import IdentityConfig
from svad_ray.subject import BodyTrack, Clip, Perception, Photo

REMARK = "identity off"


class NoIdentity:
    """The frames keep the faces that the generator drew; each one carries the remark."""

    version: ClassVar[int] = 1
    backend: ClassVar[Backend] = Backend(
        name="off",
        stage="identity",
        summary="Left out on purpose (ablation): the generated faces stay",
        code_licence="Apache-2.0",
        weights_licence="none needed",
        commercial=True,
        commercial_reason="it does nothing",
        memory_gib=0.2,
        batch=16,
    )

    def __init__(self, config: IdentityConfig | None = None) -> None:
        self.config = config or IdentityConfig()

    def setup(self) -> None:
        """Nothing to load."""

    def reference(self, photo: Photo, perception: Perception, photo_track: BodyTrack) -> None:
        """No head is lifted."""

    def __call__(self, shard: Clip, reference: None = None) -> Clip:
        """The shard with a remark on every frame."""
        return replace(shard, remarks=tuple("; ".join(part for part in (remark, REMARK) if part) for remark in shard.remarks))
