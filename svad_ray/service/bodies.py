"""What callers send: checked models, and the taking apart of uploads."""

from __future__ import annotations

import json
import re
import unicodedata
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from fastapi import Request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from svad_ray.config import Settings, override
from svad_ray.errors import InputError, SvadError
from svad_ray.photo import MAX_PHOTOS
from svad_ray.service.answers import BadRequest, TooLarge, Unsupported, plain_fault
from svad_ray.service.config import OPTIONS, Limits
from svad_ray.stages.picture.prompts import MAX_PROMPT, checked

Motion = Literal["turn", "a-pose-turn", "walk", "arms"]
_FIELDS = ("consent", "options", "webhook", "edit")
_PART = 64 << 10
_KEY = re.compile(r"[!-~]{1,200}")


def _clean(text: str) -> str:
    if any(unicodedata.category(c) in ("Cc", "Cs") for c in text):
        raise ValueError("control characters are not allowed")
    return text


def _drawable(text: str) -> str:
    if text:
        try:
            return checked(text)
        except InputError as error:
            raise ValueError(f"{error.found}; expected {error.expected}") from None
    return text


Text = Annotated[str, AfterValidator(_clean)]
Prompt = Annotated[str, AfterValidator(_clean), AfterValidator(_drawable)]
_CHECKED = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


class Options(BaseModel):
    """What a caller may choose for an avatar; left out = the operator's choice.

    Attributes:
        frames: Of the turn-around clip. size: Of a frame, pixels. gaussians: How many. iterations: Training steps. seed: Of everything random.
        largest: Of several people take the largest. bust: Accept a half-body photo. motion: Of the turn-around clip.
    """

    model_config = _CHECKED
    frames: int | None = Field(default=None, ge=1, examples=[96])
    size: int | None = Field(default=None, ge=64)
    gaussians: int | None = Field(default=None, ge=100)
    iterations: int | None = Field(default=None, ge=1)
    seed: int | None = Field(default=None, ge=0, le=2**31 - 1)
    largest: bool | None = None
    bust: bool | None = None
    motion: Motion | None = None

    def given(self) -> dict[str, Any]:
        """Those that were chosen."""
        return self.model_dump(exclude_none=True)

    def applied(self, settings: Settings, limits: Limits) -> Settings:
        """``settings`` with them. Raises ``InputError`` beyond ``limits``."""
        chosen = self.given()
        for name in ("frames", "size", "gaussians", "iterations"):
            if chosen.get(name, 0) > getattr(limits, name):
                raise InputError(f"{name} is too large for this service", expected=f"at most {getattr(limits, name)}", remedy=f"choose fewer {name}")
        return override(settings, {dotted: value for name, value in chosen.items() for dotted in OPTIONS[name]})


class AvatarAsked(BaseModel):
    """The JSON form of a request for an avatar: the photo lies at an address on the operator's list.

    Attributes:
        uri: Of the photo. photos: Instead of it, addresses of several photos of the person, from different sides.
        consent: Statement that the person agrees; kept in the avatar. webhook: Called at the end, signed.
        edit: What shall be different in the photo, in words, before an avatar is made of it.
    """

    model_config = ConfigDict(
        **_CHECKED,
        json_schema_extra={
            "examples": [{"uri": "https://photos.example.org/anna.jpg", "consent": "Anna agreed on 2026-11-01", "options": {"frames": 96}}]
        },
    )
    uri: Text = Field(default="", max_length=2048)
    photos: list[Annotated[Text, Field(min_length=1, max_length=2048)]] = Field(default=[], max_length=MAX_PHOTOS)
    consent: Text = Field(default="", max_length=2000)
    options: Options = Options()
    webhook: Text = Field(default="", max_length=2048)
    edit: Prompt = Field(default="", max_length=MAX_PROMPT)

    @model_validator(mode="after")
    def _one_way(self) -> AvatarAsked:
        if bool(self.uri) == bool(self.photos):
            raise ValueError("uri or photos: one of them is needed, and not both")
        return self


