"""Every file of benchmarks/ can be imported, and those that are run answer --help."""

import runpy
import sys
from pathlib import Path

import pytest

FILES = sorted((Path(__file__).parents[2] / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_can_be_imported_and_asked(path, monkeypatch, capsys):
    runs = 'if __name__ == "__main__":' in path.read_text()
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    try:
        runpy.run_path(str(path), run_name="__main__")
    except SystemExit as end:
        assert end.code == 0
    assert ("usage:" in capsys.readouterr().out) == runs


def test_there_are_some():
    assert {"training", "original_order", "splat", "fit"} <= {path.stem for path in FILES}
