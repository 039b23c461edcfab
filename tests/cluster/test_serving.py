"""The endpoints for real: Serve's proxy, replicas that are killed, a conductor that is restarted; tiny stages inside."""

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import pytest
import serving_kit

from svad_ray.config import Settings, override
from svad_ray.fulfil import fulfil
from svad_ray.service.book import AvatarBook
from svad_ray.service.tokens import add_token
from svad_ray.store import ArtefactStore

httpx = pytest.importorskip("httpx", reason="talking to the endpoints needs httpx")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
EYE = [[1.0, 0, 0, 0], [0, -1.0, 0, 0], [0, 0, -1.0, 3.0], [0, 0, 0, 1.0]]


@dataclass
class Served:
    """The application and how to talk to it."""

    url: str
    token: str
    args: Any
    book: AvatarBook

    def client(self, **options: Any) -> Any:
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {self.token}"}, timeout=120, trust_env=False, **options)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def arguments(folder: Path, **values: Any) -> dict[str, Any]:
    service = {"store": str(folder / "store"), "tokens_file": str(folder / "tokens.json"), "requests_per_minute": 1_000_000, "open_avatars": 50}
    weights = folder / "weights"  # of what draws prompts; it is asked for in one test only
    weights.mkdir(exist_ok=True)
    (weights / "model_index.json").write_text('{"_class_name": "Drawing"}')
    own = Path(__file__).parents[1] / "service/drawing.py"
    picture = {"picture.weights": str(weights), "picture.pipeline": f"{own}:Drawing", "picture.trust_code": True}
    service |= {"settings": {"animate.frames": 10, "shard": 3, **picture}, "exports": ("ply",), "poll_s": 0.1}
    scaled = {
        "min_replicas": 1,
        "max_replicas": 3,
        "target_ongoing_requests": 1,
        "upscale_delay_s": 0.5,
        "look_back_period_s": 2,
        "downscale_delay_s": 600,
    }
    return {
        "service": service,
        "kit": serving_kit.KIT_PATH,
        "picture": {"cpus": 0.1, "gpus": 0, "threads": 1, "autoscaling_config": scaled | {"min_replicas": 0, "max_replicas": 1}},
        "renderer": {"cpus": 0.2, "max_ongoing_requests": 1, "max_queued_requests": 2, "retry_after_s": 1.5, "autoscaling_config": scaled},
        "conducting": {"training": {"cpus": 0.5, "at_once": 2}, "lease_s": 4, "poll_s": 0.5, "threads": 1},
        **values,
    }


@pytest.fixture(scope="module")
def served(ray_cluster, tmp_path_factory) -> Iterator[Served]:
    from ray import serve

    from svad_ray.cluster.serve_config import ServeArgs
    from svad_ray.cluster.serving import APP, build

    folder = tmp_path_factory.mktemp("serving")
    token, port = add_token(folder / "tokens.json", "anna"), free_port()
    args = ServeArgs.model_validate(arguments(folder))
    serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port}, logging_config={"enable_access_log": False})
    serve.run(build(args), name=APP, route_prefix="/")
    yield Served(f"http://127.0.0.1:{port}", token, args, AvatarBook(args.service.store))
    serve.delete(APP)
    serve.shutdown()


@pytest.fixture
def client(served) -> Iterator[Any]:
    with served.client() as client:
        wait_until(lambda: client.get("/v1/ready").status_code == 200, "the application is not ready")
        yield client


def wait_until(condition: Callable[[], Any], words: str, seconds: float = 120) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, words
        time.sleep(0.1)
    return found


def ask(client: Any, *, photo: int = 0, **options: Any) -> str:
    answer = client.post(
        "/v1/avatars",
        files={"photo": ("figure.png", serving_kit.photo_png(photo), "image/png")},
        data={"consent": "she agreed", "options": json.dumps(options)},
    )
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


def get(client: Any, avatar_id: str) -> dict[str, Any]:
    """The avatar; a server that is being replaced may need a moment."""

    def answered() -> Any:
        try:
            answer = client.get(f"/v1/avatars/{avatar_id}")
        except httpx.TransportError:
            return None
        assert answer.status_code in (200, 429, 503), answer.text
        return answer.json() if answer.status_code == 200 else None

    return wait_until(answered, "no answer")


