"""The rasteriser's own threads: plain workers for kernels that release the interpreter lock.

No numba threading layer is involved: those layers are either not thread-safe or do not survive ``fork``. The pool belongs to one
process; a forked child makes its own, because the workers of its parent do not exist there and waiting for them never ends.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from threading import Lock, local
from typing import TypeVar

import torch

from svad_ray.errors import ConfigError

T = TypeVar("T")
_AHEAD = 2  # results that may wait for their reader, beside those in work
_lock = Lock()
_own = local()  # .alone: this thread works beside others of its kind and starts no helpers
_wanted: int | None = None
_pool: tuple[int, int, ThreadPoolExecutor] | None = None  # (process id, workers, executor)


def set_threads(count: int | None) -> None:
    """Choose how many threads the CPU rasteriser uses from now on; the result does not depend on it.

    Args:
        count: Threads, at least 1; ``None`` returns to the default (see `get_threads`).
    """
    global _wanted
    if count is not None and count < 1:
        raise ConfigError(f"{count} rasteriser threads", expected="1 or more", remedy="pass the number of CPUs assigned to this process")
    _wanted = count


def get_threads() -> int:
    """How many threads are in use: `set_threads`, else ``SVAD_THREADS``, else torch's own number, never the machine's core count; 1 in `in_order`."""
    if getattr(_own, "alone", False):
        return 1
    if _wanted is not None:
        return _wanted
    text = os.environ.get("SVAD_THREADS", "")
    if not text:
        return torch.get_num_threads()
    if not text.isdigit() or int(text) < 1:
        raise ConfigError(f"SVAD_THREADS={text!r}", expected="a whole number, 1 or more", remedy="unset it or correct it")
    return int(text)


def _fresh_lock() -> None:
    global _lock  # a fork may copy the lock while another thread holds it
    _lock = Lock()


os.register_at_fork(after_in_child=_fresh_lock)


def _executor(workers: int) -> ThreadPoolExecutor:
    global _pool
    with _lock:
        if _pool is None or _pool[0] != os.getpid() or _pool[1] != workers:
            _pool = (os.getpid(), workers, ThreadPoolExecutor(workers, thread_name_prefix="svad-splat"))
        return _pool[2]


def run_ranges(work: Callable[[int, int], object], ranges: Sequence[tuple[int, int]]) -> None:
    """Run ``work(start, stop)`` for every range, on the caller's thread and the helpers beside it; returns when all are done.

    Args:
        work: Releases the interpreter lock and writes to places that no other range writes to.
        ranges: Half-open index ranges.
    """
    threads = get_threads()
    if threads == 1 or len(ranges) < 2:
        for start, stop in ranges:
            work(start, stop)
        return
    queue = iter(ranges)  # next() on a list iterator is atomic under the interpreter lock

    def drain() -> None:
        for start, stop in queue:
            work(start, stop)

    helpers = [_executor(threads - 1).submit(drain) for _ in range(threads - 1)]
    try:
        drain()
    finally:
        for helper in helpers:
            if not helper.cancel():  # one that has not started has nothing left to do; on a busy machine waiting for it would cost a time slice
                helper.result()


def even_ranges(count: int, *, block: int) -> list[tuple[int, int]]:
    """Cut ``range(count)`` into a few pieces per thread whose starts are multiples of ``block``."""
    blocks = -(-count // block)
    pieces = 1 if get_threads() == 1 else min(blocks, 4 * get_threads())
    edges = [blocks * i // pieces * block for i in range(pieces + 1)] if pieces else []
    return [(a, min(b, count)) for a, b in pairwise(edges) if a < min(b, count)]


def in_order(work: Callable[[int], T], count: int) -> Iterator[T]:
    """``work(i)`` of every i below ``count``, in order: several at a time, each on one thread, and some ahead of the reader.

    Whole frames side by side wait for each other less than pieces of one frame. An error of ``work`` is raised in its place; a reader that
    stops early leaves nothing running.
    """
    threads = min(get_threads(), count)
    if threads < 2:
        yield from (work(i) for i in range(count))
        return
    pool = ThreadPoolExecutor(threads, thread_name_prefix="svad-frames", initializer=lambda: setattr(_own, "alone", True))
    try:
        waiting = deque(pool.submit(work, i) for i in range(min(count, threads + _AHEAD)))
        for submitted in range(len(waiting), count + len(waiting)):
            done = waiting.popleft().result()
            if submitted < count:
                waiting.append(pool.submit(work, submitted))
            yield done
    finally:
        pool.shutdown(cancel_futures=True)
