"""Calls that answer with pixels: restore a photo, animate and render an avatar."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import anyio
import anyio.from_thread
import cv2
import numpy as np
from fastapi import APIRouter, Header, Request
from fastapi.responses import Response, StreamingResponse

from svad_ray.errors import InputError
from svad_ray.photo import decode_photo
from svad_ray.service.answers import responses
from svad_ray.service.bodies import AnimateAsked, RenderAsked, photo_asked
from svad_ray.service.engine import View
from svad_ray.service.guard import Caller, Service, TheCaller, TheService
from svad_ray.service.records import DONE, NotReady

router = APIRouter(prefix="/v1", tags=["calls"])
_BOUNDARY = "svad-frame"
_JPEG_QUALITY = 90
_PNG: dict[int | str, dict[str, Any]] = {200: {"content": {"image/png": {"schema": {"type": "string", "format": "binary"}}}}}
_MOVING = {name: {"schema": {"type": "string", "format": "binary"}} for name in (f"multipart/x-mixed-replace; boundary={_BOUNDARY}", "video/mp4")}
_PHOTO = {"type": "object", "required": ["photo"], "properties": {"photo": {"type": "string", "format": "binary"}}, "additionalProperties": False}
_PHOTO_BODY = {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _PHOTO}}}}


@router.post(
    "/restore",
    response_class=Response,
    responses={**responses(415), **_PNG},
    openapi_extra=_PHOTO_BODY,
    summary="A photo at twice its size, the head restored",
)
async def restore(request: Request, caller: TheCaller, service: TheService) -> Response:
    """The photo comes back as PNG."""
    config = service.config
    data = await photo_asked(request, max_photo_bytes=config.max_upload_bytes)
    photo = await service.decode(decode_photo, data, name="the photo", max_pixels=config.max_pixels)
    image = await service.engine.restore(photo)
    return Response(await service.decode(encoded, image, ".png"), media_type="image/png")


@router.post("/render", response_class=Response, responses={**responses(404, 409), **_PNG}, summary="One picture of an avatar")
async def render(asked: RenderAsked, caller: TheCaller, service: TheService) -> Response:
    """Any pose, any camera; PNG."""
    await _done(service, caller, asked.avatar, asked.size)
    pose = asked.pose.model_dump(exclude_none=True) if asked.pose else None
    camera = asked.camera
    view = View(asked.motion, asked.frame, camera.yaw_deg, asked.size, pose, camera.viewmat, camera.K)
    image = await service.engine.render(asked.avatar, view)
    sign = await _signer(service, asked.avatar)
    return Response(await service.decode(sign, "avatar.png", encoded(image, ".png")), media_type="image/png")


@router.post("/animate", response_class=Response, responses={**responses(404, 409), 200: {"content": _MOVING}}, summary="An avatar in motion")
async def animate(
    asked: AnimateAsked, caller: TheCaller, service: TheService, accept: Annotated[str | None, Header(alias="Accept")] = None
) -> Response:
    """Frames as they are rendered, or a whole mp4."""
    await _done(service, caller, asked.avatar, asked.size)
    form = asked.format or _preferred(accept or "")
    frames = service.engine.animate(asked.avatar, asked.motion, asked.size)
    first = await anext(frames)  # what is wrong with the request shows before the answer begins
    if form == "mp4":
        return await _video(service, _chained(first, frames), _rate(asked.motion), await _signer(service, asked.avatar))
    kind, ending = ("image/png", ".png") if form == "png" else ("image/jpeg", ".jpg")
    return StreamingResponse(_parts(service, _chained(first, frames), kind, ending), media_type=f"multipart/x-mixed-replace; boundary={_BOUNDARY}")


async def _done(service: Service, caller: Caller, avatar_id: str, size: int) -> None:
    """The avatar is the caller's and finished, and the picture not too large."""
    if size > service.config.limits.picture:
        raise InputError("the picture is too large for this service", expected=f"size at most {service.config.limits.picture}")
    record = await service.store(service.book.get, avatar_id, owner=caller.name)
    if record.state != DONE:
        raise NotReady(f"the avatar is {record.state}", expected="state done", remedy=f"follow /v1/avatars/{record.id}/events")


def _preferred(accept: str) -> str:
    kinds = [kind.split(";")[0].strip().lower() for kind in accept.split(",")]
    return next(
        (form for kind in kinds for form, name in (("mp4", "video/mp4"), ("png", "image/png"), ("mjpeg", "image/jpeg")) if kind == name), "mjpeg"
    )


def _rate(motion: str) -> float:
    from svad_ray.motion import MOTIONS

    return MOTIONS[motion]().fps


async def _chained(first: np.ndarray, rest: AsyncIterator[np.ndarray]) -> AsyncIterator[np.ndarray]:
    async with aclosing(rest):  # type: ignore[type-var]  # async generators are what engines return
        yield first
        async for frame in rest:
            yield frame


async def _parts(service: Service, frames: AsyncIterator[np.ndarray], kind: str, ending: str) -> AsyncIterator[bytes]:
    async with aclosing(frames):  # type: ignore[type-var]
        async for frame in frames:
            picture = await service.decode(encoded, frame, ending)
            yield f"--{_BOUNDARY}\r\nContent-Type: {kind}\r\nContent-Length: {len(picture)}\r\n\r\n".encode() + picture + b"\r\n"
    yield f"--{_BOUNDARY}--\r\n".encode()


async def _video(service: Service, frames: AsyncIterator[np.ndarray], fps: float, sign: Signer) -> Response:
    """A whole mp4; frames are encoded as they come and never held together."""

    def write(path: Path) -> bytes:
        from svad_ray.export.video import write_mp4

        def pulled() -> Iterator[np.ndarray]:
            while (frame := anyio.from_thread.run(_next, frames)) is not None:
                yield frame

        write_mp4(pulled(), path, fps)
        return sign(path.name, path.read_bytes())

    with tempfile.TemporaryDirectory(prefix="svad-ray-") as folder:
        async with aclosing(frames):  # type: ignore[type-var]
            content = await service.store(write, Path(folder, "avatar.mp4"))
    return Response(content, media_type="video/mp4")


Signer = Callable[[str, bytes], bytes]
"""(file's name, its content) -> the content with a signed record of its origin in it."""


async def _signer(service: Service, avatar_id: str) -> Signer:
    facts = await service.store(service.book.origin, avatar_id)
    return partial(_signed, facts, service.config.base_settings().signing)


def _signed(facts: dict[str, Any], signing: str, name: str, content: bytes) -> bytes:
    from svad_ray.provenance import identity, seal

    with tempfile.TemporaryDirectory(prefix="svad-ray-") as folder:
        path = Path(folder, name)
        path.write_bytes(content)
        seal(path, path.suffix[1:], facts, identity(signing))
        return path.read_bytes()


async def _next(frames: AsyncIterator[np.ndarray]) -> np.ndarray | None:
    return await anext(frames, None)


def encoded(image: np.ndarray, ending: str) -> bytes:
    """(H, W, 3) uint8 RGB as ".png" or ".jpg"."""
    options = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY] if ending == ".jpg" else [cv2.IMWRITE_PNG_COMPRESSION, 3]
    return cv2.imencode(ending, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)[1].tobytes()
