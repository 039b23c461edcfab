"""The conductor: takes requests from the book of avatars, runs each in a placement-grouped task, and keeps the book true meanwhile.

What is asked for and what is done lies in the store alone. A conductor that dies leaves leases that run out; the next one goes on with everything
that is unfinished, and steps that are committed are not done again.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

import ray
from ray import serve

from svad_ray.cluster.config import selector
from svad_ray.cluster.hosts import prepare_worker
from svad_ray.cluster.placement import Finished, PlacementQueue
from svad_ray.cluster.serve_calls import Insisting, ResidentFrames, plain, resident_kit
from svad_ray.cluster.serve_config import ServeArgs
from svad_ray.cluster.session import alive_nodes, assigned_cpus, this_node
from svad_ray.errors import ArtefactDamaged, InputError, QualityRejected, StageFailed, Unanswered
from svad_ray.fulfil import find_kit, fulfil
from svad_ray.ledger import ATTEMPTS, Attempt, Exhausted, Ledger, SubjectRequest
from svad_ray.ledger.limits import bounded
from svad_ray.service.answers import describe
from svad_ray.service.book import AvatarBook
from svad_ray.service.records import CANCELLED, DONE, FAILED, Gone, Lease
from svad_ray.service.worker import Teller
from svad_ray.store import ArtefactStore, Key

_log = logging.getLogger(__name__)
PERMANENT = (QualityRejected, InputError)  # trying again cannot help
STEP, AGAIN = "create", "again"
TICK_S, STUCK_S = 0.25, 120.0
LATER_S = 15.0  # before something that the store or the cluster refused is tried again
LOST_AT_MOST = 20  # times that an avatar's task may be lost with its node
UNANSWERED_AT_MOST = 10  # tries, most of a minute each, that find nobody at home
STOPPED_WITHIN_S = 60.0


@dataclass(frozen=True)
class Task:
    """What the task of one avatar is told.

    Attributes:
        avatar_id: Which. app: Serve application whose deployments hold the models. run: The conductor's; tries of earlier ones do not count.
        args: Of the application.
    """

    avatar_id: str
    app: str
    run: str
    args: ServeArgs

    @property
    def book(self) -> AvatarBook:
        """The book."""
        return AvatarBook(self.args.service.store)

    @property
    def request(self) -> SubjectRequest:
        """What is to be made, with this machine's settings."""
        asked = self.book.subject_request(self.avatar_id)
        own = {"offline": self.args.offline, "cache_dir": self.args.cache_dir}
        return replace(asked, settings=asked.settings.model_copy(update=own))

    def ledger(self) -> Ledger:
        """The avatar's ledger as seen from this node."""
        out = self.book.out(self.avatar_id)
        return Ledger(f"{out}/ledger", run=self.run, node=this_node(), node_alive=lambda node: node in alive_nodes())


def make_avatar(task: Task) -> str:
    """One try to make an avatar; writes its end into the book when it is final. Runs in a worker of its own.

    Returns:
        "done", "failed", or "again" when it failed and may be tried once more.

    Raises:
        Gone: The avatar was removed. StoreError: The book cannot be written.
    """
    book, request, ledger = task.book, task.request, task.ledger()
    hide = book.root, book.files.root
    try:
        attempt = ledger.begin(request.key, STEP)
    except Exhausted as spent:
        book.finish(task.avatar_id, FAILED, reason=describe(StageFailed(str(spent)), hide=hide))
        return FAILED
    book.append_event(task.avatar_id, "started", attempt=len(ledger.attempts(request.key, STEP)))
    try:
        marker = _fulfilled(task, request, partial(ledger.failed, attempt))
    except Gone:
        raise
    except Exception as error:
        return _failed(task, ledger, attempt, plain(error), hide)
    ledger.succeeded(attempt)
    book.finish(task.avatar_id, DONE, warnings=tuple(map(str, marker.facts.get("warnings", ()))), key=marker.key)
    return DONE


