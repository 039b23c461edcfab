"""Hand4Whole's crops, networks and file against the recorded outputs of the original and closed forms."""

import json

import numpy as np
import pytest
import torch
from rules import avatar_rule, golden_or_skip

from svad_ray.errors import InputError, WeightsMissing
from svad_ray.nets.hand4whole import Hand4Whole, crop_people, load_hand4whole, person_box
from svad_ray.nets.hand4whole.crop import roi_align, transform
from svad_ray.nets.hand4whole.network import expected_place, features_at, rotations_of, square_boxes

TOLERANCE = 1e-3
FACTORS = {"body_position_net.conv.0.weight": 25, "hand_position_net.conv.0.weight": 25} | {
    f"box_net.{part}_size.2.{leaf}": 0.1 for part in ("lhand", "rhand", "face") for leaf in ("weight",)
}


def tensor_of(key, shape):
    drawn = avatar_rule(key, shape, 1.5) * np.float32(FACTORS.get(key, 1))
    return torch.from_numpy(drawn + np.float32(2 if key.startswith("box_net.") and key.endswith("_size.2.bias") else 0))


@pytest.fixture(scope="module")
def recorded(golden_avatar):
    return golden_or_skip(golden_avatar / "item6_hand4whole.npz")


@pytest.fixture(scope="module")
def folder(recorded, tmp_path_factory):
    """A file as published: prefixed, with a body in it."""
    keys = json.loads(str(recorded["keys_json"]))
    state = {f"module.{key}": tensor_of(key, shape) for key, shape in keys.items() if not key.endswith("num_batches_tracked")}
    folder = tmp_path_factory.mktemp("hand4whole")
    torch.save({"epoch": 6, "network": state | {"module.smplx_layer.v_template": torch.zeros(4, 3)}}, folder / "snapshot_6.pth.tar")
    return folder


def close(found, expected):
    np.testing.assert_allclose(np.asarray(found).reshape(expected.shape), expected, atol=TOLERANCE * np.abs(expected).max(), rtol=0)


@pytest.mark.slow
def test_whole_network(recorded, folder):
    net = load_hand4whole(folder)
    image = recorded["in_image_rgb"]
    box = person_box(recorded["in_bbox_xywh"], *image.shape[:2])
    np.testing.assert_allclose(box, recorded["processed_bbox"], atol=1e-3)
    np.testing.assert_allclose(transform(box), recorded["img2bb_trans"], atol=1e-4)
    patch = crop_people([image], [box])
    apart = np.abs(patch[0, :, ::4, ::4].numpy() - recorded["patch_every4"])
    assert apart.max() < 1.01 / 255 and (apart > TOLERANCE).mean() < 1e-3  # versions of the picture library round some pixels apart
    other = patch.roll(40, 3)
    both, alone = net(torch.cat([other, patch])), net(patch)
    names = {
        "joint_img": "joints",
        "smplx_root_pose": "global_orient",
        "smplx_body_pose": "body_pose",
        "smplx_lhand_pose": "left_hand_pose",
        "smplx_rhand_pose": "right_hand_pose",
        "smplx_jaw_pose": "jaw_pose",
        "smplx_shape": "betas",
        "smplx_expr": "expression",
        "cam_trans": "transl",
        "lhand_bbox": "left_hand_box",
        "rhand_bbox": "right_hand_box",
        "face_bbox": "face_box",
    }
    for key, name in names.items():
        close(getattr(alone, name), recorded[f"out_{key}"])
        close(getattr(both, name)[1:], getattr(alone, name).numpy())


def test_rotations(recorded):
    close(rotations_of(torch.from_numpy(recorded["rot6d_in"])), recorded["rot6d_axis_angle"])


def test_boxes_are_cut_and_grown():
    box = person_box(np.array([10.0, 20, 101, 51]), 400, 400)
    assert box[2] / box[3] == pytest.approx(384 / 512)
    np.testing.assert_allclose(box[:2] + box[2:] / 2, [60, 45])
    assert box[2] == pytest.approx(125)
    assert person_box(np.array([500.0, 20, 50, 50]), 400, 400) is None
    assert person_box(np.array([10.0, 20, 0, 50]), 400, 400) is None


def test_a_peak_is_its_place():
    heat = torch.full((1, 2, 4, 5, 6), -50.0)
    heat[0, 0, 1, 2, 3], heat[0, 1, 3, 4, 5] = 50, 50
    _, places = expected_place(heat)
    assert torch.allclose(places[0], torch.tensor([[3.0, 2, 1], [5, 4, 3]]))
    ramp = torch.arange(30.0).reshape(1, 1, 5, 6)
    assert torch.allclose(features_at(ramp, torch.tensor([[[2.5, 1.0], [5.0, 4.0]]]))[0, :, 0], torch.tensor([8.5, 29]))


def test_boxes_of_parts_are_square():
    box = square_boxes(torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 2.0]]), 2.0)
    assert torch.allclose(box, torch.tensor([[32.0, 64, 160, 192]]))


def test_roi_of_a_ramp():
    """Averages of a linear picture are its values at the middles of the bins; beyond the picture there is nothing."""
    y, x = torch.meshgrid(torch.arange(40.0), torch.arange(60.0), indexing="ij")
    found = roi_align(torch.stack([x, y])[None], torch.tensor([[10.0, 5, 42, 37]]), 8)[0]
    middles = (torch.arange(8) + 0.5) * 4
    assert torch.allclose(found[0], (10 + middles).expand(8, 8)) and torch.allclose(found[1], (5 + middles)[:, None].expand(8, 8), atol=1e-5)
    assert roi_align(torch.ones(1, 1, 8, 8), torch.tensor([[-40.0, -40, -8, -8]]), 4).abs().max() == 0


def test_roi_equals_torchvision():
    ops = pytest.importorskip("torchvision.ops", reason="torchvision is not installed")
    torch.manual_seed(5)
    images = torch.rand(3, 2, 40, 30)
    boxes = torch.tensor([[-7.3, 3.1, 26, 51], [4, 4, 4.2, 4.1], [12.5, -9, 45.5, 38]])
    numbered = torch.cat([torch.arange(3.0)[:, None], boxes], 1)
    assert torch.allclose(roi_align(images, boxes, 16), ops.roi_align(images, numbered, 16, aligned=False), atol=1e-5)


def test_keys_and_bad_files(recorded, tmp_path):
    with torch.device("meta"):
        own = {key: list(value.shape) for key, value in Hand4Whole().state_dict().items() if not key.endswith("num_batches_tracked")}
    keys = json.loads(str(recorded["keys_json"]))
    assert own == {key: shape for key, shape in keys.items() if not key.endswith("num_batches_tracked") and not key.startswith("smplx_layer.")}
    with pytest.raises(WeightsMissing, match="snapshot_6"):
        load_hand4whole(tmp_path)
    path = tmp_path / "snapshot_6.pth.tar"
    torch.save({"network": {"module.backbone.conv1.weight": torch.zeros(64, 3, 7, 7)}}, path)
    with pytest.raises(InputError, match="partial"):
        load_hand4whole(tmp_path)
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(InputError, match="cannot be read"):
        load_hand4whole(tmp_path)
