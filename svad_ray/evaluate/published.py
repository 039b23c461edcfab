"""What others published, to stand beside our figures: only rows whose place is known."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from svad_ray.errors import InputError

_REMEDY = "write a list of {table, method, figures: {psnr: 30.1}, source}, as svad_ray/evaluate/published.yaml is one"


@dataclass(frozen=True)
class Published:
    """One row of somebody's table.

    Attributes:
        table: Which of our tables it stands beside. method: Whose. figures: By our names of them. source: Where it stands.
    """

    table: str
    method: str
    figures: dict[str, float]
    source: str


def published(table: str, more: str | Path = "") -> list[Published]:
    """The rows for one table: those that are known here, then the caller's.

    Args:
        more: YAML in the form of ``published.yaml``.

    Raises:
        InputError: ``more`` cannot be read or a row of it has no source.
    """
    text = (files("svad_ray.evaluate") / "published.yaml").read_text(encoding="utf-8")
    rows = _rows(yaml.safe_load(text), "published.yaml")
    if more:
        try:
            rows += _rows(yaml.safe_load(Path(more).read_text(encoding="utf-8")), str(more))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise InputError(f"the published figures in {more} cannot be read: {error}", remedy=_REMEDY) from error
    return [row for row in rows if row.table == table]


def _rows(values: Any, name: str) -> list[Published]:
    out = []
    for number, value in enumerate(values if isinstance(values, list) else [None]):
        try:
            figures = {str(key): float(figure) for key, figure in value["figures"].items()}
            row = Published(str(value["table"]), str(value["method"]), figures, str(value["source"]))
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise InputError(f"row {number} of {name} is no published figure ({error!r})", remedy=_REMEDY) from error
        if not row.source.strip():
            raise InputError(f"row {number} of {name} has no source", expected="where the figure stands", remedy=_REMEDY)
        out.append(row)
    return out
