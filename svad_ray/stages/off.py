"""Frame stages left out on purpose: the paper's ablations. Chosen by name only; provenance, report and every frame say so."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from svad_ray.backends import Backend
from svad_ray.config import IdentityConfig, RestoreConfig
from svad_ray.subject import BodyTrack, Clip, Perception, Photo


def _described(stage: str, summary: str) -> Backend:
    return Backend(
        name="off",
        stage=stage,
        summary=f"Left out on purpose (ablation): {summary}",
        code_licence="Apache-2.0",
        weights_licence="none needed",
        commercial=True,
        commercial_reason="it does nothing",
        memory_gib=0.2,
        batch=16,
    )


class _Off:
    """The frames stay as they came, at their size; each one carries the remark."""

    version: ClassVar[int] = 1
    backend: ClassVar[Backend]
    remark: ClassVar[str]

    def setup(self) -> None:
        """Nothing to load."""

    def _remarked(self, shard: Clip) -> Clip:
        return replace(shard, remarks=tuple("; ".join(part for part in (remark, self.remark) if part) for remark in shard.remarks))


class NoIdentity(_Off):
    """The faces stay as the generator drew them."""

    backend = _described("identity", "the generated faces stay")
    remark = "identity off"

    def __init__(self, config: IdentityConfig | None = None) -> None:
        self.config = config or IdentityConfig()

    def reference(self, photo: Photo, perception: Perception, photo_track: BodyTrack) -> None:
        """No head is lifted."""

    def __call__(self, shard: Clip, reference: None = None) -> Clip:
        """The shard with a remark on every frame."""
        return self._remarked(shard)


class NoRestore(_Off):
    """The frames stay as identity left them, at their size whatever ``restore.scale`` says."""

    backend = _described("restore", "the frames stay as they are, at their size")
    remark = "restoration off"

    def __init__(self, config: RestoreConfig | None = None) -> None:
        self.config = config or RestoreConfig()

    def plan(self, track: BodyTrack) -> None:
        """No frame gets any work."""

    def __call__(self, shard: Clip, plan: None = None) -> Clip:
        """The shard with a remark on every frame."""
        return self._remarked(shard)
