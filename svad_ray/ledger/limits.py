"""Limits that hold even inside native code: work that hangs or grows past its bound ends with its process, after saying why."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil

_GIB = 1024**3
_EVERY_S = 0.25


@contextmanager
def bounded(*, timeout_s: float, memory_gib: float = 0.0, say: Callable[[str], None], end: Callable[[], None] | None = None) -> Iterator[None]:
    """Watch the body: past ``timeout_s`` or ``memory_gib`` of resident memory, ``say`` the reason and end this process.

    A Python exception could not reach code that hangs in a compiled library, so the process goes; whoever started it retries or gives up.

    Args:
        timeout_s: Seconds the body may take; 0 = any.
        memory_gib: Resident memory of the process; 0 = any.
        say: Records the reason; its own failure does not keep the process alive.
        end: What to do then; None = SIGKILL this process.
    """
    done = threading.Event()
    watcher = threading.Thread(target=_watch, args=(done, timeout_s, memory_gib, say, end or _kill), daemon=True, name="svad-ray-limits")
    if timeout_s or memory_gib:
        watcher.start()
    try:
        yield
    finally:
        done.set()


def _watch(done: threading.Event, timeout_s: float, memory_gib: float, say: Callable[[str], None], end: Callable[[], None]) -> None:
    process, began = psutil.Process(), time.monotonic()
    while not done.wait(_EVERY_S):
        reason = ""
        if timeout_s and time.monotonic() - began > timeout_s:
            reason = f"no end after {timeout_s:g} s"
        elif memory_gib and (used := process.memory_info().rss / _GIB) > memory_gib:
            reason = f"out of memory: {used:.1f} GiB used, {memory_gib:g} allowed"
        if reason:
            try:
                say(reason)
            finally:
                end()
            return


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