def ended(client: Any, avatar_id: str, seconds: float = 150) -> dict[str, Any]:
    return wait_until(
        lambda: (one := get(client, avatar_id))["state"] in ("done", "failed", "cancelled") and one, f"{avatar_id} does not end", seconds
    )


def under_way(client: Any, avatar_id: str, step: str) -> None:
    wait_until(lambda: step in get(client, avatar_id)["progress"] or get(client, avatar_id)["state"] == "failed", f"{step} does not begin")


def events(client: Any, avatar_id: str, last: int = 0) -> list[tuple[int, str]]:
    """(number, kind) of every event, from the stream."""
    found, number = [], 0
    with client.stream("GET", f"/v1/avatars/{avatar_id}/events", headers={"Last-Event-ID": str(last)}) as answer:
        assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            if line.startswith("id: "):
                number = int(line[4:])
            elif line.startswith("event: "):
                found.append((number, line[7:]))
    return found


def pids(title: str) -> set[int]:
    """Processes of this session's Ray with that title, e.g. "ServeReplica:svad-ray:animate"."""
    found = set()
    for process in psutil.Process().children(recursive=True):
        try:
            if process.cmdline()[:1] and process.cmdline()[0].startswith(f"ray::{title}"):
                found.add(process.pid)
        except psutil.Error:
            continue
    return found


def kill(title: str) -> None:
    found = wait_until(lambda: pids(title), f"no process {title}")
    for pid in found:
        os.kill(pid, signal.SIGKILL)


def groups() -> set[str]:
    from ray.util import placement_group_table

    return {entry["state"] for entry in placement_group_table().values()}


def test_whole_life_and_the_same_bytes_as_a_plain_run(client, served, tmp_path):
    avatar_id = ask(client, seed=5)
    told = events(client, avatar_id)
    assert [number for number, _ in told] == list(range(1, len(told) + 1))
    assert [told[0][1], told[1][1], told[-1][1]] == ["queued", "started", "done"]
    middle = len(told) // 2
    assert events(client, avatar_id, last=middle) == told[middle:], "the stream is taken up after any event"
    state = get(client, avatar_id)
    steps = ["perceive", "animate", "identity-reference", "restore-plan", "identity", "restore", "fit", "avatar"]
    assert state["state"] == "done" and list(state["progress"]) == steps and set(state["progress"].values()) == {1.0}

    request = served.book.subject_request(avatar_id)
    plain = fulfil(request, str(tmp_path), kit=serving_kit.KIT)
    listed = {entry["name"]: entry for entry in client.get(f"/v1/avatars/{avatar_id}/artefacts").json()["files"]}
    for path in sorted((tmp_path / "subjects" / str(plain.key) / plain.attempt).rglob("*.*")):
        if path.name not in ("manifest.json", "avatar.json"):
            name = path.relative_to(tmp_path / "subjects" / str(plain.key) / plain.attempt).as_posix()
            assert client.get(listed[name]["href"]).content == path.read_bytes(), name
    work = Path(served.book.out(avatar_id)) / "work"
    markers = {p.relative_to(work) for p in work.rglob("COMMITTED.json")}
    assert markers == {p.relative_to(tmp_path / "work") for p in (tmp_path / "work").rglob("COMMITTED.json")}, "other keys"

    href = listed["avatar.ply"]["href"]
    part = client.get(href, headers={"Range": "bytes=10-19"})
    assert part.status_code == 206 and part.content == client.get(href).content[10:20]
    assert groups() <= {"REMOVED"}


