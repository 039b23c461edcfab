"""The network runner."""

from __future__ import annotations

import numpy as np
import pytest

from svad_ray import models
from svad_ray.errors import WeightsMissing
from svad_ray.nets.litert import LiteRTNet


@pytest.mark.parametrize("contents", [None, b"", b"no network" * 100])
def test_a_file_that_is_no_network(tmp_path, contents):
    path = tmp_path / "net.tflite"
    if contents is not None:
        path.write_bytes(contents)
    with pytest.raises(WeightsMissing, match=r"net\.tflite") as caught:
        LiteRTNet(path)
    assert "models pull" in caught.value.remedy


@pytest.mark.models
def test_same_answer_from_any_number_of_threads_and_twice():
    try:
        path = models.path("mediapipe", "face_landmark.tflite")
    except WeightsMissing as error:
        pytest.skip(error.found)
    image = np.random.default_rng(0).random((192, 192, 3), np.float32)
    one, two = LiteRTNet(path), LiteRTNet(path, threads=2)
    assert one.size == 192
    first = {name: values.copy() for name, values in one(image).items()}
    one(np.zeros_like(image))
    for answer in (one(image), two(image)):
        assert answer.keys() == first.keys()
        for name, values in answer.items():
            np.testing.assert_allclose(values, first[name], rtol=1e-4, atol=1e-3)
