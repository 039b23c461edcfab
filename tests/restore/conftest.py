"""A folder with BFRffusion's files, small or of published size, filled by the rule."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from rules import rule_made, rule_state

from svad_ray.models.brought import RULE_MADE
from svad_ray.nets.bfrffusion import load
from svad_ray.nets.bfrffusion.networks import Sizes
from svad_ray.nets.faces import parsenet, retinaface

REDUCED = Sizes(channels=32, heads=16, context=64, hidden=64, prompt_heads=4, time=128, vae=32)
KEYS = Path(__file__).parents[1] / "golden" / "generation" / "bfr_keys_reduced.json"


@pytest.fixture(scope="session")
def bfr_state():
    """Published names -> tensors of the reduced networks."""
    shapes = json.loads(KEYS.read_text())["shapes"]
    return rule_state("bfrffusion_reduced", {key: shape for key, shape in shapes.items() if key not in load.SCHEDULE})


@pytest.fixture(scope="session")
def bfr_weights(tmp_path_factory, bfr_state):
    folder = tmp_path_factory.mktemp("bfr")
    (folder / RULE_MADE).write_text("filled by a rule\n")
    (folder / load.SIZES_FILE).write_text(json.dumps(asdict(REDUCED)))
    torch.save({"state_dict": {**bfr_state, "betas": torch.zeros(1000)}}, folder / load.FILE)

    def factor(key):
        return 1 / 64 if key == "body.conv1.weight" else 8.0 if key.startswith("ClassHead") and key.endswith("weight") else 1.0

    finder = rule_made("retinaface", retinaface.RetinaFace(), factor).state_dict()
    torch.save({f"module.{key}": value for key, value in finder.items()}, folder / retinaface.FILE)
    torch.save(rule_made("parsenet", parsenet.ParseNet(8)).state_dict(), folder / parsenet.FILE)
    return folder
