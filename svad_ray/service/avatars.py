"""``/v1/avatars``: avatars as jobs."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import BaseModel, Field

import svad_ray
from svad_ray.config import Settings
from svad_ray.errors import InputError
from svad_ray.photo import decode_photo, together
from svad_ray.service.addresses import check, fetch
from svad_ray.service.answers import ErrorDetail, responses
from svad_ray.service.bodies import Asked, AvatarAsked, AvatarDrawn, Options, avatar_asked, idempotency_key, name_in
from svad_ray.service.book import new_id, plain_settings
from svad_ray.service.engine import Busy
from svad_ray.service.guard import Caller, Service, TheCaller, TheService
from svad_ray.service.records import AvatarOrder, AvatarRecord, Gone, Removed

router = APIRouter(prefix="/v1/avatars", tags=["avatars"])
OPEN_AGAIN_S = 30.0


class AvatarState(BaseModel):
    """An avatar as its owner sees it."""

    id: str = Field(examples=["3f2c9f0e6f7b4e0d9a1b2c3d4e5f6a7b"])
    state: str = Field(description="queued, running, done, failed or cancelled", examples=["running"])
    cancelling: bool = Field(description="its end was asked for")
    progress: dict[str, float] = Field(description="step -> finished share", examples=[{"perceive": 1.0, "animate": 0.4}])
    step: str = Field(description="the step that reported last", examples=["animate"])
    reason: ErrorDetail | None = Field(description="why it failed")
    warnings: list[str] = Field(description="remarks on the photo")
    options: dict[str, Any] = Field(examples=[{"frames": 96}])
    photo_sha256: str = Field(description="empty when the photo is drawn")
    further_sha256: list[str] = Field(description="of further photos of the person; mostly none")
    prompt: str = Field(description="what is drawn, or how the photo is edited; mostly empty")
    created_at: datetime
    ended_at: datetime | None
    links: dict[str, str]


class AvatarPage(BaseModel):
    """Some of the caller's avatars, newest first; ``next`` goes into ``before`` for the page after."""

    avatars: list[AvatarState]
    next: str | None


class RemovedAnswer(BaseModel):
    """What a removal took away."""

    id: str
    files: int
    bytes: int
    left: int = Field(description="files of it that a look at the store found afterwards; 0")
    receipt: dict[str, str] = Field(description="the same as a signed record (JSON Web Signature); svad-ray provenance key names the signer")


_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["photo"],
                    "properties": {
                        "photo": {
                            "type": "string",
                            "format": "binary",
                            "description": "JPEG, PNG, WebP, TIFF, BMP or GIF of one whole person; repeated for the person's other sides",
                        },
                        "consent": {"type": "string", "maxLength": 2000, "description": "Statement that the person agrees; kept in the avatar"},
                        "options": {"type": "string", "description": "JSON object: frames, size, gaussians, iterations, seed, largest, bust, motion"},
                        "webhook": {"type": "string", "maxLength": 2048, "description": "Called at the end, signed"},
                        "edit": {"type": "string", "maxLength": 2000, "description": "What shall be different in the photo, in words"},
                    },
                    "additionalProperties": False,
                },
                "encoding": {"photo": {"contentType": "image/jpeg, image/png"}},
            },
            "application/json": {"schema": {"oneOf": [{"$ref": f"#/components/schemas/{name}"} for name in ("AvatarAsked", "AvatarDrawn")]}},
        },
    }
}
BODY_MODELS: tuple[type[BaseModel], ...] = (AvatarAsked, AvatarDrawn, Options)
"""Models that a description refers to although no signature names them."""


