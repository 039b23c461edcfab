"""The examples, run as a person runs them."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
sys.path.insert(0, str(ROOT / "tests" / "service"))


def run(name, *words, cwd):
    script = next(path for path in EXAMPLES if path.name.startswith(name))
    done = subprocess.run(
        [sys.executable, str(script), *map(str, words)], cwd=cwd, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def avatar(tmp_path):
    import service_kit

    from svad_ray.store import save_avatar

    return save_avatar(service_kit.person(np.ones(60)), tmp_path / "avatar")


def test_they_are_numbered_and_short():
    assert [path.name[:2] for path in EXAMPLES] == [f"{i + 1:02}" for i in range(len(EXAMPLES))]
    assert all(len(path.read_text().splitlines()) <= 60 for path in EXAMPLES)


@pytest.mark.slow
def test_client(tmp_path):
    pytest.importorskip("httpx")
    import service_kit
    from service_helpers import config_for, serve

    from svad_ray.service.tokens import add_token

    token = add_token(tmp_path / "tokens.json", "anna")
    (tmp_path / "photo.png").write_bytes(service_kit.photo_png(4))
    (tmp_path / "empty.png").write_bytes(b"")
    running = serve(config_for(tmp_path))
    try:
        said = run("05", running.url, token, "photo.png", "home", cwd=tmp_path)
        assert "avatar               100%" in said and (tmp_path / "home/avatar/avatar.json").exists()
        with pytest.raises(AssertionError, match="422 'the photo' is empty"):
            run("05", running.url, token, "empty.png", "home", cwd=tmp_path)
    finally:
        running.stop()


def test_a_frame_as_ply(avatar, tmp_path):
    assert "60 Gaussians" in run("03", avatar, "walking.ply", cwd=tmp_path) and (tmp_path / "walking.ply").stat().st_size > 1000


@pytest.mark.slow
@pytest.mark.models
def test_a_motion_of_ones_own(avatar, tmp_path):
    import av

    run("02", avatar, "bow.mp4", cwd=tmp_path)
    with av.open(str(tmp_path / "bow.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) == 50


@pytest.mark.slow
@pytest.mark.models
def test_a_backend_of_ones_own(tmp_path):
    said = run("04", "out", cwd=tmp_path)
    assert '"backend": "unsharp"' in said and (tmp_path / "out/avatar/avatar.json").exists()
    assert "unsharp masking" in (tmp_path / "out/report.html").read_text()
