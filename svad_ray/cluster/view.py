"""What a person sees of a bulk run, and the same as JSON lines for machines."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable
from typing import IO, Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from svad_ray.ledger.status import COMMITTED, QUARANTINED, STATES, SubjectStatus

_LINE_EVERY_S = 10.0
_REASONS = 5


class View:
    """Subjects per state, frames a second, time to go, and why subjects were given up.

    Args:
        total: Subjects of the run. kept: How many of them were finished before it began.
        json_to: JSON lines go there; None = only the picture.
        quiet: No picture.
    """

    def __init__(self, total: int, *, kept: int = 0, json_to: IO[str] | None = None, quiet: bool = False, console: Console | None = None) -> None:
        self.total, self.kept, self.json_to = total, kept, json_to
        self.console = console or Console(stderr=True)
        self._live = Live(console=self.console, auto_refresh=False, transient=False) if self.console.is_terminal and not quiet else None
        self._lines = not self._live and not quiet
        self._began, self._last, self.frames = time.monotonic(), -_LINE_EVERY_S, 0

    def __enter__(self) -> View:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live:
            self._live.stop()

    def event(self, name: str, subject: SubjectStatus | None = None, **values: Any) -> None:
        """One JSON line: what happened, when, to which subject, in which attempt."""
        if self.json_to is None:
            return
        about = {"subject": subject.subject_id, "key": subject.key, "state": subject.state, "attempt": max(1, subject.attempts)} if subject else {}
        self.json_to.write(json.dumps({"time": round(time.time(), 3), "event": name, **about, **values}) + "\n")
        self.json_to.flush()

    def update(self, statuses: Iterable[SubjectStatus], *, force: bool = False) -> None:
        """Show how things stand."""
        statuses = list(statuses)
        counts = Counter(status.state for status in statuses)
        if self._live:
            self._live.update(self._picture(counts, statuses), refresh=True)
        elif self._lines and (force or time.monotonic() - self._last >= _LINE_EVERY_S):
            self._last = time.monotonic()
            self.console.print(self._sentence(counts), soft_wrap=True)

    def _sentence(self, counts: Counter[str]) -> str:
        states = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
        return f"{states} of {self.total}; {self._rate():.1f} frames/s; {self._to_go(counts)}"

    def _rate(self) -> float:
        return self.frames / max(time.monotonic() - self._began, 1e-3)

    def _to_go(self, counts: Counter[str]) -> str:
        """Time to the end, if the rest goes as what was finished in this run."""
        done = counts[COMMITTED] + counts[QUARANTINED] - self.kept
        left = self.total - counts[COMMITTED] - counts[QUARANTINED]
        if not left:
            return "done"
        if done <= 0:
            return "time to go: not known yet"
        seconds = int(left * (time.monotonic() - self._began) / done)
        return f"about {_words(seconds)} to go"

    def _picture(self, counts: Counter[str], statuses: list[SubjectStatus]) -> Group:
        table = Table(*STATES, "frames/s", box=None)
        table.add_row(*(str(counts[state]) for state in STATES), f"{self._rate():.1f}")
        reasons = Counter(status.reason.split("\n")[0] for status in statuses if status.state == QUARANTINED)
        lines = [Text(f"quarantined {count} x {reason}", style="yellow") for reason, count in reasons.most_common(_REASONS)]
        return Group(table, Text(self._to_go(counts)), *lines)


def _words(seconds: int) -> str:
    if seconds < 90:
        return f"{seconds} s"
    return f"{seconds // 60} min" if seconds < 5400 else f"{seconds // 3600} h {seconds // 60 % 60:02d} min"
