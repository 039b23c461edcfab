"""Resident deployments: actors that hold their models and call the same stage objects that run everywhere else.

Their work goes through a ``Lane``: one call after the other in a thread of its own, so that the replica answers health checks meanwhile and
threads of torch and the rasteriser are as assigned.
"""

from __future__ import annotations

import asyncio
import pickle
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import fields
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import numpy as np
from ray import serve

from svad_ray.cluster.hosts import PoolHost, prepare_worker
from svad_ray.cluster.serve_config import STEPS, Replicas, ServeArgs
from svad_ray.cluster.session import assigned_cpus
from svad_ray.errors import StoreError
from svad_ray.fulfil import find_kit
from svad_ray.service.book import AvatarBook
from svad_ray.service.engine import View
from svad_ray.service.records import Gone
from svad_ray.service.studio import Studio, restored_photo
from svad_ray.subject import BodyTrack, Clip, Perception, Photo, join_clips

T = TypeVar("T")
BATCH, BATCH_WAIT_S = 4, 0.01
STREAMED_FRAMES = 16
FORGET_EVERY_S = 30.0


class Lane:
    """One call after the other, in a thread of its own."""

    def __init__(self, *, hung_s: float) -> None:
        self.hung_s = hung_s
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="svad-ray-lane")
        self._since: float | None = None

    def now(self, call: Callable[..., T], *args: Any) -> T:
        """The call's value; blocks."""
        return self._thread.submit(call, *args).result()

    async def __call__(self, call: Callable[..., T], *args: Any) -> T:
        """The call's value, when it is its turn."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._timed, call, args)

    def check(self) -> None:
        """Raise when the call in the lane takes too long."""
        since = self._since
        if since is not None and time.monotonic() - since > self.hung_s:
            raise RuntimeError(f"a call has not ended after {self.hung_s:g} s")

    def _timed(self, call: Callable[..., T], args: tuple[Any, ...]) -> T:
        self._since = time.monotonic()
        try:
            return call(*args)
        finally:
            self._since = None


class Resident:
    """Holds one stage. Base of the deployments that do."""

    def __init__(self, args: ServeArgs, deployment: str) -> None:
        self.args, self.step = args, STEPS[deployment]
        numbers: Replicas = args.deployments[deployment]
        self.lane, self.host = Lane(hung_s=numbers.hung_s), PoolHost(find_kit(args.kit))
        self.lane.now(prepare_worker, args.settings, numbers.threads or assigned_cpus())
        self.lane.now(self.host.stage, self.step, args.settings.stage(self.step).model_dump(mode="json"))

    def check_health(self) -> None:
        """Asked by Serve; raises when the replica should be replaced."""
        self.lane.check()


class PerceiveResident(Resident):
    """The perceive stage."""

    async def __call__(self, config: dict[str, Any], photo: Photo) -> Perception:
        """What the photo shows, as the stage with that configuration sees it."""
        return await self.lane(lambda: self.host.stage(self.step, config)(photo))


class AnimateResident(Resident):
    """The video generator."""

    async def __call__(self, config: dict[str, Any], photo: Photo, perception: Perception) -> AsyncIterator[float | Clip | BodyTrack]:
        """Streams the finished share as it grows, then the clip in blocks, then the body fitted to the photo."""
        shares: asyncio.Queue[float | None] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def tell(done: float) -> None:
            loop.call_soon_threadsafe(shares.put_nowait, float(done))

        work = asyncio.ensure_future(self.lane(lambda: self.host.stage(self.step, config)(photo, perception, progress=tell)))
        work.add_done_callback(lambda _: shares.put_nowait(None))
        while (share := await shares.get()) is not None:
            yield share
        made = work.result()
        for start in range(0, len(made.clip), STREAMED_FRAMES):
            yield made.clip.slice(start, min(start + STREAMED_FRAMES, len(made.clip)))
        yield made.photo_track


class Call(NamedTuple):
    """One block of frames for a stage with a configuration."""

    config: dict[str, Any]
    shard: Clip
    context: Any


class FramesResident(Resident):
    """A stage that works frame block by frame block: identity or restore."""

    async def frames(self, config: dict[str, Any], shard: Clip, context: Any) -> Clip:
        """See ``local.FrameHost``. Calls that arrive together run together where the backend takes more frames at a time than one block has."""
        outcome = await self._together(Call(config, shard, context))
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    @serve.batch(max_batch_size=BATCH, batch_wait_timeout_s=BATCH_WAIT_S)
    async def _together(self, calls: list[Call]) -> list[Clip | Exception]:
        return await self.lane(run_together, lambda config: self.host.stage(self.step, config), calls)

    async def photo(self, photo: Photo, perception: Perception) -> np.ndarray:
        """(2 H, 2 W, 3) uint8 RGB: the photo with its head restored."""
        budget_s = self.args.settings.restore.budget_s
        return await self.lane(lambda: restored_photo(photo, perception, self._networks, budget_s=budget_s))

    @cached_property
    def _networks(self) -> Any:
        from svad_ray.stages.restore.networks import Networks

        return Networks.load()


def run_together(stage_of: Callable[[dict[str, Any]], Any], calls: Sequence[Call]) -> list[Clip | Exception]:
    """Each call's clip, or the error that it met: one poisonous block must not fail its neighbours.

    Consecutive blocks of one clip are joined up to the backend's ``batch`` frames; a frame's result does not depend on its block.
    """
    outcomes: list[Clip | Exception | None] = [None] * len(calls)
    for group in groups(calls, lambda call: stage_of(call.config).backend.batch):
        for i, outcome in zip(group, _outcomes(stage_of, [calls[i] for i in group])):
            outcomes[i] = outcome
    return [outcome for outcome in outcomes if outcome is not None]


def groups(calls: Sequence[Call], batch: Callable[[Call], int]) -> Iterator[list[int]]:
    """Numbers of calls that run as one, in the order of their frames."""
    order = sorted(range(len(calls)), key=lambda i: (pickle.dumps(calls[i].config), calls[i].shard.first))
    group: list[int] = []
    for i in order:
        if group and not (_continues(calls[group[-1]], calls[i]) and sum(len(calls[k].shard) for k in (*group, i)) <= batch(calls[i])):
            yield group
            group = []
        group.append(i)
    if group:
        yield group


def _outcomes(stage_of: Callable[[dict[str, Any]], Any], calls: Sequence[Call]) -> Iterator[Clip | Exception]:
    try:
        joined = calls[0].shard if len(calls) == 1 else join_clips([call.shard for call in calls])
        made: Clip = stage_of(calls[0].config)(joined, calls[0].context)
    except Exception as error:
        if len(calls) == 1:
            yield error
        else:
            for call in calls:
                yield from _outcomes(stage_of, [call])
        return
    start = 0
    for call in calls:
        yield made if len(calls) == 1 else made.slice(start, start + len(call.shard))
        start += len(call.shard)


def _continues(one: Call, other: Call) -> bool:
    """Is the other block the next one of the same clip, for the same stage?"""
    a, b = one.shard, other.shard
    if one.config != other.config or a.first + len(a) != b.first or a.frames.shape[1:] != b.frames.shape[1:]:
        return False
    return pickle.dumps((one.context, _whole(a.track))) == pickle.dumps((other.context, _whole(b.track)))


def _whole(track: BodyTrack) -> list[Any]:
    """What all frames of a track share."""
    shared = ("betas", "image_size", "fps", "body_id", "vertex_offset", "joint_offset", "locator_offset")
    return [getattr(track, field.name) for field in fields(track) if field.name in shared]


class RendererResident:
    """Finished avatars, held and drawn."""

    def __init__(self, args: ServeArgs) -> None:
        self.book, self.lane = AvatarBook(args.service.store), Lane(hung_s=args.renderer.hung_s)
        self.studio, self._held = Studio(self.book.avatar), set[str]()
        self.lane.now(prepare_worker, args.settings, args.renderer.threads or assigned_cpus())
        self._forgetting: asyncio.Task[None] | None = None

    async def render(self, avatar_id: str, view: View) -> np.ndarray:
        """(H, W, 3) uint8 RGB. Errors as ``Studio.render``."""
        self._hold(avatar_id)
        return await self.lane(self.studio.render, avatar_id, view)

    async def frames(self, avatar_id: str, motion: str, size: int) -> AsyncIterator[np.ndarray]:
        """(size, size, 3) uint8 RGB frames, as they are rendered."""
        self._hold(avatar_id)
        frames = await self.lane(self.studio.frames, avatar_id, motion, size)
        while (frame := await self.lane(next, frames, None)) is not None:
            yield frame

    def check_health(self) -> None:
        """See ``Resident``."""
        self.lane.check()

    def _hold(self, avatar_id: str) -> None:
        self._held.add(avatar_id)
        if self._forgetting is None:
            self._forgetting = asyncio.get_running_loop().create_task(self._forget_removed())

    async def _forget_removed(self) -> None:
        """Removed avatars leave the memory too, soon; they are not rendered meanwhile, because the gateway asks the book first."""
        while True:
            await asyncio.sleep(FORGET_EVERY_S)
            for avatar_id in list(self._held):
                with suppress(OSError, StoreError):
                    if await asyncio.to_thread(self._gone, avatar_id):
                        self.studio.forget(avatar_id)
                        self._held.discard(avatar_id)

    def _gone(self, avatar_id: str) -> bool:
        try:
            self.book.get(avatar_id)
        except Gone:
            return True
        return False