def _fulfilled(task: Task, request: SubjectRequest, say: Callable[[str], None]) -> Any:
    training = task.args.conducting.training
    prepare_worker(request.settings, task.args.conducting.threads or assigned_cpus())
    calls = Insisting(task.app, marks=task.args.service.store, together=True)
    with bounded(timeout_s=training.timeout_s, memory_gib=training.memory_gib, say=say):
        return fulfil(
            request,
            task.book.out(task.avatar_id),
            kit=resident_kit(find_kit(task.args.kit), calls, draws=task.args.picture is not None),
            frames=ResidentFrames(task.app, calls=calls),
            tell=Teller(task.book, task.avatar_id),
            exports=task.args.service.exports,
            checkpoint_s=training.checkpoint_s,
        )


def _failed(task: Task, ledger: Ledger, attempt: Attempt, error: Exception, hide: tuple[str, ...]) -> str:
    """Count the try and say whether there is another one."""
    if isinstance(error, Unanswered):  # the deployments are away: not the avatar's fault, unless they never come back
        ledger.excuse(attempt, str(error))
        if sum(one.state == "excused" for one in ledger.attempts(attempt.key, STEP)) < UNANSWERED_AT_MOST:
            return AGAIN
    ledger.failed(attempt, f"{type(error).__name__}: {error}")
    if isinstance(error, ArtefactDamaged) and error.key:
        ArtefactStore(f"{task.book.out(task.avatar_id)}/work").uncommit(Key.parse(error.key))
    reason = describe(error, hide=hide)
    failures = sum(one.state == "failed" for one in ledger.attempts(attempt.key, STEP))
    if not isinstance(error, (*PERMANENT, Unanswered)) and failures < ATTEMPTS:
        return AGAIN
    task.book.finish(task.avatar_id, FAILED, reason=reason)
    return FAILED


@dataclass
class _Held:
    """An avatar that this conductor works on."""

    lease: Lease
    renewed_at: float


