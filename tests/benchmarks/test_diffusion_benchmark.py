"""The diffusion benchmark compares equal outputs and prints ratios."""

import re

import pytest
import torch

from benchmarks import diffusion


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
def test_both_orders_of_work_give_the_same():
    got = diffusion.compare(latent=8, frames=2, rounds=1)
    assert got["step difference"] < 5e-5 and got["run difference"] < 1e-4
    assert got["step ratio"] > 0 and got["run ratio"] > 0


@pytest.mark.slow
def test_the_twin_sees_the_reference(monkeypatch):
    monkeypatch.setattr(diffusion.TwinSelfAttention, "__call__", lambda self, attn, x, *_, **options: self._attend(attn, x, x))
    assert diffusion.compare(latent=8, frames=2, rounds=1)["step difference"] > 0.05


def test_the_table_is_printed(capsys):
    diffusion.main(["--rounds", "1", "--latent", "8", "--frames", "1", "--threads", "1"])
    printed = capsys.readouterr().out
    assert re.search(r"8 x 8.* \d+\.\d\d", printed), printed
