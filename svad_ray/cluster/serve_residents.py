"""Resident deployments: actors that hold their models and call the same stage objects that run everywhere else."""

from __future__ import annotations

import asyncio
import pickle
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from svad_ray.cluster.hosts import PictureHost, PoolHost, prepare_worker
from svad_ray.cluster.serve_config import STEPS, Replicas, ServeArgs
from svad_ray.cluster.session import assigned_cpus
from svad_ray.config import PictureConfig
from svad_ray.errors import StoreError
from svad_ray.fulfil import find_kit
from svad_ray.service.book import AvatarBook
from svad_ray.service.engine import View
from svad_ray.service.records import Gone
from svad_ray.service.studio import Studio, restored_photo
from svad_ray.store.files import Files
from svad_ray.subject import SHARED, BodyTrack, Clip, Further, Perception, Photo, join_clips

STREAMED_FRAMES = 16
FORGET_EVERY_S = 30.0
MARKS = "marks"
Payload = Any
Outcome = Any


def alone(waiting: Sequence[Payload]) -> list[int]:
    """The first one by itself."""
    return [0]


def called(payloads: Sequence[Payload]) -> list[Outcome]:
    """What each payload gives when it is called, or the error that it raises."""
    outcomes = []
    for payload in payloads:
        try:
            outcomes.append(payload())
        except Exception as error:
            outcomes.append(error)
    return outcomes


@dataclass(eq=False)  # payloads hold arrays, which cannot be compared
class _Waiting:
    payload: Payload
    done: asyncio.Event = field(default_factory=asyncio.Event)
    outcome: Outcome = None


class Lane:
    """Work in the order of its arrival, in a thread of its own: health checks are answered meanwhile, and threads are as assigned.

    Args:
        hung_s: Work that takes longer counts as hung.
        together: Numbers, among those that wait, of what runs now as one; the first one is always among them.
        run: Does it; one outcome each, errors included.
    """

    def __init__(
        self,
        *,
        hung_s: float,
        together: Callable[[Sequence[Payload]], list[int]] = alone,
        run: Callable[[Sequence[Payload]], list[Outcome]] = called,
    ) -> None:
        self.hung_s, self.together, self.run = hung_s, together, run
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="svad-ray-lane")
        self._waiting: list[_Waiting] = []
        self._work: asyncio.Task[None] | None = None
        self._since: float | None = None

    def now(self, call: Callable[..., Any], *args: Any) -> Any:
        """The call's value; blocks. For setting up."""
        return self._thread.submit(call, *args).result()

    async def __call__(self, payload: Payload) -> Any:
        """Its outcome, when it was its turn."""
        mine = _Waiting(payload)
        self._waiting.append(mine)
        if self._work is None:
            self._work = asyncio.get_running_loop().create_task(self._go())
        await mine.done.wait()
        if isinstance(mine.outcome, Exception):
            raise mine.outcome
        return mine.outcome

    def check(self) -> None:
        """Raise when the work in the lane takes too long."""
        since = self._since
        if since is not None and time.monotonic() - since > self.hung_s:
            raise RuntimeError(f"a call has not ended after {self.hung_s:g} s")

    async def _go(self) -> None:
        while self._waiting:
            chosen = self._chosen()
            self._waiting = [one for one in self._waiting if one not in chosen]
            self._since = time.monotonic()
            outcomes = await asyncio.get_running_loop().run_in_executor(self._thread, self._outcomes, [one.payload for one in chosen])
            self._since = None
            for one, outcome in zip(chosen, outcomes):
                one.outcome = outcome
                one.done.set()
        self._work = None

    def _chosen(self) -> list[_Waiting]:
        """What runs now; the first one alone when it cannot be told, for its own call to fail and not the lane."""
        try:
            return [self._waiting[i] for i in self.together([one.payload for one in self._waiting])]
        except Exception:
            return self._waiting[:1]

    def _outcomes(self, payloads: Sequence[Payload]) -> list[Outcome]:
        try:
            return self.run(payloads)
        except Exception as error:
            return [error] * len(payloads)


