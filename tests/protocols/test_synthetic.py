"""The synthetic protocol from photo to table, twice: the same to the digit. A person that the pipeline refuses is named."""

from __future__ import annotations

import pytest

from svad_ray.config import load_settings
from svad_ray.errors import QualityRejected
from svad_ray.evaluate.rows import read_rows
from svad_ray.evaluate.scoring import Choice
from svad_ray.protocols import orders as work
from svad_ray.protocols.results import carry_out
from svad_ray.protocols.synthetic import orders

pytestmark = pytest.mark.models
QUICK = (
    "animate.frames=4", "animate.size=128", "animate.keypoint_iterations=20", "animate.silhouette_iterations=3", "animate.clothe_iterations=5",
    "restore.backend=off", "fit.iterations=3", "avatar.gaussians=2000", "avatar.iterations=4",
)  # fmt: skip


@pytest.mark.slow
def test_the_table_is_the_same_to_the_digit(tmp_path):
    pages = []
    for name in ("a", "b"):
        out = str(tmp_path / name)
        made = orders(out, load_settings(sets=QUICK), Choice(("psnr", "ssim", "iou")), people="varied", seeds=[0], views=2, size=128)
        outcome = carry_out(made, work.run_here, title="t")
        pages.append((outcome.page.grids, [{k: repr(v) for k, v in row.items()} for row in read_rows(out)]))
    assert pages[0] == pages[1]
    front, back = outcome.rows
    assert (front["view"], back["view"]) == ("front", "back") and 12 < front["psnr"] < 40 and 0.5 < front["iou"] < 1
    assert 0 < front["joints_mm"] < 300 and outcome.results[0].usage["stages"]["avatar"]["wall_s"] > 0
    assert any("restore stage is switched off" in warning for warning in outcome.results[0].warnings)


def test_a_refused_person_is_a_result_with_its_reason(tmp_path, monkeypatch):
    import svad_ray.protocols.synthetic as protocol

    def refuse(*_):
        raise QualityRejected("the feet are cut off", remedy="step back")

    monkeypatch.setattr(protocol, "person_of", refuse)
    made = orders(str(tmp_path), load_settings(sets=QUICK), Choice(("psnr",)), people="cast", seeds=[3], views=1, size=64)
    outcome = carry_out(made, work.run_here, title="t")
    assert not outcome.failures and not outcome.rows
    assert any("person3: the feet are cut off" in note for note in outcome.page.notes)
    monkeypatch.undo()
    assert work.found_result(made[0]).refused.startswith("the feet")
