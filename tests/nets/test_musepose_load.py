"""Reading the published files: every fault is named; what is read is what was written."""

import json
import shutil

import numpy as np
import pytest
import torch

from svad_ray.errors import ConfigError, InputError, WeightsMissing
from svad_ray.nets.musepose.load import BASE, DENOISING, ENCODER, GUIDER, MOTION, REFERENCE, VAE, load_networks
from svad_ray.nets.musepose.memory import PARAMETERS, estimate
from svad_ray.nets.musepose.networks import Denoiser, Networks, PoseGuider, ReferenceNet, Sizes, build_denoising, build_reference
from svad_ray.nets.musepose.sample import SamplerOptions, generate, stream
from svad_ray.nets.musepose.tiny import TINY, rule_weights, write_tiny


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def folder(written, tmp_path):
    return shutil.copytree(written, tmp_path / "weights")


@pytest.fixture(scope="module")
def networks(written):
    return load_networks(written)


def photo(seed=0):
    return np.random.default_rng(seed).integers(0, 255, (90, 70, 3), np.uint8)


def poses(count, seed=1):
    return np.random.default_rng(seed).integers(0, 255, (count, 64, 64, 3), np.uint8)


def test_what_is_read_is_what_was_written(networks):
    want = rule_weights("denoising_unet", build_denoising(TINY))
    got = networks.denoiser.unet.state_dict()
    assert got.keys() == want.keys() and all(torch.equal(got[key], want[key]) for key in want)
    assert networks.facts["rule_made"] and len(networks.facts["fingerprint"]) == 7


def test_denoising_file_with_and_without_motion_modules(folder, networks):
    whole = torch.load(folder / MOTION, weights_only=True) | torch.load(folder / DENOISING, weights_only=True)
    torch.save(whole, folder / DENOISING)
    (folder / MOTION).unlink()
    again = load_networks(folder)
    for key, value in networks.denoiser.unet.state_dict().items():
        assert torch.equal(value, again.denoiser.unet.state_dict()[key])


def test_spatial_tensors_left_out_come_from_the_base(folder):
    state = torch.load(folder / DENOISING, weights_only=True)
    left_out = state.pop("conv_in.weight")
    torch.save(state, folder / DENOISING)
    base = torch.load(folder / BASE / "diffusion_pytorch_model.bin", weights_only=True)
    got = load_networks(folder).denoiser.unet.conv_in.weight
    assert torch.equal(got, base["conv_in.weight"]) and not torch.equal(got, left_out)


@pytest.mark.parametrize(
    "relative",
    [DENOISING, MOTION, REFERENCE, GUIDER, f"{BASE}/config.json", f"{ENCODER}/config.json", f"{ENCODER}/model.safetensors", f"{VAE}/config.json"],
)
def test_a_missing_file_is_named_with_its_source(folder, relative):
    (folder / relative).unlink()
    with pytest.raises(WeightsMissing, match=r"animate.backend=reprojection") as error:
        load_networks(folder)
    stem = relative.rsplit("/", 1)[-1].split(".")[0]
    assert (stem in str(error.value) or "pytorch_model" in str(error.value)) and "from" in str(error.value)


@pytest.mark.parametrize("relative", [DENOISING, REFERENCE, GUIDER, f"{ENCODER}/model.safetensors"])
def test_a_truncated_file_is_named(folder, relative):
    content = (folder / relative).read_bytes()
    (folder / relative).write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="cannot be read") as error:
        load_networks(folder)
    assert relative.split("/")[-2] in str(error.value)


