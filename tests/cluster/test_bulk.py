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


@pytest.mark.slow
def test_every_subject_is_committed_once(tmp_path):
    from svad_ray.cluster.bulk import run_bulk

    requests = [scripted.request(f"person {i}") for i in range(4)]
    summary = run_bulk(requests, str(tmp_path), config())
    assert summary.complete and summary.committed == 4
    assert markers(tmp_path) == Counter(str(request.key) for request in requests)
    rows = read_status(str(tmp_path))
    assert {row["state"] for row in rows} == {"committed"} and all(row["seconds.avatar"] >= 0 for row in rows)


POISON = {
    "animate raises": {"animate": scripted.RAISE},
    "animate kills": {"animate": scripted.KILL},
    "identity raises": {"identity": scripted.RAISE},
    "restore kills": {"restore": scripted.KILL},
    "restore hangs": {"restore": scripted.HANG},
    "restore eats memory": {"restore": scripted.MEMORY},
    "fit raises": {"fit": scripted.RAISE},
    "avatar kills": {"avatar": scripted.KILL},
    "avatar hangs": {"avatar": scripted.HANG},
    "avatar eats memory": {"avatar": scripted.MEMORY},
}
WORDS = {"raises": "scripted failure", "kills": "its worker died", "hangs": "no end after", "memory": "out of memory"}


@pytest.mark.slow
def test_poison_costs_itself_two_attempts_and_its_neighbours_nothing(tmp_path, monkeypatch):
    from svad_ray.cluster.bulk import run_bulk

    log = tmp_path / "calls.log"
    good = [scripted.request(f"good {i}") for i in range(6)]
    bad = {name: scripted.request(name, **seeds) for name, seeds in POISON.items()}
    mixed = [request for pair in zip(bad.values(), good * 2) for request in pair]
    limits = {"timeout_s": 8, "memory_gib": 1.5}
    settings = config(generate=limits, fuse=limits, restore={**limits, "workers": 2}, train={**limits, "at_once": 2})
    summary = run_bulk(list(dict.fromkeys(mixed)), str(tmp_path / "out"), settings)
    assert summary.complete and (summary.committed, summary.quarantined) == (6, len(bad))
    assert markers(tmp_path / "out") == Counter(str(request.key) for request in good)
    rows = {row["subject_id"]: row for row in read_status(str(tmp_path / "out"))}
    for name in bad:
        stage, how = name.split()[0], name.split()[-1]
        assert rows[name]["state"] == "quarantined" and rows[name]["attempts"] == 2, rows[name]
        assert WORDS[how] in rows[name]["reason"], rows[name]["reason"]
        assert rows[name]["step"].split("-")[0] == {"animate": "generate", "fit": "train", "avatar": "train"}.get(stage, stage)
    assert not log.exists()


def test_placement_groups_are_gone_after_a_run(ray_cluster):
    from ray.util import placement_group_table

    assert {group["state"] for group in placement_group_table().values()} <= {"REMOVED"}
