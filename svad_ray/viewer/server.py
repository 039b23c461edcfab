"""The page's server: this machine alone, an address that nobody can guess, and nothing that reaches another host."""

from __future__ import annotations

import json
import secrets
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from typing import ClassVar
from urllib.parse import unquote

from svad_ray.errors import BackendUnavailable, SvadError
from svad_ray.viewer.scene import Scene

HOST = "127.0.0.1"
PAGE = Path(__file__).parent / "page"
_TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}
_BYTES = "application/octet-stream"
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class Viewer:
    """A server of one scene; ``run`` answers until it is interrupted.

    Args:
        scene: What is shown.
        port: Where to listen, 0 = any free one.

    Raises:
        BackendUnavailable: The port is taken.
    """

    def __init__(self, scene: Scene, *, port: int = 0) -> None:
        self.scene = scene
        token = secrets.token_urlsafe(12)

        class Handler(_Handler):
            pass

        Handler.scene, Handler.prefix, Handler.lock = scene, f"/{token}/", Lock()
        try:
            self._server = ThreadingHTTPServer((HOST, port), Handler)
        except (OSError, OverflowError) as error:
            raise BackendUnavailable(f"no page on port {port}: {error}", expected="a free port", remedy="svad-ray view --port 0") from error
        self._server.daemon_threads = True
        Handler.hosts = {f"{name}:{self._server.server_port}" for name in (HOST, "localhost")}  # another name is another site's page asking
        self.url = f"http://{HOST}:{self._server.server_port}/{token}/"

    def run(self) -> None:
        """Answer until an exception (Ctrl-C) or :meth:`stop` ends it."""
        self._server.serve_forever(poll_interval=0.2)

    def stop(self) -> None:
        """End :meth:`run` of another thread."""
        self._server.shutdown()

    def close(self) -> None:
        """Free the port."""
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    scene: ClassVar[Scene]
    prefix: ClassVar[str]
    hosts: ClassVar[set[str]]
    lock: ClassVar[Lock]  # the first look at a clip puts it on the person: once, not once a thread
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """A file of the page, or a part of the scene."""
        path = unquote(self.path.split("?", 1)[0])
        if self.headers.get("Host") not in self.hosts or not path.startswith(self.prefix):
            return self._send(HTTPStatus.NOT_FOUND, b"", "text/plain")
        try:
            body, kind = self._found(path.removeprefix(self.prefix))
        except KeyError:
            return self._send(HTTPStatus.NOT_FOUND, b"", "text/plain")
        except SvadError as error:
            return self._send(HTTPStatus.UNPROCESSABLE_ENTITY, str(error).encode(), "text/plain; charset=utf-8")
        return self._send(HTTPStatus.OK, body, kind)

    def _found(self, name: str) -> tuple[bytes, str]:
        with self.lock:
            if name == "scene.json":
                return json.dumps(self.scene.document()).encode(), "application/json"
            if name == "avatar.safetensors":
                return self.scene.arrays(), _BYTES
            if name.startswith("clips/"):
                return self.scene.clip(name.removeprefix("clips/")), _BYTES
        file = {path.name: path for path in PAGE.iterdir() if path.suffix in _TYPES}[name or "index.html"]
        return file.read_bytes(), _TYPES[file.suffix]

    def _send(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(status)
        for key, value in {**_HEADERS, "Content-Type": kind, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Silent: the terminal says where the page is, and nothing else."""
