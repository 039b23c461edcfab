"""`svad-ray evaluate folder`: anybody's pictures, from the command line to the table, the worst cases and the next run."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from svad_ray.cli import app
from svad_ray.errors import InputError
from svad_ray.evaluate.rows import read_rows
from svad_ray.evaluate.scoring import Protocol

SIDE = 48


def picture(k: int) -> np.ndarray:
    rng = np.random.default_rng(k)
    image = np.full((SIDE, SIDE, 3), 255, np.uint8)
    image[10:40, 12:30] = cv2.GaussianBlur(rng.integers(0, 256, (30, 18, 3), np.uint8), (0, 0), 2)
    return image


def write(folder, subjects=("ann", "bob"), change=lambda image: image, alpha=False):
    for s, subject in enumerate(subjects):
        (folder / subject).mkdir(parents=True)
        for view in range(3):
            image = change(picture(10 * s + view))
            if alpha:
                image = np.dstack([image, np.where(image.min(2) < 255, 255, 0).astype(np.uint8)])
            cv2.imwrite(str(folder / subject / f"{view:03d}.png"), image)
    return folder


def evaluate(tmp_path, *options, code=0):
    done = CliRunner().invoke(app, ["evaluate", "folder", str(tmp_path / "ours"), str(tmp_path / "truth"), "--out", str(tmp_path / "out"), *options])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == code
    return done.output


def test_perfect_pictures_give_the_limits_and_every_row_its_protocol(tmp_path):
    write(tmp_path / "truth", alpha=True)
    write(tmp_path / "ours", alpha=True)
    evaluate(tmp_path, "--metrics", "psnr,ssim,iou", "--background", "white", "--poses", "given by the data", "--sequence")
    rows = read_rows(str(tmp_path / "out"))
    assert [(r["subject"], r["view"]) for r in rows] == [(s, f"{v:03d}") for s in ("ann", "bob") for v in range(3)]
    assert all(r["psnr"] == np.inf and r["ssim"] == pytest.approx(1) and r["iou"] == 1 for r in rows)
    assert [r["flicker"] for r in rows] == [0, None, None, 0, None, None]
    protocol = Protocol.of_columns(rows[0])
    assert (protocol.height, protocol.background, protocol.poses) == (SIDE, "white", "given by the data")
    assert "∞" in (tmp_path / "out" / "table.md").read_text()


def test_faults_are_worse_and_the_worst_is_shown(tmp_path):
    write(tmp_path / "truth")
    write(tmp_path / "ours", ("ann",))
    write(tmp_path / "ours", ("bob",), lambda image: np.ascontiguousarray(image[:, ::-1]))
    evaluate(tmp_path, "--metrics", "psnr,ssim")
    rows = {r["subject"]: r for r in read_rows(str(tmp_path / "out"))}
    assert rows["bob"]["psnr"] < 20 and rows["bob"]["ssim"] < 0.9
    page = (tmp_path / "out" / "table.html").read_text()
    assert "worst by psnr: bob" in page and page.count("data:image/png") == 6
    worst = cv2.imread(str(tmp_path / "out" / "worst" / "00.png"))
    assert worst.shape == (SIDE, 3 * SIDE, 3) and worst[:, 2 * SIDE :].max() > 100  # render, truth, and a difference that is seen


def test_done_again_it_reads_what_is_done_and_writes_the_same(tmp_path):
    write(tmp_path / "truth")
    write(tmp_path / "ours", change=lambda image: cv2.GaussianBlur(image, (0, 0), 1))
    evaluate(tmp_path, "--metrics", "psnr,ssim")
    first = {name: (tmp_path / "out" / name).read_bytes() for name in ("rows.parquet", "table.md", "summary.json")}
    markers = sorted((tmp_path / "out" / "scores").rglob("COMMITTED.json"))
    times = [marker.stat().st_mtime_ns for marker in markers]
    evaluate(tmp_path, "--metrics", "psnr,ssim")
    assert first == {name: (tmp_path / "out" / name).read_bytes() for name in first} and len(markers) == 2
    assert [marker.stat().st_mtime_ns for marker in markers] == times
    cv2.imwrite(str(tmp_path / "ours" / "ann" / "000.png"), picture(0))  # a changed picture is another order
    evaluate(tmp_path, "--metrics", "psnr,ssim")
    assert len(list((tmp_path / "out" / "scores").rglob("COMMITTED.json"))) == 3
    assert read_rows(str(tmp_path / "out"))[0]["psnr"] == np.inf


def test_a_subject_that_cannot_be_scored_leaves_the_others(tmp_path):
    write(tmp_path / "truth")
    write(tmp_path / "ours")
    cv2.imwrite(str(tmp_path / "ours" / "ann" / "001.png"), picture(1)[:-2])
    said = evaluate(tmp_path, "--metrics", "psnr", code=9)
    assert "failed" in said and "ann" in said
    assert {r["subject"] for r in read_rows(str(tmp_path / "out"))} == {"bob"}
    assert "48 x 46" in json.loads((tmp_path / "out" / "manifest.json").read_text())["failed"]["ann"]


def test_pictures_without_a_partner_are_named(tmp_path):
    write(tmp_path / "truth", ("ann",))
    write(tmp_path / "ours", ("ann",))
    (tmp_path / "ours" / "ann" / "002.png").unlink()
    with pytest.raises(InputError, match=r"ann/002\.png"):
        evaluate(tmp_path)
    with pytest.raises(InputError, match="no folder"):
        CliRunner().invoke(app, ["evaluate", "folder", "nowhere", str(tmp_path), "--out", str(tmp_path / "o")], catch_exceptions=False)


def test_masks_from_folders(tmp_path):
    write(tmp_path / "truth", ("ann",))
    write(tmp_path / "ours", ("ann",))
    for folder, columns in (("masks", slice(12, 30)), ("own", slice(12, 21))):
        (tmp_path / folder / "ann").mkdir(parents=True)
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[10:40, columns] = 255
        for view in range(3):
            cv2.imwrite(str(tmp_path / folder / "ann" / f"{view:03d}.png"), mask)
    evaluate(tmp_path, "--metrics", "psnr,iou", "--masks", str(tmp_path / "masks"), "--own-masks", str(tmp_path / "own"))
    assert {r["iou"] for r in read_rows(str(tmp_path / "out"))} == {0.5}
