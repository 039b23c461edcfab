"""Verify finds every single change to a store and nothing else; repair loses no committed byte."""

import json
import os
import time
import uuid
from datetime import UTC, datetime, timedelta

import fsspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from svad_ray.store import ArtefactStore, Key
from svad_ray.store import verify as v
from svad_ray.store.files import Files
from svad_ray.store.repair import repair
from svad_ray.store.verify import verify

HOUR = 3600.0
FIT, CLIP, ANNA = Key("fit", "a" * 32), Key("restore", "b" * 32), Key("anna-12", "c" * 32)
CONTENT = {
    FIT: {"data.json": b"{}" * 40, "arrays.safetensors": bytes(range(256)) * 5},
    CLIP: {"data.json": b"[1]", "value.frames/000000.png": b"P" * 700, "value.frames/000001.png": b"Q" * 33},
    ANNA: {"avatar/avatar.json": b'{"x": 1}', "avatar.ply": b"ply" * 99},
}


class Out:
    """A finished run with one subject, on any file system, whose clock can be turned."""

    def __init__(self, root: str) -> None:
        self.root, self.fs = root, fsspec.core.url_to_fs(root)[0]
        self.base = fsspec.core.url_to_fs(root)[1]
        for key in CONTENT:
            self.put(key)

    def put(self, key: Key) -> None:
        facts = {"keys": {"fit": str(FIT), "restore": [str(CLIP)], "clip": "no-key"}} if key == ANNA else {}
        self.store(key).put_files(key, CONTENT[key], facts=facts)

    def store(self, key: Key) -> ArtefactStore:
        return ArtefactStore(f"{self.root}/{'subjects' if key == ANNA else 'work'}")

    def folder(self, key: Key) -> str:
        return f"{'subjects' if key == ANNA else 'work'}/{key}"

    def attempt(self, key: Key) -> str:
        return f"{self.folder(key)}/{self.store(key).committed(key).attempt}"

    def path(self, name: str) -> str:
        return f"{self.base}/{name}"

    def read(self, name: str) -> bytes:
        return self.fs.cat_file(self.path(name))

    def write(self, name: str, content: bytes, *, hours_ago: float = 0.0) -> None:
        self.fs.makedirs(self.path(name).rsplit("/", 1)[0], exist_ok=True)
        self.fs.pipe_file(self.path(name), content)
        if not hours_ago:
            return
        if hasattr(self.fs, "store"):
            self.fs.store[self.path(name)].created = datetime.now(UTC) - timedelta(hours=hours_ago)
            return
        for path in (self.path(name), os.path.dirname(self.path(name))):
            os.utime(path, (time.time() - hours_ago * HOUR,) * 2)

    def everything(self) -> dict[str, bytes]:
        self.fs.invalidate_cache()
        return {path[len(self.base) + 1 :]: self.fs.cat_file(path) for path in self.fs.find(self.base)}


@pytest.fixture(params=["local", "memory"])
def out(request, tmp_path):
    return Out(str(tmp_path / "out") if request.param == "local" else f"memory://{uuid.uuid4().hex}")


def kinds(report) -> list[tuple[str, str]]:
    return [(fault.kind, fault.path) for fault in report.faults]


def test_a_sound_run(out):
    found = verify(out.root, wanted={ANNA: "anna"})
    assert found.sound and found.artefacts == 3 and found.subjects == 1 and found.quarantined == 0 and found.in_progress == 0
    manifests = [content for name, content in out.everything().items() if name.endswith("manifest.json")]
    assert found.files == sum(map(len, CONTENT.values())) + 3
    assert found.bytes == sum(len(content) for files in CONTENT.values() for content in files.values()) + sum(map(len, manifests))


@pytest.mark.parametrize("key", list(CONTENT), ids=lambda key: key.stage)
def test_every_file_is_read_to_its_last_byte(out, key):
    for name in [*CONTENT[key], "manifest.json"]:
        path = f"{out.attempt(key)}/{name}"
        good = out.read(path)
        flipped = bytearray(good)
        flipped[len(good) - 1] ^= 1
        for bad in (bytes(flipped), good[:-1], good + b"x", b""):
            out.write(path, bad)
            assert kinds(verify(out.root)) == [(v.CHANGED, path)]
        out.fs.rm(out.path(path))
        assert kinds(verify(out.root)) == [(v.MISSING, path)]
        out.write(path, good)
    assert verify(out.root).sound


