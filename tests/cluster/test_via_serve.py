"""Bulk restoration in the resident deployment (``via: serve``): the same bytes as in a pool, also when its replica dies."""

import os
import signal
import threading
import time

import pytest
import scripted
from test_bulk import config, markers

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_cluster"), pytest.mark.timeout(300)]


@pytest.fixture
def resident(tmp_path):
    """The restore deployment alone, as the endpoints have it."""
    from ray import serve

    from svad_ray.cluster.serve_config import APP, ServeArgs
    from svad_ray.cluster.serve_residents import FramesResident

    args = ServeArgs.model_validate({"service": {"store": str(tmp_path / "store"), "require_tokens": False}, "kit": scripted.KIT_PATH})
    made = serve.deployment(name="frames-restore", num_replicas=1, ray_actor_options={"num_cpus": 0.2}, health_check_period_s=1)(FramesResident)
    serve.start(http_options={"host": "127.0.0.1", "port": 0, "location": "NoServer"})
    serve.run(made.bind(args, "frames-restore"), name=APP, route_prefix=None)
    yield APP
    serve.delete(APP)


def test_a_bulk_run_uses_the_resident_model_and_survives_its_death(resident, tmp_path, monkeypatch):
    from svad_ray.cluster.bulk import run_bulk
    from svad_ray.fulfil import fulfil
    from svad_ray.store import ArtefactStore

    requests = [scripted.request(f"person {i}", restore=scripted.SLEEP + 300) for i in range(5)]
    pids: set[int] = set()

    def kill_once() -> None:
        import psutil

        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and len(list((tmp_path / "out" / "work" / "restore").glob("*/COMMITTED.json"))) < 2:
            time.sleep(0.05)
        for process in psutil.Process().children(recursive=True):
            name = " ".join(process.cmdline())
            if "frames-restore" in name and "ServeReplica" in name:
                os.kill(process.pid, signal.SIGKILL)
                pids.add(process.pid)

    killer = threading.Thread(target=kill_once)
    killer.start()
    summary = run_bulk(requests, str(tmp_path / "out"), config(restore={"via": "serve", "timeout_s": 120}))
    killer.join()
    assert len(pids) == 1, "no replica was found to kill"
    assert summary.complete and summary.committed == 5, [status.reason for status in summary.statuses]
    assert len(markers(tmp_path / "out")) == 5
    fulfil(requests[0], str(tmp_path / "alone"), kit=scripted.KIT)
    one, other = ArtefactStore(tmp_path / "alone" / "work"), ArtefactStore(tmp_path / "out" / "work")
    for key in one.committed_keys():
        assert other.committed(key).manifest_sha256 == one.committed(key).manifest_sha256


def test_a_deployment_that_is_not_there_stops_the_run_and_gives_nobody_up(tmp_path, monkeypatch):
    from svad_ray.cluster.bulk import run_bulk
    from svad_ray.errors import BackendUnavailable
    from svad_ray.ledger import Ledger

    began = time.monotonic()
    with pytest.raises(BackendUnavailable, match="frames-restore"):
        run_bulk([scripted.request("person")], str(tmp_path), config(restore={"via": "serve"}, app="nobody"))
    assert time.monotonic() - began < 60, "an absent deployment should be found before the work"
    assert not Ledger(f"{tmp_path}/ledger").quarantined()