def state_of(record: AvatarRecord) -> AvatarState:
    """What is told of a record."""
    base = f"/v1/avatars/{record.id}"
    return AvatarState(
        id=record.id,
        state=record.state,
        cancelling=record.cancelling,
        progress=dict(record.progress),
        step=record.step,
        reason=ErrorDetail(**record.reason) if record.reason else None,
        warnings=list(record.warnings),
        options=dict(record.order.options),
        photo_sha256=record.order.sha256,
        further_sha256=list(record.order.also),
        prompt=record.order.prompt,
        created_at=datetime.fromtimestamp(record.created_at, UTC),
        ended_at=None if record.ended_at is None else datetime.fromtimestamp(record.ended_at, UTC),
        links={"self": base, "events": f"{base}/events", "artefacts": f"{base}/artefacts"},
    )


@router.post(
    "",
    status_code=202,
    response_model=AvatarState,
    responses=responses(409, 415),
    openapi_extra=_BODY,
    summary="Ask for an avatar of the person in a photo",
)
async def ask(
    request: Request,
    response: Response,
    caller: TheCaller,
    service: TheService,
    idempotency: Annotated[str | None, Header(alias="Idempotency-Key", description="Repeating a request under one key makes one avatar.")] = None,
) -> AvatarState:
    """Upload one or several photos (multipart), name their addresses, or describe a person (JSON). The answer comes at once, the work goes on."""
    key = idempotency_key(idempotency)
    asked = await avatar_asked(request, max_photo_bytes=service.config.max_upload_bytes)
    order, photos = await _order(asked, caller, service)
    record, new = await _create(service, caller, order, photos, key)
    if new:
        await service.engine.wake(record.id)
    else:
        response.headers["Idempotent-Replayed"] = "true"
    response.headers["Location"] = f"/v1/avatars/{record.id}"
    return state_of(record)


async def _order(asked: Asked, caller: Caller, service: Service) -> tuple[AvatarOrder, list[bytes]]:
    """The checked order and its photos."""
    config = service.config
    if config.consent_required and not asked.consent.strip():
        found = "there is no statement that the person in the photo agrees"
        raise InputError(found, expected="the field consent, in words", remedy='for example "Anna agreed on 2026-11-01"')
    settings = asked.options.applied(config.base_settings(), config.limits)
    if asked.webhook:
        await service.store(check, asked.webhook, service.webhook_rules, resolver=service.resolver)
    if asked.prompt:
        await service.store(_require_model, asked.prompt, settings)
    photos, left = list(asked.photos), config.max_upload_bytes
    for uri in asked.uris:
        content = await service.store(fetch, uri, service.photo_rules, max_bytes=left, resolver=service.resolver)
        photos.append((name_in(uri), content))
        left -= len(content)
    decoded = []
    for number, (_, content) in enumerate(photos, 1):
        name = "the photo" if len(photos) == 1 else f"photo {number}"
        decoded.append(await service.decode(decode_photo, content, name=name, max_pixels=config.max_pixels))
    if len(decoded) > 1:
        together(decoded)
    hashes = [hashlib.sha256(content).hexdigest() for _, content in photos] or [""]
    order = AvatarOrder(
        owner=caller.name,
        settings=plain_settings(settings),
        sha256=hashes[0],
        photo_name=photos[0][0] if photos else "",
        consent=asked.consent,
        options=asked.options.given(),
        webhook=asked.webhook,
        prompt=asked.prompt,
        also=tuple(hashes[1:]),
        also_names=tuple(name for name, _ in photos[1:]),
    )
    return order, [content for _, content in photos]


def _require_model(prompt: str, settings: Settings) -> None:
    """Raises InputError where the operator brought no model that draws, and as ``pictures.check_request``."""
    from svad_ray.pictures import check_request

    if not settings.picture.weights:
        raise InputError("this service draws no pictures", expected="a photo", remedy="ask its operator for picture.weights, or send a photo")
    check_request(prompt, settings.picture)


async def _create(service: Service, caller: Caller, order: AvatarOrder, photos: list[bytes], key: str | None) -> tuple[AvatarRecord, bool]:
    """Write the order down unless the caller has enough unfinished ones; repeating an old one is always allowed."""
    avatar_id = new_id(caller.name, key)
    async with service.creating:
        known = key is not None and await service.store(_known, service, avatar_id, caller.name)
        if not known and await service.store(service.book.open_count, caller.name) >= caller.open_avatars:
            raise Busy.for_seconds(OPEN_AGAIN_S, f"{caller.open_avatars} avatars of yours are not finished yet")
        return await service.store(service.book.create, order, photos[0] if photos else None, also=photos[1:], avatar_id=avatar_id)


