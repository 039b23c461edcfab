"""The bulk run: Ray Data shards the frames of all subjects over worker pools, placement groups train, the driver keeps the books.

::

    subjects -> generate pool -> blocks of frames -> fuse pool -> restore pool -> (subject's last block) -> placement-grouped training -> committed

One streaming Dataset for the whole run: a subject goes on to training as soon as its own frames are committed, while others are still generated.
Execution is at least once, a result counts once (its marker). Whatever falls out of the Dataset for a reason that is not the subject's own is made
up for by the training task, which does everything that is not committed yet.
"""

from __future__ import annotations

import json
import logging
import queue
import threading
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import ray

from svad_ray.backends import Backend
from svad_ray.cluster.config import POOLS, ClusterConfig, Pool, sized
from svad_ray.cluster.metrics import BulkMetrics
from svad_ray.cluster.placement import Finished, PlacementQueue
from svad_ray.cluster.preflight import check_models, check_residents, check_resources, check_store
from svad_ray.cluster.view import View
from svad_ray.cluster.workers import BLOCK, FAILED, OF_THE_JOB, STEPS, FrameWorker, GenerateWorker, Job, train_subject
from svad_ray.errors import ArtefactDamaged, StageFailed
from svad_ray.fulfil import find_kit
from svad_ray.ledger import Ledger, SubjectRequest
from svad_ray.ledger.status import COMMITTED, FRAMES, QUARANTINED, READY, TRAINING, WAITING, SubjectStatus, write_status
from svad_ray.store import ArtefactStore, Key

_log = logging.getLogger(__name__)
_TICK_S = 0.5
_STARTS_AT_MOST = 8  # pool workers in a row that may die before their first work; Ray now and then cancels one that it has only just asked for
_LOST_AT_MOST = 20  # times that a subject's training task may be lost with its node before that is called a fault of the run


@dataclass(frozen=True)
class Summary:
    """How a run ended; ``complete`` when every subject of the manifest is committed or quarantined."""

    total: int
    committed: int
    quarantined: int
    found_done: int
    seconds: float
    statuses: tuple[SubjectStatus, ...]

    @property
    def complete(self) -> bool:
        return self.committed + self.quarantined == self.total


@dataclass
class _Books:
    """What the driver knows of every subject."""

    requests: dict[Key, SubjectRequest]
    status: dict[Key, SubjectStatus]
    blocks: dict[Key, set[int]] = field(default_factory=dict)
    lost: Counter[Key] = field(default_factory=Counter)

    def open(self) -> list[Key]:
        """Subjects that are neither committed nor quarantined."""
        return [key for key, status in self.status.items() if status.state not in (COMMITTED, QUARANTINED)]


def run_bulk(requests: Sequence[SubjectRequest], out: str, config: ClusterConfig, *, view: View | None = None) -> Summary:
    """Make the avatars of all ``requests`` below ``out``; what an earlier run finished is not done again.

    Connect to a cluster first (``session.connect``).

    Raises:
        BackendUnavailable, WeightsMissing, StoreError: The run itself cannot go on (resources, model files, disk); nothing finished is lost.
    """
    run = BulkRun(requests, out, config, view=view)
    try:
        return run.go()
    finally:
        run.close()


