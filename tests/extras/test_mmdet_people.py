"""RTMDet on mmdet with the shimmed suppression, against a decoding of its raw output from the definition."""

import cv2
import numpy as np
import pytest
import torch
from needed import needs

needs("mmdet", extra="mmpose")

from svad_ray.errors import InputError  # noqa: E402
from svad_ray.pose import mmpose as ours  # noqa: E402

CLASSES = 2
IOU, CANDIDATES = 0.6, 1000


@pytest.fixture(scope="module")
def picture():
    coarse = np.random.default_rng(5).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    return cv2.resize(coarse, (400, 400), interpolation=cv2.INTER_CUBIC)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A detector at random whose scores are spread, so that some of its boxes count."""
    torch.manual_seed(1)
    state = ours.build_detector(CLASSES).state_dict()
    for level in range(3):
        state[f"bbox_head.rtm_cls.{level}.weight"] = torch.randn_like(state[f"bbox_head.rtm_cls.{level}.weight"]) * 8.0
        state[f"bbox_head.rtm_cls.{level}.bias"] = torch.full((CLASSES,), 0.0)
        state[f"bbox_head.rtm_reg.{level}.bias"] = torch.full((4,), 3.0)
    folder = tmp_path_factory.mktemp("rtmdet")
    torch.save({"meta": {"classes": np.array(["person"])}, "state_dict": state}, folder / "rtmdet_m_person.pth")
    return folder


def letterboxed(picture, size=640):
    """BGR, the longer side at ``size``, 114 below and to the right, normalised as the package's configuration says."""
    ratio = size / max(picture.shape[:2])
    small = cv2.resize(picture[..., ::-1], None, fx=ratio, fy=ratio, interpolation=cv2.INTER_LINEAR)
    padded = np.full((size, size, 3), 114.0)
    padded[: small.shape[0], : small.shape[1]] = small
    return ((padded - [103.53, 116.28, 123.675]) / [57.375, 57.12, 58.395]).transpose(2, 0, 1).astype(np.float32), ratio


def decoded(levels, ratio):
    """Boxes in pixels of the picture and scores of each class, of every cell."""
    boxes, scores = [], []
    for stride, cls, reg in zip((8, 16, 32), *levels, strict=True):
        height, width = cls.shape[2:]
        ys, xs = np.mgrid[:height, :width] * stride
        left, top, right, bottom = reg[0].double().numpy()
        boxes.append(np.stack((xs - left, ys - top, xs + right, ys + bottom), -1).reshape(-1, 4))
        scores.append(cls[0].double().sigmoid().numpy().reshape(CLASSES, -1).T)
    return np.concatenate(boxes).clip(0, None) / ratio, np.concatenate(scores)


def test_people(folder, picture):
    model = ours.load_detector(folder / "rtmdet_m_person.pth")
    estimator = object.__new__(ours.MMPose)
    estimator.detector = model
    found = estimator.people(picture)
    tensor, ratio = letterboxed(picture)
    with torch.inference_mode():
        levels = model.bbox_head(model.neck(model.backbone(torch.from_numpy(tensor)[None])))
    boxes, scores = decoded(levels, ratio)
    boxes = np.minimum(boxes, 400)
    assert len(found) > 3
    # each box found is one of the raw boxes of a person's score, no two of them overlap too much, and the best one is there
    sure = scores[:, 0] > ours.PERSON_SCORE
    distance = np.abs(found[:, None] - boxes[sure][None]).max(-1)
    print(f"boxes: {len(found)} of {sure.sum()}, {distance.min(1).max():.2e} pixels off at most")
    assert distance.min(1).max() < 0.05
    assert np.abs(found[0] - boxes[scores[:, 0].argmax()]).max() < 0.05
    for i in range(len(found)):
        assert max((iou(found[i], found[j]) for j in range(i)), default=0.0) <= IOU + 1e-4
    largest = np.prod(found[:, 2:] - found[:, :2], axis=1).argmax()
    np.testing.assert_array_equal(estimator.person(picture), found[largest])


def test_boxes_end_with_the_picture(folder):
    """A wide picture is filled up to a square; what is found there is nobody."""
    estimator = object.__new__(ours.MMPose)
    estimator.detector = ours.load_detector(folder / "rtmdet_m_person.pth")
    wide = cv2.resize(np.random.default_rng(5).integers(0, 256, (6, 20, 3), dtype=np.uint8), (400, 120), interpolation=cv2.INTER_CUBIC)
    boxes = estimator.people(wide)
    assert len(boxes) and boxes.min() >= 0 and (boxes <= [400, 120, 400, 120]).all() and (boxes[:, 2:] > boxes[:, :2]).all()


def iou(a, b):
    inner = np.prod(np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0))
    return inner / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - inner)


def test_faults_are_named(folder, tmp_path):
    (tmp_path / "rtmdet_m_a.pth").write_bytes(b"")
    (tmp_path / "rtmdet_m_b.pth").write_bytes(b"")
    with pytest.raises(InputError, match=r"2 detectors: rtmdet_m_a.pth, rtmdet_m_b.pth"):
        ours.detector_file(tmp_path)
    torch.save({"state_dict": {"backbone.x": torch.zeros(1)}}, tmp_path / "rtmdet_m_a.pth")
    with pytest.raises(InputError, match="is not the RTMDet-m"):
        ours.load_detector(tmp_path / "rtmdet_m_a.pth")