class AvatarDrawn(BaseModel):
    """The JSON form of a request without a photo: the service draws it, if its operator brought a model that does.

    Attributes:
        prompt: A person in words. consent: What a real person whom it means agrees to, or that it means none; kept in the avatar.
        webhook: Called at the end, signed.
    """

    model_config = ConfigDict(
        **_CHECKED, json_schema_extra={"examples": [{"prompt": "a tall man in a grey suit", "consent": "no real person", "options": {"seed": 7}}]}
    )
    prompt: Prompt = Field(min_length=1, max_length=MAX_PROMPT)
    consent: Text = Field(default="", max_length=2000)
    options: Options = Options()
    webhook: Text = Field(default="", max_length=2048)


class _Fields(BaseModel):
    """What comes beside an uploaded photo."""

    model_config = _CHECKED
    consent: Text = Field(default="", max_length=2000)
    options: Options = Options()
    webhook: Text = Field(default="", max_length=2048)
    edit: Prompt = Field(default="", max_length=MAX_PROMPT)


@dataclass(frozen=True)
class Asked:
    """A request for an avatar, from any form. ``photos`` holds (name, bytes) of what was sent, else they lie at ``uris``, or one is to be drawn from
    ``prompt``. With a photo, ``prompt`` says how it is edited.
    """

    photos: tuple[tuple[str, bytes], ...]
    uris: tuple[str, ...]
    consent: str
    options: Options
    webhook: str
    prompt: str = ""


Number = Annotated[float, Field(ge=-1e6, le=1e6)]
Vector = Annotated[list[Number], Field(min_length=3, max_length=3)]
Row4 = Annotated[list[Number], Field(min_length=4, max_length=4)]


class Pose(BaseModel):
    """SMPL-X axis-angle rotations, radians; what is left out is zero (fingers: the body's mean hand).

    Attributes:
        transl: Metres; used only together with ``camera.viewmat``, else the feet stand on the floor.
    """

    model_config = _CHECKED
    global_orient: Vector | None = None
    body_pose: Annotated[list[Vector], Field(min_length=21, max_length=21)] | None = None
    left_hand_pose: Annotated[list[Vector], Field(min_length=15, max_length=15)] | None = None
    right_hand_pose: Annotated[list[Vector], Field(min_length=15, max_length=15)] | None = None
    jaw_pose: Vector | None = None
    leye_pose: Vector | None = None
    reye_pose: Vector | None = None
    expression: Annotated[list[Number], Field(max_length=100)] | None = None
    transl: Vector | None = None


class Camera(BaseModel):
    """OpenCV axes. Either ``yaw_deg`` alone, or ``viewmat`` and ``K`` together.

    Attributes:
        yaw_deg: Degrees that the person turns to their left. viewmat: (4, 4) world to camera. K: (3, 3) pixels.
    """

    model_config = _CHECKED
    yaw_deg: Annotated[float, Field(ge=-3600, le=3600)] = 0.0
    viewmat: Annotated[list[Row4], Field(min_length=4, max_length=4)] | None = None
    K: Annotated[list[Vector], Field(min_length=3, max_length=3)] | None = None


class RenderAsked(BaseModel):
    """One picture: the pose is ``pose``, or frame ``frame`` of ``motion``."""

    model_config = ConfigDict(
        **_CHECKED, json_schema_extra={"examples": [{"avatar": "0" * 32, "motion": "walk", "frame": 12, "camera": {"yaw_deg": 30}, "size": 512}]}
    )
    avatar: Text
    motion: Motion = "a-pose-turn"
    frame: int = Field(default=0, ge=0, le=100_000)
    pose: Pose | None = None
    camera: Camera = Camera()
    size: int = Field(default=512, ge=16)


class AnimateAsked(BaseModel):
    """A moving picture. ``format``: "mjpeg" and "png" are multipart/x-mixed-replace streams, frames as they are rendered; "mp4" is a whole file.
    Left out: what the Accept header prefers, else mjpeg."""

    model_config = ConfigDict(**_CHECKED, json_schema_extra={"examples": [{"avatar": "0" * 32, "motion": "walk", "size": 256, "format": "mp4"}]})
    avatar: Text
    motion: Motion = "walk"
    size: int = Field(default=512, ge=16)
    format: Literal["mjpeg", "png", "mp4"] | None = None


def idempotency_key(given: str | None) -> str | None:
    """The header's value, checked."""
    if given is not None and not _KEY.fullmatch(given):
        raise InputError("this Idempotency-Key cannot be used", expected="1 to 200 printable ASCII characters without blanks")
    return given


