"""A pipeline of one's own that draws the tiny stages' figure: noise of the prompt's colour, or of the edited photo's."""

import os
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np


class Drawing:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def from_pretrained(cls, folder, **_):
        with Path(folder, "loaded").open("a") as stream:
            stream.write(f"{os.getpid()}\n")
        return cls(Path(folder))

    def to(self, device):
        return self

    def __call__(self, prompt, generator, image=None):
        with (self.folder / "prompts").open("a") as stream:
            stream.write(f"{generator.initial_seed()} {image is not None} {prompt}\n")
        drawn = np.full((256, 120, 3), 255, np.uint8)
        drawn[12:248, 40:80] = np.random.default_rng(zlib.crc32(prompt.encode())).integers(0, 200, (236, 40, 3))
        if "nothing" in prompt:
            drawn = drawn[:, :50]  # cut through the figure
        return SimpleNamespace(images=[drawn])
