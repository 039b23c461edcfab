"""The book of avatar requests. Its state is in the store alone, so any replica answers for any avatar and a restart forgets nothing.

Layout below the root::

    avatars/<id>/request.json            what was asked for, by whom; created once
                 photo-<sha256>          the bytes as given
                 events/000001.json      numbered by create-if-absent, so several writers never lose one
                 leases/000001.json      who works on it and until when; the highest number counts
                 CANCEL.json             somebody wants it ended
                 END.json                the final state; created once
                 work/ subjects/ ledger/ everything that is made
    owners/<owner>/<time>-<id>           what a token owns, newest last
    open/<owner>/<id>                    not finished yet
    notify/<id>                          a webhook is still to be called
    tombstones/<id>.json                 removed: the id never comes back to life

Nothing reads a path out of a request: ids are 32 hex digits, checked before they become a name.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import IO, Any

from svad_ray.config import Settings, parse_settings
from svad_ray.errors import InputError, StoreError
from svad_ray.ledger import SubjectRequest
from svad_ray.service.records import FINAL, QUEUED, RUNNING, AvatarOrder, AvatarRecord, Conflict, Event, Gone, Lease, NotReady, Removed
from svad_ray.store import ArtefactStore, Key
from svad_ray.store.files import Files
from svad_ray.subject import Avatar

LEASE_S = 30.0
REMOVALS = 5
ABANDONED_S = 3600.0  # a request whose writing was never finished is swept after so long
_ID = re.compile(r"[0-9a-f]{32}")
_OWNER = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
_MACHINE_ONLY = {"threads", "offline", "cache_dir", "signing"}


def new_id(owner: str, idempotency_key: str | None) -> str:
    """An opaque id: the same one for the same key of the same owner, else random."""
    if idempotency_key is None:
        return secrets.token_hex(16)
    return hashlib.sha256(f"{owner}\0{idempotency_key}".encode("utf-8", "surrogatepass")).hexdigest()[:32]


class AvatarBook:
    """Every avatar request below ``root``; blocking, so call it from threads in an event loop.

    Args:
        root: Any fsspec address that can create a file only if it is absent.
        clock: Unix seconds; leases of several machines compare it, so their clocks should agree within a second or two.
    """

    def __init__(self, root: str, *, clock: Any = time.time) -> None:
        self.root, self.files, self.clock = root.rstrip("/"), Files(root), clock

    # -- requests ------------------------------------------------------------------------------------------------------------------------------

    def create(self, order: AvatarOrder, photo: bytes | None, *, avatar_id: str | None = None) -> tuple[AvatarRecord, bool]:
        """Write a request down.

        Args:
            photo: Its bytes; None when it is to be drawn.
            avatar_id: Of ``new_id``; None = a random one.

        Returns:
            The record, and whether it is new (False: the same request was there already).

        Raises:
            Conflict: The id stands for another request, or for one that was removed.
        """
        avatar_id = _checked(avatar_id or new_id(order.owner, None))
        owner = _checked_owner(order.owner)
        if self._removed(avatar_id):
            raise Conflict("this Idempotency-Key belongs to an avatar that was removed", remedy="use a new Idempotency-Key")
        order = AvatarOrder(**{**asdict(order), "created_at": order.created_at or self.clock(), "fingerprint": _fingerprint(order)})
        if self.files.read(f"{_folder(avatar_id)}/request.json") is None:
            if photo is not None:
                self.files.write(f"{_folder(avatar_id)}/{_photo_file(order)}", photo)
            self.files.write(f"open/{owner}/{avatar_id}", _json({"at": order.created_at}))
            if order.webhook:
                self.files.write(f"notify/{avatar_id}", b"")
            if self.files.create(f"{_folder(avatar_id)}/request.json", _json(asdict(order))):
                self._settle(avatar_id, order)
                return self.get(avatar_id), True
        kept = self._order(avatar_id)
        self._settle(avatar_id, kept)
        self._drop_lost_create(avatar_id, order, kept)
        if kept.fingerprint != order.fingerprint:
            raise Conflict("this Idempotency-Key was used for another request", remedy="use a new key for a new request")
        return self.get(avatar_id), False

    def _settle(self, avatar_id: str, order: AvatarOrder) -> None:
        """What follows from a written request; done again where it may have been cut short, to the same effect."""
        self.files.write(f"owners/{order.owner}/{_stamp(order.created_at)}-{avatar_id}", b"")
        self.files.create(f"{_folder(avatar_id)}/events/000001.json", _json({"kind": QUEUED, "at": order.created_at, "data": {}}))

    def _drop_lost_create(self, avatar_id: str, ours: AvatarOrder, kept: AvatarOrder) -> None:
        """Take back what a create that came second wrote beside the first one's."""
        if ours.sha256 and ours.sha256 != kept.sha256:
            self.files.remove(f"{_folder(avatar_id)}/{_photo_file(ours)}")
        if ours.webhook and not kept.webhook:
            self.files.remove(f"notify/{avatar_id}")
        if self._read(f"{_folder(avatar_id)}/END.json"):
            self.files.remove(f"open/{kept.owner}/{avatar_id}")

    def get(self, avatar_id: str, *, owner: str | None = None) -> AvatarRecord:
        """The record.

        Args:
            owner: Only if it belongs to this one.

        Raises:
            Gone: There is none, it was removed, or it belongs to somebody else: an answer that does not tell which.
        """
        order = self._order(avatar_id)
        if owner is not None and order.owner != owner:
            raise _gone()
        end, last = self._read(f"{_folder(avatar_id)}/END.json"), self._last_progress(avatar_id)
        state = str(end["state"]) if end else RUNNING if self.held(avatar_id) else QUEUED
        return AvatarRecord(
            avatar_id,
            order,
            state,
            progress=last.get("progress", {}),
            step=last.get("step", ""),
            reason=end.get("reason"),
            warnings=tuple(end.get("warnings", ())),
            key=end.get("key", ""),
            cancelling=not end and self.is_cancelled(avatar_id),
            created_at=order.created_at,
            ended_at=end.get("at"),
        )

    def subject_request(self, avatar_id: str) -> SubjectRequest:
        """What ``fulfil`` takes; its ``out`` is ``self.out(avatar_id)``."""
        order = self._order(avatar_id)
        photo = self.files.path(f"{_folder(avatar_id)}/{_photo_file(order)}")
        uri = photo if self.files.local else self.files.fs.unstrip_protocol(photo)
        settings = parse_settings(order.settings)
        return SubjectRequest(avatar_id, uri if order.sha256 else "", settings, sha256=order.sha256, consent=order.consent, prompt=order.prompt)

    def out(self, avatar_id: str) -> str:
        """Root of everything that is made for an avatar."""
        return f"{self.root}/{_folder(_checked(avatar_id))}"

    def ids(self, owner: str, *, before: str = "", limit: int = 50) -> list[str]:
        """Ids of an owner, newest first.

        Args:
            before: Only those made before this id (the last of the page before).
        """
        names = self.files.names(f"owners/{_checked_owner(owner)}")[::-1]
        if before:
            names = names[next((i + 1 for i, name in enumerate(names) if name.endswith(_checked(before))), len(names)) :]
        found = (name.rsplit("-", 1)[-1] for name in names)
        return [avatar_id for avatar_id, _ in zip((i for i in found if self._exists(i)), range(limit))]

    def open_count(self, owner: str) -> int:
        """How many of an owner's avatars are not finished."""
        return len(self.files.names(f"open/{_checked_owner(owner)}"))

    def unfinished(self) -> list[str]:
        """Ids of everything that is queued or running, oldest first."""
        found = []
        for name in self.files.glob("open/*/*"):
            avatar_id = name.rsplit("/", 1)[-1]
            with suppress(Gone):
                order = self._order(avatar_id)
                if self._read(f"{_folder(avatar_id)}/END.json"):
                    self.files.remove(name)
                else:
                    self._settle(avatar_id, order)
                    found.append((order.created_at, avatar_id))
        return [avatar_id for _, avatar_id in sorted(found)]

    # -- events --------------------------------------------------------------------------------------------------------------------------------

    def append_event(self, avatar_id: str, kind: str, **data: Any) -> int:
        """Add an event; returns its number.

        Raises:
            Gone: The avatar was removed, or has ended.
        """
        self._order(avatar_id)
        if self._read(f"{_folder(avatar_id)}/END.json"):
            raise Gone(f"avatar {avatar_id} has ended")
        return self._append(avatar_id, kind, data)

    def _append(self, avatar_id: str, kind: str, data: Mapping[str, Any]) -> int:
        number = len(self._event_names(avatar_id)) + 1
        content = _json({"kind": kind, "at": self.clock(), "data": dict(data)})
        while not self.files.create(f"{_folder(avatar_id)}/events/{number:06d}.json", content):
            number += 1
        return number

    def events(self, avatar_id: str, *, after: int = 0) -> list[Event]:
        """Events with a number above ``after``; of an avatar that ended, the last one is its final state. Raises ``Gone``."""
        self._order(avatar_id)
        end = self._read(f"{_folder(avatar_id)}/END.json")  # before the listing, so that nothing is missed in front of the final one
        names = self._event_names(avatar_id)
        found = [self._event(avatar_id, name) for name in names if _number(name) > after]
        last = _number(names[-1]) + 1 if names else 1
        if end and last > after:
            found.append(Event(last, end["state"], end["at"], {k: end[k] for k in ("reason", "warnings") if end.get(k)}))
        return found

    def _event_names(self, avatar_id: str) -> list[str]:
        return [name for name in self.files.names(f"{_folder(avatar_id)}/events") if name.endswith(".json")]

    def _event(self, avatar_id: str, name: str) -> Event:
        says = self._read(f"{_folder(avatar_id)}/events/{name}")
        return Event(_number(name), says.get("kind", "lost"), says.get("at", 0.0), says.get("data", {}))

    def _last_progress(self, avatar_id: str) -> Mapping[str, Any]:
        for name in reversed(self._event_names(avatar_id)):
            event = self._event(avatar_id, name)
            if event.kind == "progress":
                return event.data
        return {}

    # -- leases --------------------------------------------------------------------------------------------------------------------------------

    def claim(self, avatar_id: str, owner: str, lease_s: float = LEASE_S) -> Lease | None:
        """The right to work on an unfinished avatar; None when somebody else has it, or it ended. Of several callers one gets it. Raises ``Gone``."""
        self._order(avatar_id)
        last = self._last_lease(avatar_id)  # looked up once: whoever saw the same last lease competes for the same next number
        if self._in_force(avatar_id, last) or self._read(f"{_folder(avatar_id)}/END.json"):
            return None
        number = last + 1
        name, content = f"{_folder(avatar_id)}/leases/{number:06d}.json", _json({"owner": owner, "until": self.clock() + lease_s})
        return Lease(avatar_id, number, owner) if self.files.create(name, content) else None

    def renew(self, lease: Lease, lease_s: float = LEASE_S) -> bool:
        """Hold on for ``lease_s`` more; False when it was taken over, cancelled or removed: stop working then."""
        if self._removed(lease.avatar_id) or self.is_cancelled(lease.avatar_id) or self._last_lease(lease.avatar_id) != lease.number:
            return False
        self._write_lease(lease, self.clock() + lease_s)
        return True

    def release(self, lease: Lease) -> None:
        """Let go, so that somebody else may go on at once."""
        if not self._removed(lease.avatar_id) and self._last_lease(lease.avatar_id) == lease.number:
            self._write_lease(lease, 0.0)

    def _write_lease(self, lease: Lease, until: float) -> None:
        self.files.write(f"{_folder(lease.avatar_id)}/leases/{lease.number:06d}.json", _json({"owner": lease.owner, "until": until}))

    def _last_lease(self, avatar_id: str) -> int:
        names = [name for name in self.files.names(f"{_folder(avatar_id)}/leases") if name.endswith(".json")]
        return _number(names[-1]) if names else 0

    def held(self, avatar_id: str) -> bool:
        """Does anybody work on it now?"""
        return self._in_force(avatar_id, self._last_lease(_checked(avatar_id)))

    def _in_force(self, avatar_id: str, number: int) -> bool:
        return bool(number) and self._read(f"{_folder(avatar_id)}/leases/{number:06d}.json").get("until", 0.0) > self.clock()

    # -- the end -------------------------------------------------------------------------------------------------------------------------------

    def finish(
        self, avatar_id: str, state: str, *, reason: Mapping[str, str] | None = None, warnings: tuple[str, ...] = (), key: Key | None = None
    ) -> bool:
        """Write the final state; the first one stays. Returns whether this was it. Raises ``Gone``.

        Args:
            key: Of the committed files, when done.
        """
        if state not in FINAL:
            raise ValueError(f"{state!r} is no final state")
        order = self._order(avatar_id)
        end = {"state": state, "reason": reason, "warnings": list(warnings), "key": str(key) if key else "", "at": self.clock()}
        first = self.files.create(f"{_folder(avatar_id)}/END.json", _json(end))
        self.files.remove(f"open/{order.owner}/{avatar_id}")
        return first

    def cancel(self, avatar_id: str) -> bool:
        """Ask for its end; whoever works on it sees it at the next renewal. False when it ended already. Raises ``Gone``."""
        self._order(avatar_id)
        if self._read(f"{_folder(avatar_id)}/END.json"):
            return False
        self.files.create(f"{_folder(avatar_id)}/CANCEL.json", _json({"at": self.clock()}))
        return True

    def is_cancelled(self, avatar_id: str) -> bool:
        """Its end was asked for, or it was removed."""
        return bool(self._removed(avatar_id)) or self.files.read(f"{_folder(avatar_id)}/CANCEL.json") is not None

    def bury(self, avatar_id: str) -> None:
        """From now on the avatar is unknown and nobody begins to work on it; its data is there until ``remove``. Raises ``Gone``."""
        order = self._order(avatar_id)
        self.files.create(f"tombstones/{_checked(avatar_id)}.json", _json({"owner": order.owner, "created_at": order.created_at, "at": self.clock()}))

    def remove(self, avatar_id: str) -> Removed:
        """Remove everything of an avatar: photo, events, artefacts, files. The id stays taken. End the work on it first.

        Raises:
            Gone: There was never such an avatar.
        """
        with suppress(Gone):
            self.bury(avatar_id)
        says = self._removed(avatar_id)
        if not says:
            raise _gone()
        sizes = self.files.fs.find(self.files.path(_folder(avatar_id)), detail=True)
        self._remove_whole(avatar_id)
        for name in (f"open/{says['owner']}/{avatar_id}", f"notify/{avatar_id}", f"owners/{says['owner']}/{_stamp(says['created_at'])}-{avatar_id}"):
            self.files.remove(name)
        return Removed(avatar_id, len(sizes), sum(int(entry.get("size") or 0) for entry in sizes.values()))

    def _remove_whole(self, avatar_id: str) -> None:
        """Remove the folder, also when somebody still writes his last file into it.

        Raises:
            StoreError: It keeps coming back, or may not be removed.
        """
        for _ in range(REMOVALS):
            try:
                self.files.remove(_folder(avatar_id))
                return
            except OSError as error:
                reason = error
            time.sleep(0.05)
        raise StoreError(f"avatar {avatar_id} cannot be removed ({reason})", remedy="check the permissions of the store, and remove it again")

    def traces(self, avatar_id: str) -> list[str]:
        """Names of files that a look everywhere the book writes finds of a removed avatar, but for the tombstone that keeps its id taken."""
        owner = self._removed(avatar_id).get("owner", "*")
        places = (f"{_folder(avatar_id)}/**", f"open/{owner}/{avatar_id}*", f"notify/{avatar_id}*", f"owners/{owner}/*-{avatar_id}*")
        return [name for place in places for name in self.files.glob(place)]

    def buried_for(self, avatar_id: str, owner: str) -> bool:
        """Was it this owner's, and removed?"""
        return self._removed(avatar_id).get("owner") == owner

    def sweep(self) -> list[str]:
        """Remove what a worker still wrote after a removal, and requests whose writing was never finished; returns the ids."""
        swept = []
        for avatar_id in self.files.names("avatars"):
            if _ID.fullmatch(avatar_id) and self._removed(avatar_id):
                self.remove(avatar_id)
                swept.append(avatar_id)
        for name in self.files.glob("open/*/*"):
            avatar_id = name.rsplit("/", 1)[-1]
            if self.clock() - self._read(name).get("at", 0.0) > ABANDONED_S and not self._exists(avatar_id):
                for left in (f"notify/{avatar_id}", _folder(avatar_id), name):
                    self.files.remove(left)
                swept.append(avatar_id)
        return swept

    # -- what was made -------------------------------------------------------------------------------------------------------------------------

    def artefacts(self, avatar_id: str) -> dict[str, dict[str, Any]]:
        """Files of a finished avatar: name -> {"bytes", "sha256"}; empty before. Raises ``Gone``."""
        key = self.get(avatar_id).key
        return self._subjects(avatar_id).listing(Key.parse(key)) if key else {}

    def open(self, avatar_id: str, name: str) -> IO[bytes]:
        """One of those files, opened for reading.

        Raises:
            Gone: No such avatar, or no such file. NotReady: It has none yet.
        """
        key = self.get(avatar_id).key
        if not key:
            raise NotReady("the avatar has no files yet", expected="state done", remedy=f"follow /v1/avatars/{avatar_id}/events")
        try:
            return self._subjects(avatar_id).open(Key.parse(key), name)
        except (StoreError, OSError) as error:
            raise Gone("there is no such file", remedy=f"see the list at /v1/avatars/{avatar_id}/artefacts") from error

    def avatar(self, avatar_id: str) -> Avatar:
        """The avatar itself, every byte checked. Raises ``Gone``, and ``NotReady`` before it is done."""
        import tempfile
        from pathlib import Path

        from svad_ray.store import load_avatar

        listed = self.artefacts(avatar_id)
        with tempfile.TemporaryDirectory(prefix="svad-ray-") as folder:
            for name in ("avatar.json", "avatar.safetensors"):
                with self.open(avatar_id, f"avatar/{name}") as stream:
                    content = stream.read()
                if hashlib.sha256(content).hexdigest() != listed[f"avatar/{name}"]["sha256"]:
                    raise StoreError(f"avatar/{name} of {avatar_id} was changed after it was committed", remedy="make the avatar again")
                Path(folder, name).write_bytes(content)
            return load_avatar(folder)

    def origin(self, avatar_id: str) -> dict[str, Any]:
        """Provenance of a finished avatar, as its description has it. Raises as ``open``."""
        with self.open(avatar_id, "avatar/avatar.json") as stream:
            return dict(json.load(stream).get("facts", {}).get("provenance", {}))

    # -- notices -------------------------------------------------------------------------------------------------------------------------------

    def to_notify(self) -> Iterator[AvatarRecord]:
        """Avatars that ended and whose webhook is still to be called."""
        for avatar_id in self.files.names("notify"):
            with suppress(Gone):
                record = self.get(avatar_id)
                if record.final:
                    yield record

    def begin_notice(self, avatar_id: str, waits_s: tuple[float, ...]) -> int | None:
        """Take the next try to tell of an avatar's end: its number, or None when it is not due yet or somebody else took it."""
        folder = f"{_folder(_checked(avatar_id))}/notices"
        names = [name for name in self.files.names(folder) if name.endswith(".json")]
        if names:
            wait_s = (*waits_s, waits_s[-1] if waits_s else 0.0)[min(len(names) - 1, len(waits_s))]
            if self.clock() < self._read(f"{folder}/{names[-1]}").get("at", 0.0) + wait_s:
                return None
        number = len(names) + 1
        return number if self.files.create(f"{folder}/{number:06d}.json", _json({"at": self.clock()})) else None

    def notified(self, avatar_id: str) -> None:
        """The webhook was called, or given up."""
        self.files.remove(f"notify/{_checked(avatar_id)}")

    # -- inside --------------------------------------------------------------------------------------------------------------------------------

    def _subjects(self, avatar_id: str) -> ArtefactStore:
        return ArtefactStore(f"{self.out(avatar_id)}/subjects")

    def _order(self, avatar_id: str) -> AvatarOrder:
        says = self._read(f"{_folder(_checked(avatar_id))}/request.json")
        if not says or self._removed(avatar_id):
            raise _gone()
        return AvatarOrder(**says)

    def _exists(self, avatar_id: str) -> bool:
        with suppress(Gone):
            self._order(avatar_id)
            return True
        return False

    def _removed(self, avatar_id: str) -> dict[str, Any]:
        return self._read(f"tombstones/{_checked(avatar_id)}.json")

    def _read(self, name: str) -> dict[str, Any]:
        content = self.files.read(name)
        try:
            return json.loads(content) if content else {}
        except ValueError as error:
            raise StoreError(f"{name} in the book of avatars is damaged", remedy="remove the avatar and ask for it again") from error