class Mark(NamedTuple):
    """Where a replica notes that it works on a call: a file below ``root``, any fsspec address that caller and replica reach, named at random."""

    root: str
    name: str

    @classmethod
    def new(cls, root: str) -> Mark:
        """One for one sending of one call."""
        return cls(root, uuid.uuid4().hex)

    def left(self) -> bool:
        """Is it there? A caller whose replica died asks: then it died while it worked on this very call. The mark is removed."""
        files, path = Files(self.root), f"{MARKS}/{self.name}"
        found = files.read(path) is not None
        files.remove(path)
        return found


@contextmanager
def marked(*marks: Mark | None) -> Iterator[None]:
    """The marks are there for the time of the body, which is work."""
    given = [mark for mark in marks if mark is not None]
    for mark in given:
        Files(mark.root).write(f"{MARKS}/{mark.name}", b"")
    try:
        yield
    finally:
        for mark in given:
            Files(mark.root).remove(f"{MARKS}/{mark.name}")


class Resident:
    """Holds one stage. Base of the deployments that do."""

    def __init__(self, args: ServeArgs, deployment: str) -> None:
        self.args, self.step = args, STEPS[deployment]
        numbers: Replicas = args.deployments[deployment]
        self.host = PoolHost(find_kit(args.kit))
        self.lane = self._lane(numbers.hung_s)
        self.lane.now(prepare_worker, args.settings, numbers.threads or assigned_cpus())
        self.lane.now(self._load)

    def _load(self) -> None:
        """Hold what most calls will ask for."""
        self.host.stage(self.step, self.args.settings.stage(self.step).model_dump(mode="json"))

    def _lane(self, hung_s: float) -> Lane:
        return Lane(hung_s=hung_s)

    def check_health(self) -> None:
        """Asked by Serve; raises when the replica should be replaced."""
        self.lane.check()


class PerceiveResident(Resident):
    """The perceive stage."""

    async def __call__(self, config: dict[str, Any], photo: Photo, mark: Mark | None = None) -> Perception:
        """What the photo shows, as the stage with that configuration sees it."""

        def work() -> Perception:
            with marked(mark):
                return self.host.stage(self.step, config)(photo)

        return await self.lane(work)


async def streamed(lane: Lane, work: Callable[[Callable[[Any], None]], None]) -> AsyncIterator[Any]:
    """What ``work``, done in the lane, tells while it is at it; its error at the end."""
    parts: asyncio.Queue[Any] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def tell(part: Any) -> None:
        loop.call_soon_threadsafe(parts.put_nowait, float(part) if isinstance(part, (int, float)) else part)

    working = loop.create_task(lane(lambda: work(tell)))
    working.add_done_callback(lambda _: parts.put_nowait(None))
    while (part := await parts.get()) is not None:
        yield part
    working.result()


class AnimateResident(Resident):
    """The video generator."""

    async def __call__(
        self, config: dict[str, Any], photo: Photo, perception: Perception, also: Sequence[Further], mark: Mark | None = None
    ) -> AsyncIterator[float | Clip | BodyTrack]:
        """Streams the finished share as it grows, the clip in blocks (as they are ready, where a stage can ``stream``), then every photo's body."""

        def work(tell: Callable[[Any], None]) -> None:
            with marked(mark):
                stage = self.host.stage(self.step, config)
                given: dict[str, Any] = {"progress": tell, **({"also": also} if also else {})}
                begun = stage.stream(photo, perception, **given) if hasattr(stage, "stream") else (stage(photo, perception, **given),)
                bodies: tuple[BodyTrack, ...] = ()
                for made in begun:
                    bodies = (made.photo_track, *made.also_tracks)
                    for start in range(0, len(made.clip), STREAMED_FRAMES):
                        tell(made.clip.slice(start, min(start + STREAMED_FRAMES, len(made.clip))))
                for body in bodies:
                    tell(body)

        async for part in streamed(self.lane, work):
            yield part


class PictureResident(Resident):
    """The pipeline that draws photos from prompts and edits them. Which picture is good enough the caller decides."""

    def _load(self) -> None:
        self._drawing = PictureHost(self.host.kit)
        self._drawing(self.args.settings.picture)

    async def __call__(
        self, config: dict[str, Any], prompt: str, photo: Photo | None, seed: int, mark: Mark | None = None
    ) -> AsyncIterator[float | np.ndarray]:
        """Streams the finished share as it grows, then the picture: (H, W, 3) uint8 RGB."""

        def work(tell: Callable[[Any], None]) -> None:
            with marked(mark):
                tell(self._drawing(PictureConfig.model_validate(config))(prompt, photo, seed=seed, progress=tell))

        async for part in streamed(self.lane, work):
            yield part


