"""Every answer that is not a success has one shape, ``{"error": {"code", "found", "expected", "remedy"}}``, and tells nothing of the machine."""

from __future__ import annotations

import logging
import math
import re
import secrets
from collections.abc import Iterable, Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from svad_ray.errors import BackendUnavailable, InputError, QualityRejected, StageFailed, StoreError, SvadError, WeightsMissing
from svad_ray.service.addresses import AddressFailed, AddressRefused
from svad_ray.service.engine import Busy
from svad_ray.service.records import Conflict, Gone, NotReady

_log = logging.getLogger(__name__)
_SNAKE = re.compile(r"(?<!^)(?=[A-Z])")


class Unauthorized(SvadError):
    """No token, or one that is not known."""


class TooLarge(InputError):
    """The body is larger than allowed."""


class TooSlow(InputError):
    """The body did not arrive in time."""


class Unsupported(InputError):
    """The body is of another kind than this endpoint takes."""


class BadRequest(InputError):
    """The body cannot be taken apart."""


class NoSuchRange(InputError):
    """The bytes asked for are not in the file."""


_STATUS: tuple[tuple[type[SvadError], int], ...] = (
    (Unauthorized, 401),
    (Gone, 404),
    (TooSlow, 408),
    (Conflict, 409),
    (NotReady, 409),
    (TooLarge, 413),
    (Unsupported, 415),
    (NoSuchRange, 416),
    (Busy, 429),
    (BadRequest, 400),
    (AddressRefused, 422),
    (AddressFailed, 422),
    (InputError, 422),
    (QualityRejected, 422),
    (StoreError, 503),
    (WeightsMissing, 503),
    (BackendUnavailable, 503),
    (StageFailed, 500),
)
_HTTP_CODES = {404: "not_found", 405: "method_not_allowed", 400: "bad_request"}


class ErrorDetail(BaseModel):
    """What went wrong, what would have been right, and what to do."""

    code: str = Field(examples=["gone"])
    found: str = Field(examples=["there is no such avatar"])
    expected: str = Field("", examples=["the id of an avatar of yours"])
    remedy: str = Field("", examples=["see GET /v1/avatars"])


class ErrorAnswer(BaseModel):
    """The body of every answer that is not a success."""

    error: ErrorDetail


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The error answers of an endpoint, for its OpenAPI description; those that any endpoint can give are among them."""
    return {status: {"model": ErrorAnswer} for status in (*statuses, 400, 401, 405, 408, 413, 422, 429, 500, 503)}


def code_of(error: SvadError) -> str:
    """The error's name in answers: ``QualityRejected`` -> "quality_rejected"."""
    return _SNAKE.sub("_", type(error).__name__).lower()


def status_of(error: SvadError) -> int:
    """The HTTP status that tells of it."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def describe(error: BaseException, *, hide: Iterable[str] = ()) -> dict[str, str]:
    """code, found, expected and remedy of an error, as a stranger may read it.

    What the caller can change is told as it is; what is wrong with the machine is told by name only, and logged under the id that the answer names.

    Args:
        hide: Texts that must not be seen (the store's root).
    """
    if isinstance(error, SvadError) and status_of(error) < 500:
        told = {"code": code_of(error), "found": error.found, "expected": error.expected, "remedy": error.remedy}
        return {name: _hidden(text, hide) for name, text in told.items()}
    incident = secrets.token_hex(6)
    _log.error("incident %s: %s", incident, type(error).__name__, exc_info=error)
    code = code_of(error) if isinstance(error, SvadError) else "internal"
    found = f"something is wrong on the server; its log knows it as {incident}"
    return {"code": code, "found": found, "expected": "", "remedy": "try again later, or tell the operator that number"}


def _hidden(text: str, hide: Iterable[str]) -> str:
    for secret in hide:
        text = text.replace(secret, "...") if secret else text
    return text.encode("utf-8", "replace").decode()


def error_answer(status: int, detail: Mapping[str, str], headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The answer itself."""
    return JSONResponse({"error": dict(detail)}, status, dict(headers or {}))


def answer_to(error: BaseException, *, hide: Iterable[str] = ()) -> JSONResponse:
    """The answer to any error."""
    headers: dict[str, str] = {}
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = 'Bearer realm="svad-ray"'
    if isinstance(error, Busy):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    if isinstance(error, NoSuchRange):
        headers["Content-Range"] = f"bytes */{error.expected}"
    return error_answer(status_of(error) if isinstance(error, SvadError) else 500, describe(error, hide=hide), headers)


def install(app: FastAPI, *, hide: Iterable[str] = ()) -> None:
    """Make the application answer all its errors this way."""
    hidden = tuple(hide)

    async def ours(request: Request, error: Exception) -> JSONResponse:
        return answer_to(error, hide=hidden)

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        faults = error.errors() if isinstance(error, RequestValidationError) else []
        return answer_to(plain_fault(faults), hide=hidden)

    async def http(request: Request, error: Exception) -> JSONResponse:
        if isinstance(error.__cause__, SvadError):
            return answer_to(error.__cause__, hide=hidden)
        status = error.status_code if isinstance(error, HTTPException) else 500
        headers = dict(getattr(error, "headers", None) or {})
        detail = {"code": _HTTP_CODES.get(status, f"http_{status}"), "found": str(getattr(error, "detail", "")), "expected": "", "remedy": ""}
        return error_answer(status, detail, headers)

    app.add_exception_handler(SvadError, ours)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)


def plain_fault(faults: Iterable[Any]) -> InputError:
    """The first fault of a validation; the value itself is not repeated."""
    first = next(iter(faults), {"loc": (), "msg": "the request cannot be understood"})
    where = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path", "header"))
    return InputError(f"{where or 'the body'} cannot be used", expected=str(first["msg"]), remedy="see /v1/openapi.json")