def _known(service: Service, avatar_id: str, owner: str) -> bool:
    try:
        return bool(service.book.get(avatar_id, owner=owner))
    except Gone:
        return False


@router.get("", response_model=AvatarPage, responses=responses(404), summary="Your avatars, newest first")
async def page(
    caller: TheCaller,
    service: TheService,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    before: Annotated[str | None, Query(max_length=32)] = None,
) -> AvatarPage:
    """One page; ``before`` is ``next`` of the page before."""
    ids = await service.store(service.book.ids, caller.name, before=before or "", limit=limit + 1)
    records = await service.store(_records, service, ids[:limit], caller.name)
    return AvatarPage(avatars=[state_of(record) for record in records], next=ids[limit - 1] if len(ids) > limit else None)


def _records(service: Service, ids: list[str], owner: str) -> list[AvatarRecord]:
    found = []
    for avatar_id in ids:
        try:
            found.append(service.book.get(avatar_id, owner=owner))
        except Gone:  # removed meanwhile
            continue
    return found


@router.get("/{avatar_id}", response_model=AvatarState, responses=responses(404), summary="How far an avatar is")
async def get(avatar_id: str, caller: TheCaller, service: TheService) -> AvatarState:
    """State, progress of every step, and the reason of a failure."""
    return state_of(await service.store(service.book.get, avatar_id, owner=caller.name))


@router.post("/{avatar_id}/cancel", response_model=AvatarState, status_code=202, responses=responses(404), summary="End the work on an avatar")
async def cancel(avatar_id: str, caller: TheCaller, service: TheService) -> AvatarState:
    """Its record stays, its state becomes "cancelled". An avatar that ended already stays as it is."""
    await service.store(service.book.get, avatar_id, owner=caller.name)
    if await service.store(service.book.cancel, avatar_id):
        await service.engine.stop(avatar_id)
        await service.store(service.book.finish, avatar_id, "cancelled")
    return state_of(await service.store(service.book.get, avatar_id, owner=caller.name))


@router.delete("/{avatar_id}", response_model=RemovedAnswer, responses=responses(404), summary="End the work and remove everything")
async def remove(avatar_id: str, caller: TheCaller, service: TheService) -> RemovedAnswer:
    """Photo, events, artefacts and files are gone when the answer comes, with a signed receipt; the id is never given out again. May be repeated."""
    book = service.book
    if not await service.store(_buried, service, avatar_id, caller.name):
        await service.store(book.get, avatar_id, owner=caller.name)
        await service.store(book.bury, avatar_id)
    await service.engine.stop(avatar_id)
    removed = await service.store(book.remove, avatar_id)
    left = await service.store(book.traces, avatar_id)
    receipt = await service.store(_receipt, service, removed, left)
    return RemovedAnswer(id=removed.avatar_id, files=removed.files, bytes=removed.bytes, left=len(left), receipt=receipt)


def _receipt(service: Service, removed: Removed, left: list[str]) -> dict[str, str]:
    from svad_ray.provenance import identity
    from svad_ray.provenance.jws import sign
    from svad_ray.provenance.seal import RECEIPT

    at = datetime.now(UTC).isoformat(timespec="seconds")
    says: dict[str, Any] = {"type": RECEIPT, "made_by": f"svad-ray {svad_ray.__version__}", "at": at, "avatar": removed.avatar_id}
    says |= {"files": removed.files, "size": removed.bytes, "left": left, "complete": not left}
    return json.loads(sign(says, identity(service.config.base_settings().signing)))


def _buried(service: Service, avatar_id: str, owner: str) -> bool:
    return service.book.buried_for(avatar_id, owner)
