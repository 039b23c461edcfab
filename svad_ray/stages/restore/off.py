"""Restoration left out on purpose: the ablation "without image restoration" of the paper. Chosen by name only; provenance and report say so."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from svad_ray.backends import Backend
from svad_ray.config import RestoreConfig
from svad_ray.subject import BodyTrack, Clip

REMARK = "restoration off"


class NoRestore:
    """The frames stay as identity left them, at their size whatever ``restore.scale`` says; each one carries the remark."""

    version: ClassVar[int] = 1
    backend: ClassVar[Backend] = Backend(
        name="off",
        stage="restore",
        summary="Left out on purpose (ablation): the frames stay as they are, at their size",
        code_licence="Apache-2.0",
        weights_licence="none needed",
        commercial=True,
        commercial_reason="it does nothing",
        memory_gib=0.2,
        batch=16,
    )

    def __init__(self, config: RestoreConfig | None = None) -> None:
        self.config = config or RestoreConfig()

    def setup(self) -> None:
        """Nothing to load."""

    def plan(self, track: BodyTrack) -> None:
        """No frame gets any work."""

    def __call__(self, shard: Clip, plan: None = None) -> Clip:
        """The shard with a remark on every frame."""
        return replace(shard, remarks=tuple("; ".join(part for part in (remark, REMARK) if part) for remark in shard.remarks))