class Call(NamedTuple):
    """One block of frames for a stage with a configuration."""

    config: dict[str, Any]
    shard: Clip
    context: Any
    mark: Mark | None = None


class FramesResident(Resident):
    """A stage that works frame block by frame block: identity or restore.

    Blocks of one clip that wait together run together, as many frames at a time as the backend takes (its descriptor's ``batch``).
    """

    def _lane(self, hung_s: float) -> Lane:
        return Lane(hung_s=hung_s, together=lambda waiting: together(waiting, self._batch), run=self._run)

    async def frames(self, config: dict[str, Any], shard: Clip, context: Any, mark: Mark | None = None) -> Clip:
        """See ``local.FrameHost``."""
        return await self.lane(Call(config, shard, context, mark))

    def _run(self, calls: Sequence[Any]) -> list[Outcome]:
        with marked(*(call.mark for call in calls if isinstance(call, Call))):
            return run_together(self._stage, calls)

    async def photo(self, photo: Photo, perception: Perception) -> np.ndarray:
        """(2 H, 2 W, 3) uint8 RGB: the photo with its head restored."""
        budget_s = self.args.settings.restore.budget_s
        return await self.lane(lambda: restored_photo(photo, perception, self._networks, budget_s=budget_s))

    def _stage(self, config: dict[str, Any]) -> Any:
        return self.host.stage(self.step, config)

    def _batch(self, config: dict[str, Any]) -> int:
        return self.host.kit.make(self.step, type(self.args.settings.stage(self.step)).model_validate(config)).backend.batch

    @cached_property
    def _networks(self) -> Any:
        from svad_ray.stages.restore.networks import Networks

        return Networks.load()


def together(waiting: Sequence[Any], batch: Callable[[dict[str, Any]], int]) -> list[int]:
    """Numbers of the first call and of those that go on with its clip where it ends, up to the backend's ``batch`` frames."""
    first = waiting[0]
    chosen = [0]
    if not isinstance(first, Call):
        return chosen
    room = batch(first.config) - len(first.shard)
    while room > 0:
        last = waiting[chosen[-1]]
        following = (i for i, call in enumerate(waiting) if isinstance(call, Call) and continues(last, call) and len(call.shard) <= room)
        if (i := next(following, None)) is None:
            break
        chosen.append(i)
        room -= len(waiting[i].shard)
    return chosen


def run_together(stage_of: Callable[[dict[str, Any]], Any], calls: Sequence[Any]) -> list[Outcome]:
    """One clip for each of consecutive blocks; a frame's result does not depend on its block."""
    if not isinstance(calls[0], Call):
        return called(calls)
    joined = calls[0].shard if len(calls) == 1 else join_clips([call.shard for call in calls])
    made: Clip = stage_of(calls[0].config)(joined, calls[0].context)
    if len(calls) == 1:
        return [made]
    starts = [call.shard.first - joined.first for call in calls]
    return [made.slice(start, start + len(call.shard)) for start, call in zip(starts, calls)]


def continues(one: Call, other: Call) -> bool:
    """Is the other block the next one of the same clip, for the same stage?"""
    a, b = one.shard, other.shard
    if one.config != other.config or a.first + len(a) != b.first or a.frames.shape[1:] != b.frames.shape[1:]:
        return False
    return pickle.dumps((one.context, _whole(a.track))) == pickle.dumps((other.context, _whole(b.track)))


def _whole(track: BodyTrack) -> list[Any]:
    """What all frames of a track share."""
    return [getattr(track, name) for name in SHARED]


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
        return await self.lane(lambda: self.studio.render(avatar_id, view))

    async def frames(self, avatar_id: str, motion: str, size: int) -> AsyncIterator[np.ndarray]:
        """(size, size, 3) uint8 RGB frames, as they are rendered."""
        self._hold(avatar_id)
        frames = await self.lane(lambda: self.studio.frames(avatar_id, motion, size))
        while (frame := await self.lane(lambda: next(frames, None))) is not None:
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
