"""Stages held in a worker: what a pool's actor and a resident deployment are made of."""

from __future__ import annotations

import json
from collections import OrderedDict
from typing import Any

from svad_ray.config import PictureConfig, Settings
from svad_ray.fulfil import Kit
from svad_ray.local import prepare
from svad_ray.subject import Clip

HELD_CONFIGS = 3  # stages of one kind that a worker holds for different configurations


def prepare_worker(settings: Settings, cpus: float) -> int:
    """Threads of torch, OpenCV and the rasteriser as Ray assigned cores to this worker: too many cost a factor of three. Returns the count."""
    return prepare(settings.model_copy(update={"threads": max(1, int(cpus))}))


class PoolHost:
    """Stages held in this process, set up when first needed, told apart by their configuration."""

    def __init__(self, kit: Kit) -> None:
        self.kit = kit
        self._held: OrderedDict[str, Any] = OrderedDict()

    def stage(self, stage: str, config: dict[str, Any]) -> Any:
        """The stage with that configuration, ready to be called."""
        name = f"{stage} {json.dumps(config, sort_keys=True)}"
        if name not in self._held:
            made = self.kit.make(stage, type(Settings().stage(stage)).model_validate(config))
            made.setup()
            self._held[name] = made
            if len(self._held) > HELD_CONFIGS:
                self._held.popitem(last=False)
        self._held.move_to_end(name)
        return self._held[name]

    def __call__(self, stage: str, config: dict[str, Any], shard: Clip, context: Any) -> Clip:
        """See ``local.FrameHost``."""
        return self.stage(stage, config)(shard, context)


class PictureHost:
    """One pipeline that draws, held in this process: it is large, so another one takes its place. Seeds, sizes and steps are no other pipeline."""

    def __init__(self, kit: Kit) -> None:
        self.kit = kit
        self._held: Any = None

    def __call__(self, config: PictureConfig) -> Any:
        """What draws with that configuration, set up."""
        drawing = self._held.for_config(config) if self._held is not None else None
        if drawing is None:
            self._held = None  # let go of before the next one is loaded
            drawing = self.kit.draw(config)
            drawing.setup()
        self._held = drawing
        return drawing