class BulkRun:
    """One run of the driver. ``go`` once, ``close`` always."""

    def __init__(self, requests: Sequence[SubjectRequest], out: str, config: ClusterConfig, *, view: View | None = None) -> None:
        self.config = sized(config, cpus=ray.cluster_resources().get("CPU", 1.0))
        self.job = Job(out, uuid.uuid4().hex[:12], self.config)
        self.out, self._began = out, time.monotonic()
        check_store(out)
        self.store, self.ledger = ArtefactStore(f"{out}/subjects"), Ledger(f"{out}/ledger", run=self.job.run)
        self.books = self._opened(requests)
        self.found_done = len(requests) - len(self.books.open())
        self.view = view or View(len(requests), kept=self.found_done, quiet=True)
        self.view.kept = self.found_done
        train = self.config.train
        self.placement = PlacementQueue(train.bundle, at_most=train.at_once or None, label_selector=self.config.label_selector or None)
        self._messages: queue.Queue[dict[str, Any] | Exception | None] = queue.Queue()
        self._streaming = False
        self._heard = time.monotonic()
        self._stop = threading.Event()
        self._status_written = time.monotonic()
        self.metrics: BulkMetrics | None = None

    def go(self) -> Summary:
        """Run until every subject is committed or quarantined."""
        open_keys = self.books.open()
        if open_keys:
            self._preflight(open_keys)
            self.metrics = BulkMetrics(self.job.run)
            self.view.event("began", run=self.job.run, subjects=len(open_keys), found_done=self.found_done)
            self._start_frames(open_keys)
            while self._streaming or self.books.open():
                self._drain()
                self._watch()
                for finished in self.placement.finished(_TICK_S):
                    self._trained(finished)
                self._show()
        write_status(self.out, self.books.status.values())
        self._show(force=True)
        return self._summary()

    def close(self) -> None:
        """End what is still running; every placement group is removed."""
        self._stop.set()
        self.placement.close()

    def _opened(self, requests: Sequence[SubjectRequest]) -> _Books:
        """Resume: subtract the markers and the quarantined."""
        books = _Books({r.key: r for r in requests}, {r.key: SubjectStatus(r.subject_id, r.uri, str(r.key)) for r in requests})
        for key in self.store.committed_keys():
            if key in books.status:
                self._found(key, books.status[key])
        for key, entry in self.ledger.quarantined().items():
            if key in books.status and books.status[key].state != COMMITTED:
                self._note(books.status[key], QUARANTINED, step=entry.step, reason=entry.reason, attempts=entry.attempts)
        return books

    def _found(self, key: Key, status: SubjectStatus) -> None:
        """A marker from an earlier run; one that is torn is forgotten."""
        try:
            marker = self.store.committed(key)
        except ArtefactDamaged:
            self.store.uncommit(key)
            return
        if marker:
            status.facts = marker.facts
            self._note(status, COMMITTED)

    def _preflight(self, keys: list[Key]) -> None:
        check_resources(self.config)
        check_residents(self.config)
        check_models(self.config, self._backends(keys))

    def _backends(self, keys: list[Key]) -> list[Backend]:
        kit = find_kit(self.config.kit)
        chosen = {request.settings: None for request in (self.books.requests[key] for key in keys)}
        return [stage.backend for settings in chosen for stage in vars(kit.stages(settings)).values()]

    # frames ------------------------------------------------------------------------------------------------------------------------------------

    def _start_frames(self, keys: list[Key]) -> None:
        """Stream all subjects through the pools, in a thread."""
        ordered = sorted(keys, key=lambda key: -cost(self.books.requests[key]))
        rows = [{"request": json.dumps(self.books.requests[key].to_json())} for key in ordered]
        self._streaming, self._heard = True, time.monotonic()
        threading.Thread(target=self._stream, args=(rows,), daemon=True, name="svad-ray-frames").start()

    def _stream(self, rows: list[dict[str, str]]) -> None:
        try:
            for batch in dataset(self.job, rows).iter_batches(batch_size=None, prefetch_batches=0):
                for text in batch["message"]:
                    self._messages.put(json.loads(text))
                if self._stop.is_set():
                    return
            self._messages.put(None)
        except Exception as error:
            self._messages.put(error)

    def _drain(self) -> None:
        """Take the messages of the pools."""
        while True:
            try:
                message = self._messages.get(timeout=0 if len(self.placement) else _TICK_S)
            except queue.Empty:
                return
            self._heard = time.monotonic()
            if message is None:
                self._frames_ended("fell out of the stream")
            elif isinstance(message, Exception):
                self._frames_failed(message)
            else:
                self._block(message)
            if not self._streaming:
                return

    def _watch(self) -> None:
        """Pools that stand still hold nobody up for ever."""
        limits = [getattr(self.config, name).timeout_s for name in POOLS]
        stall_s = self.config.stall_s or (2 * max(limits) + 120 if all(limits) else 0)
        if len(self.placement):
            self._heard = time.monotonic()
        elif self._streaming and stall_s and time.monotonic() - self._heard > stall_s:
            _log.warning("the frame pools stood still for %g s; the rest is done by the training tasks", stall_s)
            self._frames_ended("the frame pools stood still")

    def _block(self, message: dict[str, Any]) -> None:
        key = Key.parse(message["key"])
        status = self.books.status[key]
        if status.state not in (WAITING, FRAMES):
            return
        if message["kind"] == FAILED:
            self._give_up(key, message)
        elif message["kind"] == BLOCK:
            status.state = FRAMES
            done = self.books.blocks.setdefault(key, set())
            if message["block"] not in done:
                done.add(message["block"])
                self._count_frames(message)
            if len(done) == message["of"]:
                self._train(key)
        else:
            self._train(key)

    def _count_frames(self, message: dict[str, Any]) -> None:
        order = message["orders"][STEPS[-1]]
        self.view.frames += order["stop"] - order["start"]
        if self.metrics:
            self.metrics.frames(order["stop"] - order["start"])

    def _frames_ended(self, why: str) -> None:
        """Nothing more comes out of the pools: who is not through goes to the task that does everything that is missing."""
        self._streaming = False
        for key in self.books.open():
            if self.books.status[key].state in (WAITING, FRAMES):
                self.view.event("left over", self.books.status[key], reason=why)
                self._train(key)

    def _frames_failed(self, error: Exception) -> None:
        cause = _cause(error)
        if isinstance(cause, OF_THE_JOB):
            raise cause
        _log.warning("the frame pools ended early (%s: %s); the rest is done by the training tasks", type(cause).__name__, cause, exc_info=error)
        self._frames_ended(f"the frame pools ended early: {type(cause).__name__}")

    # training ----------------------------------------------------------------------------------------------------------------------------------

    def _train(self, key: Key) -> None:
        request = self.books.requests[key]
        self.books.status[key].state = READY
        self.placement.submit(str(key), train_subject, self.job, json.dumps(request.to_json()), cost=cost(request))
        self.view.event("ready", self.books.status[key])

    def _trained(self, finished: Finished) -> None:
        key = Key.parse(finished.name)
        if finished.error is not None:
            self._task_lost(key, finished.error)
        elif finished.value["kind"] == FAILED:
            self._give_up(key, finished.value)
        else:
            status = self.books.status[key]
            status.facts = finished.value["facts"]
            self._note(status, COMMITTED)
            self.view.event("committed", status, seconds=round(status.row()["seconds"], 3))
            if self.metrics:
                self.metrics.finished(status.facts.get("stages", {}))

    def _task_lost(self, key: Key, error: Exception) -> None:
        """The task went with its worker or node: again; the ledger ends it when that is the subject's doing."""
        cause = _cause(error)
        if isinstance(cause, OF_THE_JOB):
            raise cause
        status = self.books.status[key]
        self.books.lost[key] += 1
        status.attempts = max(status.attempts, self.books.lost[key] + 1)
        self.view.event("lost", status, reason=f"{type(cause).__name__}: {cause}"[:300])
        if self.metrics:
            self.metrics.lost()
        if self.books.lost[key] > _LOST_AT_MOST:
            raise StageFailed(
                f"the training task of '{status.subject_id}' was lost {_LOST_AT_MOST} times ({cause})", remedy="look at the nodes"
            ) from error
        self._train(key)

    def _give_up(self, key: Key, message: dict[str, Any]) -> None:
        status = self.books.status[key]
        entry = self.ledger.quarantine(key, status.subject_id, message["step"], message["reason"], attempts=message["attempts"])
        self._note(status, QUARANTINED, step=entry.step, reason=entry.reason, attempts=entry.attempts)
        self.view.event("quarantined", status, step=entry.step, reason=entry.reason)
        if self.metrics:
            self.metrics.quarantined(entry.step.split("-")[0])

    # books -------------------------------------------------------------------------------------------------------------------------------------

    @staticmethod
    def _note(status: SubjectStatus, state: str, **values: Any) -> None:
        status.state = state
        for name, value in values.items():
            setattr(status, name, value)

    def _show(self, *, force: bool = False) -> None:
        for name in self.placement.running:
            self.books.status[Key.parse(name)].state = TRAINING
        if self.metrics:
            self.metrics.states(Counter(status.state for status in self.books.status.values()))
        self.view.update(self.books.status.values(), force=force)
        if time.monotonic() - self._status_written > self.config.status_every_s:
            write_status(self.out, self.books.status.values())
            self._status_written = time.monotonic()

    def _summary(self) -> Summary:
        states = Counter(status.state for status in self.books.status.values())
        seconds = time.monotonic() - self._began
        statuses = tuple(self.books.status.values())
        return Summary(len(statuses), states[COMMITTED], states[QUARANTINED], self.found_done, seconds, statuses)


