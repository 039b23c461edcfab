"""The training benchmark runs both orders of work, from either start, and reckons with what it saw."""

import json

import pytest
import torch

from benchmarks import training

SMALL = ("--size", "64", "--frames", "2", "--triplane", "16", "--steps", "2", "--looks", "2", "--prefit", "30")


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def run(golden_body, monkeypatch, capsys):
    """The JSON object that the benchmark prints last, on the recorded body."""

    def made(*arguments: str) -> dict:
        monkeypatch.setattr(training, "load_body", lambda path: golden_body)
        training.main([*SMALL, *arguments])
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    return made


def test_each_from_its_own_start_of_which_ours_is_counted(run, tmp_path):
    kept = str(tmp_path / "original.json")
    original = run("--only", "original", "--lpips", "random", "--out", kept)["original"]
    both = run("--only", "ours", "--lpips", "random", "--against", kept)
    ours = both["ours"]
    assert both["original"] == original, "the other's run is read back"
    assert [row[0] for row in ours["curve"]] == [row[0] for row in original["curve"]] == [0, 1, 2]
    assert original["curve"][0][1] == 0 < ours["curve"][0][1]
    assert ours["curve"][0][2] > original["curve"][0][2] + 5, "random Gaussians are no picture, our start is one"
    assert both["psnr_original_last"] == original["curve"][-1][2:]
    assert both["seconds_to_original_last"] == [original["curve"][-1][1], ours["curve"][0][1]], "our start alone is as good as two of its steps"


def test_both_from_the_same_start_show_the_same_picture(run):
    found = run("--start", "same")
    ours, original = found["ours"]["curve"], found["original"]["curve"]
    assert ours[0][1] == 0 and ours[0][2] == pytest.approx(original[0][2], abs=0.02), (
        "the same weights, for nothing, drawn in another precision at most"
    )
    assert ours[1][2] != ours[0][2] and original[1][2] != ours[0][2], "and the first step of either moves them"
    assert found["ratio_per_step"] > 0 and set(found["psnr_after_equal_steps"]) == {"0", "1", "2"}


@pytest.mark.slow
def test_after_equal_steps_from_equal_weights_ours_is_no_worse(run):
    """In the training's frames and in those between; large Gaussians, whose rim is most of the picture."""
    found = run("--start", "same", "--size", "96", "--frames", "4", "--triplane", "32", "--prefit", "200", "--steps", "130")
    ours, original = found["ours"]["curve"][-1], found["original"]["curve"][-1]
    assert original[2] > found["original"]["curve"][0][2] + 2, "the original's order learns"
    assert ours[0] == original[0] == 130 and ours[2] >= original[2] and ours[3] >= original[3]


def test_seconds_to_a_quality_lie_on_the_line_between_two_looks():
    curve = [(0, 1.0, 10.0), (5, 3.0, 20.0), (9, 5.0, 18.0), (20, 9.0, 30.0)]
    assert training.seconds_to(curve, 15.0) == 2.0
    assert training.seconds_to(curve, 25.0) == pytest.approx(5 + 4 * 7 / 12)
    assert training.seconds_to(curve, 9.0) == 1.0 and training.seconds_to(curve, 31.0) is None
