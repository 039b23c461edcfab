"""The recorded synthetic body, and where the golden arrays lie."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from svad_ray.body.builder import BuildConfig, build_open_body
from svad_ray.body.load import load_body
from svad_ray.body.makehuman import MakeHuman
from svad_ray.body.model import Body

GOLDEN = Path(os.environ.get("SVAD_GOLDEN", Path(__file__).parents[1] / "golden")) / "avatar"


@pytest.fixture(scope="session")
def golden_folder() -> Path:
    return GOLDEN


@pytest.fixture(scope="session")
def recorded() -> dict[str, np.ndarray]:
    """Inputs and outputs of the official layers on the synthetic body."""
    if not (GOLDEN / "item1_smplx.npz").is_file():
        pytest.skip(f"no golden arrays in {GOLDEN}")
    with np.load(GOLDEN / "item1_smplx.npz") as file:
        return {key: file[key] for key in file.files}


@pytest.fixture(scope="session")
def makehuman() -> MakeHuman:
    """The CC0 data from the model cache."""
    from svad_ray.models import ensure

    return MakeHuman.load(ensure("makehuman"))


@pytest.fixture(scope="session")
def small_arrays(makehuman: MakeHuman) -> dict[str, np.ndarray]:
    """The open body's file, built from few people."""
    return build_open_body(makehuman, BuildConfig(people=24, betas=10))


@pytest.fixture(scope="session")
def open_body() -> Body:
    """The open body as users get it."""
    return load_body()
