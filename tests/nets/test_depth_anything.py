"""Depth Anything V2 with weights made by a rule: equal to the recorded outputs of the original, and its files' faults by name."""

import json

import numpy as np
import pytest
import torch
from rules import avatar_rule, golden_or_skip

from svad_ray.errors import InputError, WeightsMissing
from svad_ray.nets import depth_anything as ours

TOLERANCE = 1e-4  # of the largest value


@pytest.fixture(scope="module")
def recorded(golden_avatar):
    with golden_or_skip(golden_avatar / "item6_depth_anything_vits.npz") as file:
        return {key: file[key] for key in file.files}


@pytest.fixture(scope="module")
def state(recorded):
    made = {key: torch.from_numpy(np.asarray(avatar_rule(key, shape))) for key, shape in json.loads(str(recorded["keys_json"])).items()}
    made["depth_head.scratch.output_conv2.2.bias"] += 0.5
    return made


@pytest.fixture(scope="module")
def folder(state, tmp_path_factory):
    folder = tmp_path_factory.mktemp("depth")
    torch.save(state, folder / ours.SIZES["small"].file)
    return folder


def test_converted_names_are_read_too(recorded, state):
    """The recorded table of names, and the thirds of the joint matrices, against what the published names are turned into."""
    table = json.loads(str(recorded["hf_key_map_json"]))
    converted = {new: state[old] for old, new in table.items() if old in state}
    for key, value in state.items():
        if ".attn.qkv." in key:
            block, leaf = key.split(".")[2], key.rsplit(".", 1)[-1]
            for part, third in zip(("query", "key", "value"), value.chunk(3)):
                converted[f"backbone.encoder.layer.{block}.attention.attention.{part}.{leaf}"] = third
    one, other = ours.renamed(state), ours.renamed(converted)
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_faults_are_named(state, folder, tmp_path):
    with pytest.raises(WeightsMissing, match=r"depth_anything_v2_vits.pth.*[\s\S]*Apache-2.0"):
        ours.load_depth(tmp_path)
    with pytest.raises(WeightsMissing, match="non-commercial"):
        ours.load_depth(tmp_path, "large")
    small = (folder / ours.SIZES["small"].file).read_bytes()
    (tmp_path / ours.SIZES["small"].file).write_bytes(small[: len(small) // 2])
    with pytest.raises(InputError, match="cannot be read"):
        ours.load_depth(tmp_path)
    (tmp_path / ours.SIZES["large"].file).write_bytes(small)
    with pytest.raises(InputError, match="network of size 'small'"):
        ours.load_depth(tmp_path, "large")
    key = "depth_head.projects.2.weight"
    torch.save({k: v for k, v in state.items() if k != key}, tmp_path / ours.SIZES["small"].file)
    with pytest.raises(InputError, match=r"partial: 1 of .*reassemble_stage.layers.2.projection.weight"):
        ours.load_depth(tmp_path)


def test_what_the_network_sees(recorded):
    seen = ours.prepared(recorded["in_image_bgr"][..., ::-1])
    assert seen.shape == tuple(recorded["image2tensor_shape"][1:])
    np.testing.assert_allclose(seen[:, ::8, ::8], recorded["image2tensor_every8"], atol=1e-5)


def test_levels():
    np.testing.assert_array_equal(ours.to_levels(np.array([[1.0, 2.0], [1.5, 1.0]])), [[0, 255], [127, 0]])
    np.testing.assert_array_equal(ours.to_levels(np.full((2, 2), 3.0)), np.zeros((2, 2)))


@pytest.mark.slow
def test_equals_the_recorded_outputs(recorded, folder):
    depth = ours.load_depth(folder)
    image = recorded["in_image_bgr"][..., ::-1]
    both = depth([image, np.zeros_like(image)])  # recorded one at a time: a batch is the same
    close(both[0], recorded["infer_depth"])
    assert np.abs(ours.to_levels(both[0]).astype(int) - recorded["infer_depth_uint8"]).max() <= 1
    assert np.isfinite(both[1]).all()
    if "in_x" in recorded:
        with torch.inference_mode():
            close(depth.model(torch.from_numpy(recorded["in_x"])).predicted_depth.numpy(), recorded["x_depth"])


def close(found, wanted):
    assert found.shape == wanted.shape
    off = np.abs(found - wanted).max() / np.abs(wanted).max()
    print(f"depth: {off:.1e} off")
    assert off <= TOLERANCE
