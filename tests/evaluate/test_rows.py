"""Rows together: means, bootstrap intervals, worst cases, published figures."""

from __future__ import annotations

import math

import numpy as np
import pytest

from svad_ray.errors import InputError
from svad_ray.evaluate.published import published
from svad_ray.evaluate.rows import plain, summarise, unplain, worst
from svad_ray.evaluate.tables import Page, beside, by_view, html_page, markdown


def rows_of(values: dict[str, list[float]], figure: str = "psnr"):
    return [{"subject": s, "view": f"v{k}", figure: v} for s, vs in values.items() for k, v in enumerate(vs)]


def test_mean_median_and_count():
    told = summarise(rows_of({"a": [1.0, 2.0], "b": [6.0, float("nan")]}), "psnr")
    assert (told.count, told.mean, told.median) == (3, 3.0, 2.0)
    assert summarise([], "psnr").count == 0 and math.isnan(summarise(rows_of({"a": [1.0]}), "psnr").low)
    assert summarise(rows_of({"a": [float("inf")], "b": [3.0]}), "psnr").mean == math.inf


def test_the_interval_is_that_of_the_means_of_subjects():
    """Normal subjects, one value each: the percentile interval is close to mean +- 1.96 sd / sqrt(n); views of one subject are no new evidence."""
    rng = np.random.default_rng(0)
    values = rng.normal(20, 2, 100)
    told = summarise(rows_of({f"s{k}": [v] for k, v in enumerate(values)}), "psnr")
    half = 1.96 * values.std() / 10
    assert told.low == pytest.approx(values.mean() - half, abs=0.06) and told.high == pytest.approx(values.mean() + half, abs=0.06)
    thrice = summarise(rows_of({f"s{k}": [v] * 3 for k, v in enumerate(values)}), "psnr")
    assert (thrice.low, thrice.high) == pytest.approx((told.low, told.high))


def test_the_interval_is_its_seed_and_not_the_order_of_rows():
    rows = rows_of({f"s{k}": [float(k), k + 1.0] for k in range(9)})
    assert summarise(rows, "psnr", seed=3) == summarise(rows[::-1], "psnr", seed=3) != summarise(rows, "psnr", seed=4)


def test_worst_is_the_small_psnr_and_the_large_lpips():
    rows = [{"subject": "a", "view": str(k), "psnr": p, "lpips_alex": p / 10} for k, p in enumerate([3.0, 1.0, float("nan"), 2.0])]
    assert [r["psnr"] for r in worst(rows, "psnr", 2)] == [1.0, 2.0]
    assert [r["psnr"] for r in worst(rows, "lpips_alex", 1)] == [3.0]


def test_rows_survive_json():
    row = {"subject": "a", "psnr": math.inf, "ssim": math.nan, "iou": 0.1}
    back = unplain(plain(row))
    assert back["psnr"] == math.inf and math.isnan(back["ssim"]) and back["iou"] == 0.1


def test_published_rows_have_a_source(tmp_path):
    (row,) = published("speed")
    assert row.figures["total"] == 366.13 and "A100" in row.source
    assert sum(value for name, value in row.figures.items() if name != "total") == pytest.approx(366.13, abs=0.011)
    (tmp_path / "more.yaml").write_text(
        "- {table: thuman, method: X, figures: {psnr: 20.5}, source: X's paper, Table 2}\n".replace("paper, T", "paper T")
    )
    assert published("thuman", tmp_path / "more.yaml")[0].figures == {"psnr": 20.5}
    (tmp_path / "bad.yaml").write_text("- {table: thuman, method: X, figures: {psnr: 20.5}, source: ''}\n")
    with pytest.raises(InputError, match="no source"):
        published("thuman", tmp_path / "bad.yaml")
    (tmp_path / "bad.yaml").write_text("table: thuman\n")
    with pytest.raises(InputError, match="no published figure"):
        published("thuman", tmp_path / "bad.yaml")


def test_pages_hold_their_tables_and_escape_what_they_are_given():
    rows = rows_of({"a<b|c": [20.0, 30.0], "d": [10.0, 20.0]})
    grid = by_view(rows)
    assert grid.rows[0][:2] == ("all (n = 4)", "20.00") and grid.rows[1][1] == "20.00" and "…" in grid.rows[2][1]
    table = beside(rows, published("people-snapshot"), "ours")
    assert table is not None and table.rows[0][1] == "20.00" and "0.014" in table.rows[1]
    page = Page("T<", [grid, table], ["note"], "svad-ray evaluate x", {"cap": b"png"})
    assert "a<b" not in html_page(page) and "data:image/png;base64," in html_page(page)
    assert "| mean of | PSNR dB ↑ |" in markdown(page) and markdown(page).startswith("# T<")
