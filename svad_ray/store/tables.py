"""Small tables of rows, as parquet."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from typing import Any

from svad_ray.store.files import Files


def write_table(files: Files, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write ``rows`` as ``name``, replacing an older table whole.

    Columns are all names in the order of their first row; a row without one holds null there.
    """
    import pyarrow
    import pyarrow.parquet

    rows = list(rows)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    table = pyarrow.Table.from_pylist([{name: row.get(name) for name in columns} for row in rows])
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table, buffer, compression="zstd")
    files.write(name, buffer.getvalue())


def read_table(files: Files, name: str) -> list[dict[str, Any]] | None:
    """Rows of the table ``name``; None when there is none."""
    import pyarrow.parquet

    content = files.read(name)
    return None if content is None else pyarrow.parquet.read_table(io.BytesIO(content)).to_pylist()
