"""Round every request: bounded bodies, an answer for every fault, safe headers, and one log line that holds no secret."""

from __future__ import annotations

import logging
import secrets
import time
from typing import Any

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from svad_ray.service.answers import BadRequest, TooLarge, TooSlow, answer_to
from svad_ray.service.config import ServiceConfig

_log = logging.getLogger("svad_ray.service.access")
BODY_TIMEOUT_S = 120.0  # longest time for a body to arrive
DRAIN_BYTES, DRAIN_S = 16 << 20, 2.0
_FORM_SLACK = 128 << 10  # boundaries and the fields beside the file
_SAFE = {"x-content-type-options": "nosniff", "cache-control": "no-store", "content-security-policy": "sandbox; default-src 'none'"}


class Guarded:
    """The outermost layer.

    Args:
        config: Bounds of bodies.
        hide: Texts that no answer may hold.
    """

    def __init__(self, app: ASGIApp, config: ServiceConfig, *, hide: tuple[str, ...] = ()) -> None:
        self.app, self.config, self.hide = app, config, hide

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, body = time.monotonic(), _Body(receive, Headers(scope=scope))
        answer = _Answer(send, body, secrets.token_hex(8))
        try:
            body.limit = self._limit(Headers(scope=scope))
            if body.declared > body.limit:
                raise _too_large(body.limit)
            await self.app(scope, body, answer)
        except ClientDisconnect:
            answer.status = answer.status or 499
        except Exception as error:
            response = answer_to(error, hide=self.hide)
            if answer.status:
                raise
            await response(scope, receive, answer)
        finally:
            caller = scope.get("state", {}).get("caller", "-")
            spent, path = (time.monotonic() - began) * 1000, scope["path"].encode("ascii", "replace").decode()
            _log.info("%s %s %s %d %.0f ms %s", caller, scope["method"], path, answer.status, spent, answer.id)

    def _limit(self, headers: Headers) -> int:
        """Bytes that this body may have."""
        declared = headers.get("content-length", "0")
        if not declared.isascii() or not declared.isdigit():
            raise BadRequest("Content-Length is no number")
        form = headers.get("content-type", "").lower().startswith("multipart/")
        return self.config.max_upload_bytes + _FORM_SLACK if form else self.config.max_json_bytes


class _Body:
    """Counts what really arrives, however much was declared, and for how long."""

    def __init__(self, receive: Receive, headers: Headers) -> None:
        declared = headers.get("content-length", "0")
        self.declared = int(declared[:20]) if declared.isascii() and declared.isdigit() else 0
        self.whole = not self.declared and "transfer-encoding" not in headers
        self.asked_first = headers.get("expect", "").lower() == "100-continue"
        self.receive, self.deadline = receive, time.monotonic() + BODY_TIMEOUT_S
        self.count = self.limit = 0

    async def __call__(self) -> Message:
        if self.whole:
            return await self.receive()
        with anyio.move_on_after(max(self.deadline - time.monotonic(), 0.01)) as scope:
            message = await self.receive()
        if scope.cancelled_caught:
            raise TooSlow("the body did not arrive in time", remedy="send it again, or make it smaller")
        self._note(message)
        if self.count > self.limit:
            raise _too_large(self.limit)
        return message

    async def drain(self) -> None:
        """Take a little more of a body that was answered early: whoever sends only somewhat too much can read the answer instead of a broken wire."""
        if self.asked_first or self.declared > self.count + DRAIN_BYTES:
            return
        stop = self.count + DRAIN_BYTES
        with anyio.move_on_after(DRAIN_S):
            while not self.whole and self.count < stop:
                self._note(await self.receive())

    def _note(self, message: Message) -> None:
        self.count += len(message.get("body", b""))
        self.whole = message["type"] != "http.request" or not message.get("more_body", False)


class _Answer:
    """Adds headers to the answer and remembers its status."""

    def __init__(self, send: Send, body: _Body, request_id: str) -> None:
        self.send, self.body, self.id, self.status = send, body, request_id, 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in (*_SAFE.items(), ("x-request-id", self.id)):
                headers.setdefault(name, value)
            if not self.body.whole:
                await self.body.drain()
            if not self.body.whole:
                headers["connection"] = "close"  # what is still on its way is not wanted
        await self.send(message)


def _too_large(limit: int) -> TooLarge:
    return TooLarge("the body is too large", expected=f"at most {limit} bytes", remedy="export the photo as a smaller JPEG")


def quiet_access(config: dict[str, Any]) -> dict[str, Any]:
    """A uvicorn logging configuration whose own access log, which would hold query strings, is off."""
    loggers = {**config.get("loggers", {}), "uvicorn.access": {"handlers": [], "propagate": False, "level": "CRITICAL"}}
    return {**config, "loggers": loggers}
