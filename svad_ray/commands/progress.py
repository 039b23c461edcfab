"""Progress bars and Ctrl-C, for every command that takes long."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

_err = Console(stderr=True)
INTERRUPTED = 130


@contextmanager
def bars() -> Iterator[Any]:
    """A progress bar per step; yields the callback that moves them."""
    columns = (TextColumn("{task.description:<20}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"), TimeElapsedColumn())
    with Progress(*columns, console=_err) as bars:
        tasks: dict[str, TaskID] = {}

        def tell(name: str, done: float) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=1.0)
            bars.update(tasks[name], completed=done)

        yield tell


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C ends the command with a sentence."""
    try:
        yield
    except KeyboardInterrupt:
        _err.print("Stopped. What was finished is kept; the same command goes on from there.")
        raise typer.Exit(INTERRUPTED) from None
