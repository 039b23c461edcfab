"""A manifest of scripted subjects through the real bulk run: real Ray Data, real placement groups, real store."""

from collections import Counter
from pathlib import Path

import pytest
import scripted

from svad_ray.cluster.config import load_cluster_config
from svad_ray.ledger.status import read_status
from svad_ray.store import ArtefactStore

pytestmark = pytest.mark.usefixtures("ray_cluster")


def config(**values):
    small = {"workers": 1, "cpus": 0.5, "timeout_s": 20}
    pools = {name: {**small, **values.pop(name, {})} for name in ("generate", "fuse", "restore")}
    return load_cluster_config(
        values={**pools, "train": {"cpus": 0.5, "timeout_s": 20, **values.pop("train", {})}, "kit": scripted.KIT_PATH, **values}
    )


def markers(out: Path) -> Counter:
    store = ArtefactStore(f"{out}/subjects")
    return Counter(str(key) for key in store.committed_keys() if store.verify(key))


def test_every_subject_is_committed_once(tmp_path):
    from svad_ray.cluster.bulk import run_bulk

    requests = [scripted.request(f"person {i}") for i in range(4)]
    summary = run_bulk(requests, str(tmp_path), config())
    assert summary.complete and summary.committed == 4
    assert markers(tmp_path) == Counter(str(request.key) for request in requests)
    rows = read_status(str(tmp_path))
    assert {row["state"] for row in rows} == {"committed"} and all(row["seconds.avatar"] >= 0 for row in rows)
