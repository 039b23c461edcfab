"""Reading ``GAGAvatar.pt``: the complete list of names, every fault named, a batch equal to a loop; DINOv2 against transformers' own."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Dinov2Config, Dinov2Model

from svad_ray.errors import InputError, WeightsMissing
from svad_ray.nets.gagavatar.dino import Dino
from svad_ray.nets.gagavatar.load import FILE, load_gagavatar, sizes_of
from svad_ray.nets.gagavatar.network import GAGAvatar
from svad_ray.nets.gagavatar.sizes import DinoSizes, Sizes
from svad_ray.nets.gagavatar.tiny import TINY, rule_weights, write_tiny

KEYS = Path(__file__).parents[1] / "golden" / "generation" / "gaga_keys.json"
DINO = "base_model.dino_model."


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("gaga"))


@pytest.fixture(scope="module")
def network(folder):
    return load_gagavatar(folder)


def changed(folder, tmp_path, change):
    content = torch.load(folder / FILE, weights_only=True)
    change(content["model"])
    torch.save(content, tmp_path / FILE)
    return tmp_path / FILE


def test_names_and_shapes_of_the_published_network():
    with torch.device("meta"):
        network = GAGAvatar()
    state = {key: list(value.shape) for key, value in network.state_dict().items()}
    published = json.loads(KEYS.read_text())
    assert {key: shape for key, shape in state.items() if not key.startswith(DINO)} == published and len(published) == 386
    noises = sum(int(np.prod(shape)) for key, shape in published.items() if ".noises." in key)  # in the file, but no parameters
    assert network.counted() + noises == sum(int(np.prod(shape)) for shape in published.values())
    dino = {key for key in state if key.startswith(DINO)}
    assert len(dino) == 12 * 14 + 7
    assert sum(p.numel() for p in network.base_model.dino_model.parameters()) == 86_580_480  # DINOv2 states 86 M
    assert sizes_of(network.state_dict()) == Sizes()


def test_what_is_read_is_what_was_written(network):
    with torch.device("meta"):
        want = rule_weights("gagavatar", GAGAvatar(TINY))
    state = network.state_dict()
    assert state.keys() == want.keys() and all(torch.equal(state[key], want[key]) for key in want)
    assert network.sizes == TINY and network.facts.rule_made and FILE in network.facts.fingerprint
    assert not any(p.requires_grad for p in network.parameters())


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(WeightsMissing, match=r"GAGAvatar.pt"):
        load_gagavatar(tmp_path)


def test_a_truncated_file_is_named(folder, tmp_path):
    content = (folder / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"GAGAvatar.pt cannot be read"):
        load_gagavatar(tmp_path / FILE)


def test_nothing_in_a_file_is_executed(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    torch.save({"model": {"head_base": Evil()}}, tmp_path / FILE)
    with pytest.raises(InputError, match="cannot be read"):
        load_gagavatar(tmp_path)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("key", ["head_base", "upsampler.final_linear.bias", f"{DINO}blocks.1.attn.qkv.weight", "upsampler.conv_body_first.weight"])
def test_a_partial_file_names_the_tensor(folder, tmp_path, key):
    with pytest.raises(InputError, match="partial") as error:
        load_gagavatar(changed(folder, tmp_path, lambda model: model.pop(key)))
    assert key in str(error.value) or "head_base" in key


def test_wrong_shape_stray_tensor_and_another_model(folder, tmp_path):
    with pytest.raises(InputError, match=r"another shape.*output_conv.bias"):
        load_gagavatar(changed(folder, tmp_path, lambda model: model.update({"base_model.output_conv.bias": torch.zeros(3)})))
    with pytest.raises(InputError, match=r"do not belong there: extra.weight"):
        load_gagavatar(changed(folder, tmp_path, lambda model: model.update({"extra.weight": torch.zeros(3)})))
    torch.save({"state_dict": torch.zeros(1), "epoch": torch.zeros(1)}, tmp_path / FILE)
    with pytest.raises(InputError, match=r"GAGAvatar.pt is partial"):
        load_gagavatar(tmp_path)


def head(network, seed=0):
    draw = torch.Generator().manual_seed(seed)
    transform = torch.tensor([[1.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, 1.0, 12]])
    photo = torch.rand(3, 56, 56, generator=draw)
    vertices = 0.3 * torch.randn(3, 5023, 3, generator=draw)
    transforms = transform[None].repeat(3, 1, 1)
    transforms[1, 0, 3] = 0.1
    return network.identity(photo, transform), vertices, transforms


def test_a_batch_is_a_loop_and_the_seed_decides(network):
    made, vertices, transforms = head(network)
    batch = network.render(made, vertices, transforms, seeds=[4, 5, 6])
    assert batch.shape == (3, 3, 64, 64) and batch.min() >= 0 and batch.max() <= 1
    for i in range(3):
        one = network.render(made, vertices[i : i + 1], transforms[i : i + 1], seeds=[4 + i])
        torch.testing.assert_close(one[0], batch[i], atol=1e-5, rtol=0)
    other = network.render(made, vertices[:1], transforms[:1], seeds=[99])
    assert (other[0] - batch[0]).abs().max() > 1e-3
    assert (batch[0] - batch[1]).abs().mean() > 1e-3


def test_shapes_are_checked(network):
    made, vertices, transforms = head(network)
    with pytest.raises(InputError, match="head mesh"):
        network.render(made, vertices[:, :100], transforms, seeds=[0, 1, 2])
    with pytest.raises(InputError, match="2 seeds"):
        network.render(made, vertices, transforms, seeds=[0, 1])
    with pytest.raises(InputError, match="photo of shape"):
        network.identity(torch.zeros(3, 64, 64), transforms[0])


def of_transformers(state, depth, dim):
    """DINOv2's own names -> transformers' names."""
    renamed = {
        "embeddings.cls_token": state["cls_token"],
        "embeddings.mask_token": state["mask_token"],
        "embeddings.position_embeddings": state["pos_embed"],
        **{f"embeddings.patch_embeddings.projection.{leaf}": state[f"patch_embed.proj.{leaf}"] for leaf in ("weight", "bias")},
        **{f"layernorm.{leaf}": state[f"norm.{leaf}"] for leaf in ("weight", "bias")},
    }
    for i in range(depth):
        ours, theirs = f"blocks.{i}.", f"encoder.layer.{i}."
        for leaf in ("weight", "bias"):
            for place, name in enumerate("qkv"):
                renamed[f"{theirs}attention.{name}_proj.{leaf}"] = state[f"{ours}attn.qkv.{leaf}"][place * dim : (place + 1) * dim]
            renamed[f"{theirs}attention.o_proj.{leaf}"] = state[f"{ours}attn.proj.{leaf}"]
            for name in ("norm1", "norm2", "mlp.fc1", "mlp.fc2"):
                renamed[f"{theirs}{name}.{leaf}"] = state[f"{ours}{name}.{leaf}"]
        for number in (1, 2):
            renamed[f"{theirs}layer_scale{number}.lambda1"] = state[f"{ours}ls{number}.gamma"]
    return renamed


def test_dino_equals_the_one_of_transformers():
    sizes = DinoSizes(image=70, dim=48, heads=3, depth=5)
    ours = Dino(sizes)
    ours.load_state_dict(rule_weights("dino", ours))
    config = Dinov2Config(hidden_size=48, num_hidden_layers=5, num_attention_heads=3, image_size=70, patch_size=14, mlp_ratio=4, layer_norm_eps=1e-6)
    theirs = Dinov2Model(config).eval()
    theirs.load_state_dict(of_transformers(ours.state_dict(), 5, 48), strict=True)
    images = torch.randn(2, 3, 70, 70, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        layers = theirs(images, output_hidden_states=True).hidden_states[-4:]
        want = torch.stack([theirs.layernorm(layer)[:, 1:] for layer in layers])
        got = ours(images)
    assert got.shape == (4, 2, 25, 48)
    np.testing.assert_allclose(got, want, atol=2e-5)
