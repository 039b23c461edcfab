"""Two characters, built once: trousers under a striped shirt, and long hair over a tucked top with a skirt."""

from __future__ import annotations

import pytest

from svad_ray.errors import WeightsMissing
from svad_ray.evaluate.synthetic import PEOPLE, Character, build
from svad_ray.evaluate.synthetic.mannequin import makehuman


@pytest.fixture(scope="session")
def characters() -> tuple[Character, Character]:
    try:
        makehuman()
    except WeightsMissing as missing:
        pytest.skip(str(missing))
    return build(PEOPLE[0]), build(PEOPLE[1])
