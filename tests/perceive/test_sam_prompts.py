"""What Segment Anything is told of the person, against the recorded prompts; no package and no weights needed."""

import importlib.util

import numpy as np
import pytest
from rules import golden_or_skip

from svad_ray.config import PerceiveConfig
from svad_ray.errors import BackendUnavailable, WeightsMissing
from svad_ray.nets import sam
from svad_ray.stages.perceive.sam import DWPoseSamPerceive


@pytest.mark.parametrize("frame", [0, 1])
def test_equal_the_recorded(golden_avatar, frame):
    with golden_or_skip(golden_avatar / "item5_post.npz") as data:
        points, box = data[f"sam_points_{frame}"], data[f"sam_box_xyxy_{frame}"]
        rows, columns, _ = data["sam_resized_shape"]
        size = (320, 256)
        made = sam.prompt(*spread(points), height=size[0], width=size[1])
        np.testing.assert_array_equal(made.points, points)
        np.testing.assert_allclose(made.box, box, rtol=1e-6)
        assert sam.resized_shape(*size) == (rows, columns)
        np.testing.assert_allclose(sam.to_frame(made.points, *size), data[f"sam_points_1024_{frame}"], rtol=1e-6)
        np.testing.assert_allclose(sam.to_frame(made.box.reshape(2, 2), *size).ravel(), data[f"sam_box_1024_{frame}"][0], rtol=1e-6)


def spread(points):
    """Recorded points among 133, the others unsure: some at exactly the limit."""
    keypoints, scores = np.full((133, 2), 5.0, np.float32), np.full(133, sam.SURE, np.float32)
    keypoints[: len(points)], scores[: len(points)] = points, 0.51
    return keypoints, scores


def test_nothing_to_tell():
    keypoints, sure = np.random.default_rng(0).uniform(0, 90, (133, 2)), np.ones(133)
    assert sam.prompt(keypoints, sure * 0.5, height=90, width=90) is None
    assert sam.prompt(keypoints + 100, sure, height=90, width=90) is None
    assert sam.prompt(keypoints * 0 + 7, sure, height=90, width=90) is None
    assert sam.prompt(keypoints * np.nan, sure, height=90, width=90) is None
    partly = keypoints.copy()
    partly[:50] = np.nan
    partly[50] = [95.0, 40.0]
    np.testing.assert_array_equal(sam.prompt(partly, sure, height=90, width=90).points, partly[50:])


@pytest.mark.skipif(importlib.util.find_spec("segment_anything") is not None, reason="the package is installed")
def test_without_the_package(tmp_path):
    with pytest.raises(WeightsMissing, match=r"sam_vit_h_4b8939\.pth from the Segment Anything project"):
        DWPoseSamPerceive().setup()
    with pytest.raises(BackendUnavailable, match=r"segment_anything[\s\S]*svad-ray\[vision\]"):
        DWPoseSamPerceive(PerceiveConfig(backend="dwpose-sam", weights=str(tmp_path))).setup()