def dataset(job: Job, rows: list[dict[str, str]]) -> Any:
    """The frames of all subjects, streamed through the pools; every row is a block of its own, so that neighbours never share a fate."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.target_max_block_size = 1
    context.max_errored_blocks = 0
    context.max_consecutive_actor_init_deaths = _STARTS_AT_MOST
    config = job.config
    made: Any = ray.data.from_items(rows, override_num_blocks=len(rows))
    made = made.map_batches(GenerateWorker, fn_constructor_args=(job,), batch_size=1, **_pool(config.generate, config))
    for step, pool in zip(STEPS, (config.fuse, config.restore)):
        made = made.map_batches(FrameWorker, fn_constructor_args=(job, step, pool), batch_size=1, **_pool(pool, config))
    return made


def _pool(pool: Pool, config: ClusterConfig) -> dict[str, Any]:
    """Ray restarts these actors and repeats their tasks for ever: the ledger is what ends a poison subject, and nothing is dropped."""
    import ray.data

    resources = {"num_gpus": pool.gpus} if pool.gpus else {"num_cpus": pool.cpus}
    return {
        "compute": ray.data.ActorPoolStrategy(size=pool.workers, max_tasks_in_flight_per_actor=2),
        "label_selector": config.label_selector or None,
        **resources,
    }


def cost(request: SubjectRequest) -> float:
    """Relative work of a subject, for the order: long work first leaves the shortest tail."""
    animate, avatar = request.settings.animate, request.settings.avatar
    return animate.frames * animate.size**2 / 1e6 + avatar.iterations * (avatar.gaussians / 1e4 + animate.size**2 / 1e5)


def _cause(error: BaseException) -> BaseException:
    """What really happened, below Ray's wrappings."""
    seen: BaseException = error
    while True:
        inner = getattr(seen, "cause", None) or seen.__cause__
        if not isinstance(inner, BaseException) or isinstance(seen, OF_THE_JOB):
            return seen
        seen = inner


__all__ = ["BulkRun", "Summary", "cost", "dataset", "run_bulk"]
