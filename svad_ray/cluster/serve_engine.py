"""The service's engine on a Ray cluster: every call goes to the deployment that holds what it needs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, TypeVar

import anyio
import numpy as np
from ray import serve
from ray.exceptions import RayTaskError
from ray.serve.exceptions import BackPressureError
from ray.serve.schema import ReplicaState

from svad_ray.cluster.serve_calls import AWAY, DIED, plain
from svad_ray.cluster.serve_config import ServeArgs
from svad_ray.errors import StageFailed
from svad_ray.service.engine import Busy, View
from svad_ray.service.local_engine import backend_entries
from svad_ray.subject import Photo

T = TypeVar("T")
_log = logging.getLogger(__name__)
_PAUSES_S = (0.2, 1.0, 3.0)
SENT_AT_MOST = 2  # times that a call may be on a replica that dies: it may be the reason
STOP_WITHIN_S = 90.0


class RayEngine:
    """See ``service.engine.Engine``.

    Args:
        handles: Deployment -> its handle. app: Name of the application.
    """

    def __init__(self, args: ServeArgs, handles: Mapping[str, Any], app: str) -> None:
        self.args, self.handles, self.app = args, handles, app
        self._settings = args.settings
        self._waking: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Nothing to begin: the conductor works by itself."""

    async def close(self) -> None:
        """Nothing to let go of but messages on their way."""
        for task in self._waking:
            task.cancel()

    async def wake(self, avatar_id: str) -> None:
        """See ``Engine``. A conductor that does not hear of it finds it in the book."""
        task = asyncio.get_running_loop().create_task(self._wake(avatar_id))
        self._waking.add(task)
        task.add_done_callback(self._waking.discard)

    async def _wake(self, avatar_id: str) -> None:
        try:
            await self.handles["conductor"].wake.remote(avatar_id)
        except Exception as error:
            _log.info("the conductor was not told of %s (%s)", avatar_id, type(error).__name__)

    async def stop(self, avatar_id: str) -> None:
        """See ``Engine``. A conductor that is being replaced took its tasks with it; its successor says so."""
        async with asyncio.timeout(STOP_WITHIN_S):
            while True:
                try:
                    return await self.handles["conductor"].stop.remote(avatar_id)
                except (*AWAY, *DIED):
                    await asyncio.sleep(1.0)

    async def restore(self, photo: Photo) -> np.ndarray:
        """See ``Engine``."""
        config = self._settings.perceive.model_dump(mode="json")
        seen = await self._asked(lambda: self.handles["perceive"].remote(config, photo))
        return await self._asked(lambda: self.handles["frames-restore"].photo.remote(photo, seen))

    async def render(self, avatar_id: str, view: View) -> np.ndarray:
        """See ``Engine``."""
        return await self._asked(lambda: self.handles["renderer"].render.remote(avatar_id, view))

    async def animate(self, avatar_id: str, motion: str, size: int) -> AsyncIterator[np.ndarray]:
        """See ``Engine``. Frames that a dying replica did not give are rendered by another one."""
        given = died = 0
        for pause in (*_PAUSES_S, None):
            stream = self.handles["renderer"].options(stream=True).frames.remote(avatar_id, motion, size)
            number = 0
            try:
                async for frame in stream:
                    number += 1
                    if number > given:
                        given = number
                        yield frame
                return
            except Exception as error:
                died += isinstance(error, DIED)
                await _pause_or_raise(error, pause, died)
            finally:
                stream.cancel()

    async def models(self) -> list[dict[str, Any]]:
        """See ``Engine``."""
        return await anyio.to_thread.run_sync(backend_entries, self._settings)

    async def ready(self) -> dict[str, bool]:
        """See ``Engine``: a deployment is ready when one of its replicas runs, or when it may stand without any until it is asked."""
        try:
            async with asyncio.timeout(5):
                status = await anyio.to_thread.run_sync(serve.status, abandon_on_cancel=True)
        except Exception as error:
            _log.warning("Serve does not say how it is (%s)", type(error).__name__)
            return dict.fromkeys(self.handles, False)
        known = status.applications[self.app].deployments if self.app in status.applications else {}
        idle = {name for name, numbers in self.args.deployments.items() if not numbers.least}
        return {name: name in known and (name in idle or bool(known[name].replica_states.get(ReplicaState.RUNNING))) for name in self.handles}

    async def _asked(self, call: Callable[[], Awaitable[T]]) -> T:
        """The call's value; sent again when its replica went away."""
        died = 0
        for pause in (*_PAUSES_S, None):
            try:
                return await call()
            except Exception as error:
                died += isinstance(error, DIED)
                await _pause_or_raise(error, pause, died)
        raise RuntimeError("not reached: without a pause the error is raised")


async def _pause_or_raise(error: Exception, pause: float | None, died: int) -> None:
    """Wait before the call is sent again; raise what the service should answer when it is not."""
    if isinstance(error, BackPressureError):
        raise Busy.for_seconds(error.retry_after_s or 1.0, "everything that could do this is at work") from None
    if isinstance(error, RayTaskError):
        raise plain(error) from None
    if not isinstance(error, (*AWAY, *DIED)):
        raise error
    if died >= SENT_AT_MOST:
        raise StageFailed("the replica died on this, twice") from error
    if pause is None:
        raise Busy.for_seconds(5.0, "what would do this is being replaced") from error
    _log.warning("a replica went away (%s); the call is sent again", type(error).__name__)
    await asyncio.sleep(pause)
