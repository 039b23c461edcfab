"""States of long work: the newest whole one is read, damage counts as none, and a commit removes them."""

import os

import numpy as np
import pytest

from svad_ray.local import StoredCheckpoint
from svad_ray.store import ArtefactStore, Key

KEY = Key("avatar", "0" * 32)


def state(step):
    return {"step": step, "moments": [{"step": np.array(3.0, np.float32), "m": np.full((4, 3), step, np.float32)}], "rng": "{}"}


@pytest.fixture
def store(tmp_path):
    return ArtefactStore(tmp_path)


def test_the_newest_state_comes_back_exactly(store, tmp_path):
    assert store.load_checkpoint(KEY) is None
    for step in (1, 2):
        store.save_checkpoint(KEY, state(step))
    found = ArtefactStore(tmp_path).load_checkpoint(KEY)
    assert found["step"] == 2 and np.array_equal(found["moments"][0]["m"], state(2)["moments"][0]["m"])
    assert found["moments"][0]["step"].shape == () and found["moments"][0]["step"] == 3
    assert len([p for p in (tmp_path / str(KEY)).iterdir() if p.is_dir()]) == 1
    assert store.committed(KEY) is None and not list(store.committed_keys())


def test_a_damaged_state_counts_as_none(store, tmp_path):
    store.save_checkpoint(KEY, state(1))
    next((tmp_path / str(KEY)).rglob("arrays.safetensors")).write_bytes(b"x")
    assert store.load_checkpoint(KEY) is None
    (tmp_path / str(KEY) / "CHECKPOINT.json").write_text("{")
    assert store.load_checkpoint(KEY) is None


def test_a_commit_removes_it(store, tmp_path):
    store.save_checkpoint(KEY, state(1))
    store.put(KEY, np.arange(3.0))
    assert store.load_checkpoint(KEY) is None
    assert sorted(p.name.split("-")[0] for p in (tmp_path / str(KEY)).iterdir()) == ["COMMITTED.json", "attempt"]


def test_a_full_disk_leaves_the_older_state(store, monkeypatch):
    store.save_checkpoint(KEY, state(1))

    def full(*arguments, **options):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(store.files, "write", full)
    with pytest.raises(OSError):
        store.save_checkpoint(KEY, state(2))
    assert store.load_checkpoint(KEY)["step"] == 1


def test_states_are_asked_for_by_time(store):
    asked = []

    def make():
        asked.append(1)
        return state(1)

    rarely = StoredCheckpoint(store, KEY, every_s=3600)
    for _ in range(5):
        rarely.offer(make)
    assert not asked and rarely.load() is None
    StoredCheckpoint(store, KEY, every_s=0).offer(make)
    assert asked == [1] and rarely.load()["step"] == 1
