"""The two-attempt rule, and who is to blame for an attempt that never ended."""

import json
import threading

import pytest

from svad_ray.ledger import Exhausted, Ledger
from svad_ray.store import Key

KEY = Key("person-1", "0" * 32)


@pytest.fixture(params=["local", "memory"])
def root(request, tmp_path):
    import fsspec

    if request.param == "local":
        return str(tmp_path / "ledger")
    fsspec.filesystem("memory").rm("/ledger", recursive=True) if fsspec.filesystem("memory").exists("/ledger") else None
    return "memory://ledger"


def test_two_failures_exhaust_a_step_and_only_that(root):
    ledger = Ledger(root, run="r")
    for reason in ("first", "second"):
        ledger.failed(ledger.begin(KEY, "train"), reason)
    with pytest.raises(Exhausted, match="first; second") as caught:
        ledger.begin(KEY, "train")
    assert caught.value.reasons == ["first", "second"]
    assert ledger.begin(KEY, "restore-0").step == "restore-0"
    assert ledger.begin(Key("person-2", "0" * 32), "train")


def test_a_success_forgets_earlier_failures(root):
    ledger = Ledger(root, run="r")
    ledger.failed(ledger.begin(KEY, "train"), "once")
    ledger.succeeded(ledger.begin(KEY, "train"))
    assert ledger.attempts(KEY, "train") == []


def test_a_worker_that_died_counts(root):
    ledger = Ledger(root, run="r", node="n")
    ledger.begin(KEY, "train")
    ledger.begin(KEY, "train")
    with pytest.raises(Exhausted, match="worker died"):
        Ledger(root, run="r", node="m").begin(KEY, "train")


def test_a_worker_that_was_taken_from_outside_does_not_count(root):
    alive = {"n": True}
    ledger = Ledger(root, run="r", node="n", node_alive=lambda node: alive[node])
    for _ in range(2):
        ledger.begin(KEY, "train")
    alive["n"] = False
    ledger.begin(KEY, "train")
    Ledger(root, run="the next run", node="n").begin(KEY, "train")
    attempt = Ledger(root, run="r2").begin(KEY, "train")
    Ledger(root, run="r2").excuse(attempt, "the disk was full")
    for _ in range(2):
        Ledger(root, run="r2").begin(KEY, "train")
    with pytest.raises(Exhausted):
        Ledger(root, run="r2").begin(KEY, "train")


def test_a_failure_counts_in_the_next_run_too(root):
    first = Ledger(root, run="1")
    first.failed(first.begin(KEY, "train"), "bad photo")
    second = Ledger(root, run="2")
    second.failed(second.begin(KEY, "train"), "bad photo")
    with pytest.raises(Exhausted):
        Ledger(root, run="3").begin(KEY, "train")


def test_a_torn_record_counts_as_a_worker_that_died(root):
    ledger = Ledger(root, run="r")
    for i in range(2):
        ledger.files.write(f"{KEY}/train/{i}.json", b'{"id": "')
    with pytest.raises(Exhausted, match="worker died"):
        ledger.begin(KEY, "train")


def test_quarantine_keeps_the_first_reason_and_can_be_released(root):
    ledger = Ledger(root, run="r")
    assert ledger.quarantine(KEY, "Zoë / 1", "train", "hangs", attempts=2).reason == "hangs"
    assert ledger.quarantine(KEY, "Zoë / 1", "train", "another", attempts=2).reason == "hangs"
    found = Ledger(root).quarantined()
    assert found[KEY].subject_id == "Zoë / 1" and found[KEY].attempts == 2
    assert ledger.release(KEY) and not ledger.quarantined() and not ledger.release(KEY)


def test_open_attempts_are_those_without_an_end(root):
    ledger = Ledger(root, run="r")
    open_one = ledger.begin(KEY, "train")
    ledger.failed(ledger.begin(KEY, "restore-0"), "x")
    assert [a.id for a in ledger.open_attempts()] == [open_one.id]


def test_many_threads_quarantine_one_subject_once(tmp_path):
    reasons = set()

    def give_up(i: int) -> None:
        reasons.add(Ledger(str(tmp_path)).quarantine(KEY, "x", "train", f"reason {i}", attempts=2).reason)

    threads = [threading.Thread(target=give_up, args=(i,)) for i in range(12)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert len(reasons) == 1
    assert json.loads((tmp_path / str(KEY) / "QUARANTINED.json").read_text())["reason"] in reasons