def test_nothing_in_a_file_is_executed(folder, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    torch.save({"conv_in.weight": Evil()}, folder / GUIDER)
    with pytest.raises(InputError, match="pose_guider"):
        load_networks(folder)
    assert not (tmp_path / "executed").exists()


def test_files_under_anothers_name(folder):
    (folder / DENOISING).write_bytes((folder / GUIDER).read_bytes())
    with pytest.raises(InputError, match=r"denoising_unet.pth is not the denoising network: .*blocks.0.bias"):
        load_networks(folder)
    shutil.copy(folder / REFERENCE, folder / GUIDER)
    with pytest.raises(InputError, match=r"pose_guider.pth is not the pose guider"):
        load_networks(folder)


def test_partial_wrong_shape_and_wrong_dtype_name_the_tensor(folder):
    state = torch.load(folder / REFERENCE, weights_only=True)
    torch.save({k: v for k, v in state.items() if k != "mid_block.resnets.0.conv1.weight"}, folder / REFERENCE)
    with pytest.raises(InputError, match=r"reference_unet.pth is partial: 1 of \d+ tensors .*mid_block.resnets.0.conv1.weight"):
        load_networks(folder)
    torch.save(state | {"conv_in.bias": torch.zeros(7)}, folder / REFERENCE)
    with pytest.raises(InputError, match=r"conv_in.bias \(7,\) for \(32,\)"):
        load_networks(folder)
    torch.save(state | {"conv_in.bias": torch.zeros(32, dtype=torch.int8)}, folder / REFERENCE)
    with pytest.raises(InputError, match=r"not floating point: conv_in.bias torch.int8"):
        load_networks(folder)
    torch.save({"state_dict": state}, folder / REFERENCE)
    with pytest.raises(InputError, match=r"something else than named tensors: with the keys state_dict"):
        load_networks(folder)


def test_another_family_of_models(folder):
    config = json.loads((folder / BASE / "config.json").read_text())
    (folder / BASE / "config.json").write_text(json.dumps(config | {"use_linear_projection": True}))
    with pytest.raises(InputError, match="another family of models"):
        load_networks(folder)
    (folder / BASE / "config.json").write_text(json.dumps(config | {"cross_attention_dim": 48}))
    with pytest.raises(InputError):
        load_networks(folder)


def test_memory_counts_the_real_networks():
    with torch.device("meta"):
        parts = {"denoiser": build_denoising(Sizes()), "reference": build_reference(Sizes()), "guider": PoseGuider()}
    counted = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
    unused = 2 * 320 + 4 * 320 * 9 + 4
    assert counted["denoiser"] == PARAMETERS["denoiser"] and counted["reference"] - unused == PARAMETERS["reference"]
    assert counted["guider"] == PARAMETERS["guider"]
    half, full = estimate(512, 512, 48, "float16"), estimate(512, 512, 48, "float32")
    assert full["total"] == pytest.approx(2 * half["total"]) and half["total"] == pytest.approx(sum(half.values()) - half["total"])
    assert estimate(1024, 1024, 48, "float16")["activations"] == pytest.approx(4 * half["activations"])


def test_seed_decides_and_lengths_are_kept(networks):
    options = SamplerOptions(steps=2, window=4, overlap=1)
    for count in (1, 3, 5):
        made = generate(networks, photo(), poses(count), width=64, height=72, options=options)
        assert made.shape == (count, 72, 64, 3) and made.dtype == np.uint8
    again = generate(networks, photo(), poses(5), width=64, height=72, options=options)
    np.testing.assert_array_equal(made, again)
    other = generate(networks, photo(), poses(5), width=64, height=72, options=SamplerOptions(steps=2, window=4, overlap=1, seed=1))
    assert (made != other).mean() > 0.5


def test_a_shortened_last_window_is_equal_where_nothing_was_repeated(networks):
    def made(count, shorten):
        return generate(networks, photo(), poses(count), width=64, height=64, options=SamplerOptions(steps=2, window=4, overlap=1, shorten=shorten))

    np.testing.assert_array_equal(made(7, True), made(7, False))  # windows of 4 with 1 shared tile 7 frames
    assert (made(5, True) != made(5, False)).any() and len(made(5, True)) == 5


def test_frames_are_streamed(networks):
    said = []
    options = SamplerOptions(steps=1, window=8, overlap=2, decode_batch=2)
    batches = list(stream(networks, photo(), poses(5), width=64, height=64, options=options, progress=said.append))
    assert [len(batch) for batch in batches] == [2, 2, 1] and said == sorted(said) and said[-1] == 1.0


@pytest.mark.slow
def test_five_hundred_and_one_frames(networks):
    options = SamplerOptions(steps=1, decode_batch=64)
    assert len(generate(networks, photo(), poses(501), width=64, height=64, options=options)) == 501


@pytest.mark.parametrize("width, height, options", [(60, 64, {}), (64, 100, {}), (32, 64, {}), (64, 64, {"steps": 0}), (64, 64, {"window": 200})])
def test_impossible_settings_are_refused(networks, width, height, options):
    with pytest.raises(ConfigError):
        generate(networks, photo(), poses(2), width=width, height=height, options=SamplerOptions(**options))


def test_no_frames_and_no_overlap(networks):
    with pytest.raises(InputError, match="at least one frame"):
        generate(networks, photo(), poses(0), width=64, height=64)
    with pytest.raises(ConfigError, match="cannot overlap"):
        generate(networks, photo(), poses(2), width=64, height=64, options=SamplerOptions(window=4, overlap=4))


def test_half_precision_stays_near(networks, written):
    options = SamplerOptions(steps=1, window=4, overlap=1)
    full = generate(networks, photo(), poses(3), width=64, height=64, options=options)
    half = generate(load_networks(written, dtype=torch.bfloat16), photo(), poses(3), width=64, height=64, options=options)
    assert 0 < np.abs(full.astype(float) - half).mean() < 12


@pytest.mark.slow
def test_the_compiled_network_predicts_the_same():
    """One graph for all times, without a break: pose, reference and the half of guidance are inputs of it and not forgotten."""
    sizes = Sizes(channels=(64, 64, 64, 64), layers=1, context=8, heads=2)
    torch.manual_seed(0)
    denoiser, reference = Denoiser(build_denoising(sizes)).eval(), ReferenceNet(build_reference(sizes)).eval()
    clip, pose = torch.randn(1, 1, 8), torch.randn(2, 64, 16, 16)
    latents, banks = torch.randn(1, 4, 2, 16, 16), [reference(torch.randn(1, 4, 16, 16), clip) for _ in range(2)]
    calls = [
        (t, pose * p, denoiser.project(bank))
        for t, p, bank in ((999, 1.0, banks[0]), (499, 1.0, banks[0]), (499, 0.0, banks[0]), (499, 1.0, banks[1]))
    ]

    def made(denoiser):
        with torch.no_grad():
            return [denoiser(latents, t, clip, p, reference=projected, conditioned=(True,)) for t, p, projected in calls]

    plain = made(denoiser)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compiled = made(Networks(denoiser, reference, None, None, None).compile(backend="eager").denoiser)
    for one, other in zip(plain, compiled):
        torch.testing.assert_close(other, one, atol=1e-5, rtol=1e-5)
    effects = [float((plain[1] - other).abs().max()) for other in (plain[0], *plain[2:])]
    assert min(effects) > 1e-3, effects
    assert not torch._dynamo.utils.counters["graph_break"] and torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
