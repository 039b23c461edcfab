"""Modules that several test folders share."""

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from svad_ray.body.model import Body

TESTS = Path(__file__).parent

# Ray fixes its authentication when it is imported, and some test modules import it: driver and cluster must mean the same.
os.environ.update(RAY_AUTH_MODE="disabled", RAY_USAGE_STATS_ENABLED="0")
# Exports are signed: tests with a key of their own, not the user's.
os.environ.setdefault("SVAD_SIGNING", str(Path(tempfile.gettempdir()) / f"svad-ray-tests-{os.getuid()}" / "signing"))

if "PYTEST_XDIST_WORKER" in os.environ:  # as many processes as cores: a thread each, set before anything loads torch
    os.environ.setdefault("OMP_NUM_THREADS", "1")

for folder in (TESTS, TESTS / "cluster"):  # the tiny pipeline, and its scripted form
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """How tests are shared out with ``-n``: a file stays together, and with it its fixtures; everything that needs a Ray stays in one process."""
    for item in items:
        path = item.path.relative_to(TESTS)
        item.add_marker(pytest.mark.xdist_group("ray" if path.parts[0] == "cluster" or path.name == "test_orchestration.py" else str(path)))


GOLDEN = Path(os.environ.get("SVAD_GOLDEN", TESTS / "golden"))


@pytest.fixture(scope="session")
def golden_generation() -> Path:
    """Recorded outputs of the official code: from the photo to the restored clip."""
    return GOLDEN / "generation"


@pytest.fixture(scope="session")
def golden_avatar() -> Path:
    """Recorded outputs of the official code: from the clip to the avatar."""
    return GOLDEN / "avatar"


@pytest.fixture(scope="session")
def golden_body(golden_avatar) -> "Body":
    """The recorded synthetic body: 640 vertices with every feature of the layout (pose correctives, mean hands, contour table)."""
    import numpy as np

    from svad_ray.body.load import body_from_arrays, read_npz

    if not (golden_avatar / "body_smplx.npz").is_file():
        pytest.skip(f"no body_smplx.npz in {golden_avatar}")
    with np.load(golden_avatar / "body_companions.npz") as file:
        ids = json.loads(str(file["vertex_ids_json"]))
    return body_from_arrays(read_npz(golden_avatar / "body_smplx.npz"), name="golden", vertex_ids=ids)


BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER_FLAGS = ("--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist")  # WebGL without a GPU


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium of this machine, driven by playwright."""
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} on the path")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright, which drives the browser, is not installed")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=list(BROWSER_FLAGS))
        yield browser
        browser.close()
