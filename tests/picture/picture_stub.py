"""A pipeline of one's own, as picture.pipeline names it: draws a synthetic person, or what its folder's file says."""

import json
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np


@cache
def _person():
    from svad_ray.evaluate.synthetic import demo_person

    return demo_person(0).photo.image


class StubPipeline:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def from_pretrained(cls, folder, **_):
        return cls(Path(folder))

    def to(self, device):
        return self

    def __call__(self, prompt, generator, num_inference_steps, image=None, guidance_scale=None):
        seed = generator.initial_seed()
        log = self.folder / "calls.jsonl"
        given = {"prompt": prompt, "seed": seed, "steps": num_inference_steps, "guidance": guidance_scale, "edits": image is not None}
        with log.open("a") as stream:
            stream.write(json.dumps(given) + "\n")
        person_from = int((self.folder / "person_from").read_text())
        picture = _person() if seed >= person_from else np.full((512, 512, 3), 90, np.uint8)
        return SimpleNamespace(images=[picture.astype(np.float32) / 255])