def test_prompts_are_drawn_by_the_deployment_that_holds_the_model(client, served):
    """It stands without a replica until the first prompt; seeds of the callers are no reason to load again."""
    loaded = Path(served.args.settings.picture.weights, "loaded")
    assert not loaded.exists() and client.get("/v1/ready").status_code == 200
    for prompt, seed in {"a tall man": 1, "a short man": 2}.items():
        made = client.post("/v1/avatars", json={"prompt": prompt, "consent": "no real person", "options": {"seed": seed}})
        assert made.status_code == 202, made.text
        state = ended(client, made.json()["id"])
        assert state["state"] == "done" and state["progress"]["picture"] == 1.0 and state["prompt"] == prompt
    (pid,) = loaded.read_text().split()
    assert "picture" in " ".join(psutil.Process(int(pid)).cmdline()), "another process than the replica loaded the model"
    alone, out = str(loaded.parent.parent / "alone"), served.book.out(made.json()["id"])
    fulfil(served.book.subject_request(made.json()["id"]), alone, kit=serving_kit.KIT)
    here, there = ArtefactStore(f"{alone}/work"), ArtefactStore(f"{out}/work")
    for key in (keys := list(here.committed_keys())):
        assert there.committed(key).manifest_sha256 == here.committed(key).manifest_sha256, key
    assert "picture" in {key.stage for key in keys}


def test_a_prompt_whose_pictures_show_nobody_fails_after_its_tries(client, served):
    made = client.post("/v1/avatars", json={"prompt": "nothing", "consent": "no real person"})
    state = ended(client, made.json()["id"])
    assert state["state"] == "failed" and "none of 4 pictures of 'nothing'" in json.dumps(state), state
    drawn = Path(served.args.settings.picture.weights, "prompts").read_text().splitlines()
    assert [line.split()[0] for line in drawn if "of nothing" in line] == ["0", "1", "2", "3"]


def test_without_a_token_nothing_is_told(served):
    with httpx.Client(base_url=served.url, trust_env=False) as stranger:
        for path in ("/v1/avatars", "/v1/models", f"/v1/avatars/{'0' * 32}"):
            assert stranger.get(path).status_code == 401
        assert stranger.get("/v1/health").status_code == 200


def test_a_frames_replica_killed_at_work_costs_no_avatar(client):
    avatar_id = ask(client, seed=serving_kit.SLEEP + 700)
    under_way(client, avatar_id, "identity-reference")
    kill("ServeReplica:svad-ray:frames-identity")
    assert ended(client, avatar_id)["state"] == "done"


def test_poison_is_tried_twice_and_its_neighbours_finish(client):
    good = [ask(client, photo=i, seed=serving_kit.SLEEP + 100) for i in range(2)]
    bad = [ask(client, seed=serving_kit.KILL_IDENTITY), ask(client, seed=serving_kit.KILL_AVATAR), ask(client, seed=serving_kit.RAISE)]
    good.append(ask(client, photo=7, seed=3))
    for avatar_id in bad:
        state = ended(client, avatar_id)
        assert state["state"] == "failed" and "/secret" not in json.dumps(state)
        assert [kind for _, kind in events(client, avatar_id)].count("started") == 2
    assert [ended(client, avatar_id)["state"] for avatar_id in good] == ["done"] * 3
    assert groups() <= {"REMOVED"}


def test_conductor_and_controller_may_die(client, served):
    avatar_ids = [ask(client, photo=i, seed=serving_kit.SLEEP + 500) for i in range(2)]
    under_way(client, avatar_ids[0], "animate")
    committed = {p: p.stat().st_mtime_ns for p in (Path(served.book.out(avatar_ids[0])) / "work").rglob("COMMITTED.json")}
    kill("ServeReplica:svad-ray:conductor")
    time.sleep(1)
    kill("ServeController")
    assert [ended(client, avatar_id)["state"] for avatar_id in avatar_ids] == ["done", "done"]
    assert committed and {p: p.stat().st_mtime_ns for p in committed} == committed, "a committed step was done again"
    numbers = [number for number, _ in events(client, avatar_ids[0])]
    assert numbers == list(range(1, len(numbers) + 1))


