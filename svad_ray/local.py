"""The local runner: steps in this process, one after the other, every result committed before the next begins.

Run again after a kill or Ctrl-C, it finds what is committed and goes on; a stage that works frame by frame goes on inside the clip.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from typing import Any, Generic, Protocol, TypeVar
from weakref import WeakSet

from svad_ray.config import Settings
from svad_ray.models.brought import fingerprint, named_files
from svad_ray.stages.base import Step
from svad_ray.store import ArtefactStore, Key, content_key, digest
from svad_ray.subject import Clip, join_clips
from svad_ray.usage import Meter, Usage, cores

T = TypeVar("T")
CHECKPOINT_S = 30.0
HOSTED_AT_ONCE = 4  # blocks of one subject on their way to a host


@dataclass
class StageRecord:
    """What a step cost when it was really done, and how much of it was found done.

    Attributes:
        name: The step. backend: Who did it.
        usage: Summed over blocks; setting up included.
        blocks, kept: How many results it consists of, and how many of them an earlier run had committed.
    """

    name: str
    backend: str
    usage: Usage = field(default_factory=lambda: Usage(0, 0, 0))
    blocks: int = 0
    kept: int = 0


StepProgress = Callable[[str, float], None]
"""Called with a step's name and its finished share, 0 to 1."""


class Kept(Generic[T]):
    """A result with its name; the value is held, or read from the store when first asked for."""

    def __init__(self, key: str, load: Callable[[], T]) -> None:
        self.key, self._load = key, load

    @cached_property
    def value(self) -> T:
        return self._load()


@dataclass(frozen=True)
class BlockOrder:
    """One block of a step that works frame by frame, as plain data: any worker can do it.

    Attributes:
        name: The step. stage: Which stage does it, configured with ``config``.
        key: Under which the block is committed.
        start, stop: Its frames in the whole clip.
        clip: Name of the whole clip that it is cut from. context: Key of what the stage gets besides the frames.
    """

    name: str
    stage: str
    config: dict[str, Any]
    key: Key
    start: int
    stop: int
    clip: str
    context: str


class FrameHost(Protocol):
    """Does frame blocks somewhere else: a pool of workers, a resident deployment."""

    def __call__(self, stage: str, config: dict[str, Any], shard: Clip, context: Any) -> Clip: ...


class StoredCheckpoint:
    """The state of a long call beside the artefact that it will become; gone once that is committed.

    Args:
        key: Of the artefact.
        every_s: Shortest time between two kept states.
    """

    def __init__(self, store: ArtefactStore, key: Key, *, every_s: float) -> None:
        self.store, self.key, self.every_s = store, key, every_s
        self._last = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """The newest state that is whole; a damaged one counts as none."""
        return self.store.load_checkpoint(self.key)

    def offer(self, state: Callable[[], dict[str, Any]]) -> None:
        """Keep the state if it is time."""
        if time.monotonic() - self._last >= self.every_s:
            self.store.save_checkpoint(self.key, state())
            self._last = time.monotonic()


