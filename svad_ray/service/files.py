"""Files and events of an avatar: ranges, and a stream that can be taken up again."""

from __future__ import annotations

import json
import mimetypes
import re
import time
from collections.abc import AsyncIterator
from typing import IO, Annotated, Any
from urllib.parse import quote

import anyio
from fastapi import APIRouter, Header, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel

from svad_ray.errors import InputError
from svad_ray.service.answers import NoSuchRange, responses
from svad_ray.service.engine import Busy
from svad_ray.service.guard import Service, TheCaller, TheService
from svad_ray.service.records import FINAL, Event, Gone

router = APIRouter(prefix="/v1/avatars/{avatar_id}", tags=["avatars"])
_CHUNK = 256 << 10
_TYPES = {
    ".ply": "application/octet-stream",
    ".safetensors": "application/octet-stream",
    ".json": "application/json",
    ".npz": "application/octet-stream",
}
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_BINARY: dict[str, Any] = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}


class FileEntry(BaseModel):
    """One file of a finished avatar."""

    name: str
    bytes: int
    sha256: str
    type: str
    href: str


class FileList(BaseModel):
    """Files of an avatar; empty until it is done."""

    files: list[FileEntry]


@router.get("/artefacts", response_model=FileList, responses=responses(404), summary="Files of an avatar")
async def listing(avatar_id: str, caller: TheCaller, service: TheService) -> FileList:
    """Everything that the person takes home, with sizes and hashes."""
    await service.store(service.book.get, avatar_id, owner=caller.name)
    listed = await service.store(service.book.artefacts, avatar_id)
    base = f"/v1/avatars/{avatar_id}/artefacts"
    return FileList(
        files=[
            FileEntry(name=name, bytes=entry["bytes"], sha256=entry["sha256"], type=content_type(name), href=f"{base}/{quote(name)}")
            for name, entry in sorted(listed.items())
        ]
    )


@router.head("/artefacts/{name:path}", include_in_schema=False)
@router.get(
    "/artefacts/{name:path}",
    response_class=Response,
    responses={**responses(404, 409, 416), 200: {"content": _BINARY}, 206: {"content": _BINARY}, 304: {"description": "Not modified"}},
    summary="One file, or a range of it",
)
async def artefact(
    avatar_id: str,
    name: str,
    request: Request,
    caller: TheCaller,
    service: TheService,
    wanted: Annotated[str | None, Header(alias="Range", description="bytes=START-END")] = None,
    if_none_match: Annotated[str | None, Header(alias="If-None-Match")] = None,
    if_range: Annotated[str | None, Header(alias="If-Range")] = None,
) -> Response:
    """ETag is the file's sha256. One range is honoured; several are answered with the whole file."""
    await service.store(service.book.get, avatar_id, owner=caller.name)
    entry = (await service.store(service.book.artefacts, avatar_id)).get(name)
    if entry is None:
        await service.store(_explain_absence, service, avatar_id, name)
        raise Gone("there is no such file", remedy=f"see the list at /v1/avatars/{avatar_id}/artefacts")
    size, etag = int(entry["bytes"]), f'"{entry["sha256"]}"'
    headers = {"ETag": etag, "Accept-Ranges": "bytes", "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name.rsplit('/', 1)[-1])}"}
    headers["Cache-Control"] = "private, max-age=0, must-revalidate"
    if if_none_match is not None and (if_none_match.strip() == "*" or etag in [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]):
        return Response(status_code=304, headers=headers)
    part = byte_range(wanted, size) if if_range in (None, etag) else None
    start, stop = part or (0, size)
    headers["Content-Length"] = str(stop - start)
    if part:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    status = 206 if part else 200
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=content_type(name))
    stream = await service.store(service.book.open, avatar_id, name)
    return StreamingResponse(_chunks(service, stream, start, stop), status, headers, media_type=content_type(name))


def _explain_absence(service: Service, avatar_id: str, name: str) -> None:
    """Raise why there is no such file."""
    service.book.open(avatar_id, name).close()


def byte_range(wanted: str | None, size: int) -> tuple[int, int] | None:
    """[start, stop) of a Range header; None = the whole file (no header, several ranges, another unit).

    Raises:
        NoSuchRange: It lies outside the file.
    """
    match = _RANGE.fullmatch((wanted or "").replace(" ", ""))
    if match is None or match.group(0) == "bytes=-":
        return None
    first, last = match.groups()
    start, stop = (max(size - int(last), 0), size) if not first else (int(first), min(int(last) + 1, size) if last else size)
    if first and last and int(last) < int(first):
        return None
    if start >= size or stop <= start:
        raise NoSuchRange(f"the file has {size} bytes", expected=str(size), remedy="ask for bytes inside it")
    return start, stop


async def _chunks(service: Service, stream: IO[bytes], start: int, stop: int) -> AsyncIterator[bytes]:
    try:
        await service.store(stream.seek, start)
        while start < stop:
            part = await service.store(stream.read, min(_CHUNK, stop - start))
            if not part:
                raise OSError("the file is shorter than its manifest says")
            start += len(part)
            yield part
    finally:
        stream.close()


def content_type(name: str) -> str:
    """Media type by the name's ending."""
    ending = f".{name.rsplit('.', 1)[-1].lower()}"
    return _TYPES.get(ending) or mimetypes.types_map.get(ending, "application/octet-stream")


@router.get(
    "/events",
    response_class=StreamingResponse,
    responses={**responses(404), 200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
    summary="What happens to an avatar, as it happens",
)
async def events(
    avatar_id: str,
    request: Request,
    caller: TheCaller,
    service: TheService,
    last: Annotated[str | None, Header(alias="Last-Event-ID", description="Go on after this event.")] = None,
) -> StreamingResponse:
    """Server-sent events, numbered; the stream ends with the final state. Comments keep a silent one alive."""
    if last is not None and not (last.isascii() and last.isdigit() and len(last) < 10):
        raise InputError("this Last-Event-ID is no event's number", expected="a number from an earlier stream")
    await service.store(service.book.get, avatar_id, owner=caller.name)
    if service.streams[caller.name] >= service.config.streams:
        raise Busy.for_seconds(service.config.heartbeat_s, f"{service.config.streams} event streams of yours are open")
    return StreamingResponse(
        _follow(service, avatar_id, caller.name, int(last or 0)), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"}
    )


async def _follow(service: Service, avatar_id: str, name: str, after: int) -> AsyncIterator[str]:
    config, quiet_since = service.config, time.monotonic()
    service.streams[name] += 1
    try:
        yield ": hello\n\n"
        while True:
            try:
                found = await service.store(service.book.events, avatar_id, after=after)
            except Gone:
                yield "event: removed\ndata: {}\n\n"
                return
            for event in found:
                yield _message(event)
                after, quiet_since = event.number, time.monotonic()
            if any(event.kind in FINAL for event in found) or (not found and await _ended(service, avatar_id)):
                return
            if time.monotonic() - quiet_since >= config.heartbeat_s:
                yield ": still here\n\n"
                quiet_since = time.monotonic()
            await anyio.sleep(config.poll_s)
    finally:
        service.streams[name] -= 1


async def _ended(service: Service, avatar_id: str) -> bool:
    """Nothing will follow: whoever asks was told of the end in an earlier stream."""
    try:
        return (await service.store(service.book.get, avatar_id)).final
    except Gone:
        return False


def _message(event: Event) -> str:
    data = json.dumps({"number": event.number, "kind": event.kind, "at": event.at, **event.data})
    return f"id: {event.number}\nevent: {event.kind}\ndata: {data}\n\n"
