"""What the bulk run promises besides correct results: no barrier, cheap resume, plain refusals, requests that end."""

import time
from pathlib import Path

import pytest
import scripted
from test_bulk import config, markers

from svad_ray.errors import BackendUnavailable, StoreError
from svad_ray.ledger import Ledger
from svad_ray.ledger.status import read_status
from svad_ray.store import ArtefactStore

pytestmark = pytest.mark.usefixtures("ray_cluster")


def run(requests, out: Path, **values):
    from svad_ray.cluster.bulk import run_bulk

    return run_bulk(requests, str(out), config(**values))


@pytest.mark.slow
def test_a_subject_is_trained_while_another_is_still_generated(tmp_path, monkeypatch):
    import io
    import json

    from svad_ray.cluster.bulk import run_bulk
    from svad_ray.cluster.view import View

    log = io.StringIO()
    slow = [scripted.request(f"slow {i}", animate=scripted.SLEEP + 4000) for i in range(3)]
    summary = run_bulk(slow, str(tmp_path), config(), view=View(3, json_to=log, quiet=True))
    assert summary.committed == 3
    committed = [json.loads(line)["time"] for line in log.getvalue().splitlines() if json.loads(line)["event"] == "committed"]
    generated = sorted(p.stat().st_mtime for p in (tmp_path / "work" / "animate").glob("*/COMMITTED.json"))
    assert min(committed) < generated[-1], "the first avatar waited for the last clip"


@pytest.mark.slow
def test_what_is_finished_is_not_done_again(tmp_path):
    requests = [scripted.request(f"person {i}") for i in range(3)]
    run(requests, tmp_path)
    before = sorted((tmp_path / "work").rglob("*"))
    again = run(requests, tmp_path)
    assert again.found_done == 3 and again.complete
    assert sorted((tmp_path / "work").rglob("*")) == before
    assert all(row["seconds.avatar"] >= 0 and row["state"] == "committed" for row in read_status(str(tmp_path)))


def test_ten_thousand_finished_subjects_are_seen_within_a_minute(tmp_path):
    from svad_ray.cluster.bulk import run_bulk

    store = ArtefactStore(f"{tmp_path}/subjects")
    requests = [scripted.request(f"person {i}") for i in range(10_000)]
    for request in requests:
        folder = Path(store.root) / str(request.key)
        folder.mkdir(parents=True)
        (folder / "COMMITTED.json").write_text('{"attempt": "attempt-0", "manifest_sha256": "", "facts": {"subject_id": "x"}}')
    began = time.monotonic()
    summary = run_bulk(requests, str(tmp_path), config())
    assert summary.complete and summary.found_done == 10_000
    assert time.monotonic() - began < 60
    assert not (tmp_path / "work").exists()


def test_an_impossible_request_fails_at_once_and_by_name(tmp_path):
    began = time.monotonic()
    with pytest.raises(BackendUnavailable, match="no node can hold one train: it asks for 64 CPU"):
        run([scripted.request("a")], tmp_path, train={"cpus": 64})
    with pytest.raises(BackendUnavailable, match=r"no node can hold one restore: it asks for 0\.5 CPU and 5 GPU"):
        run([scripted.request("a")], tmp_path, restore={"gpus": 5})
    with pytest.raises(BackendUnavailable, match="need 5 CPU at once, the cluster has 4"):
        run([scripted.request("a")], tmp_path, train={"cpus": 3.5})
    with pytest.raises(BackendUnavailable, match="no node has the label 'svad/pool=bulk'"):
        run([scripted.request("a")], tmp_path, label="svad/pool=bulk")
    assert time.monotonic() - began < 20
    assert not (tmp_path / "work").exists()


def test_a_store_that_cannot_be_written_is_refused_before_the_work():
    with pytest.raises(StoreError, match="cannot be written"):
        run([scripted.request("a")], Path("/proc/nowhere"))


@pytest.mark.slow
def test_a_full_disk_stops_the_run_and_gives_nobody_up(tmp_path):
    requests = [scripted.request("good"), scripted.request("unlucky", avatar=scripted.DISK)]
    with pytest.raises(StoreError, match="No space left"):
        run(requests, tmp_path)
    assert not Ledger(f"{tmp_path}/ledger").quarantined()
    assert markers(tmp_path).keys() <= {str(requests[0].key)}


def nothing(job, rows):
    """Instead of the frame pools: they end before their first row."""
    raise RuntimeError("scripted end of the pools")


@pytest.mark.slow
@pytest.mark.parametrize("pools", [True, False], ids=["in the pools", "in the training task"])
def test_a_torn_artefact_is_made_again(tmp_path, monkeypatch, pools):
    from svad_ray.cluster import bulk

    requests = [scripted.request("person")]
    run(requests, tmp_path)
    wanted = {p.name: p.read_bytes() for p in (tmp_path / "subjects").rglob("avatar/*")}
    for marker in (tmp_path / "subjects").rglob("COMMITTED.json"):
        marker.unlink()
    for stage in ("avatar", "fit"):
        for marker in (tmp_path / "work" / stage).rglob("COMMITTED.json"):
            marker.unlink()
    torn = next((tmp_path / "work" / "restore").rglob("*.png"))
    torn.write_bytes(torn.read_bytes()[:50])
    next((tmp_path / "work" / "identity").rglob("COMMITTED.json")).write_text('{"attempt": "att')
    if not pools:
        monkeypatch.setattr(bulk, "dataset", nothing)
    summary = run(requests, tmp_path)
    assert summary.committed == 1
    assert {p.name: p.read_bytes() for p in (tmp_path / "subjects").rglob("avatar/*")} == wanted


@pytest.mark.slow
def test_quarantine_is_released_on_request(tmp_path):
    bad = scripted.request("bad", fit=scripted.RAISE)
    assert run([bad], tmp_path).quarantined == 1
    assert run([bad], tmp_path).found_done == 1
    ledger = Ledger(f"{tmp_path}/ledger")
    assert ledger.quarantined()[bad.key].attempts == 2
    assert ledger.release(bad.key) and not ledger.quarantined()
    assert run([bad], tmp_path).found_done == 0


@pytest.mark.slow
def test_the_figures_are_prometheus_metrics(ray_cluster):
    import urllib.request

    from svad_ray.cluster.metrics import BulkMetrics

    one, other = BulkMetrics("one"), BulkMetrics("other")
    for metrics in (one, other):
        metrics.states({"committed": 3})
        metrics.frames(16)
        metrics.quarantined("train")
        metrics.lost()
        metrics.finished({"avatar": {"wall_s": 2.0}})
    node = ray_cluster.nodes()[0]
    wanted = ["svad_ray_subjects{", 'state="committed"', 'state="training"', "svad_ray_frames", 'step="train"']
    wanted += ["svad_ray_lost_tasks", "svad_ray_stage_seconds_bucket", 'run="one"', 'run="other"']
    deadline, said = time.monotonic() + 60, ""
    while time.monotonic() < deadline and not all(word in said for word in wanted):
        time.sleep(1)
        said = urllib.request.urlopen(f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics", timeout=10).read().decode()
    assert not [word for word in wanted if word not in said]


class Still:
    """A stream that never says anything."""

    def iter_batches(self, **options):
        while True:
            time.sleep(0.2)
            yield from ()


def test_pools_that_stand_still_hold_nobody_up(tmp_path, monkeypatch):
    from svad_ray.cluster import bulk

    monkeypatch.setattr(bulk, "dataset", lambda job, rows: Still())
    summary = run([scripted.request("one"), scripted.request("two")], tmp_path, stall_s=1.5)
    assert summary.complete and summary.committed == 2
