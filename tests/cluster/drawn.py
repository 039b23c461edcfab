"""The scripted stages, the real stage that draws, and a perceive stage that sees nobody in the picture of seed 0.

Every load of the pipeline and every picture leaves a line in the file ``log`` beside its weights: what, process id.
"""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import scripted
import tiny_pipeline as tiny

from svad_ray.config import PictureConfig, Settings, StageConfig
from svad_ray.fulfil import Kit
from svad_ray.ledger import SubjectRequest
from svad_ray.stages.picture.draw import Draw
from svad_ray.subject import Perception, Photo

KIT_PATH = "drawn:KIT"
HEIGHT, WIDTH = 288, 128


class Logged(Draw):
    def setup(self) -> None:
        super().setup()
        self._tell("load")

    def __call__(self, prompt: str, photo: Photo | None = None, **how: Any) -> np.ndarray:
        self._tell(f"draw {how['seed']}")
        return super().__call__(prompt, photo, **how)

    def _tell(self, what: str) -> None:
        with Path(self.config.weights, "log").open("a") as stream:
            stream.write(f"{os.getpid()} {what}\n")


def told(weights: str | Path) -> list[tuple[int, str]]:
    """(process id, what) of every line."""
    log = Path(weights, "log")
    return [(int(pid), what) for pid, _, what in (line.partition(" ") for line in log.read_text().splitlines())] if log.exists() else []


class Choosy(tiny.KINDS["perceive"]):
    """The tiny figure's landmarks at the picture's size, whatever noise it shows."""

    def __call__(self, photo: Photo) -> Perception:
        seen = super().__call__(photo)
        height, width = photo.image.shape[:2]
        mask = np.zeros((height, width), np.float32)
        mask[height // 8 : -height // 8, width // 3 : -width // 3] = 1
        landmarks = (seen.landmarks * (width / 120, height / 260)).astype(np.float32)
        return replace(seen, landmarks=landmarks, mask=mask, people=int("with seed 0" not in " ".join(photo.notes)))


def make(stage: str, config: StageConfig) -> Any:
    kind = Choosy if stage == "perceive" else tiny.KINDS[stage]
    return kind(stage, config, lambda what: scripted.act(stage, config, what))


KIT = Kit(make=make, body_id=lambda settings: "tiny", files=scripted.files, load=scripted.load, draw=Logged)


def settings(weights: str | Path) -> Settings:
    picture = PictureConfig(weights=str(weights), height=HEIGHT, width=WIDTH, steps=2, tries=3)
    return scripted.settings().model_copy(update={"picture": picture})


def request(name: str, weights: str | Path, prompt: str) -> SubjectRequest:
    return SubjectRequest(name, "", settings(weights), prompt=prompt)
