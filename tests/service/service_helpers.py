"""A real server on a loopback port, a real client, and the real engine with tiny stages."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import service_kit
import uvicorn

import svad_ray.deliver  # noqa: F401  imported by the main thread: pytest rewrites asserts at import, which is not made for threads
from svad_ray.config import Settings, override
from svad_ray.service.app import build_app
from svad_ray.service.book import AvatarBook, plain_settings
from svad_ray.service.config import ServiceConfig
from svad_ray.service.local_engine import LocalEngine
from svad_ray.service.records import AvatarOrder

HERE = Path(__file__).parent
PYTHON_PATH = (str(HERE), str(HERE.parent))


@dataclass
class Running:
    """A server that answers: its address, what it was made with, and how to end it."""

    url: str
    config: ServiceConfig
    book: AvatarBook
    engine: Any
    server: Any
    thread: threading.Thread

    def client(self, token: str | None = None, **options: Any) -> Any:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60, trust_env=False, verify=False, **options)

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(30)
        assert not self.thread.is_alive()


def serve(config: ServiceConfig, *, engine: Any = None, workers: int = 1, **options: Any) -> Running:
    """Start a server on a free port; without workers everything stays queued."""
    book = AvatarBook(config.store)
    settings = override(Settings(), {"threads": 1})
    made = engine or LocalEngine(book, settings, kit=service_kit.KIT_PATH, python_path=PYTHON_PATH, lease_s=5.0, poll_s=0.2, workers=workers)
    app = build_app(config, book, made, **options)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, access_log=False, timeout_graceful_shutdown=3))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not server.started:
        assert thread.is_alive() and time.monotonic() < deadline, "the server did not start"
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    return Running(f"http://127.0.0.1:{port}", config, book, made, server, thread)


def config_for(folder: Path, **values: Any) -> ServiceConfig:
    base = {"store": str(folder / "store"), "tokens_file": str(folder / "tokens.json"), "poll_s": 0.05, "requests_per_minute": 100_000}
    return ServiceConfig(**{**base, "settings": {"animate.frames": 10, "shard": 3}, "open_avatars": 50, "exports": ("ply",), **values})


@dataclass
class Shared:
    """One server for all tests that need nothing special, with two tokens."""

    running: Running
    token: str
    other: str
    name: str = "anna"

    @contextlib.contextmanager
    def client(self, token: str | None = "") -> Iterator[Any]:
        with self.running.client(self.token if token == "" else token) as client:
            yield client


def ask(client: Any, *, photo: bytes | None = None, key: str | None = None, consent: str = "she agreed", **options: Any) -> Any:
    """POST /v1/avatars with the tiny photo."""
    data = {"consent": consent, **({"options": json.dumps(options)} if options else {})}
    headers = {"Idempotency-Key": key} if key else {}
    return client.post("/v1/avatars", files={"photo": ("figure.png", photo or service_kit.photo_png(), "image/png")}, data=data, headers=headers)


def wait_for(client: Any, avatar_id: str, *states: str, seconds: float = 90) -> dict[str, Any]:
    """The avatar once it is in one of the states."""
    deadline = time.monotonic() + seconds
    while True:
        answer = client.get(f"/v1/avatars/{avatar_id}")
        assert answer.status_code == 200, answer.text
        if answer.json()["state"] in states:
            return answer.json()
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.05)


@dataclass
class Web:
    """A little web server that answers as told and remembers what it was asked."""

    port: int
    answers: dict[str, Any] = field(default_factory=dict)
    asked: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)


PHOTO = b"not really a photo"


def order(owner: str = "anna", *, photo: bytes = PHOTO, **values: Any) -> AvatarOrder:
    return AvatarOrder(owner, plain_settings(Settings()), hashlib.sha256(photo).hexdigest(), "p.jpg", "yes", **values)


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def at_once(count: int, call: Callable[[int], Any]) -> list[Any]:
    """Results of ``count`` calls that begin together."""
    gate = threading.Barrier(count)

    def one(i: int) -> Any:
        gate.wait()
        return call(i)

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(one, range(count)))