class LocalRunner:
    """Runs the steps of ``pipeline.create`` here and now.

    Args:
        store: Where results are kept.
        settings: Block length; the thread count is applied by ``prepare``.
        body_id: Which body the stages use; part of every key.
        progress: Told how far each step is.
        checkpoint_s: Seconds between kept states of a long call.
        host: Where frame blocks are done, several at once; None = here, one after the other.
    """

    def __init__(
        self,
        store: ArtefactStore,
        settings: Settings,
        *,
        body_id: str = "",
        progress: StepProgress | None = None,
        checkpoint_s: float = CHECKPOINT_S,
        host: FrameHost | None = None,
    ) -> None:
        self.store, self.settings, self.body_id, self.checkpoint_s, self.host = store, settings, body_id, checkpoint_s, host
        self.records: dict[str, StageRecord] = {}
        self.keys: dict[str, str | list[str]] = {}
        self._progress = progress or (lambda name, done: None)
        self._ready: WeakSet[Any] = WeakSet()  # the stages themselves: a number would be another stage's once its own is gone
        self._lengths: dict[str, int] = {}

    def whole(self, name: str, stage: Any, call: Callable[[Step], T], *, inputs: list[str]) -> Kept[T]:
        """See ``pipeline.Runner``."""
        key = self._key(name, stage, inputs)
        self.keys[name] = str(key)
        step = Step(lambda done: self._progress(name, done), StoredCheckpoint(self.store, key, every_s=self.checkpoint_s))
        kept = self._step(name, stage, key, lambda: call(step))
        self._progress(name, 1.0)
        stop_if_interrupted()
        return kept

    def frames(self, name: str, stage: Any, clip: Any, context: Any) -> Kept[Clip]:
        """See ``pipeline.Runner``. The clip is read only if a block is missing."""
        orders = self.orders(name, stage, clip, context)
        self.keys[name] = [str(order.key) for order in orders]
        done = 0

        def one(order: BlockOrder) -> Kept[Clip]:
            nonlocal done
            kept = self._step(name, stage, order.key, partial(self._block, stage, order, clip, context), set_up=self.host is None)
            done += 1
            self._progress(name, done / len(orders))
            return kept

        if self.host is None:
            blocks = [one(order) for order in orders]
        else:
            with ThreadPoolExecutor(HOSTED_AT_ONCE) as threads:
                blocks = list(threads.map(one, orders))
        return self._join(blocks, orders[-1].stop)

    def orders(self, name: str, stage: Any, clip: Any, context: Any) -> list[BlockOrder]:
        """The blocks of a frames step, done or not."""
        length, size = self._length(clip), self.settings.shard
        spans = [(start, min(length, start + size)) for start in range(0, length, size)]
        config = stage.config.model_dump(mode="json")
        return [
            BlockOrder(
                name, stage.backend.stage, config, self._key(name, stage, [clip.key, f"{a}-{b}", context.key]), a, b, f"{clip.key}", f"{context.key}"
            )
            for a, b in spans
        ]

    def _block(self, stage: Any, order: BlockOrder, clip: Any, context: Any) -> Clip:
        shard = clip.value.slice(order.start, order.stop)
        return stage(shard, context.value) if self.host is None else self.host(order.stage, order.config, shard, context.value)

    def _join(self, blocks: list[Kept[Clip]], length: int) -> Kept[Clip]:
        """The whole clip of consecutive blocks."""
        joined = Kept(digest(*(block.key for block in blocks)), lambda: _joined(blocks))
        self._lengths[joined.key] = length
        return joined

    def part(self, whole: Any, name: str, take: Callable[[Any], T]) -> Kept[T]:
        """See ``pipeline.Runner``."""
        return Kept(f"{whole.key}.{name}", lambda: take(whole.value))

    def _length(self, clip: Any) -> int:
        if clip.key not in self._lengths:
            self._lengths[clip.key] = len(clip.value)
        return self._lengths[clip.key]

    def _key(self, name: str, stage: Any, inputs: list[str]) -> Key:
        return content_key(
            name,
            version=stage.version,
            parameters=stage.config.model_dump(mode="json", exclude={"weights"}),  # not where they lie counts, but which they are
            inputs=inputs,
            models=model_hashes(stage.backend.models)
            | fingerprint(getattr(stage.config, "weights", ""))
            | named_files(*(str(getattr(stage.config, name, "")) for name in ("motion", "driver"))),
            body_id=self.body_id,
        )

    def _step(self, name: str, stage: Any, key: Key, call: Callable[[], T], *, set_up: bool = True) -> Kept[T]:
        """The committed result of ``key``; made and committed now if it is not there."""
        stop_if_interrupted()
        record = self.records.setdefault(name, StageRecord(name, stage.backend.name))
        marker = self.store.committed(key)
        if marker is not None:
            record.kept += 1
            self._count(record, Usage(**marker.facts["usage"]))
            return Kept(str(key), lambda: self.store.get(key))
        meter = Meter()
        if set_up and stage not in self._ready:
            stage.setup()
            self._ready.add(stage)
        value = call()
        usage = meter.read()
        commit_step(self.store, key, value, stage, usage)
        self._count(record, usage)
        return Kept(str(key), lambda: value)

    @staticmethod
    def _count(record: StageRecord, usage: Usage) -> None:
        record.blocks += 1
        record.usage = record.usage.plus(usage)


def commit_step(store: ArtefactStore, key: Key, value: Any, stage: Any, usage: Usage) -> None:
    """Keep what a step made, with what it cost and who made it."""
    store.put(key, value, facts={"usage": asdict(usage), "backend": stage.backend.name, "version": stage.version})


def _joined(blocks: list[Kept[Clip]]) -> Clip:
    whole = join_clips([block.value for block in blocks])
    blocks.clear()  # the blocks' pixels are in the whole now; holding both would double the memory
    return whole


def model_hashes(names: tuple[str, ...]) -> dict[str, str]:
    """Model package -> its version and archive hash."""
    from svad_ray.models import PACKAGES

    return {name: f"{PACKAGES[name].requirement} sha256:{PACKAGES[name].sha256}" for name in names}


_interrupted = threading.Event()


def _on_interrupt(number: int, frame: Any) -> None:
    _interrupted.set()
    raise KeyboardInterrupt


def stop_if_interrupted() -> None:
    """Raise KeyboardInterrupt once more if Ctrl-C was met where an exception is swallowed (in a compiled package's callback, say)."""
    if _interrupted.is_set():
        _interrupted.clear()
        raise KeyboardInterrupt


def prepare(settings: Settings) -> int:
    """Apply the process-wide settings: thread counts, offline, cache folder. Returns the thread count."""
    import cv2
    import torch

    from svad_ray.splat.threads import set_threads

    if threading.current_thread() is threading.main_thread():
        _interrupted.clear()
        signal.signal(signal.SIGINT, _on_interrupt)
    threads = settings.threads or cores()
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    set_threads(threads)
    if settings.offline:
        os.environ["SVAD_OFFLINE"] = "1"
    if settings.cache_dir:
        os.environ["SVAD_CACHE"] = settings.cache_dir
    return threads
