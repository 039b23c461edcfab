"""Rows of figures, one a subject and view: their table on disk, and what they say together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from svad_ray.errors import InputError
from svad_ray.evaluate.scoring import METRICS, SMALLER_IS_BETTER
from svad_ray.store.files import Files
from svad_ray.store.tables import read_table, write_table

NAME = "rows.parquet"
FIGURES = (*METRICS, "flicker", "joints_mm")
RESAMPLES, CONFIDENCE = 2000, 0.95
Row = dict[str, Any]


@dataclass(frozen=True)
class Summary:
    """One figure over many rows.

    Attributes:
        count: Rows that have it. mean, median: Over them; infinite values (equal pictures) count in both.
        low, high: Bootstrap interval of the mean, subjects resampled whole; NaN below two subjects.
    """

    count: int
    mean: float
    median: float
    low: float
    high: float


def summarise(rows: Sequence[Row], figure: str, *, seed: int = 0) -> Summary:
    """What ``rows`` say of one figure.

    Views of one subject are not independent: subjects are drawn with replacement, with all their views, and the mean over rows is taken.
    The draws depend on ``seed``, the subjects' names and nothing else.

    Source: Efron (1979), percentile interval.
    """
    by_subject: dict[str, list[float]] = {}
    for row in rows:
        value = row.get(figure)
        if value is not None and not math.isnan(value):
            by_subject.setdefault(str(row["subject"]), []).append(float(value))
    values = np.array([v for name in sorted(by_subject) for v in by_subject[name]])
    if not len(values):
        return Summary(0, *[float("nan")] * 4)
    low = high = float("nan")
    if len(by_subject) > 1 and np.isfinite(values).all():
        sums = np.array([sum(by_subject[name]) for name in sorted(by_subject)])
        counts = np.array([len(by_subject[name]) for name in sorted(by_subject)])
        drawn = np.random.default_rng(seed).integers(len(sums), size=(RESAMPLES, len(sums)))
        means = sums[drawn].sum(1) / counts[drawn].sum(1)
        low, high = (float(x) for x in np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]))
    return Summary(len(values), float(values.mean()), float(np.median(values)), low, high)


def figures_in(rows: Sequence[Row]) -> tuple[str, ...]:
    """The figures that were asked for, in the order of ``FIGURES``; one that no row could give (no face, no mask) is among them."""
    return tuple(name for name in FIGURES if any(row.get(name) is not None for row in rows))


def worst(rows: Sequence[Row], figure: str, count: int) -> list[Row]:
    """The ``count`` rows that are worst by ``figure``, the worst first; rows without it are left out."""
    found = [row for row in rows if row.get(figure) is not None and not math.isnan(row[figure])]
    sign = -1.0 if figure in SMALLER_IS_BETTER else 1.0
    return sorted(found, key=lambda row: (sign * row[figure], str(row["subject"]), str(row["view"])))[:count]


def write_rows(out: str, rows: Iterable[Row]) -> str:
    """Write the table below ``out``, replacing the older one whole; returns its name."""
    write_table(Files(out), NAME, rows)
    return NAME


def read_rows(out: str) -> list[Row]:
    """Rows of the table below ``out``. Raises InputError when there is none."""
    rows = read_table(Files(out), NAME)
    if rows is None:
        raise InputError(f"{out} holds no {NAME}", expected="an output folder of `svad-ray evaluate`", remedy="run the evaluation first")
    return rows


def agreed(rows: Sequence[Row], name: str) -> Any:
    """The value of a column in which all rows agree; None where they do not."""
    values = {row.get(name) for row in rows}
    return values.pop() if len(values) == 1 else None


def plain(row: Mapping[str, Any]) -> Row:
    """A row as JSON keeps it: floats that JSON lacks are written as words and read back by ``unplain``."""
    return {key: {"float": repr(value)} if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()}


def unplain(row: Mapping[str, Any]) -> Row:
    """The row that ``plain`` wrote."""
    return {key: float(value["float"]) if isinstance(value, dict) else value for key, value in row.items()}
