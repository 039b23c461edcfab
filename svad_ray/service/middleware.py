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
_FORM_SLACK = 128 << 10  # boundaries and the fields beside the file
_SAFE = {"x-content-type-options": "nosniff", "cache-control": "no-store", "content-security-policy": "sandbox; default-src 'none'"}


class Guarded:
    """The outermost layer.

    Args:
        config: Bounds of bodies. body_timeout_s: Longest time for a body to arrive.
        hide: Texts that no answer may hold.
    """

    def __init__(self, app: ASGIApp, config: ServiceConfig, *, body_timeout_s: float = 120.0, hide: tuple[str, ...] = ()) -> None:
        self.app, self.config, self.body_timeout_s, self.hide = app, config, body_timeout_s, hide

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, answer = time.monotonic(), _Answer(send, secrets.token_hex(8))
        try:
            limit = self._limit(Headers(scope=scope))
            await self.app(scope, _Bounded(receive, limit, self.body_timeout_s), answer)
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
        """Bytes that this body may have; refused at once when it says that it has more."""
        form = headers.get("content-type", "").lower().startswith("multipart/")
        limit = self.config.max_upload_bytes + _FORM_SLACK if form else self.config.max_json_bytes
        declared = headers.get("content-length", "0")
        if not declared.isascii() or not declared.isdigit():
            raise BadRequest("Content-Length is no number")
        if int(declared[:20]) > limit:
            raise _too_large(limit)
        return limit


class _Bounded:
    """Counts what really arrives, however much was declared."""

    def __init__(self, receive: Receive, limit: int, timeout_s: float) -> None:
        self.receive, self.limit, self.deadline = receive, limit, time.monotonic() + timeout_s
        self.count, self.whole = 0, False

    async def __call__(self) -> Message:
        if self.whole:
            return await self.receive()
        with anyio.move_on_after(max(self.deadline - time.monotonic(), 0.01)) as scope:
            message = await self.receive()
        if scope.cancelled_caught:
            raise TooSlow("the body did not arrive in time", remedy="send it again, or make it smaller")
        self.count += len(message.get("body", b""))
        self.whole = not message.get("more_body", False)
        if self.count > self.limit:
            raise _too_large(self.limit)
        return message


class _Answer:
    """Adds headers to the answer and remembers its status."""

    def __init__(self, send: Send, request_id: str) -> None:
        self.send, self.id, self.status = send, request_id, 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in (*_SAFE.items(), ("x-request-id", self.id)):
                headers.setdefault(name, value)
        await self.send(message)


def _too_large(limit: int) -> TooLarge:
    return TooLarge("the body is too large", expected=f"at most {limit} bytes", remedy="export the photo as a smaller JPEG")


def quiet_access(config: dict[str, Any]) -> dict[str, Any]:
    """A uvicorn logging configuration whose own access log, which would hold query strings, is off."""
    loggers = {**config.get("loggers", {}), "uvicorn.access": {"handlers": [], "propagate": False, "level": "CRITICAL"}}
    return {**config, "loggers": loggers}
