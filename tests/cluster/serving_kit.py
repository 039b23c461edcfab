"""The service tests' kit (tiny stages, avatars that can be drawn), for replicas and tasks on a cluster.

Seeds script a request: 901 raise, 902 SIGKILL the process, 10_000 + n sleep n ms, in every stage call; with 1000 more the first two concern the
identity stage alone, with 2000 more the avatar stage alone.
"""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

sys.path += [str(Path(__file__).parent.parent / "service"), str(Path(__file__).parent.parent)]

import service_kit
import tiny_pipeline as tiny
from service_kit import KILL, RAISE, SLEEP, photo_png

from svad_ray.config import StageConfig
from svad_ray.fulfil import Kit

KIT_PATH = "serving_kit:KIT"
WHO = {1: "identity", 2: "avatar"}
KILL_IDENTITY, KILL_AVATAR = 1000 + KILL, 2000 + KILL
__all__ = ["KILL", "KILL_AVATAR", "KILL_IDENTITY", "KIT", "KIT_PATH", "RAISE", "SLEEP", "photo_png"]


def act(stage: str, config: StageConfig, what: str) -> None:
    if not what or what.endswith("reference"):
        return
    seed = config.seed
    if 1000 <= seed < 3000:
        if WHO[seed // 1000] != stage:
            return
        seed %= 1000
    if seed == RAISE:
        raise RuntimeError(f"scripted failure of {stage} in /secret/folder")
    if seed == KILL:
        os.kill(os.getpid(), signal.SIGKILL)
    if seed >= SLEEP:
        time.sleep((seed - SLEEP) / 1000)


def make(stage: str, config: StageConfig) -> Any:
    return tiny.KINDS[stage](stage, config, lambda what: act(stage, config, what))


KIT = Kit(make=make, body_id=lambda settings: "tiny", files=service_kit.files)
