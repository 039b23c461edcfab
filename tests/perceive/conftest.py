"""Photos to look at: people drawn with known truth, and real photos out of packages."""

from __future__ import annotations

import importlib.util
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from svad_ray.errors import WeightsMissing
from svad_ray.stages.perceive.embedded import MediaPipePerceive
from svad_ray.subject import Photo


@pytest.fixture(scope="session")
def perceive() -> MediaPipePerceive:
    stage = MediaPipePerceive()
    try:
        stage.setup()
    except WeightsMissing as error:
        pytest.skip(error.found)
    return stage


@pytest.fixture(scope="session")
def drawn():
    """A synthetic person, 512 px, with exact mask and joints: see svad_ray.evaluate.synthetic."""
    from svad_ray.evaluate import synthetic

    try:
        character = synthetic.build(synthetic.PEOPLE[0])
    except WeightsMissing as error:
        pytest.skip(error.found)
    return synthetic.render(character, synthetic.A_POSE, size=(512, 512), background=(0.75, 0.78, 0.8), supersample=2)


@pytest.fixture(scope="session")
def astronaut() -> Photo:
    """A real, half-body photo: NASA's portrait that scikit-image ships."""
    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        pytest.skip("scikit-image, which carries the portrait, is not installed")
    path = Path(spec.origin).parent / "data/astronaut.png"
    return Photo("astronaut", np.asarray(Image.open(path).convert("RGB")), "")


@pytest.fixture(scope="session")
def street(tmp_path_factory) -> np.ndarray:
    """A real street photo with two whole people, read out of a package that is only downloaded, never installed."""
    folder = tmp_path_factory.mktemp("street")
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), "ultralytics==8.4.190"]
    client = subprocess.run(command, capture_output=True, text=True)
    if client.returncode:
        pytest.skip(f"the package with the street photo cannot be had: {client.stderr.strip()[-200:]}")
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        return np.asarray(Image.open(io.BytesIO(wheel.read("ultralytics/assets/bus.jpg"))).convert("RGB"))


@pytest.fixture
def standing() -> np.ndarray:
    """(33, 2) pixels: a stick figure 300 px high, torso 90 px, in a 240 x 360 picture."""
    points = np.zeros((33, 2), np.float32)
    points[:11] = [120, 60]
    points[[7, 8]] = [[128, 60], [112, 60]]
    pairs = {
        11: (140, 95),
        13: (160, 140),
        15: (170, 180),
        19: (172, 200),
        23: (133, 185),
        25: (135, 250),
        27: (136, 320),
        29: (134, 332),
        31: (145, 338),
    }
    for number, (x, y) in pairs.items():
        points[number], points[number + 1] = (x, y), (240 - x, y)
    points[[17, 18, 21, 22]] = points[[19, 20, 19, 20]]
    return points
