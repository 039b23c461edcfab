"""What stands in for missing modules does what the original did, and says so where it cannot."""

import importlib
import sys

import numpy as np
import pytest
import torch
from needed import needs

from svad_ray.errors import BackendUnavailable
from svad_ray.models.shims import mmcv_compiled, torchvision_functional_tensor

needs("torchvision", extra="vision")


def suppressed_twin(boxes, scores, threshold, offset):
    """Greedy suppression in float64, from its definition."""
    boxes, left, kept = boxes.astype(float), list(np.argsort(-scores)), []
    area = np.prod(boxes[:, 2:] - boxes[:, :2] + offset, axis=1)
    while left:
        first = left.pop(0)
        kept.append(int(first))

        def overlap(i, first=first):
            size = np.minimum(boxes[first, 2:], boxes[i, 2:]) - np.maximum(boxes[first, :2], boxes[i, :2]) + offset
            inner = np.prod(np.maximum(size, 0))
            return inner / (area[first] + area[i] - inner)

        left = [i for i in left if overlap(i) <= threshold]
    return kept


def test_grey_of_basicsr():
    torchvision_functional_tensor()
    image = torch.rand(3, 4, 5)
    grey = importlib.import_module("torchvision.transforms.functional_tensor").rgb_to_grayscale(image)
    torch.testing.assert_close(grey[0], 0.2989 * image[0] + 0.587 * image[1] + 0.114 * image[2])


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("seed", range(5))
def test_suppression_of_mmcv(offset, seed):
    needs("mmcv", extra="mmpose")
    mmcv_compiled()
    from mmcv.ops import nms

    random = np.random.default_rng(seed)
    corner, size = random.uniform(0, 60, (80, 2)), random.uniform(1, 40, (80, 2))
    boxes, scores = np.hstack((corner, corner + size)).astype(np.float32), random.permutation(80).astype(np.float32) / 80
    kept, numbers = nms(boxes, scores, 0.4, offset=offset)
    assert numbers.tolist() == suppressed_twin(boxes, scores, 0.4, offset)
    np.testing.assert_array_equal(kept, np.hstack((boxes, scores[:, None]))[numbers])


def test_other_operations_say_that_they_are_absent():
    needs("mmcv", extra="mmpose")
    mmcv_compiled()
    from mmcv.ops import roi_align

    with pytest.raises(BackendUnavailable, match=r"roi_align_forward.*mmcv-lite"):
        roi_align(torch.rand(1, 1, 8, 8), torch.tensor([[0, 0, 0, 4, 4.0]]), 2)


def test_what_is_there_is_left_alone():
    mmcv_compiled()
    torchvision_functional_tensor()
    before = [sys.modules[name] for name in ("mmcv._ext", "torchvision.transforms.functional_tensor")]
    mmcv_compiled()
    torchvision_functional_tensor()
    assert before == [sys.modules[name] for name in ("mmcv._ext", "torchvision.transforms.functional_tensor")]
