"""A small body that can dance."""

import json
from pathlib import Path

import numpy as np
import pytest

from svad_ray.body.load import body_from_arrays, read_npz
from svad_ray.body.model import Body

GOLDEN = Path(__file__).parents[1] / "golden" / "avatar"


@pytest.fixture(scope="session")
def body() -> Body:
    """The recorded synthetic body of 640 vertices in SMPL-X layout, with mean hands that are not zero."""
    if not (GOLDEN / "body_smplx.npz").is_file():
        pytest.skip(f"no golden arrays in {GOLDEN}")
    with np.load(GOLDEN / "body_companions.npz") as file:
        ids = json.loads(str(file["vertex_ids_json"]))
    return body_from_arrays(read_npz(GOLDEN / "body_smplx.npz"), name="golden", vertex_ids=ids)
