"""What the book of avatars speaks of: orders, records, events, leases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from svad_ray.errors import SvadError

QUEUED, RUNNING, DONE, FAILED, CANCELLED = "queued", "running", "done", "failed", "cancelled"
FINAL = (DONE, FAILED, CANCELLED)


class Gone(SvadError):
    """There is no such avatar, or not any more."""


class Conflict(SvadError):
    """The idempotency key was used for something else."""


class NotReady(SvadError):
    """The avatar is there, but not finished."""


@dataclass(frozen=True)
class AvatarOrder:
    """What one avatar is made from, as kept in the store.

    Attributes:
        owner: Name of the token that asked. settings: Of the run, nested plain values without those of the machine.
        sha256, photo_name: Of the photo. also: sha256 of further photos, also_names: their names. consent: The statement that the person agrees.
        options: As the caller gave them. webhook: Address to call at the end, or "".
        prompt: What is drawn (``sha256`` is empty then), or how the photo is edited.
        created_at: Unix seconds. fingerprint: Of the whole request; two requests under one idempotency key must agree in it.
    """

    owner: str
    settings: Mapping[str, Any]
    sha256: str
    photo_name: str
    consent: str
    options: Mapping[str, Any] = field(default_factory=dict)
    webhook: str = ""
    created_at: float = 0.0
    fingerprint: str = ""
    prompt: str = ""
    also: tuple[str, ...] = ()
    also_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class AvatarRecord:
    """An avatar's state as of now.

    Attributes:
        state: "queued", "running", "done", "failed" or "cancelled".
        progress: Step -> finished share. step: The one that reported last.
        reason: Why it failed: code, found, expected, remedy; None otherwise.
        warnings: Remarks on the photo. key: Of the committed files once done.
        cancelling: Its end was asked for. created_at, ended_at: Unix seconds; None = not yet.
    """

    id: str
    order: AvatarOrder
    state: str
    progress: Mapping[str, float] = field(default_factory=dict)
    step: str = ""
    reason: Mapping[str, str] | None = None
    warnings: tuple[str, ...] = ()
    key: str = ""
    cancelling: bool = False
    created_at: float = 0.0
    ended_at: float | None = None

    @property
    def final(self) -> bool:
        """Nothing will change any more, but that it may be removed."""
        return self.state in FINAL


@dataclass(frozen=True)
class Event:
    """Something that happened to an avatar, numbered from 1 without gaps.

    Attributes:
        kind: "queued", "started", "progress", "warning", "cancelling" or a final state.
        at: Unix seconds. data: JSON values; of "progress": step, share, and ``progress`` with the shares of all steps so far.
    """

    number: int
    kind: str
    at: float
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Lease:
    """The right to work on an avatar until it expires unrenewed. ``number`` grows with every holder."""

    avatar_id: str
    number: int
    owner: str


@dataclass(frozen=True)
class Removed:
    """What a removal took away."""

    avatar_id: str
    files: int
    bytes: int
