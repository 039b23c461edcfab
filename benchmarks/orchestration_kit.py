"""Scripted stages for measuring what surrounds stages: frames of 1 MB, one pass over memory each, and a training whose steps are written down.

The pipeline, the store and the runners are the product's own. ``KIT`` is named to workers as "benchmarks.orchestration_kit:KIT".
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

ROOT = str(Path(__file__).parents[1])
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)

from svad_ray.config import Settings, StageConfig, override  # noqa: E402
from svad_ray.fulfil import Kit  # noqa: E402
from svad_ray.ledger import SubjectRequest  # noqa: E402
from svad_ray.stages.base import Checkpoint  # noqa: E402
from svad_ray.store.codec import encode  # noqa: E402
from svad_ray.subject import Animation, Avatar, BodyTrack, Clip, Perception, Photo  # noqa: E402
from tests import tiny_pipeline as tiny  # noqa: E402

KIT_PATH = "benchmarks.orchestration_kit:KIT"
HEIGHT, WIDTH = 512, 682  # times 3 bytes: 1.05 MB a frame
BLOCK = 16
STEPS_VARIABLE, LOAD_VARIABLE, LOG_VARIABLE = "SVAD_BENCH_STEPS", "SVAD_BENCH_LOAD_S", "SVAD_BENCH_LOG"
STEP_S = 0.1


def frames(count: int, seed: int = 0) -> np.ndarray:
    """(count, HEIGHT, WIDTH, 3) uint8: shades, which a store packs about as well as a person on a plain background."""
    shades = (np.add.outer(np.arange(HEIGHT), np.arange(WIDTH)) // 4).astype(np.uint8)
    return np.repeat((shades + np.arange(seed, seed + count, dtype=np.uint8)[:, None, None])[..., None], 3, axis=3)


def clip(count: int = BLOCK) -> Clip:
    """A clip of such frames."""
    return Clip(frames(count), np.full((count, HEIGHT, WIDTH), 255, np.uint8), tiny.track(count), ("",) * count)


class Animate(tiny.Tiny):
    """Makes the clip."""

    def __call__(self, photo: Photo, perception: Perception, *, progress: Callable[[float], None]) -> Animation:
        return Animation(clip(self.config.frames), tiny.track(1))


class Identity(tiny.Tiny):
    """One pass over the frames."""

    def reference(self, photo: Photo, perception: Perception, photo_track: BodyTrack) -> Photo:
        return photo

    def __call__(self, shard: Clip, reference: Photo) -> Clip:
        return replace(shard, frames=np.bitwise_xor(shard.frames, 85))


class Restore(tiny.Tiny):
    """One pass over the frames."""

    def plan(self, whole: BodyTrack) -> tuple[int, ...]:
        return ()

    def __call__(self, shard: Clip, plan: tuple[int, ...]) -> Clip:
        return self.worked(shard)

    def worked(self, shard: Clip) -> Clip:
        """The one pass."""
        return replace(shard, frames=np.bitwise_xor(shard.frames, 255))


class Fit(tiny.Tiny):
    """Nothing to fit."""

    def __call__(self, clip: Clip, photo: Photo, perception: Perception, photo_track: BodyTrack, *, progress: Callable[[float], None]) -> BodyTrack:
        return clip.track


class Train(tiny.Tiny):
    """Loads for SVAD_BENCH_LOAD_S seconds, then makes SVAD_BENCH_STEPS steps of 0.1 s; each is a line "time step node" in SVAD_BENCH_LOG."""

    def setup(self) -> None:
        time.sleep(float(os.environ.get(LOAD_VARIABLE, "0")))
        super().setup()

    def __call__(
        self,
        clip: Clip,
        track: BodyTrack,
        photo: Photo,
        perception: Perception,
        photo_track: BodyTrack,
        *,
        progress: Callable[[float], None],
        checkpoint: Checkpoint,
    ) -> Avatar:
        begun = (checkpoint.load() or {"step": 0})["step"]
        for step in range(begun, int(os.environ.get(STEPS_VARIABLE, "0"))):
            time.sleep(STEP_S)
            note(f"{time.time():.3f} {step} {_node()}")
            checkpoint.offer(partial(dict, step=step + 1))
        return Avatar("gaussian", {"means": np.zeros((5, 3), np.float32)}, track.frames(slice(0, 1)), {})


def note(line: str) -> None:
    """Append to the log, if there is one."""
    if path := os.environ.get(LOG_VARIABLE):
        with open(path, "a", encoding="utf-8") as stream:
            stream.write(line + "\n")


def _node() -> str:
    import ray

    return ray.get_runtime_context().get_node_id() if ray.is_initialized() else "-"


KINDS: dict[str, Any] = {"perceive": tiny.Perceive, "animate": Animate, "identity": Identity, "restore": Restore, "fit": Fit, "avatar": Train}


def make(stage: str, config: StageConfig) -> Any:
    """A scripted stage."""
    return KINDS[stage](stage, config, lambda what: None)


def load(uri: str) -> Photo:
    """A photo that passes the gates, another one for every address."""
    image = tiny.photo().image.copy()
    digest = hashlib.sha256(uri.encode()).hexdigest()
    image[20, 50] = tuple(bytes.fromhex(digest[:6]))
    return Photo("person", image, digest)


def files(created: Any, request: SubjectRequest, run: Any, exports: Any) -> dict[str, bytes]:
    """What a subject takes home."""
    return {f"avatar/{name}": content for name, content in encode(created.avatar.value)}


KIT = Kit(make=make, body_id=lambda settings: "tiny", files=files, load=load)


def request(name: str, *, count: int) -> SubjectRequest:
    """A subject of ``count`` frames."""
    return SubjectRequest(name, f"memory://photos/{name}", override(Settings(), {"animate.frames": count, "shard": BLOCK}))
