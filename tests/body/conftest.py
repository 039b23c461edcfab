"""The recorded synthetic body, and where the golden arrays lie."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from svad_ray.body.load import body_from_arrays, read_npz
from svad_ray.body.model import Body

GOLDEN = Path(os.environ.get("SVAD_GOLDEN", Path(__file__).parents[1] / "golden")) / "avatar"


@pytest.fixture(scope="session")
def recorded() -> dict[str, np.ndarray]:
    """Inputs and outputs of the official layers on the synthetic body."""
    if not (GOLDEN / "item1_smplx.npz").is_file():
        pytest.skip(f"no golden arrays in {GOLDEN}")
    with np.load(GOLDEN / "item1_smplx.npz") as file:
        return {key: file[key] for key in file.files}


@pytest.fixture(scope="session")
def golden_vertex_ids() -> dict[str, int]:
    with np.load(GOLDEN / "body_companions.npz") as file:
        return json.loads(str(file["vertex_ids_json"]))


@pytest.fixture(scope="session")
def golden_body(recorded: dict[str, np.ndarray], golden_vertex_ids: dict[str, int]) -> Body:
    """A body of 640 vertices with every feature of the layout (pose correctives, hand means, contour table)."""
    return body_from_arrays(read_npz(GOLDEN / "body_smplx.npz"), name="golden", vertex_ids=golden_vertex_ids)
