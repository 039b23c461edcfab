"""The restoration benchmark compares equal outputs and prints ratios."""

import re

import pytest
import torch

from benchmarks import restoration


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_the_table_is_printed_and_the_outputs_are_equal(capsys):
    restoration.main(["--rounds", "1", "--faces", "2", "--side", "128", "--threads", "1"])
    rows = re.findall(r"(?:pixels, 2 steps|at once)\s+(\d+\.\d\d)\s+(\d+)", capsys.readouterr().out)
    assert len(rows) == 2 and all(float(ratio) > 0 and int(difference) <= 1 for ratio, difference in rows), rows