class Conducted:
    """The conductor's loop, in a thread of its own.

    Args:
        app: Serve application whose deployments hold the models.
    """

    def __init__(self, args: ServeArgs, app: str) -> None:
        self.args, self.app, self.run = args, app, f"conductor-{uuid.uuid4().hex[:12]}"
        self.book = AvatarBook(args.service.store)
        conducting = args.conducting
        self.queue = PlacementQueue(
            conducting.training.bundle,
            at_most=conducting.training.at_once or None,
            label_selector=selector(conducting.label) or None,
            waiting_groups=conducting.waiting,
        )
        self.held: dict[str, _Held] = {}
        self.lost: Counter[str] = Counter()
        self._not_before: dict[str, float] = {}
        self._stops: SimpleQueue[tuple[str, Future[None]]] = SimpleQueue()
        self._wanted, self._closing = threading.Event(), threading.Event()
        self._looked = self.alive_at = time.monotonic()
        self._wanted.set()
        self._thread = threading.Thread(target=self._loop, daemon=True, name="svad-ray-conductor")
        self._thread.start()

    def wake(self) -> None:
        """There is something new in the book."""
        self._wanted.set()

    def stop(self, avatar_id: str) -> Future[None]:
        """End the work on an avatar; done when nothing of it runs any more."""
        stopped: Future[None] = Future()
        self._stops.put((avatar_id, stopped))
        self._wanted.set()
        return stopped

    def close(self) -> None:
        """End the loop and its tasks, and let go of what is unfinished, so that the next conductor goes on at once."""
        self._closing.set()
        self._wanted.set()
        self._thread.join(STOPPED_WITHIN_S)

    # the loop ----------------------------------------------------------------------------------------------------------------------------------

    def _loop(self) -> None:
        while not self._closing.is_set():
            self.alive_at = time.monotonic()
            try:
                self._tick()
            except Exception:
                _log.exception("the conductor could not go on; trying again")
                self._closing.wait(1.0)
        self._let_go()

    def _tick(self) -> None:
        self._take_stops()
        self._renew()
        self._claim()
        for finished in self.queue.finished(TICK_S):
            self._ended(finished)
        if not len(self.queue):
            self._wanted.wait(TICK_S)

    def _take_stops(self) -> None:
        while True:
            try:
                avatar_id, stopped = self._stops.get_nowait()
            except Empty:
                return
            try:
                self._drop(avatar_id)
                stopped.set_result(None)
            except Exception as error:
                stopped.set_exception(error)

    def _renew(self) -> None:
        """Hold on to what is in work; what was cancelled, removed or taken over is ended."""
        lease_s, now = self.args.conducting.lease_s, time.monotonic()
        for avatar_id, held in list(self.held.items()):
            if now - held.renewed_at < lease_s / 4:
                continue
            if self.book.renew(held.lease, lease_s):
                held.renewed_at = now
                continue
            self._drop(avatar_id)
            with suppress(Gone):
                if self.book.is_cancelled(avatar_id):
                    self.book.finish(avatar_id, CANCELLED)

    def _claim(self) -> None:
        """Take on unfinished avatars, oldest first, while few wait for a bundle."""
        due = time.monotonic() - self._looked >= self.args.conducting.poll_s
        if self._room() <= 0 or not (self._wanted.is_set() or due):
            return
        self._wanted.clear()
        self._looked = time.monotonic()
        for avatar_id in self.book.unfinished():
            if self._room() <= 0:
                self._wanted.set()  # look again as soon as there is room
                return
            if avatar_id not in self.held and self._not_before.get(avatar_id, 0.0) <= time.monotonic():
                self._take_on(avatar_id)

    def _room(self) -> int:
        waiting = len(self.queue) - len(self.queue.running)
        return self.args.conducting.waiting - waiting

    def _take_on(self, avatar_id: str) -> None:
        with suppress(Gone):
            if self.book.is_cancelled(avatar_id):
                self.book.finish(avatar_id, CANCELLED)
            elif lease := self.book.claim(avatar_id, self.run, self.args.conducting.lease_s):
                self.held[avatar_id] = _Held(lease, time.monotonic())
                self._submit(avatar_id)

    def _submit(self, avatar_id: str) -> None:
        self.queue.submit(avatar_id, make_avatar, Task(avatar_id, self.app, self.run, self.args))

    def _ended(self, finished: Finished) -> None:
        """A task came to its end, one way or the other."""
        avatar_id, error = finished.name, finished.error
        if isinstance(error, ray.exceptions.RayError):
            self._task_lost(avatar_id, error)
        elif error is None and finished.value == AGAIN:
            self._submit(avatar_id)
        else:
            if error is not None and not isinstance(error, Gone):
                _log.error("avatar %s: its task could not go on", avatar_id, exc_info=error)
                self._not_before[avatar_id] = time.monotonic() + LATER_S
            self._release(avatar_id)

    def _task_lost(self, avatar_id: str, error: Exception) -> None:
        """Its worker or node died. The ledger counts the try if it was the avatar's own doing, and refuses a third."""
        self.lost[avatar_id] += 1
        _log.warning("avatar %s: its task was lost (%s)", avatar_id, type(error).__name__)
        if self.lost[avatar_id] <= LOST_AT_MOST:
            self._submit(avatar_id)
            return
        with suppress(Gone):
            self.book.finish(avatar_id, FAILED, reason=describe(StageFailed(f"its task was lost {LOST_AT_MOST} times")))
        self._release(avatar_id)

    def _drop(self, avatar_id: str) -> None:
        """End its task; returns when the worker is gone."""
        self.queue.cancel(avatar_id)
        self._release(avatar_id)

    def _release(self, avatar_id: str) -> None:
        held = self.held.pop(avatar_id, None)
        self.lost.pop(avatar_id, None)
        self._wanted.set()
        if held is not None:
            with suppress(Gone):
                self.book.release(held.lease)

    def _let_go(self) -> None:
        self.queue.close()
        for avatar_id in list(self.held):
            with suppress(Exception):
                self._release(avatar_id)


class Conductor:
    """The deployment: one replica."""

    def __init__(self, args: ServeArgs) -> None:
        self._conducted = Conducted(args, serve.get_replica_context().app_name)

    async def wake(self, avatar_id: str) -> None:
        """A new request is in the book."""
        self._conducted.wake()

    async def stop(self, avatar_id: str) -> None:
        """End the work on an avatar; returns when nothing of it runs any more."""
        await asyncio.wrap_future(self._conducted.stop(avatar_id))

    async def at_work(self) -> list[str]:
        """Ids of the avatars whose tasks run."""
        return self._conducted.queue.running

    def check_health(self) -> None:
        """Asked by Serve; raises when the loop stands still."""
        if time.monotonic() - self._conducted.alive_at > STUCK_S:
            raise RuntimeError("the conductor's loop stands still")

    async def __del__(self) -> None:
        """The end of the replica."""
        await asyncio.to_thread(self._conducted.close)
