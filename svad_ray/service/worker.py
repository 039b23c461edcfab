"""A process that makes avatars one after the other: what runs behind ``local_engine``.

Run as ``python -m svad_ray.service.worker ROOT KIT``. It reads one JSON object a line and answers each with one: ``{"avatar": id}`` with
``{"state": ...}``. It ends when its input ends, so it never outlives whoever started it, and its end ends the work: nothing else needs killing.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from queue import SimpleQueue
from typing import Any

from svad_ray.config import Settings, parse_settings
from svad_ray.errors import InputError, QualityRejected, StageFailed
from svad_ray.ledger import Exhausted, Ledger, SubjectRequest
from svad_ray.service.book import AvatarBook
from svad_ray.service.records import DONE, FAILED, Gone
from svad_ray.store import Committed

PERMANENT = (QualityRejected, InputError)  # trying again cannot help
TOLD_EVERY_S = 1.0
AGAIN = "again"


class Teller:
    """Progress as events, not too many: the first and last of each step, and one a second between.

    Args:
        book: Where they go. avatar_id: Whose they are.
    """

    def __init__(self, book: AvatarBook, avatar_id: str, *, every_s: float = TOLD_EVERY_S) -> None:
        self.book, self.avatar_id, self.every_s = book, avatar_id, every_s
        self.shares: dict[str, float] = {}
        self._told_at = 0.0
        self._lock = threading.Lock()

    def __call__(self, step: str, share: float) -> None:
        """A step's finished share. Raises ``Gone`` when the avatar was removed or has ended."""
        with self._lock:
            known, share = self.shares.get(step), round(min(max(share, 0.0), 1.0), 4)
            if known == share or (known is not None and share < 1 and time.monotonic() - self._told_at < self.every_s):
                return
            self.shares[step], self._told_at = share, time.monotonic()
            self.book.append_event(self.avatar_id, "progress", step=step, share=share, progress=dict(self.shares))


def make_avatar(book: AvatarBook, avatar_id: str, kit: Any, *, machine: Settings, exports: tuple[str, ...], run: str) -> str:
    """Make one avatar and write its end into the book; what an earlier try committed is not done again.

    Args:
        kit: A ``fulfil.Kit``. machine: Threads, offline and cache folder are taken from here.
        run: Name of the service's run; tries of earlier runs do not count against the two.

    Returns:
        The final state, or "again" when it failed and may be tried once more.
    """
    from svad_ray.fulfil import fulfil
    from svad_ray.service.answers import describe

    request = _on_this_machine(book.subject_request(avatar_id), machine)
    ledger, hide = Ledger(f"{book.out(avatar_id)}/ledger", run=run), (book.root, book.files.root)
    try:
        attempt = ledger.begin(request.key, "create")
    except Exhausted as spent:
        failure = StageFailed(str(spent), remedy="ask for the avatar once more")
        return _end(book, avatar_id, FAILED, reason=describe(failure, hide=hide))
    book.append_event(avatar_id, "started", attempt=len(ledger.attempts(request.key, "create")))
    try:
        marker = fulfil(request, book.out(avatar_id), kit=kit, tell=Teller(book, avatar_id), exports=exports)
    except Gone:
        raise
    except PERMANENT as error:
        return _end(book, avatar_id, FAILED, reason=describe(error, hide=hide))
    except Exception as error:
        ledger.failed(attempt, f"{type(error).__name__}: {error}")
        reason = describe(error, hide=hide)
        spent_all = sum(one.state == "failed" for one in ledger.attempts(request.key, "create")) > 1
        return _end(book, avatar_id, FAILED, reason=reason) if spent_all else AGAIN
    ledger.succeeded(attempt)
    return _done(book, avatar_id, marker)


def _on_this_machine(request: SubjectRequest, machine: Settings) -> SubjectRequest:
    own = {name: getattr(machine, name) for name in ("threads", "offline", "cache_dir", "signing")}
    settings = parse_settings({**request.settings.model_dump(), **own})
    return replace(request, settings=settings)


def _done(book: AvatarBook, avatar_id: str, marker: Committed) -> str:
    warnings = tuple(str(warning) for warning in marker.facts.get("warnings", ()))
    return _end(book, avatar_id, DONE, warnings=warnings, key=marker.key)


def _end(book: AvatarBook, avatar_id: str, state: str, **options: Any) -> str:
    book.finish(avatar_id, state, **options)
    return state


def serve(root: str, kit_path: str) -> None:
    """Answer orders from standard input until it ends."""
    orders: SimpleQueue[Mapping[str, Any]] = SimpleQueue()
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")  # whatever a library prints must not be taken for an answer
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    threading.Thread(target=_read, args=(orders,), daemon=True, name="svad-ray-orders").start()
    from svad_ray.fulfil import find_kit
    from svad_ray.local import prepare

    book, kit = AvatarBook(root), find_kit(kit_path)
    _say(answers, {"state": "ready"})
    while True:
        order = orders.get()
        machine = parse_settings(order["machine"])
        prepare(machine)
        with _answered(answers) as answer:
            answer["state"] = make_avatar(book, order["avatar"], kit, machine=machine, exports=tuple(order["exports"]), run=order["run"])


@contextmanager
def _answered(answers: Any) -> Iterator[dict[str, Any]]:
    """Say what became of an order, whatever that was."""
    answer: dict[str, Any] = {"state": "lost"}
    try:
        yield answer
    except Gone:
        answer["state"] = "gone"
    except Exception as error:
        answer |= {"state": "broken", "error": f"{type(error).__name__}: {error}"}
    _say(answers, answer)


def _say(answers: Any, values: Mapping[str, Any]) -> None:
    answers.write(json.dumps(values) + "\n")
    answers.flush()


def _read(orders: SimpleQueue[Mapping[str, Any]]) -> None:
    """Orders as they come; the end of the input is the end of this process, in the middle of whatever it does."""
    with suppress(ValueError, OSError):
        for line in sys.stdin:
            orders.put(json.loads(line))
    os._exit(0)


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "")
