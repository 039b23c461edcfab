"""Photos that cannot become an avatar, through the real command line: a plain message with a remedy, an exit code, nothing half-written."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import svad_ray

ROOT = Path(svad_ray.__file__).parent.parent


def create(photo: Path, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "300", "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "svad_ray", "create", str(photo), "--out", str(out), *options]
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=300)


def refused(done: subprocess.CompletedProcess[str], out: Path, code: int, *words: str) -> None:
    said = done.stdout + done.stderr
    assert done.returncode == code, said
    assert "Traceback" not in said and "Try:" in said
    for word in words:
        assert word in said
    assert not out.exists() or not any(path.name in ("avatar", "avatar.ply", "report.html") for path in out.iterdir())


@pytest.fixture(scope="module")
def person() -> Image.Image:
    from svad_ray.evaluate.synthetic import A_POSE, PEOPLE, build, render

    return Image.fromarray(render(build(PEOPLE[0]), A_POSE, yaw=0.0).image)


def test_files_that_are_no_photos(tmp_path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("hello")
    Image.new("RGB", (1, 1)).save(tmp_path / "one.png")
    out = tmp_path / "out"
    refused(create(tmp_path / "missing.jpg", out), out, 2, "no file")
    refused(create(tmp_path, out), out, 2, "folder")
    refused(create(tmp_path / "empty.jpg", out), out, 2, "empty")
    refused(create(tmp_path / "text.jpg", out), out, 2, "not an image")
    refused(create(tmp_path / "one.png", out), out, 3, "1 x 1")


@pytest.mark.slow
@pytest.mark.models
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda image: image.crop((0, 0, 512, 330)), ("half a body",)),
        (lambda image: image.crop((0, 0, 512, 440)), ("feet", "--bust")),
        (lambda image: image.crop((0, 90, 512, 512)), ("head",)),
        (lambda image: image.resize((200, 200)), ("200 pixels",)),
        (lambda image: Image.fromarray(np.hstack([np.asarray(image)[:, 90:420]] * 2)), ("2 people", "--largest")),
        (lambda image: Image.new("RGB", image.size, "white"), ("no person",)),
    ],
    ids=["half", "feet", "head", "small", "two", "nobody"],
)
def test_people_that_cannot_be_used(person, tmp_path, change, words):
    change(person).save(tmp_path / "photo.png")
    out = tmp_path / "out"
    refused(create(tmp_path / "photo.png", out), out, 3, *words)


@pytest.mark.slow
@pytest.mark.models
def test_an_output_that_cannot_be_written(person, tmp_path):
    person.save(tmp_path / "photo.png")
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "below"
    done = create(tmp_path / "photo.png", out)
    assert done.returncode == 7 and "cannot be written" in done.stdout + done.stderr and "Traceback" not in done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.models
def test_a_full_disk(person, tmp_path):
    """A limit on file sizes stops writing like a full disk does; what is there afterwards is committed or invisible."""
    person.save(tmp_path / "photo.png")
    out = tmp_path / "out"
    lines = ["import resource, signal, sys", "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)", "from svad_ray.body import load_body; load_body()"]
    lines += ["import svad_ray.stages.animate.embedded, svad_ray.stages.identity.embedded, svad_ray.stages.avatar.gaussian"]
    lines += ["resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))", "from svad_ray.cli import main", "sys.argv = sys.argv[1:]", "main()"]
    small = ("--frames", "4", "--size", "128", "--gaussians", "2000", "--iterations", "3")
    env = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", "COLUMNS": "300", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", "\n".join(lines), "svad-ray", "create", str(tmp_path / "photo.png"), "--out", str(out), *small]
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=300)
    said = done.stdout + done.stderr
    assert done.returncode == 7 and "Traceback" not in said and "Try:" in said
    assert not (out / "avatar").exists() and not (out / "report.html").exists()
