"""Fixtures of the service's tests; the helpers are in ``service_helpers``."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

for name in ("httpx", "uvicorn", "fastapi", "multipart"):
    pytest.importorskip(name, reason="the service's tests need the serve extra and httpx")
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from service_helpers import Running, Shared, Web, ask, config_for, serve, wait_for  # noqa: E402

from svad_ray.service.tokens import add_token  # noqa: E402


@pytest.fixture
def start(tmp_path) -> Iterator[Callable[..., Running]]:
    """Start servers with configurations of their own; all end with the test."""
    running: list[Running] = []

    def begin(folder: Path = tmp_path, *, engine: Any = None, workers: int = 0, options: dict[str, Any] | None = None, **values: Any) -> Running:
        running.append(serve(config_for(folder, **values), engine=engine, workers=workers, **(options or {})))
        return running[-1]

    yield begin
    for one in running:
        if one.thread.is_alive():
            one.stop()


@pytest.fixture(scope="session")
def shared(tmp_path_factory) -> Iterator[Shared]:
    folder = tmp_path_factory.mktemp("service")
    token, other = add_token(folder / "tokens.json", "anna"), add_token(folder / "tokens.json", "ben")
    running = serve(config_for(folder))
    yield Shared(running, token, other)
    running.stop()


@pytest.fixture
def client(shared) -> Iterator[Any]:
    with shared.client() as client:
        yield client


@pytest.fixture(scope="session")
def finished(shared) -> dict[str, Any]:
    """One finished avatar of the shared server."""
    with shared.client() as client:
        made = ask(client)
        assert made.status_code == 202, made.text
        return wait_for(client, made.json()["id"], "done", "failed")


@pytest.fixture
def web() -> Iterator[Web]:
    """``answers[path]`` = (status, headers, body) or a function of the handler."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            known.asked.append((self.command, self.path, dict(self.headers), body))
            told = known.answers.get(self.path, (404, {}, b""))
            with contextlib.suppress(OSError):
                if callable(told):
                    told(self)
                    return
                status, headers, content = told
                self.send_response(status)
                for name, value in {"Content-Length": str(len(content)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

        do_GET = do_POST = answer

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    known = Web(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield known
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def _plain_logs() -> Iterator[None]:
    """Everything that the project logs can be looked at."""
    logging.getLogger("svad_ray").setLevel(logging.DEBUG)
    yield