async def avatar_asked(request: Request, *, max_photo_bytes: int) -> Asked:
    """A request for an avatar, multipart or JSON. Raises ``InputError`` and its kin."""
    kind = _kind(request)
    if kind == "application/json":
        values = await _json(request)
        if isinstance(values, dict) and "prompt" in values:
            drawn = _validated(AvatarDrawn, values)
            return Asked((), (), drawn.consent, drawn.options, drawn.webhook, drawn.prompt)
        body = _validated(AvatarAsked, values)
        _one_to_edit(body.edit, len(body.photos))
        return Asked((), tuple(body.photos or [body.uri]), body.consent, body.options, body.webhook, body.edit)
    if kind != "multipart/form-data":
        raise Unsupported(
            f"the body is {kind or 'of no stated type'}", expected="multipart/form-data with a photo, or application/json with its address"
        )
    photos, fields = await _upload(request, max_photo_bytes, most=MAX_PHOTOS)
    given = _validated(_Fields, {**fields, **({"options": _loads(fields["options"])} if "options" in fields else {})})
    _one_to_edit(given.edit, len(photos))
    return Asked(photos, (), given.consent, given.options, given.webhook, given.edit)


def _one_to_edit(edit: str, photos: int) -> None:
    if edit and photos > 1:
        raise InputError("an edit of several photos", expected="one photo, or no edit", remedy="edit changes one photo; leave the others out")


def name_in(uri: str) -> str:
    """The file's name in an address."""
    return PurePosixPath(uri.split("?")[0]).name[:100]


async def photo_asked(request: Request, *, max_photo_bytes: int) -> bytes:
    """The photo of a request that holds nothing else."""
    if _kind(request) != "multipart/form-data":
        raise Unsupported("the body is no upload", expected="multipart/form-data with the file 'photo'")
    photos, fields = await _upload(request, max_photo_bytes, most=1)
    if fields:
        raise InputError(f"there is no field '{_printable(next(iter(fields)))}'", expected="the file 'photo' alone")
    return photos[0][1]


async def _upload(request: Request, max_photo_bytes: int, *, most: int) -> tuple[tuple[tuple[str, bytes], ...], dict[str, str]]:
    """(file name, bytes) of at most ``most`` photos, and the fields beside them."""
    form = await _form(request, most)
    try:
        files = [(name, value) for name, value in form.multi_items() if isinstance(value, UploadFile)]
        fields = [(name, value) for name, value in form.multi_items() if isinstance(value, str)]
        if {name for name, _ in files} != {"photo"} or len(files) > most:
            several = f", up to {most} for several photos of the person" if most > 1 else ""
            found = f"the upload has {len(files) or 'no'} file{'s' if len(files) > 1 else ''}, not one in the field 'photo'"
            raise InputError(found, expected=f"one file in the field 'photo'{several}", remedy="curl -F photo=@photo.jpg ...")
        unknown = [name for name, _ in fields if name not in _FIELDS]
        if unknown:
            raise InputError(f"there is no field '{_printable(unknown[0])}'", expected=f"photo, {', '.join(_FIELDS)}")
        if sum(upload.size or 0 for _, upload in files) > max_photo_bytes:
            what = "the photo is" if len(files) == 1 else "the photos together are"
            raise TooLarge(f"{what} too large", expected=f"at most {max_photo_bytes} bytes", remedy="export them as smaller JPEGs")
        photos = [(_printable(PurePosixPath(upload.filename or "photo").name), await upload.read()) for _, upload in files]
        return tuple(photos), dict(fields)
    finally:
        await form.close()


async def _form(request: Request, most: int) -> FormData:
    try:
        return await request.form(max_files=most + 1, max_fields=8, max_part_size=_PART)
    except (SvadError, HTTPException, ClientDisconnect):
        raise
    except Exception as error:  # the parser raises what a broken body leads it to
        raise BadRequest("the upload cannot be taken apart", expected="multipart/form-data", remedy="see docs/service.md for examples") from error


async def _json(request: Request) -> Any:
    return _loads(await request.body())


def _loads(text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError("the body or its options are not JSON", expected="a JSON object") from error


def _validated(model: type[Any], values: Any) -> Any:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise plain_fault(error.errors(include_input=False, include_url=False, include_context=False)) from None


def _kind(request: Request) -> str:
    return request.headers.get("content-type", "").split(";")[0].strip().lower()


def _printable(text: str) -> str:
    return "".join(c for c in text if c.isprintable())[:100]
