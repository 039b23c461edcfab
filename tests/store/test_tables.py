"""Small tables: rows with different columns, replaced whole, none."""

from pathlib import Path

import pyarrow.parquet

from svad_ray.store.files import Files
from svad_ray.store.tables import read_table, write_table


def test_rows_come_back_with_null_for_what_a_row_lacks(tmp_path: Path) -> None:
    files = Files(tmp_path)
    write_table(files, "old.parquet", [{"x": 1}])
    write_table(files, "t.parquet", [{"b": 1.5, "a": "x"}, {"a": "y", "c": [1, 2]}])
    write_table(files, "old.parquet", [{"y": 2}])
    assert read_table(files, "t.parquet") == [{"b": 1.5, "a": "x", "c": None}, {"b": None, "a": "y", "c": [1, 2]}]
    assert pyarrow.parquet.read_table(tmp_path / "t.parquet").column_names == ["b", "a", "c"]
    assert read_table(files, "old.parquet") == [{"y": 2}]
    assert read_table(files, "none.parquet") is None
