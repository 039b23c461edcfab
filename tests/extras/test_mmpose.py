"""RTMPose-L and RTMDet on mmpose and mmdet, with weights made by a rule: loading, and the same numbers as our own code round the networks."""

import numpy as np
import pytest
import torch
from needed import needs

needs("mmpose", extra="mmpose")

from svad_ray.errors import InputError, WeightsMissing  # noqa: E402
from svad_ray.pose import mmpose as ours  # noqa: E402
from svad_ray.pose import simcc  # noqa: E402

SIZE = (300, 240)  # of the picture: height and width
BOXES = [np.array([40.0, 30.0, 180.0, 270.0]), np.array([-20.0, 60.5, 235.25, 130.0])]


def history():
    from mmengine.logging import HistoryBuffer

    return HistoryBuffer([1.0, 2.0], [1, 1])


@pytest.fixture(scope="module")
def picture():
    import cv2

    coarse = np.random.default_rng(0).integers(0, 256, (30, 24, 3), dtype=np.uint8)
    return cv2.resize(coarse, SIZE[::-1], interpolation=cv2.INTER_CUBIC)


@pytest.fixture(scope="module")
def state():
    """Tensors of RTMPose-L; deep random networks fade away, so the last layers are made stronger."""
    torch.manual_seed(0)
    return ours.build_pose().state_dict()


@pytest.fixture(scope="module")
def folder(state, tmp_path_factory):
    """A checkpoint as mmpose publishes one: torch's older format, with metadata and a logger's buffer."""
    folder = tmp_path_factory.mktemp("mmpose")
    whole = {"meta": {"dataset_meta": {"sigmas": np.ones(133)}, "epoch": 270}, "state_dict": state, "message_hub": {"loss": history()}}
    torch.save(whole, folder / ours.POSE_FILE, _use_new_zipfile_serialization=False)
    return folder


@pytest.fixture(scope="module")
def estimator(folder):
    return ours.MMPose(folder, flip=False, device="cpu")


@pytest.fixture(scope="module")
def seen(estimator, picture):
    """What the network got and gave for each box, and the key points that mmpose made of it."""
    calls, gave = [], []
    net = estimator.model
    hooks = [
        net.backbone.register_forward_pre_hook(lambda _, given: calls.append(given[0].clone())),
        net.head.register_forward_hook(lambda *_: None),
    ]
    forward = net.head.forward

    def kept(features):
        out = forward(features)
        gave.append([part.clone().numpy() for part in out])
        return out

    net.head.forward = kept
    points = [estimator.one(picture, box=box) for box in BOXES]
    net.head.forward = forward
    for hook in hooks:
        hook.remove()
    return calls, gave, points


def test_a_published_checkpoint_is_read_strictly(state, estimator):
    loaded = estimator.model.state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[key], value) for key, value in state.items() if not key.endswith("num_batches_tracked"))


def test_the_crop_is_the_same(seen, picture):
    calls, _, _ = seen
    for box, given in zip(BOXES, calls, strict=True):
        crop = simcc.crop(picture, *simcc.centre_and_scale(box))
        difference = np.abs(given[0].numpy() - crop) * simcc._STD[:, None, None]
        print(f"crop: {difference.max():.2e} grey levels at most")
        assert difference.max() < 1e-3


def test_the_same_classes_give_the_same_key_points(seen):
    _, gave, points = seen
    for box, (x, y), (theirs, scores) in zip(BOXES, gave, points, strict=True):
        centre, scale = simcc.centre_and_scale(box)
        mine, sure = simcc.decode(x, y, centre[None], scale[None])
        print(f"key points: {np.abs(mine[0] - theirs).max():.2e} pixels at most, spread {np.ptp(theirs, axis=0)}")
        np.testing.assert_allclose(mine[0], theirs, atol=1e-3)
        np.testing.assert_allclose(sure[0], scores, rtol=1e-6)
        assert np.ptp(theirs, axis=0).min() > 20, "points of one place compare nothing"


def test_the_whole_way_is_the_same(estimator, seen, picture):
    """Picture and box to key points, by our crop and decoding round the package's network."""
    for box, (theirs, _) in zip(BOXES, seen[2], strict=True):
        centre, scale = simcc.centre_and_scale(box)
        with torch.inference_mode():
            x, y = estimator.model.head(estimator.model.backbone(torch.from_numpy(simcc.crop(picture, centre, scale))[None]))
        mine, _ = simcc.decode(x.numpy(), y.numpy(), centre[None], scale[None])
        off = np.abs(mine[0] - theirs).max(1)
        print(f"whole way: {np.median(off):.2e} pixels, {(off > 1e-2).sum()} of 133 fall on another class")
        assert (off > 1e-2).sum() <= 2  # where two classes are equal to the last bits


def test_pictures_in_a_row(estimator, picture):
    frames = [picture, np.ascontiguousarray(picture[:, ::-1])]
    points, scores = estimator(frames, boxes=[BOXES[0], None])
    assert points.shape == (2, 133, 2) and points.dtype == np.float32 and scores.min() >= 0 and scores.max() <= 1
    np.testing.assert_array_equal(points[0], estimator.one(frames[0], box=BOXES[0])[0].astype(np.float32))
    whole = np.array([0.0, 0.0, SIZE[1], SIZE[0]])
    np.testing.assert_array_equal(points[1], estimator.one(frames[1], box=whole)[0].astype(np.float32))
    points, scores = estimator([])
    assert points.shape == (0, 133, 2) and scores.shape == (0, 133)


def test_faults_are_named(folder, state, tmp_path):
    with pytest.raises(WeightsMissing, match=r"eaeb96c8_20230125.pth from the MMPose project's model zoo \(Apache-2.0\), or dw-ll_ucoco_384.pth"):
        ours.MMPose(tmp_path)
    path, whole = tmp_path / ours.POSE_FILE, (folder / ours.POSE_FILE).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="cannot be read"):
        ours.MMPose(tmp_path)
    less = {key: value for key, value in state.items() if not key.startswith("head.mlp")}
    other = {f"student.{key}": value for key, value in state.items()}
    reshaped = state | {"head.cls_x.weight": torch.zeros(384, 256)}
    for tensors, message in ((less, "partial: .* head.mlp"), (state | other, "is not the RTMPose-L"), (reshaped, r"head.cls_x.weight \(384, 256\)")):
        torch.save({"state_dict": tensors}, path)
        with pytest.raises(InputError, match=message):
            ours.MMPose(tmp_path)


def test_dwpose_name_serves_as_well(folder, estimator, state, picture, tmp_path):
    (tmp_path / ours.DWPOSE_FILE).symlink_to(folder / ours.POSE_FILE)
    again = ours.MMPose(tmp_path, flip=True, device="cpu")
    mirrored = again.one(picture, box=BOXES[0])[0]
    assert again.model.test_cfg.flip_test and np.abs(mirrored - estimator.one(picture, box=BOXES[0])[0]).max() > 1
