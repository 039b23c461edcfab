"""Evaluation orders as Ray tasks give the rows that this process gives; a failing subject is named and leaves the others."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from svad_ray.evaluate.scoring import Choice, Protocol
from svad_ray.protocols.folder import orders
from svad_ray.protocols.orders import found_result, run_here


def test_ray_and_local_give_the_same(ray_cluster, tmp_path):
    from svad_ray.cluster.evaluate_job import measure_orders

    rng = np.random.default_rng(0)
    for folder in ("ours", "truth"):
        for subject in ("ann", "bob", "cy"):
            (tmp_path / folder / subject).mkdir(parents=True)
            cv2.imwrite(str(tmp_path / folder / subject / "0.png"), rng.integers(0, 256, (40, 40, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "ours" / "cy" / "0.png"), np.zeros((9, 9, 3), np.uint8))
    there = orders(tmp_path / "ours", tmp_path / "truth", str(tmp_path / "ray"), Choice(("psnr", "ssim")), Protocol("folder", background="as given"))
    here = [replace(order, out=str(tmp_path / "here")) for order in there]
    failed = [failure for failure in measure_orders(there, memory_gib=0.5) if failure is not None]
    list(run_here(here))
    assert [failure.subject for failure in failed] == ["cy"] and "9 x 9" in failed[0].reason
    for a, b in zip(there[:2], here[:2]):
        assert found_result(a) == found_result(b) is not None
    assert found_result(there[2]) is None
