"""The animation benchmark draws the same frames in every way and prints its ratios."""

import re

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from benchmarks import animation
from svad_ray.motion import blank_track
from svad_ray.store import save_avatar
from svad_ray.subject import Avatar


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_the_table_is_printed_and_the_frames_are_equal(golden_body, tmp_path, capsys, monkeypatch):
    body = golden_body
    monkeypatch.setattr(animation, "load_body", lambda path: body)
    random, vertices = np.random.default_rng(0), body.v_template.numpy()
    weights, joints = body.lbs_weights.topk(6, dim=1)
    count = len(vertices)
    tensors = {"means": vertices, "quats": Rotation.random(count, random_state=0).as_quat(), "scales": random.uniform(0.01, 0.03, (count, 3))}
    tensors |= {"opacities": random.uniform(0.5, 1, count), "colors": random.uniform(0, 1, (count, 3))}
    tensors |= {
        "lbs_weights": (weights / weights.sum(1, keepdim=True)).numpy(),
        "rest_joints": body.joint_template.numpy(),
        "hands_mean": np.zeros((2, 45)),
    }
    tensors = {name: value.astype(np.float32) for name, value in tensors.items()}
    tensors |= {"lbs_joints": joints.numpy().astype(np.uint8), "parents": np.asarray(body.parents, np.int32)}
    save_avatar(Avatar("gaussian", tensors, blank_track(np.zeros((1, 55, 3)), fps=25.0)), tmp_path)
    animation.main([str(tmp_path), "--size", "64", "--frames", "4", "--rounds", "1"])
    said = capsys.readouterr().out
    rows = re.findall(r"(\d+\.\d) +(\d+\.\d\d) +(\d+\.\d)(?: +(\d+))?", said)
    assert len(rows) == 5 and all(float(ratio) > 0 for _, ratio, *_ in rows), said
    assert [difference for *_, difference in rows] == ["0", "0", "0", "0", ""], said
