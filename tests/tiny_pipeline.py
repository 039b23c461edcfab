"""The product's pipeline, runner and store with six tiny stages, as a program that can be killed at any event.

Run as ``python tests/tiny_pipeline.py STORE EVENT``: at its EVENT-th event the process gets SIGKILL; 0 = never. An event is every start and end
of a stage's call and every progress report. Each call is noted in STORE.log.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from svad_ray.backends import Backend
from svad_ray.config import Settings, override
from svad_ray.local import LocalRunner
from svad_ray.pipeline import Created, Stages, create
from svad_ray.stages.base import Checkpoint
from svad_ray.store import ArtefactStore
from svad_ray.subject import Animation, Avatar, BodyTrack, Clip, Perception, Photo

HEIGHT, WIDTH, FRAMES = 260, 120, 10
Event = Callable[[str], None]


def photo() -> Photo:
    """A standing figure of noise on white."""
    image = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    image[12:248, 40:80] = np.random.default_rng(0).integers(0, 200, (236, 40, 3))
    return Photo("figure", image, "0" * 64)


def track(frames: int) -> BodyTrack:
    def zeros(*shape: int) -> np.ndarray:
        return np.zeros((frames, *shape), np.float32)

    three = {name: zeros(3) for name in ("global_orient", "jaw_pose", "leye_pose", "reye_pose", "transl")}
    pose = {"body_pose": zeros(21, 3), "left_hand_pose": zeros(15, 3), "right_hand_pose": zeros(15, 3), "expression": zeros(10)}
    cameras = {"viewmats": zeros(4, 4), "Ks": zeros(3, 3), "image_size": (HEIGHT, WIDTH), "fps": 25.0, "body_id": "tiny"}
    return BodyTrack(betas=np.zeros(10, np.float32), **three, **pose, **cameras)


class Tiny:
    """Base of the stages here: tells every call."""

    version = 1

    def __init__(self, stage: str, config: Any, event: Event) -> None:
        self.backend = Backend("tiny", stage, "test", "none", "none", True, "test")
        self.config, self.event, self.is_set_up = config, event, False

    def setup(self) -> None:
        self.is_set_up = True

    def begin(self, what: str) -> None:
        assert self.is_set_up
        self.event(f"{self.backend.stage} {what}")


class Perceive(Tiny):
    def __call__(self, photo: Photo) -> Perception:
        self.begin("whole")
        mask = (photo.image.min(2) < 255).astype(np.float32)
        marks = np.full((33, 2), 60.0, np.float32)
        marks[:, 1] = 35
        marks[[11, 12], 1], marks[[23, 24], 1], marks[[25, 26], 1], marks[27:, 1] = 60, 125, 180, 242
        marks[[11, 23], 0], marks[[12, 24], 0] = 75, 45
        nothing = np.full((2, 21, 3), np.nan, np.float32)
        return Perception(
            np.zeros((133, 2), np.float32), np.zeros(133, np.float32), mask, marks, np.ones(33, np.float32), np.zeros((33, 3)), None, nothing, 0.9, 1
        )


class Animate(Tiny):
    def __call__(self, photo: Photo, perception: Perception, *, progress: Callable[[float], None]) -> Animation:
        self.begin("whole")
        frames = []
        for i in range(self.config.frames):
            frames.append(np.roll(photo.image, 3 * i, 1))
            progress((i + 1) / self.config.frames)
            self.event("")
        masks = (np.stack(frames).min(3) < 255).astype(np.uint8) * 255
        return Animation(Clip(np.stack(frames), masks, track(len(frames)), ("",) * len(frames)), track(1))


class Identity(Tiny):
    def reference(self, photo: Photo, perception: Perception, photo_track: BodyTrack) -> Photo:
        self.begin("reference")
        return replace(photo, image=photo.image[::-1].copy())

    def __call__(self, shard: Clip, reference: Photo) -> Clip:
        self.begin(f"{shard.first}")
        frames = ((shard.frames.astype(np.uint16) + reference.image) // 2).astype(np.uint8)
        self.event("")
        return replace(shard, frames=frames, remarks=tuple(f"fused {shard.first + i}" for i in range(len(shard))))


class Restore(Tiny):
    def plan(self, whole: BodyTrack) -> tuple[int, ...]:
        return tuple(range(0, len(whole), 3))

    def __call__(self, shard: Clip, plan: tuple[int, ...]) -> Clip:
        self.begin(f"{shard.first}")
        frames = np.stack([255 - f if shard.first + i in plan else f for i, f in enumerate(shard.frames)])
        self.event("")
        return replace(shard, frames=frames)


class Fit(Tiny):
    def __call__(self, clip: Clip, photo: Photo, perception: Perception, photo_track: BodyTrack, *, progress: Callable[[float], None]) -> BodyTrack:
        self.begin("whole")
        return replace(clip.track, transl=clip.frames.mean((1, 2)).astype(np.float32))


class Train(Tiny):
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
        self.begin("whole")
        state = checkpoint.load() or {"step": 0, "means": np.zeros((50, 3), np.float32)}
        means = state["means"].copy()
        for i in range(state["step"], 5):
            rng = np.random.default_rng((self.config.seed, i))
            means += rng.standard_normal((50, 3)).astype(np.float32) * track.transl.mean(0)
            checkpoint.offer(lambda done=i + 1: {"step": done, "means": means})  # noqa: B023  asked for at once
            progress((i + 1) / 5)
            self.event("")
        return Avatar("gaussian", {"means": means}, track.frames(slice(0, 1)), {"seed": self.config.seed})


KINDS: dict[str, Any] = {"perceive": Perceive, "animate": Animate, "identity": Identity, "restore": Restore, "fit": Fit, "avatar": Train}


def settings() -> Settings:
    return override(Settings(), {"animate.frames": FRAMES, "shard": 3})


def stages(event: Event) -> Stages:
    chosen = settings()
    return Stages(**{name: kind(name, chosen.stage(name), event) for name, kind in KINDS.items()})


def run(folder: Path, event: Event) -> tuple[Created, LocalRunner]:
    """The whole pipeline with a store in ``folder``."""
    runner = LocalRunner(ArtefactStore(folder), settings(), body_id="tiny")
    created = create(photo(), settings(), runner, stages=stages(event))
    created.avatar.value  # noqa: B018  reading the value is what a caller does next
    return created, runner


def main() -> None:
    folder, fatal, count = Path(sys.argv[1]), int(sys.argv[2]), 0
    log = folder.with_suffix(".log")

    def event(what: str) -> None:
        nonlocal count
        count += 1
        if what:
            with log.open("a") as stream:
                stream.write(what + "\n")
        if count == fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    run(folder, event)
    print(count)


if __name__ == "__main__":
    main()
