"""A small body that can dance."""

import pytest

from svad_ray.body.model import Body


@pytest.fixture(scope="session")
def body(golden_body) -> Body:
    """The recorded synthetic body of 640 vertices in SMPL-X layout, with mean hands that are not zero."""
    return golden_body