def test_a_marker_torn_anywhere(out):
    path = f"{out.folder(FIT)}/COMMITTED.json"
    whole = out.read(path)
    for length in range(0, len(whole), 9):
        out.write(path, whole[:length])
        assert (v.TORN_MARKER, path) in kinds(verify(out.root, threads=2)), length
    for bad in (b"null", b"[]", b'{"attempt": "attempt-1"}', whole.replace(b"attempt-", b"../../../")):
        out.write(path, bad)
        assert (v.TORN_MARKER, path) in kinds(verify(out.root))


def test_a_marker_of_another_attempt(out):
    marker = json.loads(out.read(f"{out.folder(FIT)}/COMMITTED.json"))
    out.write(f"{out.folder(FIT)}/COMMITTED.json", json.dumps({**marker, "attempt": "attempt-000000000000"}).encode())
    assert (v.MISSING, f"{out.folder(FIT)}/attempt-000000000000/manifest.json") in kinds(verify(out.root))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("attempt-0123456789ab/data.json", v.ORPHAN),
        ("COMMITTED.json.0123456789ab", v.ORPHAN),
        ("checkpoint-0123456789ab/data.json", v.STALE),
        ("CHECKPOINT.json", v.STALE),
    ],
)
@pytest.mark.parametrize("key", [FIT, Key("fit", "d" * 32)], ids=["beside a marker", "without one"])
def test_what_killed_writers_leave(out, key, name, kind):
    path = f"{out.folder(key)}/{name}"
    out.write(path, b"{", hours_ago=2)
    out.write(f"{out.folder(key)}/attempt-ffffffffffff/data.json", b"being written")
    found = verify(out.root, older_s=HOUR)
    top = "/".join(path.split("/")[:4])
    assert kinds(found) == [(kind, top)] and found.in_progress == 1
    assert found.faults[0].age_s == pytest.approx(2 * HOUR, abs=60)
    assert verify(out.root, older_s=3 * HOUR).sound
    before = out.everything()
    done = repair(found, older_s=3 * HOUR)
    assert (done.removed, done.left) == ([], found.faults) and out.everything() == before
    assert repair(found, older_s=HOUR).removed == [top]
    assert out.everything() == {n: content for n, content in before.items() if not n.startswith(top)}
    assert verify(out.root, older_s=HOUR).sound


def test_a_checkpoint_in_use_is_no_fault(out):
    key = Key("avatar", "e" * 32)
    out.store(key).save_checkpoint(key, {"step": 3, "means": np.arange(9.0)})
    assert verify(out.root, older_s=0).sound
    out.write(f"{out.folder(key)}/checkpoint-0123456789ab/data.json", b"an older one", hours_ago=2)
    found = verify(out.root, older_s=HOUR)
    assert kinds(found) == [(v.STALE, f"{out.folder(key)}/checkpoint-0123456789ab")]
    repair(found, older_s=HOUR)
    assert out.store(key).load_checkpoint(key)["step"] == 3


def test_files_that_no_manifest_names(out):
    inside, beside = f"{out.attempt(CLIP)}/value.frames/000002.png", f"{out.folder(CLIP)}/notes.txt"
    out.write(inside, b"x", hours_ago=2)
    out.write(beside, b"y", hours_ago=2)
    found = verify(out.root, older_s=HOUR)
    assert sorted(kinds(found)) == [(v.EXTRA, inside), (v.UNKNOWN, beside)]
    done = repair(found, older_s=HOUR)
    assert done.removed == [inside] and [fault.path for fault in done.left] == [beside]
    assert out.read(beside) == b"y"


def test_damage_is_moved_aside_and_made_again(out):
    before = out.everything()
    path = f"{out.attempt(FIT)}/arrays.safetensors"
    out.write(path, b"damaged")
    done = repair(verify(out.root))
    assert list(done.moved) == [f"{out.folder(FIT)}/COMMITTED.json"]
    assert out.store(FIT).committed(FIT) is None
    after = out.everything()
    kept = {name: content for name, content in after.items() if name.startswith("damaged/")}
    assert sorted(kept.values()) == sorted(
        [b"damaged"] + [content for name, content in before.items() if name.startswith(out.folder(FIT)) and name != path]
    )
    assert kinds(verify(out.root)) == [(v.DANGLING, f"{out.folder(ANNA)}/COMMITTED.json")]
    out.put(FIT)
    assert verify(out.root).sound and out.store(FIT).open(FIT, "arrays.safetensors").read() == CONTENT[FIT]["arrays.safetensors"]


