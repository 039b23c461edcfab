"""What an evaluation leaves behind: rows, tables, worst cases, and a manifest that says how to make it again."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import svad_ray
from svad_ray.errors import InputError
from svad_ray.evaluate.published import Published
from svad_ray.evaluate.rows import Row, agreed, figures_in, summarise, worst, write_rows
from svad_ray.evaluate.scoring import METRICS, Protocol
from svad_ray.evaluate.tables import Grid, Page, beside, by_subject, by_view, cell, html_page, markdown
from svad_ray.protocols.orders import Failure, Order, Result, Runner, found_result, primary
from svad_ray.store.files import Files
from svad_ray.usage import hardware

MANIFEST, SUMMARY, MARKDOWN, HTML, WORST = "manifest.json", "summary.json", "table.md", "table.html", "worst"
SHOWN = 6  # worst cases as pictures
SUBJECTS_SHOWN = 40


@dataclass(frozen=True)
class Outcome:
    """An evaluation at its end.

    Attributes:
        page: Its tables. results: Of every subject, in the order asked. failures: Subjects without a result, which the next run tries again.
    """

    page: Page
    results: Sequence[Result]
    failures: Sequence[Failure] = field(default_factory=tuple)

    @property
    def rows(self) -> list[Row]:
        """Of all subjects."""
        return [row for result in self.results for row in result.rows]


def carry_out(
    orders: Sequence[Order], run: Runner, *, title: str, others: Sequence[Published] = (), seed: int = 0, notes: Sequence[str] = ()
) -> Outcome:
    """Measure what is not measured yet, then write everything below the orders' ``out``.

    Args:
        others: Published rows to stand beside ours. seed: Of the bootstrap. notes: Sentences of the protocol's own.

    Raises:
        InputError: There is nothing to measure.
    """
    if not orders:
        raise InputError("there is nothing to evaluate", expected="at least one subject")
    failures = [failure for failure in run(orders) if failure is not None]
    results = [result for order in orders if (result := found_result(order)) is not None]
    page = summary_page(results, title=title, others=others, seed=seed, notes=(*notes, *_left_out(results, failures)))
    outcome = Outcome(page, results, failures)
    write_outcome(outcome, orders, seed=seed)
    return outcome


def summary_page(
    results: Sequence[Result], *, title: str, others: Sequence[Published] = (), seed: int = 0, notes: Sequence[str] = (), command: str | None = None
) -> Page:
    """The tables of an evaluation."""
    rows = [row for result in results for row in result.rows]
    grids: list[Grid] = []
    if rows:
        grids.append(by_view(rows, seed=seed))
        table = beside(rows, others, "svad-ray", seed=seed)
        grids += [table] if table is not None else []
        grids += [by_subject(rows)] if 1 < len({row["subject"] for row in rows}) <= SUBJECTS_SHOWN else []
    said = protocol_notes(rows)
    if not others:
        said = (*said, "No published figures of this protocol were at hand; `--published FILE` puts them beside ours.")
    return Page(title, grids, (*said, *notes), own_command() if command is None else command, worst_pictures(results))


def write_outcome(outcome: Outcome, orders: Sequence[Order], *, seed: int) -> None:
    """``rows.parquet``, ``summary.json``, ``table.md``, ``table.html``, ``worst/`` and ``manifest.json``."""
    out = orders[0].out
    files, rows = Files(out), outcome.rows
    if rows:
        write_rows(out, rows)
    told = {figure: asdict(summarise(rows, figure, seed=seed)) for figure in figures_in(rows)}
    files.write(SUMMARY, _json(told))
    write_page(out, outcome.page)
    write_manifest(outcome, orders, seed=seed)


def write_manifest(outcome: Outcome, orders: Sequence[Order], *, seed: int) -> None:
    """``manifest.json``: who was measured, how, by which command, on which machine, and what it cost."""
    manifest = {
        "format": 1,
        "svad_ray": svad_ray.__version__,
        "title": outcome.page.title,
        "command": outcome.page.command,
        "seed": seed,
        "hardware": hardware(),
        "subjects": [
            {"subject": o.subject, "protocol": o.protocol, "parameters": o.parameters, "inputs": o.inputs, "key": str(o.key)} for o in orders
        ],
        "settings": orders[0].settings,
        "metrics": orders[0].choice,
        "refused": {result.subject: result.refused for result in outcome.results if result.refused},
        "failed": {failure.subject: failure.reason for failure in outcome.failures},
        "usage": {result.subject: result.usage for result in outcome.results if result.usage},
    }
    Files(orders[0].out).write(MANIFEST, _json(manifest))


def write_page(out: str, page: Page) -> None:
    """The page as Markdown and HTML, its pictures as files."""
    files = Files(out)
    files.write(MARKDOWN, markdown(page).encode())
    files.write(HTML, html_page(page).encode())
    files.remove(WORST)
    for number, png in enumerate(page.pictures.values()):
        files.write(f"{WORST}/{number:02d}.png", png)


def own_command() -> str:
    """The command line that runs, as a person would type it."""
    return shlex.join(["svad-ray", *sys.argv[1:]])


def protocol_notes(rows: Sequence[Row]) -> tuple[str, ...]:
    if not rows:
        return ()
    differing = [name for name in rows[0] if name.startswith("protocol.") and agreed(rows, name) is None]
    said = Protocol.of_columns(rows[0]).sentences()
    return (*said, *(f"{name.removeprefix('protocol.')} differs between rows: see {name} in rows.parquet" for name in differing))


def _left_out(results: Iterable[Result], failures: Iterable[Failure]) -> list[str]:
    said = [f"refused by the pipeline, without figures: {r.subject}: {r.refused.splitlines()[0]}" for r in results if r.refused]
    return said + [f"failed, tried again by the next run: {f.subject}: {f.reason}" for f in failures]


def worst_pictures(results: Sequence[Result]) -> dict[str, bytes]:
    """Caption -> strip of the worst rows that have one."""
    kept = {id(result.rows[number]): png for result in results for number, png in result.pictures.items()}
    rows = [row for result in results for row in result.rows if id(row) in kept]
    figure = primary(rows)
    if not figure:
        return {}
    out = {}
    for row in worst(rows, figure, SHOWN):
        figures = ", ".join(f"{name} {cell(name, row[name])}" for name in METRICS if row.get(name) is not None)
        out[f"worst by {figure}: {row['subject']}, {row['view']} (render, truth, four times their difference): {figures}"] = kept[id(row)]
    return out


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, default=str).encode()
