"""Attempts and quarantine: a subject that fails, kills its worker or hangs costs itself at most two tries of a step, and nobody else anything.

Layout below the root::

    <folder>/<digest>/<step>/<id>.json    an attempt that is running, has failed, or ended with its worker; removed when it succeeds
    <folder>/<digest>/QUARANTINED.json    the subject is given up, and why; created once

An attempt that is still open although nobody works on it any more took its worker with it. It counts, unless the worker was taken from outside: its
node is gone, or the whole run was stopped (the attempt belongs to an earlier run).
"""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from svad_ray.store import Key
from svad_ray.store.files import Files

ATTEMPTS = 2
QUARANTINED = "QUARANTINED.json"
RUNNING, FAILED, EXCUSED = "running", "failed", "excused"
_DIED = "its worker died (killed, or out of memory)"


class Exhausted(Exception):
    """The step was tried as often as it may be; ``reasons`` say what became of each attempt."""

    def __init__(self, step: str, reasons: list[str]) -> None:
        self.step, self.reasons = step, reasons
        super().__init__(f"{step}: {'; '.join(dict.fromkeys(reasons))}")


@dataclass(frozen=True)
class Attempt:
    """One try of one step.

    Attributes:
        key: The subject's. step: What was tried. id: Of the attempt.
        run: Which bulk run or service made it; attempts of a run that was stopped do not count.
        node: Where. worker: host and process id.
        began: Unix seconds. state: "running", "failed" or "excused". reason: Why it failed.
    """

    key: Key
    step: str
    id: str
    run: str
    node: str
    worker: str
    began: float
    state: str = RUNNING
    reason: str = ""


@dataclass(frozen=True)
class Quarantine:
    """A subject that was given up: in which step, why, and after how many attempts."""

    key: Key
    subject_id: str
    step: str
    reason: str
    attempts: int


class Ledger:
    """Attempts and quarantine of every subject below ``root``.

    Args:
        root: ``<out>/ledger``, any fsspec address.
        run: Name of this run; every process of it says the same.
        node: Which node this process is on.
        node_alive: Is a node still part of the cluster? Attempts on lost nodes do not count.
    """

    def __init__(self, root: str, *, run: str = "", node: str = "", node_alive: Callable[[str], bool] = lambda node: True) -> None:
        self.files, self.run, self.node, self.node_alive = Files(root), run, node, node_alive

    def begin(self, key: Key, step: str) -> Attempt:
        """Record that a try begins now.

        Raises:
            Exhausted: It was tried ``ATTEMPTS`` times already.
        """
        counted = [attempt for attempt in self.attempts(key, step) if self._counts(attempt)]
        if len(counted) >= ATTEMPTS:
            raise Exhausted(step, [attempt.reason or _DIED for attempt in counted])
        worker = f"{socket.gethostname()}:{os.getpid()}"
        attempt = Attempt(key, step, uuid.uuid4().hex[:12], self.run, self.node, worker, time.time())
        self._write(attempt)
        return attempt

    def succeeded(self, attempt: Attempt) -> None:
        """The step is committed; its attempts are forgotten."""
        self.files.remove(f"{_folder(attempt.key)}/{attempt.step}")

    def failed(self, attempt: Attempt, reason: str) -> None:
        """The try ended without a result, by the subject's own doing as far as can be told."""
        self._write(replace(attempt, state=FAILED, reason=reason))

    def excuse(self, attempt: Attempt, reason: str) -> None:
        """The try was ended from outside; it does not count."""
        self._write(replace(attempt, state=EXCUSED, reason=reason))

    def attempts(self, key: Key, step: str) -> list[Attempt]:
        """Every attempt of a step that did not succeed, oldest first; a torn record counts as one whose worker died."""
        folder = f"{_folder(key)}/{step}"
        found = [self._read(key, step, f"{folder}/{name}") for name in self.files.names(folder) if name.endswith(".json")]
        return sorted(found, key=lambda attempt: attempt.began)

    def quarantine(self, key: Key, subject_id: str, step: str, reason: str, *, attempts: int) -> Quarantine:
        """Give the subject up; the first reason stays."""
        made = Quarantine(key, subject_id, step, reason, attempts)
        name = f"{_folder(key)}/{QUARANTINED}"
        if self.files.create(name, json.dumps({**asdict(made), "key": str(key)}, indent=1).encode()):
            return made
        return self._quarantine(name) or made

    def quarantined(self) -> dict[Key, Quarantine]:
        """Every subject that was given up."""
        found = (self._quarantine(name) for name in self.files.glob(f"*/*/{QUARANTINED}"))
        return {entry.key: entry for entry in found if entry}

    def release(self, key: Key) -> bool:
        """Forget attempts and quarantine of a subject, so that it is tried anew; False when nothing was recorded."""
        known = bool(self.files.names(_folder(key)))
        self.files.remove(_folder(key))
        return known

    def open_attempts(self) -> Iterator[Attempt]:
        """Every attempt that is running, or was when its worker died."""
        for name in self.files.glob("*/*/*/*.json"):
            folder, digest, step, _ = name.split("/")
            attempt = self._read(Key(folder, digest), step, name)
            if attempt.state == RUNNING:
                yield attempt

    def _counts(self, attempt: Attempt) -> bool:
        if attempt.state == FAILED:
            return True
        return attempt.state == RUNNING and attempt.run == self.run and self.node_alive(attempt.node)

    def _write(self, attempt: Attempt) -> None:
        name = f"{_folder(attempt.key)}/{attempt.step}/{attempt.id}.json"
        self.files.write(name, json.dumps({**asdict(attempt), "key": str(attempt.key)}).encode())

    def _read(self, key: Key, step: str, name: str) -> Attempt:
        says = _json(self.files.read(name))
        try:
            return Attempt(key, step, **{name: says[name] for name in ("id", "run", "node", "worker", "began", "state", "reason")})
        except KeyError:
            return Attempt(key, step, name.rsplit("/", 1)[-1].removesuffix(".json"), self.run, self.node, "unknown", 0.0)

    def _quarantine(self, name: str) -> Quarantine | None:
        says = _json(self.files.read(name))
        if not says:
            return None
        return Quarantine(**{**says, "key": Key.parse(says["key"])})


def _folder(key: Key) -> str:
    return f"{key.stage}/{key.digest}"


def _json(content: bytes | None) -> dict[str, Any]:
    try:
        return json.loads(content) if content else {}
    except ValueError:
        return {}