def plain_settings(settings: Settings) -> dict[str, Any]:
    """Settings as they are kept in an order: without those of the machine that answered."""
    return settings.model_dump(mode="json", exclude=_MACHINE_ONLY)


def _checked(avatar_id: str) -> str:
    if not _ID.fullmatch(avatar_id):
        raise _gone()
    return avatar_id


def _checked_owner(owner: str) -> str:
    if not _OWNER.fullmatch(owner):
        raise InputError("this is no owner's name", expected="lower-case letters, digits, '-' and '_', at most 40")
    return owner


def _gone() -> Gone:
    return Gone("there is no such avatar", expected="the id of an avatar of yours", remedy="see GET /v1/avatars")


def _folder(avatar_id: str) -> str:
    return f"avatars/{avatar_id}"


def _photo_file(order: AvatarOrder) -> str:
    return f"photo-{order.sha256}"


def _stamp(seconds: float) -> str:
    return f"{int(seconds * 1000):015d}"


def _number(name: str) -> int:
    return int(name.removesuffix(".json"))


def _json(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values, indent=1).encode()


def _fingerprint(order: AvatarOrder) -> str:
    """Of what the caller asked for; another server's defaults are not part of it."""
    asked: dict[str, Any] = {"sha256": order.sha256, "consent": order.consent, "options": dict(order.options), "webhook": order.webhook}
    asked |= {"prompt": order.prompt} if order.prompt else {}
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
