"""The tiny stages with a script: a stage's seed says what it does besides its work, so that every subject can fail in its own way.

Seeds: 0 nothing; 901 raise; 902 SIGKILL its own process; 903 hang; 904 fill memory; 905 the disk is full; 10_000 + n sleep n ms.
Every call leaves a line in the file named by SVAD_SCRIPT_LOG: stage, subject, process id.
"""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import time
from typing import Any

import numpy as np
import tiny_pipeline as tiny

from svad_ray.config import Settings, StageConfig, override
from svad_ray.errors import StoreError
from svad_ray.fulfil import Kit
from svad_ray.ledger import SubjectRequest
from svad_ray.store.codec import encode
from svad_ray.subject import Photo

RAISE, KILL, HANG, MEMORY, DISK, SLEEP = 901, 902, 903, 904, 905, 10_000
KIT_PATH = "scripted:KIT"


def act(stage: str, config: StageConfig, what: str) -> None:
    if not what or what.endswith("reference"):
        return
    if path := os.environ.get("SVAD_SCRIPT_LOG"):
        with open(path, "a") as stream:
            stream.write(f"{what} {os.getpid()}\n")
    seed = config.seed
    if seed == RAISE:
        raise RuntimeError(f"scripted failure of {stage}")
    if seed == KILL:
        os.kill(os.getpid(), signal.SIGKILL)
    if seed == HANG:
        time.sleep(3600)
    if seed == MEMORY:
        held = []
        while True:
            held.append(np.ones(1 << 24, np.uint8))
            time.sleep(0.002)
    if seed == DISK:
        raise StoreError(f"the store cannot be written: {os.strerror(errno.ENOSPC)}", remedy="free some space")
    if seed >= SLEEP:
        time.sleep((seed - SLEEP) / 1000)


def make(stage: str, config: StageConfig) -> Any:
    return tiny.KINDS[stage](stage, config, lambda what: act(stage, config, what))


def load(uri: str) -> Photo:
    """A figure of its own for every address."""
    seed = int(hashlib.sha256(uri.encode()).hexdigest()[:8], 16)
    image = np.full((tiny.HEIGHT, tiny.WIDTH, 3), 255, np.uint8)
    image[12:248, 40:80] = np.random.default_rng(seed).integers(0, 200, (236, 40, 3))
    return Photo(uri.rsplit("/", 1)[-1], image, hashlib.sha256(uri.encode()).hexdigest())


def files(created: Any, request: SubjectRequest, run: Any, exports: Any) -> dict[str, bytes]:
    return {f"avatar/{name}": content for name, content in encode(created.avatar.value)}


KIT = Kit(make=make, body_id=lambda settings: "tiny", files=files, load=load)


def settings(**seeds: int) -> Settings:
    """Small settings; ``restore=KILL`` scripts that stage."""
    return override(Settings(), {"animate.frames": tiny.FRAMES, "shard": 5, **{f"{stage}.seed": seed for stage, seed in seeds.items()}})


def request(name: str, **seeds: int) -> SubjectRequest:
    return SubjectRequest(name, f"memory://photos/{name}", settings(**seeds))
