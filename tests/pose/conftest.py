import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def golden_pose() -> Path:
    """Recorded outputs of the official code."""
    return Path(os.environ.get("SVAD_GOLDEN", Path(__file__).parents[1] / "golden")) / "generation"
