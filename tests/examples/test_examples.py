"""The examples, run as a person runs them."""

import http.server
import importlib.util
import os
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("[0-9]*"))
sys.path.insert(0, str(ROOT / "tests" / "service"))


def run(name, *words, cwd):
    script = next(path for path in EXAMPLES if path.name.startswith(name))
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    program = "bash" if script.suffix == ".sh" else sys.executable
    done = subprocess.run([program, str(script), *map(str, words)], cwd=cwd, capture_output=True, text=True, env=env)
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
        said = run("07", running.url, token, "photo.png", "curled", cwd=tmp_path)
        assert "done" in said and said.count("as it was signed") == 2 and '"left":0' in said.replace(" ", "")
        assert (tmp_path / "curled/avatar.ply").stat().st_size and (tmp_path / "curled/avatar/avatar.json").stat().st_size
        with pytest.raises(AssertionError, match="is empty"):
            run("07", running.url, token, "empty.png", "curled", cwd=tmp_path)
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


@pytest.mark.slow
@pytest.mark.models
@pytest.mark.timeout(900)
def test_a_bucket(tmp_path):
    for package in ("moto.server", "s3fs", "boto3"):
        pytest.importorskip(package, reason="pip install svad-ray[bucket]")
    said = run("06", 2, cwd=tmp_path)
    assert "2 of 2 avatars are in s3://people/out/subjects" in said
    assert "objects of 1 people are left" in said and (tmp_path / "forgotten.json").exists()


@pytest.fixture
def mesh(tmp_path):
    """A mesh with skeleton and clips, of sixty Gaussians on the open body."""
    import service_kit

    from svad_ray.body import load_body
    from svad_ray.deliver import clips
    from svad_ray.export.gltf import write_mesh

    body, person = load_body(), service_kit.person(np.ones(60))
    tensors = {**person.tensors, "surface_offset": np.zeros(tuple(body.v_template.shape), np.float32)}
    person = replace(person, tensors=tensors, track=replace(person.track, body_id=body.id))
    write_mesh(person, tmp_path / "mesh.glb", body=body, clips=clips(person, body, ["walk"]))
    return tmp_path / "mesh.glb"


@pytest.mark.slow
@pytest.mark.models
def test_blender(mesh, tmp_path):
    if not importlib.util.find_spec("bpy"):
        pytest.skip("pip install bpy: Blender as a package")
    said = run("08", mesh, "walk.png", "walk", cwd=tmp_path)
    assert "55 bones" in said and cv2.imread(str(tmp_path / "walk.png"), cv2.IMREAD_UNCHANGED)[..., 3].max() == 255


@pytest.mark.slow
@pytest.mark.models
def test_three_js(mesh, tmp_path):
    """SVAD_THREE names a folder with node_modules/three; a browser shows the page from a server on this machine."""
    three, browser = os.environ.get("SVAD_THREE", ""), shutil.which("chromium") or shutil.which("google-chrome")
    if not three or not browser:
        pytest.skip("npm install three, SVAD_THREE=FOLDER, and chromium")
    (tmp_path / "node_modules").symlink_to(Path(three) / "node_modules")
    shutil.copy(ROOT / "examples/09_three_js.html", tmp_path)
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    options = [
        "--headless",
        "--no-sandbox",
        "--use-gl=angle",
        "--use-angle=swiftshader",
        "--enable-unsafe-swiftshader",
        "--virtual-time-budget=20000",
    ]
    page = f"http://127.0.0.1:{server.server_address[1]}/09_three_js.html?at=0.5"
    said = subprocess.run([browser, *options, "--dump-dom", page], capture_output=True, text=True, timeout=120).stdout
    server.shutdown()
    assert "55 bones, 1 clips" in said
