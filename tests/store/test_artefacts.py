"""Committed once, whole or not at all, whatever happens in between."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from svad_ray.errors import StoreError
from svad_ray.store import ArtefactStore, Key, content_key, digest

KEY = Key("perceive", "0" * 32)


@pytest.fixture(params=["local", "memory"])
def store(request, tmp_path):
    return ArtefactStore(str(tmp_path / "store") if request.param == "local" else f"memory://{tmp_path.name}-{os.getpid()}")


def picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (3, 32, 40, 3), np.uint8)


def test_put_get_and_facts(store):
    assert store.committed(KEY) is None
    store.put(KEY, {"frames": picture(), "n": 3}, facts={"wall_s": 1.5})
    assert np.array_equal(store.get(KEY)["frames"], picture())
    assert store.committed(KEY).facts == {"wall_s": 1.5}
    assert list(store.committed_keys()) == [KEY]
    assert store.verify(KEY) == 4  # three pictures and the description


def test_the_first_writer_wins(store):
    first = store.put(KEY, "first")
    second = store.put(KEY, "second")
    assert second == first
    assert store.get(KEY) == "first"


def test_an_attempt_without_a_marker_is_invisible_and_swept(store, tmp_path):
    folder = f"{store.root}/{KEY}/attempt-dead"
    store.fs.makedirs(folder, exist_ok=True)
    store.fs.pipe_file(f"{folder}/data.json", b'{"format": 1, "value": "half"}')
    assert store.committed(KEY) is None and list(store.committed_keys()) == []
    store.put(KEY, "whole")
    assert store.get(KEY) == "whole"
    assert not store.fs.exists(folder)


def test_damage_is_found_and_named(tmp_path):
    store = ArtefactStore(tmp_path)
    store.put(KEY, {"frames": picture()})
    victim = next(tmp_path.glob("*/*/attempt-*/value.frames/000001.png"))
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    for read in (store.get, store.verify):
        with pytest.raises(StoreError, match=r"000001\.png was changed") as caught:
            read(KEY)
        assert "run again" in caught.value.remedy
    victim.unlink()
    with pytest.raises(StoreError, match=r"000001\.png is missing"):
        store.verify(KEY)


def test_a_changed_manifest_is_found(tmp_path):
    store = ArtefactStore(tmp_path)
    store.put(KEY, "value")
    manifest = next(tmp_path.glob("*/*/attempt-*/manifest.json"))
    manifest.write_text("{}")
    with pytest.raises(StoreError, match="changed after"):
        store.get(KEY)


def test_nothing_committed_is_an_error_with_a_remedy(store):
    with pytest.raises(StoreError, match="nothing is committed"):
        store.get(KEY)


def _race(root: str, number: int, start, out) -> None:
    start.wait()
    committed = ArtefactStore(root).put(KEY, {"by": number, "frames": picture(number)})
    out.put((number, committed.attempt))


def test_racing_processes_agree_on_one_artefact(tmp_path):
    context = multiprocessing.get_context("fork")
    start, out = context.Barrier(6), context.Queue()
    racers = [context.Process(target=_race, args=(str(tmp_path), i, start, out)) for i in range(6)]
    for racer in racers:
        racer.start()
    results = [out.get(timeout=60) for _ in racers]
    for racer in racers:
        racer.join()
    assert len(results) == 6 and len({attempt for _, attempt in results}) == 1
    value = ArtefactStore(tmp_path).get(KEY)
    assert np.array_equal(value["frames"], picture(value["by"]))
    assert len(list(tmp_path.glob("*/*/attempt-*"))) == 1
    assert [p.name for p in tmp_path.glob("*/*/*.json*")] == ["COMMITTED.json"]


WRITER = """
import sys, numpy as np
from svad_ray.store import ArtefactStore, Key
value = {"frames": np.random.default_rng(0).integers(0, 256, (200, 64, 64, 3), np.uint8)}
print("go", flush=True)
ArtefactStore(sys.argv[1]).put(Key("perceive", "0" * 32), value)
print("done", flush=True)
"""


@pytest.mark.parametrize("delay_s", [0.0, 0.005, 0.02, 0.05])
def test_a_killed_writer_leaves_nothing_or_everything(tmp_path, delay_s):
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE)
    assert writer.stdout.readline() == b"go\n"
    try:
        writer.wait(delay_s)
    except subprocess.TimeoutExpired:
        writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    store = ArtefactStore(tmp_path)
    if store.committed(KEY) is not None:
        assert store.verify(KEY) == 201
    store.put(KEY, "again")
    assert len(list(tmp_path.glob("*/*/attempt-*"))) == 1


FULL = """
import resource, sys, numpy as np
from svad_ray.errors import StoreError
from svad_ray.store import ArtefactStore, Key
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # the kernel refuses the write, as on a full disk
try:
    ArtefactStore(sys.argv[1]).put(Key("perceive", "0" * 32), np.random.default_rng(0).random((100, 100)))
except StoreError as error:
    print(error)
"""


def test_a_full_disk_is_told_plainly_and_leaves_nothing(tmp_path):
    said = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=True).stdout
    assert "cannot be written" in said and "free some space" in said
    assert not list(tmp_path.glob("*/*/*"))


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/proc/version").exists(), reason="needs a place that refuses writing")
def test_an_unwritable_place_is_told_plainly():
    with pytest.raises(StoreError, match="cannot be written"):
        ArtefactStore("/proc/nowhere").put(KEY, "value")


def test_an_interrupt_removes_the_attempt(tmp_path, monkeypatch):
    store = ArtefactStore(tmp_path)

    def interrupted(path, content):
        raise KeyboardInterrupt

    monkeypatch.setattr(store.files, "create", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.put(KEY, "value")
    assert not list(tmp_path.glob("*/*/*"))


def test_key_changes_with_everything_it_is_made_from():
    base = {"version": 1, "parameters": {"a": 1, "b": [1, 2]}, "inputs": ["x", "y"], "models": {"m": "1"}, "body_id": "b"}
    changes = [
        {"version": 2}, {"parameters": {"a": 1, "b": [2, 1]}}, {"inputs": ["y", "x"]}, {"models": {"m": "2"}}, {"body_id": "c"},
    ]  # fmt: skip
    keys = [content_key("fit", **base), content_key("avatar", **base)] + [content_key("fit", **(base | change)) for change in changes]
    assert len(set(keys)) == len(keys)
    again = {"body_id": "b", "models": {"m": "1"}, "inputs": ["x", "y"], "parameters": {"b": [1, 2], "a": 1}, "version": 1}
    assert content_key("fit", **again) == keys[0]


def test_a_stage_name_never_becomes_a_path():
    with pytest.raises(ValueError):
        content_key("../fit", version=1, parameters={}, inputs=[])


def test_digest_separates_parts_shapes_and_types():
    a = np.arange(6, dtype=np.int32)
    seen = [digest("ab", "c"), digest("a", "bc"), digest(b"abc"), digest("abc"), digest(a), digest(a.reshape(2, 3)), digest(a.astype(np.int64))]
    assert len(set(seen)) == len(seen)


def test_facts_survive_as_json(tmp_path):
    store = ArtefactStore(tmp_path)
    store.put(KEY, None, facts={"peak_gib": 1.25, "models": ["a"]})
    assert json.loads((tmp_path / str(KEY) / "COMMITTED.json").read_text())["facts"]["peak_gib"] == 1.25
