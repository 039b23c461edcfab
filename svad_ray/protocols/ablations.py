"""The paper's ablations as switches of the settings, on synthetic people: what each part of the pipeline is worth.

The layout is that of the paper's Tables 3 (parts left out) and 4 (frames and resolution): one row a variant, figures as columns. Its people,
networks and numbers are not ours, so no published row stands beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from svad_ray.config import Settings, override
from svad_ray.evaluate.rows import figures_in, summarise, write_rows
from svad_ray.evaluate.scoring import Choice
from svad_ray.evaluate.synthetic.limits import LIMITS
from svad_ray.evaluate.tables import HEADS, Grid, Page, cell
from svad_ray.protocols import synthetic
from svad_ray.protocols.orders import Failure, Order, Result, Runner, found_result
from svad_ray.protocols.results import Outcome, own_command, protocol_notes, worst_pictures, write_manifest, write_page
from svad_ray.store.files import Files

FULL = "full"
PARTS: dict[str, dict[str, Any]] = {
    "no identity": {"identity.backend": "off"},
    "no restoration": {"restore.backend": "off"},
    "no silhouette": {"animate.silhouette_iterations": 0, "animate.clothe_iterations": 0},
}
FRAMES, SIZES = (24, 48, 96), (256, 384)
_TABLES = {"parts": "Parts left out (layout of the paper's Table 3)", "clip": "Frames and resolution of the clip (layout of the paper's Table 4)"}


@dataclass(frozen=True)
class Variant:
    """One row: its name, in which table, and the settings that it changes."""

    name: str
    table: str
    changes: dict[str, Any]


def variants(settings: Settings, *, frames: Sequence[int] = FRAMES, sizes: Sequence[int] = SIZES) -> list[Variant]:
    """The full pipeline with ``settings``, then every switch by itself.

    "no silhouette" takes the outline out of the embedded animate stage: neither body nor clothes are fitted to the mask.
    """
    found = [Variant(FULL, "", {})] + [Variant(name, "parts", changes) for name, changes in PARTS.items()]
    found += [Variant(f"{n} frames", "clip", {"animate.frames": n}) for n in frames if n != settings.animate.frames]
    return found + [Variant(f"{n} px", "clip", {"animate.size": n}) for n in sizes if n != settings.animate.size]


def carry_out(
    out: str,
    settings: Settings,
    choice: Choice,
    run: Runner,
    chosen: Sequence[Variant],
    *,
    people: str,
    seeds: Sequence[int],
    size: int,
    seed: int = 0,
) -> Outcome:
    """Measure every variant on the same people and write the tables below ``out``."""
    orders: dict[str, list[Order]] = {}
    for variant in chosen:
        changed = override(settings, variant.changes)
        orders[variant.name] = synthetic.orders(out, changed, choice, people=people, seeds=seeds, views=4, size=size)
    flat = [order for group in orders.values() for order in group]
    failures = [failure for failure in run(flat) if failure is not None]
    results = {name: [labelled(result, name) for order in group if (result := found_result(order)) is not None] for name, group in orders.items()}
    page = Page("Ablations", grids(chosen, results, settings, seed=seed), _notes(results, failures, len(seeds)), own_command(), _pictures(results))
    outcome = Outcome(page, [result for group in results.values() for result in group], failures)
    if outcome.rows:
        write_rows(out, outcome.rows)
    Files(out).remove("summary.json")  # of another kind of evaluation in the same place
    write_page(out, page)
    write_manifest(outcome, flat, seed=seed)
    return outcome


def labelled(result: Result, variant: str) -> Result:
    """The result with the variant's name in every row."""
    return replace(result, rows=[{"subject": row["subject"], "variant": variant, **row} for row in result.rows])


def grids(chosen: Sequence[Variant], results: dict[str, list[Result]], settings: Settings, *, seed: int) -> list[Grid]:
    """A table for the parts and one for the clip; the full pipeline stands on top of both."""
    rows = {name: [row for result in group for row in result.rows] for name, group in results.items()}
    figures = figures_in([row for group in rows.values() for row in group])
    out = []
    for table, caption in _TABLES.items():
        lines = []
        for variant in chosen:
            if variant.table not in ("", table):
                continue
            name = variant.name if variant.table else f"full ({settings.animate.frames} frames, {settings.animate.size} px)"
            told = [summarise(rows[variant.name], figure, seed=seed) for figure in figures]
            lines.append((name, *(cell(figure, t.mean) for figure, t in zip(figures, told)), str(len(rows[variant.name]))))
        if len(lines) > 1:
            out.append(Grid(("variant", *(HEADS[figure] for figure in figures), "rows"), tuple(lines), caption))
    return out


def _notes(results: dict[str, list[Result]], failures: Sequence[Failure], people: int) -> tuple[str, ...]:
    rows = [row for group in results.values() for result in group for row in result.rows]
    refused = [f"refused: {name}: {r.subject}: {r.refused.splitlines()[0]}" for name, group in results.items() for r in group if r.refused]
    failed = [f"failed, tried again by the next run: {failure.subject}: {failure.reason}" for failure in failures]
    told = "" if people > 2 else f" With {people} {'people' if people > 1 else 'person'} small differences mean nothing."
    return (*protocol_notes(rows), f"Every variant on the same {people} people, one change at a time.{told}", *LIMITS, *refused, *failed)


def _pictures(results: dict[str, list[Result]]) -> dict[str, bytes]:
    """The worst case of every variant."""
    return {f"{name}: {caption}": png for name, group in results.items() for caption, png in list(worst_pictures(group).items())[:1]}
