from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture
def golden_generation() -> Path:
    """Recorded outputs of the official code."""
    return Path(os.environ.get("SVAD_GOLDEN", Path(__file__).parents[1] / "golden")) / "generation"
