"""The engine on one machine: avatars in worker processes, pictures in threads of this one. No Ray."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import anyio
import numpy as np

import svad_ray
from svad_ray.backends import STAGES
from svad_ray.config import Settings
from svad_ray.errors import StageFailed
from svad_ray.service.book import AvatarBook
from svad_ray.service.engine import Busy, View
from svad_ray.service.records import CANCELLED, Gone, Lease
from svad_ray.service.studio import Studio, open_body, restored_photo
from svad_ray.service.worker import AGAIN
from svad_ray.subject import Photo

T = TypeVar("T")
RENEW_S = 1.0  # how soon a worker learns that its avatar is not wanted any more
_log = logging.getLogger(__name__)


@dataclass
class _Job:
    """One avatar in work: its worker, and whether its end was asked for."""

    lease: Lease
    task: asyncio.Task[None] | None = None
    stopped: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class WorkerDied(Exception):
    """The worker process ended in the middle of its work."""


class Worker:
    """A process that makes avatars; started when first needed, ended by closing its input."""

    def __init__(self, root: str, kit: str, *, python_path: tuple[str, ...] = ()) -> None:
        self.root, self.kit, self.python_path = root, kit, python_path
        self._process: asyncio.subprocess.Process | None = None

    async def ready(self) -> None:
        """Start it unless it runs, and wait until it takes orders."""
        if self._process is not None and self._process.returncode is None:
            return
        home = str(Path(svad_ray.__file__).parent.parent)
        path = os.pathsep.join([*self.python_path, home, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "svad_ray.service.worker", self.root, self.kit),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,  # Ctrl-C at the server is the server's to handle
        )
        await self._answer()

    async def do(self, order: dict[str, Any]) -> dict[str, Any]:
        """What the worker says of an order. Raises ``WorkerDied``."""
        await self.ready()
        pipe = self._process.stdin if self._process else None
        if pipe is None:
            raise WorkerDied("it could not be started")
        pipe.write(json.dumps(order).encode() + b"\n")
        with suppress(ConnectionError):
            await pipe.drain()
        return await self._answer()

    async def kill(self) -> None:
        """End it at once, and wait until it is gone."""
        process, self._process = self._process, None
        if process is not None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _answer(self) -> dict[str, Any]:
        process = self._process
        line = await process.stdout.readline() if process and process.stdout else b""
        if not line:
            code = await process.wait() if process else None
            raise WorkerDied(f"the worker ended with {code}")
        return json.loads(line)


class LocalEngine:
    """Makes avatars with the same code as ``svad-ray create``.

    Args:
        book: What is to be done. settings: Of this machine: threads, offline, cache folder; and of ``restore``.
        kit: "module:attribute" of a ``fulfil.Kit``; "" = the product's own. python_path: Where the workers find it.
        workers: Avatars at once. calls: Restore, animate and render calls at once. waiting: Calls that may wait beyond those.
        lease_s: How long an avatar is held without renewal; after a crash somebody else goes on that much later.
        poll_s: Between two looks at the book for work that nobody told of.
    """

    def __init__(
        self,
        book: AvatarBook,
        settings: Settings,
        *,
        kit: str = "",
        python_path: tuple[str, ...] = (),
        exports: tuple[str, ...] = ("ply", "turntable", "report"),
        workers: int = 1,
        calls: int = 1,
        waiting: int = 4,
        lease_s: float = 30.0,
        poll_s: float = 5.0,
        body: Callable[[], Any] = open_body,
    ) -> None:
        self.book, self.settings, self.kit, self.python_path, self.exports = book, settings, kit, python_path, exports
        self.calls, self.waiting, self.lease_s, self.poll_s = calls, waiting, lease_s, poll_s
        self.studio = Studio(book.avatar, body=body)
        self.name = f"local-{secrets.token_hex(6)}"
        self._workers = [Worker(book.root, kit, python_path=python_path) for _ in range(workers)]
        self._idle = list(self._workers)
        self._jobs: dict[str, _Job] = {}
        self._wanted = asyncio.Event()
        self._places, self._waiting = asyncio.Semaphore(calls), 0
        self._restorer = _Restorer(settings)
        self._loop: asyncio.Task[None] | None = None

    # -- avatars -------------------------------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """See ``Engine``."""
        self._loop = asyncio.create_task(self._dispatch())

    async def close(self) -> None:
        """See ``Engine``. Work in progress is dropped; what it committed is kept, and the next start goes on."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
        tasks = [job.task for job in self._jobs.values() if job.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for worker in self._workers:
            await worker.kill()

    async def wake(self, avatar_id: str) -> None:
        """See ``Engine``."""
        self._wanted.set()

    async def stop(self, avatar_id: str) -> None:
        """See ``Engine``."""
        self.studio.forget(avatar_id)
        job = self._jobs.get(avatar_id)
        if job is not None and job.task is not None:
            job.stopped = True
            job.task.cancel()
            await job.ended.wait()
        while await _thread(self.book.held, avatar_id):  # another process has it, and sees at its next renewal that it is not wanted any more
            await asyncio.sleep(RENEW_S / 4)

    async def _dispatch(self) -> None:
        """Give unfinished avatars to idle workers, oldest first, for ever."""
        while True:
            self._wanted.clear()
            try:
                if self._idle:
                    await self._begin_what_fits()
            except Exception:
                _log.exception("the book cannot be read; trying again")
            with suppress(TimeoutError):
                async with asyncio.timeout(self.poll_s):
                    await self._wanted.wait()

    async def _begin_what_fits(self) -> None:
        for avatar_id in await _thread(self.book.unfinished):
            if not self._idle:
                return
            if avatar_id in self._jobs:
                continue
            with suppress(Gone):
                if await _thread(self.book.is_cancelled, avatar_id):
                    await _thread(self.book.finish, avatar_id, CANCELLED)
                elif lease := await _thread(self.book.claim, avatar_id, self.name, self.lease_s):
                    job = self._jobs[avatar_id] = _Job(lease)
                    job.task = asyncio.create_task(self._run(job, self._idle.pop()))

    async def _run(self, job: _Job, worker: Worker) -> None:
        """One avatar in one worker, as long as the lease is held."""
        avatar_id = job.lease.avatar_id
        order = {"avatar": avatar_id, "machine": self.settings.model_dump(mode="json"), "exports": list(self.exports), "run": self.name}
        keeping = asyncio.create_task(self._keep(job))
        work = asyncio.create_task(self._tried(worker, order))
        try:
            await asyncio.wait({keeping, work}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
        except asyncio.CancelledError:
            if not job.stopped and self._loop is not None and not self._loop.done():
                raise
        except Exception:
            _log.exception("avatar %s: its worker failed", avatar_id)
        finally:
            for task in (keeping, work):
                task.cancel()
            await asyncio.gather(keeping, work, return_exceptions=True)
            if not (work.done() and not work.cancelled() and work.exception() is None):
                await worker.kill()
            await self._conclude(job)
            self._jobs.pop(avatar_id, None)
            self._idle.append(worker)
            job.ended.set()
            self._wanted.set()

    async def _tried(self, worker: Worker, order: dict[str, Any]) -> None:
        """At most two tries, by two processes if the first one dies."""
        while True:
            try:
                said = await worker.do(order)
            except WorkerDied as death:
                _log.warning("avatar %s: %s", order["avatar"], death)
                await worker.kill()
                said = await worker.do(order)  # the ledger counts the first try, and refuses a third
            if said["state"] == "broken":
                raise StageFailed(str(said.get("error", "")))
            if said["state"] != AGAIN:
                return

    async def _keep(self, job: _Job) -> None:
        """Renew the lease until it is lost: then somebody wants the work ended."""
        renewed_at = time.monotonic()
        while True:
            try:
                if not await _thread(self.book.renew, job.lease, self.lease_s):
                    return
                renewed_at = time.monotonic()
            except Exception:
                if time.monotonic() - renewed_at > self.lease_s:
                    raise
                _log.warning("the lease of avatar %s cannot be renewed; trying again", job.lease.avatar_id, exc_info=True)
            await asyncio.sleep(min(RENEW_S, self.lease_s / 3))

    async def _conclude(self, job: _Job) -> None:
        """Leave the book in a state that says what happened."""
        avatar_id = job.lease.avatar_id
        try:
            if await _thread(self.book.is_cancelled, avatar_id):
                await _thread(self.book.finish, avatar_id, CANCELLED)
            await _thread(self.book.release, job.lease)
        except Gone:  # removed meanwhile: so is what the worker still wrote
            await _thread(self.book.remove, avatar_id)

    # -- pictures ------------------------------------------------------------------------------------------------------------------------------

    async def restore(self, photo: Photo) -> np.ndarray:
        """See ``Engine``."""
        return await self._call(self._restorer, photo)

    async def render(self, avatar_id: str, view: View) -> np.ndarray:
        """See ``Engine``."""
        return await self._call(self.studio.render, avatar_id, view)

    async def animate(self, avatar_id: str, motion: str, size: int) -> AsyncIterator[np.ndarray]:
        """See ``Engine``. Holds one of the places for calls until the last frame."""
        async with self._place():
            frames: Iterator[np.ndarray] = await _thread(self.studio.frames, avatar_id, motion, size)
            while (frame := await _thread(next, frames, None)) is not None:
                yield frame

    async def _call(self, call: Callable[..., T], *arguments: Any) -> T:
        async with self._place():
            return await _thread(call, *arguments)

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        if self._places.locked() and self._waiting >= self.waiting:
            raise Busy.for_seconds(2.0, f"{self.calls} calls are at work and {self.waiting} wait")
        self._waiting += 1
        try:
            await self._places.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._places.release()

    # -- about itself --------------------------------------------------------------------------------------------------------------------------

    async def models(self) -> list[dict[str, Any]]:
        """See ``Engine``."""
        return await _thread(backend_entries, self.settings)

    async def ready(self) -> dict[str, bool]:
        """See ``Engine``."""
        return {"dispatcher": self._loop is not None and not self._loop.done()}


class _Restorer:
    """Perceive and the networks, loaded when first needed, for one call at a time."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._lock = threading.Lock()
        self._parts: tuple[Any, Any] | None = None

    def __call__(self, photo: Photo) -> np.ndarray:
        with self._lock:
            if self._parts is None:
                self._parts = self._load()
            perceive, networks = self._parts
            return restored_photo(photo, perceive(photo), networks, budget_s=self.settings.restore.budget_s)

    def _load(self) -> tuple[Any, Any]:
        from svad_ray.stages.base import make
        from svad_ray.stages.restore.networks import Networks

        perceive = make("perceive", self.settings.perceive)
        perceive.setup()
        return perceive, Networks.load()


def backend_entries(settings: Settings) -> list[dict[str, Any]]:
    """The configured backends as JSON objects: names, licences, devices, and whether their model files are here."""
    from svad_ray import models
    from svad_ray.deliver import chosen_backends

    here = {status.package.name: status.state for status in models.status(cache=settings.cache_dir or None)}
    entries = []
    for backend in chosen_backends(settings):
        files = [{"name": name, "state": here.get(name, "unknown")} for name in backend.models]
        entries.append({**asdict(backend), "models": files, "seed": settings.stage(backend.stage).seed})
    return sorted(entries, key=lambda entry: STAGES.index(entry["stage"]))


async def _thread(call: Callable[..., T], *arguments: Any) -> T:
    return await anyio.to_thread.run_sync(partial(call, *arguments))
