"""The tiny stages behind the real engine. A request's seed scripts them: 901 raise, 902 SIGKILL the worker, 10_000 + n sleep n ms in every stage."""

from __future__ import annotations

import io
import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import tiny_pipeline as tiny
from PIL import Image
from scipy.spatial.transform import Rotation

from svad_ray.body.names import JOINT_NAMES, PARENTS
from svad_ray.config import StageConfig
from svad_ray.export.ply import write_ply
from svad_ray.fulfil import Kit
from svad_ray.ledger import SubjectRequest
from svad_ray.motion import blank_track
from svad_ray.store import save_avatar
from svad_ray.subject import Avatar

RAISE, KILL, SLEEP = 901, 902, 10_000
KIT_PATH = "service_kit:KIT"


def act(stage: str, config: StageConfig, what: str) -> None:
    if not what:
        return
    if config.seed == RAISE:
        raise RuntimeError(f"scripted failure of {stage} in /secret/folder")
    if config.seed == KILL:
        os.kill(os.getpid(), signal.SIGKILL)
    if config.seed >= SLEEP:
        time.sleep((config.seed - SLEEP) / 1000)


def make(stage: str, config: StageConfig) -> Any:
    return tiny.KINDS[stage](stage, config, lambda what: act(stage, config, what))


def person(points: np.ndarray) -> Avatar:
    """A cloud of coloured blobs that can be posed and drawn; where they are follows from what the tiny stages made."""
    rng = np.random.default_rng(abs(int(points.sum() * 1000)) % 2**32)
    count = len(points)
    joints = np.stack([rng.choice(22, 6, replace=False) for _ in range(count)])
    tensors = {
        "means": rng.normal(0, [0.2, 0.5, 0.1], (count, 3)).astype(np.float32),
        "quats": Rotation.random(count, random_state=1).as_quat(scalar_first=True).astype(np.float32),
        "scales": rng.uniform(0.01, 0.08, (count, 3)).astype(np.float32),
        "opacities": rng.uniform(0.5, 0.98, count).astype(np.float32),
        "colors": rng.uniform(0, 1, (count, 3)).astype(np.float32),
        "lbs_joints": joints.astype(np.uint8),
        "lbs_weights": rng.dirichlet(np.ones(6), count).astype(np.float32),
        "rest_joints": rng.normal(0, 0.3, (len(JOINT_NAMES), 3)).astype(np.float32),
        "hands_mean": np.zeros((2, 45), np.float32),
        "parents": np.asarray(PARENTS, np.int32),
        "expr_index": np.arange(4, dtype=np.int32),
        "expr_dirs": rng.normal(0, 0.01, (4, 3, 10)).astype(np.float32),
    }
    return Avatar("gaussian", tensors, blank_track(np.zeros((1, 55, 3)), fps=25.0))


def files(created: Any, request: SubjectRequest, run: Any, exports: Any) -> dict[str, bytes]:
    avatar = person(created.avatar.value.tensors["means"])
    with tempfile.TemporaryDirectory() as folder:
        save_avatar(avatar, Path(folder, "avatar"))
        if "ply" in exports:
            write_ply(avatar, Path(folder, "avatar.ply"))
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()}


KIT = Kit(make=make, body_id=lambda settings: "tiny", files=files)


def photo_png(seed: int = 0) -> bytes:
    """A standing figure of noise on white."""
    image = np.full((tiny.HEIGHT, tiny.WIDTH, 3), 255, np.uint8)
    image[12:248, 40:80] = np.random.default_rng(seed).integers(0, 200, (236, 40, 3))
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()
