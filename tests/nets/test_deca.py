"""DECA's encoder, crop, landmarks and file against the recorded outputs of the original."""

import json

import numpy as np
import pytest
import torch
from rules import avatar_rule, golden_or_skip

from svad_ray.body.flame import flame_from_arrays
from svad_ray.errors import InputError, WeightsMissing
from svad_ray.nets.deca import DecaEncoder, crop_faces, deca_landmarks, face_square, load_deca, project, split_code
from svad_ray.nets.deca.crop import transform

CONV_GAIN = 1.5
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def recorded(golden_avatar):
    return golden_or_skip(golden_avatar / "item6_deca.npz")


@pytest.fixture(scope="module")
def state(recorded):
    keys = json.loads(str(recorded["keys_json"]))
    return {key: torch.from_numpy(avatar_rule(key, shape, CONV_GAIN)) for key, shape in keys.items() if not key.endswith("num_batches_tracked")}


@pytest.fixture(scope="module")
def folder(state, tmp_path_factory):
    """A file as published: three networks, of which one is read."""
    folder = tmp_path_factory.mktemp("deca")
    torch.save({"E_flame": state, "E_detail": {"layers.0.weight": torch.zeros(2, 2)}, "D_detail": {}}, folder / "deca_model.tar")
    return folder


def close(found, expected):
    np.testing.assert_allclose(np.asarray(found), expected, atol=TOLERANCE * np.abs(expected).max(), rtol=0)


def test_encoder_and_batch(recorded, folder):
    net, faces = load_deca(folder), torch.from_numpy(recorded["in_images_uint8"]).float() / 255
    close(net.features(faces), recorded["resnet_feat"])
    code = net(faces)
    close(code, recorded["code236"])
    close(torch.cat([net(face[None]) for face in faces]), code.numpy())
    parts = split_code(code)
    joined = torch.cat([parts.shape, parts.texture, parts.expression, parts.global_orient, parts.jaw_pose, parts.camera, parts.light.flatten(1)], 1)
    assert torch.equal(joined, code)


def test_keys_are_complete(state):
    assert set(state) == {key for key in DecaEncoder().state_dict() if not key.endswith("num_batches_tracked")}


def test_head_and_landmarks(recorded, golden_avatar):
    arrays, companions = (dict(golden_or_skip(golden_avatar / f"body_{name}.npz")) for name in ("flame", "companions"))
    flame = flame_from_arrays(arrays, companions)
    code = split_code(torch.from_numpy(recorded["in_code"]))
    posed = flame.forward(betas=code.shape, expression=code.expression, global_orient=code.global_orient, jaw_pose=code.jaw_pose)
    close(posed.vertices, recorded["flame_vertices"])
    points = deca_landmarks(flame, posed)
    close(points, recorded["flame_landmarks2d"])
    close(project(points, torch.from_numpy(recorded["in_cam_proj"])), recorded["landmarks2d_proj"])


def test_crop(recorded):
    if "crop_in_bbox_ltrb" not in recorded:
        pytest.skip("no crop among the recorded arrays")
    box = recorded["crop_in_bbox_ltrb"]
    middle, size = face_square(box)
    assert size == recorded["crop_size"]
    np.testing.assert_allclose(middle, recorded["crop_center"])
    np.testing.assert_allclose(transform(middle, size), recorded["crop_tform"], atol=1e-9)
    if "crop_out_every2" in recorded:
        crop = crop_faces([recorded["crop_in_image_uint8"]], box[None])[0].permute(1, 2, 0)
        close(crop[::2, ::2], recorded["crop_out_every2"])


def test_crop_puts_corners_on_corners():
    """A picture of its own coordinates: inside it the crop is linear, beyond it black."""
    y, x = np.mgrid[:250, :250].astype(np.uint8)
    crop = (
        crop_faces(
            [np.stack([x, y, 0 * x + 255], -1)],
            np.array(
                [
                    [60.0, 60, 140, 140],
                ]
            ),
        )[0]
        * 255
    )
    size = int(80 * 1.375)
    np.testing.assert_allclose(crop[:2, 0, 0], 100 - size / 2, atol=1e-3)
    np.testing.assert_allclose(crop[:2, -1, -1], 100 + size / 2, atol=1e-3)
    beyond = crop_faces([np.full((20, 20, 3), 255, np.uint8)], np.array([[-40.0, -40, -10, -10]]))[0]
    assert beyond[:, 0, 0].abs().max() == 0
    one = crop_faces([np.full((50, 50, 3), 51, np.uint8)], np.array([[20, 20, 20.3, 20.4]]))
    np.testing.assert_allclose(one, 0.2, atol=1e-6)  # all points on one place


def test_bad_files(folder, state, tmp_path):
    with pytest.raises(WeightsMissing, match=r"deca_model\.tar"):
        load_deca(tmp_path)
    path = tmp_path / "deca_model.tar"
    path.write_bytes((folder / path.name).read_bytes()[:4096])
    with pytest.raises(InputError, match="cannot be read"):
        load_deca(tmp_path)
    torch.save({"E_flame": {key: value for key, value in state.items() if key.startswith("encoder.")}}, path)
    with pytest.raises(InputError, match="partial"):
        load_deca(tmp_path)
    torch.save({"network": state}, path)
    with pytest.raises(InputError, match="named tensors"):
        load_deca(tmp_path)
