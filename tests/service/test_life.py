"""An avatar's whole life over HTTP."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from typing import Any

import pytest
import service_kit
from service_helpers import ask, config_for, serve, wait_for

from svad_ray.provenance import identity
from svad_ray.provenance.jws import read as read_signed
from svad_ray.service.tokens import add_token


def read_events(client: Any, avatar_id: str, *, last: int | None = None, stop_after: int = 10**6) -> list[dict[str, Any]]:
    """Messages of the event stream until it ends, or until so many."""
    headers = {"Last-Event-ID": str(last)} if last is not None else {}
    found: list[dict[str, Any]] = []
    with client.stream("GET", f"/v1/avatars/{avatar_id}/events", headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        block: dict[str, Any] = {}
        for line in answer.iter_lines():
            if line.startswith("id: "):
                block["id"] = int(line[4:])
            elif line.startswith("event: "):
                block["event"] = line[7:]
            elif line.startswith("data: "):
                block["data"] = json.loads(line[6:])
            elif not line and block:
                found.append(block)
                block = {}
                if len(found) >= stop_after:
                    return found
    return found


def test_whole_life(client, shared):
    made = ask(client, photo=service_kit.photo_png(1), seed=5)
    assert made.status_code == 202, made.text
    avatar_id = made.json()["id"]
    assert made.headers["Location"] == f"/v1/avatars/{avatar_id}"
    assert made.json()["state"] in ("queued", "running") and made.json()["options"] == {"seed": 5}
    events = read_events(client, avatar_id)
    assert [event["id"] for event in events] == list(range(1, len(events) + 1))
    assert events[0]["event"] == "queued" and events[-1]["event"] == "done"
    steps = [event["data"]["step"] for event in events if event["event"] == "progress" and event["data"]["share"] == 1.0]
    assert steps == ["perceive", "animate", "identity-reference", "restore-plan", "identity", "restore", "fit", "avatar"]
    state = client.get(f"/v1/avatars/{avatar_id}").json()
    assert state["state"] == "done" and set(state["progress"].values()) == {1.0} and state["ended_at"] > state["created_at"]
    listed = {entry["name"]: entry for entry in client.get(f"/v1/avatars/{avatar_id}/artefacts").json()["files"]}
    assert {"avatar/avatar.json", "avatar/avatar.safetensors", "avatar.ply"} <= set(listed)
    for entry in listed.values():
        content = client.get(entry["href"])
        assert content.status_code == 200 and len(content.content) == entry["bytes"]
        assert hashlib.sha256(content.content).hexdigest() == entry["sha256"] == content.headers["ETag"].strip('"')
    assert avatar_id in [one["id"] for one in client.get("/v1/avatars?limit=100").json()["avatars"]]
    gone = client.delete(f"/v1/avatars/{avatar_id}")
    assert gone.status_code == 200 and gone.json()["files"] > 10 and gone.json()["left"] == 0
    receipt = read_signed(json.dumps(gone.json()["receipt"]).encode())
    assert receipt.payload["avatar"] == avatar_id and receipt.payload["complete"] is True and receipt.root == identity().root
    store = shared.running.book.files
    assert [name for name in store.fs.find(store.root) if avatar_id in name] == [store.path(f"tombstones/{avatar_id}.json")]
    assert client.get(f"/v1/avatars/{avatar_id}").status_code == 404
    assert avatar_id not in [one["id"] for one in client.get("/v1/avatars?limit=100").json()["avatars"]]
    assert client.delete(f"/v1/avatars/{avatar_id}").json()["files"] == 0


def test_events_are_taken_up_again_after_any_of_them(client, finished):
    whole = read_events(client, finished["id"])
    for last in (0, 1, len(whole) // 2, len(whole) - 1):
        assert read_events(client, finished["id"], last=last) == whole[last:]
    assert read_events(client, finished["id"], last=len(whole)) == []
    part = read_events(client, finished["id"], stop_after=3)
    assert part + read_events(client, finished["id"], last=part[-1]["id"]) == whole
    assert client.get(f"/v1/avatars/{finished['id']}/events", headers={"Last-Event-ID": "x"}).status_code == 422


def test_silent_stream_is_kept_alive(start, tmp_path):
    token = add_token(tmp_path / "tokens.json", "anna")
    running = start(heartbeat_s=0.1)
    with running.client(token) as client:
        avatar_id = ask(client).json()["id"]
        with client.stream("GET", f"/v1/avatars/{avatar_id}/events") as answer:
            beats = 0
            for line in answer.iter_lines():
                beats += line == ": still here"
                if beats == 2:
                    break
        client.delete(f"/v1/avatars/{avatar_id}")


def test_same_key_makes_one_avatar_and_another_body_is_refused(client, shared):
    first = ask(client, key="k-1")
    again = ask(client, key="k-1")
    assert first.json()["id"] == again.json()["id"] and again.headers["Idempotent-Replayed"] == "true"
    assert "Idempotent-Replayed" not in first.headers
    for changed in (
        ask(client, key="k-1", photo=service_kit.photo_png(9)),
        ask(client, key="k-1", seed=3),
        ask(client, key="k-1", consent="other words"),
    ):
        assert changed.status_code == 409 and changed.json()["error"]["code"] == "conflict"
    with shared.client(shared.other) as other:
        assert ask(other, key="k-1").json()["id"] != first.json()["id"]
    wait_for(client, first.json()["id"], "done")
    assert client.delete(f"/v1/avatars/{first.json()['id']}").status_code == 200
    assert ask(client, key="k-1").status_code == 409, "a removed avatar must not come back to life"


def test_restart_in_the_middle_goes_on(tmp_path):
    """The server is stopped while it works; a new one on the same store finishes, and does not repeat what was committed."""
    token = add_token(tmp_path / "tokens.json", "anna")
    config = config_for(tmp_path)
    running = serve(config)
    with running.client(token) as client:
        avatar_id = ask(client, seed=service_kit.SLEEP + 120).json()["id"]
        deadline = time.monotonic() + 60
        while client.get(f"/v1/avatars/{avatar_id}").json()["progress"].get("animate") != 1.0:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    running.stop()
    work = tmp_path / "store" / "avatars" / avatar_id / "work"
    committed = {path: path.stat().st_mtime_ns for path in work.glob("*/*/COMMITTED.json")}
    assert committed and not list((work.parent / "subjects").glob("*/*/COMMITTED.json"))
    again = serve(config)
    try:
        with again.client(token) as client:
            before = read_events(client, avatar_id, stop_after=2)
            assert before[0]["event"] == "queued"
            assert wait_for(client, avatar_id, "done", "failed")["state"] == "done"
            kinds = [event["event"] for event in read_events(client, avatar_id)]
            assert kinds.count("started") == 2 and kinds[-1] == "done"
    finally:
        again.stop()
    assert {path: path.stat().st_mtime_ns for path in committed} == committed


def test_cancel_ends_running_work_and_keeps_the_record(client, shared):
    avatar_id = ask(client, seed=service_kit.SLEEP + 60_000).json()["id"]
    wait_for(client, avatar_id, "running")
    began = time.monotonic()
    answer = client.post(f"/v1/avatars/{avatar_id}/cancel")
    assert answer.status_code == 202 and answer.json()["state"] == "cancelled" and time.monotonic() - began < 20
    assert read_events(client, avatar_id)[-1]["event"] == "cancelled"
    assert client.post(f"/v1/avatars/{avatar_id}/cancel").json()["state"] == "cancelled"
    assert wait_for(client, ask(client, seed=6).json()["id"], "done")["state"] == "done", "the worker's place is free again"


def test_delete_while_running_leaves_nothing_behind(client, shared):
    avatar_id = ask(client, seed=service_kit.SLEEP + 400).json()["id"]
    wait_for(client, avatar_id, "running")
    assert client.delete(f"/v1/avatars/{avatar_id}").status_code == 200
    store = shared.running.book.files

    def left() -> list[str]:
        return [name for name in store.fs.find(store.root) if avatar_id in name]

    assert left() == [store.path(f"tombstones/{avatar_id}.json")]
    assert wait_for(client, ask(client, seed=8).json()["id"], "done")["state"] == "done"
    assert left() == [store.path(f"tombstones/{avatar_id}.json")], "the worker wrote after the removal"


@pytest.mark.parametrize("seed", [service_kit.RAISE, service_kit.KILL])
def test_failing_work_is_tried_twice_and_told_without_details(client, seed):
    avatar_id = ask(client, seed=seed).json()["id"]
    state = wait_for(client, avatar_id, "failed", "done")
    assert state["state"] == "failed" and state["reason"]["code"] in ("internal", "stage_failed")
    assert "/secret" not in json.dumps(state) and "Traceback" not in json.dumps(state)
    kinds = [event["event"] for event in read_events(client, avatar_id)]
    assert kinds.count("started") == 2 and kinds[-1] == "failed"


def test_photo_without_a_person_fails_with_the_gates_words(client):
    import io

    import numpy as np
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(np.full((150, 120, 3), 90, np.uint8)).save(stream, "PNG")  # the tiny person's feet lie outside so low a picture
    state = wait_for(client, ask(client, photo=stream.getvalue()).json()["id"], "failed", "done")
    assert state["state"] == "failed" and state["reason"]["code"] == "quality_rejected" and state["reason"]["remedy"]


@pytest.mark.slow
def test_killed_worker_is_replaced(client, shared):
    """A worker that dies by a hand from outside costs one try, not the avatar."""
    avatar_id = ask(client, seed=service_kit.SLEEP + 200).json()["id"]
    deadline = time.monotonic() + 60
    while "animate" not in client.get(f"/v1/avatars/{avatar_id}").json()["progress"]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process = shared.running.engine._workers[0]._process
    os.kill(process.pid, signal.SIGKILL)
    assert wait_for(client, avatar_id, "failed", "done")["state"] == "done"


def test_pages_are_newest_first_and_complete(start, tmp_path):
    token = add_token(tmp_path / "tokens.json", "anna")
    running = start()
    with running.client(token) as client:
        made = [ask(client, photo=service_kit.photo_png(i)).json()["id"] for i in range(5)]
        seen, before = [], ""
        while True:
            page = client.get("/v1/avatars", params={"limit": 2, **({"before": before} if before else {})}).json()
            seen += [one["id"] for one in page["avatars"]]
            before = page["next"]
            if not before:
                break
        assert seen == made[::-1]
        for avatar_id in made:
            client.delete(f"/v1/avatars/{avatar_id}")