def test_references(out):
    out.store(CLIP).uncommit(CLIP)
    found = verify(out.root, wanted={ANNA: "anna"})
    assert kinds(found) == [(v.DANGLING, f"{out.folder(ANNA)}/COMMITTED.json")] and str(CLIP) in found.faults[0].detail
    done = repair(found)
    assert done.left == found.faults and out.store(ANNA).committed(ANNA) is not None
    repair(found, remake_subjects=True)
    assert out.store(ANNA).committed(ANNA) is None
    assert kinds(verify(out.root, wanted={ANNA: "anna"})) == [(v.UNFINISHED, out.folder(ANNA))]
    out.put(CLIP)
    out.put(ANNA)
    assert verify(out.root, wanted={ANNA: "anna"}).sound


def test_the_list_against_what_became_of_it(out):
    given_up, forgotten = Key("ben-1", "1" * 32), Key("eva-2", "2" * 32)
    out.write(f"ledger/{given_up}/QUARANTINED.json", b'{"reason": "no person"}')
    out.write(f"ledger/{forgotten}/train/0123.json", b'{"state": "failed"}')
    found = verify(out.root, wanted={ANNA: "anna", given_up: "ben", forgotten: "eva"})
    assert kinds(found) == [(v.UNFINISHED, f"subjects/{forgotten}")] and "'eva'" in found.faults[0].detail
    assert found.quarantined == 1


def test_torn_records_of_the_ledger(out):
    key = Key("ben-1", "1" * 32)
    out.write(f"ledger/{key}/QUARANTINED.json", b'{"reason": "no pers')
    out.write(f"ledger/{key}/train/0123.json", b"")
    found = verify(out.root, wanted={key: "ben"})
    assert [fault.kind for fault in found.faults] == [v.TORN_RECORD, v.TORN_RECORD, v.UNFINISHED]
    done = repair(found)
    assert len(done.moved) == 2 and [fault.kind for fault in done.left] == [v.UNFINISHED]
    assert {out.read(target) for target in done.moved.values()} == {b"", b'{"reason": "no pers'}
    assert Files(out.root).create(f"ledger/{key}/QUARANTINED.json", b"{}")


def test_what_was_mended_meanwhile_is_left_alone(out):
    path = f"{out.attempt(FIT)}/data.json"
    out.write(path, b"damaged")
    found = verify(out.root)
    out.write(path, CONTENT[FIT]["data.json"])
    done = repair(found)
    assert not done.moved and not done.removed and verify(out.root).sound


HARM = st.lists(st.tuples(st.sampled_from(["flip", "cut", "remove", "add"]), st.integers(0, 40), st.integers(0, 2000)), min_size=1, max_size=4)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(harm=HARM)
def test_any_harm_is_found_and_a_rerun_mends_it(harm):
    out = Out(f"memory://{uuid.uuid4().hex}")
    names, before = sorted(out.everything()), out.everything()
    for how, which, where in harm:
        name = names[which % len(names)]
        if name not in out.everything():
            continue
        content = bytearray(out.read(name))
        if how == "remove":
            out.fs.rm_file(out.path(name))
        elif how == "add":
            out.write(f"{name}.more", b"x")
        elif content:
            place = where % len(content)
            content[place] ^= 0x41
            out.write(name, bytes(content) if how == "flip" else bytes(content)[:place])
    if out.everything() != before:
        found = verify(out.root, wanted={ANNA: "anna"}, older_s=0)
        assert not found.sound or _only_facts_changed(out, before)
        repair(found, older_s=0, remake_subjects=True)
    for key in CONTENT:
        out.put(key)
    rest = verify(out.root, wanted={ANNA: "anna"}, older_s=0)
    assert {fault.kind for fault in rest.faults} <= {v.UNKNOWN, v.ORPHAN, v.DANGLING}
    for key, files in CONTENT.items():
        assert {name: out.store(key).open(key, name).read() for name in out.store(key).listing(key)} == files


def _only_facts_changed(out: Out, before: dict[str, bytes]) -> bool:
    """A marker has no checksum of its own: other letters inside its facts are the one thing that cannot be seen."""
    now = out.everything()
    changed = [name for name in now.keys() | before.keys() if now.get(name) != before.get(name)]
    return all(name.endswith("COMMITTED.json") and name in now for name in changed)