def test_delete_while_running_frees_everything(client, served):
    avatar_id = ask(client, seed=serving_kit.SLEEP + 60_000)
    wait_until(lambda: "CREATED" in groups(), "its task does not begin")
    workers = wait_until(lambda: pids("train "), "its worker is not seen")
    gone = client.delete(f"/v1/avatars/{avatar_id}")
    assert gone.status_code == 200, gone.text
    assert groups() <= {"REMOVED"} and not workers & pids("train "), "its task still runs"
    store = served.book.files

    def left() -> list[str]:
        return [name for name in store.fs.find(store.root) if avatar_id in name]

    assert left() == [store.path(f"tombstones/{avatar_id}.json")]
    kill("ServeReplica:svad-ray:perceive")  # it sleeps for a minute in the removed avatar's call, and there is no way into native code
    assert ended(client, ask(client, seed=9))["state"] == "done"
    assert left() == [store.path(f"tombstones/{avatar_id}.json")]


def test_cancel_ends_the_task_and_keeps_the_record(client):
    avatar_id = ask(client, seed=serving_kit.SLEEP + 1500)
    under_way(client, avatar_id, "perceive")
    answer = client.post(f"/v1/avatars/{avatar_id}/cancel")
    assert answer.status_code == 202 and answer.json()["state"] == "cancelled"
    assert groups() <= {"REMOVED"} and events(client, avatar_id)[-1][1] == "cancelled"


def picture(client: Any, avatar_id: str, size: int = 700) -> Any:
    size = int(size)
    camera = {"viewmat": EYE, "K": [[size, 0, size / 2], [0, size, size / 2], [0, 0, 1]]}
    return client.post("/v1/render", json={"avatar": avatar_id, "size": size, "pose": {}, "camera": camera})


def pixels(answer: Any) -> np.ndarray:
    """Of the picture: its signed record has random numbers."""
    return cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_UNCHANGED)


def test_full_queue_is_429_and_load_brings_replicas_without_losing_a_request(client, served):
    avatar_id = ask(client, seed=11)
    assert ended(client, avatar_id)["state"] == "done"
    alone = picture(client, avatar_id)
    assert alone.status_code == 200, alone.text
    assert len(pids("ServeReplica:svad-ray:renderer")) == 1
    busy, done, other = [], [], []
    over = threading.Event()

    def insist(number: int) -> None:
        """One who draws until it works, and then again."""
        with served.client() as mine:
            while not over.is_set():
                answer = picture(mine, avatar_id)
                if answer.status_code == 429:
                    busy.append(answer)
                    time.sleep(0.2)
                else:
                    (done if answer.status_code == 200 else other).append(answer)

    with ThreadPoolExecutor(10) as people:
        for number in range(10):
            people.submit(insist, number)
        try:
            wait_until(lambda: len(pids("ServeReplica:svad-ray:renderer")) > 1 and len(done) > 20 and busy, "no second renderer under load")
            time.sleep(3)
        finally:
            over.set()
    assert not other, other[0].text
    assert all(np.array_equal(pixels(answer), pixels(alone)) for answer in done), "replicas draw different pictures"
    assert {int(answer.headers["Retry-After"]) for answer in busy} == {2} and busy[0].json()["error"]["code"] == "busy"


def test_redeploy_drains(client, served):
    """New arguments: calls on their way are answered, running avatars go on in the new application."""
    from ray import serve

    from svad_ray.cluster.serving import APP, build

    finished, running = ask(client, seed=12), ask(client, seed=serving_kit.SLEEP + 400)
    assert ended(client, finished)["state"] == "done"
    under_way(client, running, "perceive")
    answers, over = [], threading.Event()

    def draw() -> None:
        with served.client() as mine:
            while not over.is_set():
                answers.append(picture(mine, finished).status_code)

    thread = threading.Thread(target=draw)
    thread.start()
    before = pids("ServeReplica:svad-ray:conductor")
    changed = served.args.model_copy(update={"conducting": served.args.conducting.model_copy(update={"poll_s": 0.4})})
    serve.run(build(changed), name=APP, route_prefix="/")
    over.set()
    thread.join()
    assert pids("ServeReplica:svad-ray:conductor").isdisjoint(before)
    assert set(answers) <= {200, 429} and answers.count(200) > 0, answers
    assert ended(client, running)["state"] == "done"


def test_settings_are_the_services(served):
    settings = served.args.settings
    assert (settings.animate.frames, settings.shard, settings.picture.trust_code) == (10, 3, True)
    assert settings == override(Settings(), arguments(Path(served.args.service.store).parent)["service"]["settings"])
