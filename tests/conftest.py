"""Modules that several test folders share."""

import os
import sys
import tempfile
from pathlib import Path

import pytest

# Ray fixes its authentication when it is imported, and some test modules import it: driver and cluster must mean the same.
os.environ.update(RAY_AUTH_MODE="disabled", RAY_USAGE_STATS_ENABLED="0")
# Exports are signed: tests with a key of their own, not the user's.
os.environ.setdefault("SVAD_SIGNING", str(Path(tempfile.gettempdir()) / f"svad-ray-tests-{os.getuid()}" / "signing"))

for folder in (Path(__file__).parent, Path(__file__).parent / "cluster"):  # the tiny pipeline, and its scripted form
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


GOLDEN = Path(os.environ.get("SVAD_GOLDEN", Path(__file__).parent / "golden"))


@pytest.fixture(scope="session")
def golden_generation() -> Path:
    """Recorded outputs of the official code: from the photo to the restored clip."""
    return GOLDEN / "generation"


@pytest.fixture(scope="session")
def golden_avatar() -> Path:
    """Recorded outputs of the official code: from the clip to the avatar."""
    return GOLDEN / "avatar"
