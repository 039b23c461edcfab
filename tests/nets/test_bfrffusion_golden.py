"""BFRffusion against recorded outputs of the original code on rule-made weights."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from rules import golden_or_skip, rule_state

from svad_ray.nets.bfrffusion.control import timestep_embedding
from svad_ray.nets.bfrffusion.load import SCHEDULE, empty, from_state
from svad_ray.nets.bfrffusion.networks import Options, Sizes, sample, schedule

REDUCED = Sizes(channels=32, heads=16, context=64, hidden=64, prompt_heads=4, time=128, vae=32)


@pytest.fixture(scope="module")
def networks(golden_generation):
    shapes = json.loads((golden_generation / "bfr_keys_reduced.json").read_text())["shapes"]
    state = rule_state("bfrffusion_reduced", {key: shape for key, shape in shapes.items() if key not in SCHEDULE})
    return from_state(state, Path("rule"), REDUCED).to("cpu")


def hint(bgr):
    return torch.from_numpy(np.ascontiguousarray(bgr[..., ::-1].transpose(0, 3, 1, 2))).float() / 255


def test_features_prompt_and_noise(networks, golden_generation):
    data = golden_or_skip(golden_generation / "bfr_parts.npz")
    x, times = torch.from_numpy(data["x"]), torch.from_numpy(data["t"])
    np.testing.assert_allclose(timestep_embedding(times, 32), data["timestep_embedding_32"], atol=1e-6)
    with torch.inference_mode():
        prompt, features = networks.prompt(times), networks.features(x, hint(data["hint_bgr"]), times)
        np.testing.assert_allclose(prompt, data["ttpm_prompt"], atol=1e-5)
        assert len(features) == 9
        for number, feature in enumerate(features):
            np.testing.assert_allclose(feature, data[f"mfem_{number}"], atol=1e-4)
        np.testing.assert_allclose(networks.predict(x, times, features=features, prompt=prompt), data["eps"], atol=1e-4)
        np.testing.assert_allclose(networks.predict(x, times, features=None, prompt=prompt), data["eps_without_control"], atol=1e-4)
    assert np.abs(data["eps"] - data["eps_without_control"]).max() > 0.1


def test_five_steps(networks, golden_generation):
    data = golden_or_skip(golden_generation / "bfr_ddim5.npz")
    scheduler = schedule(5)
    np.testing.assert_array_equal(scheduler.timesteps, data["timesteps"])
    np.testing.assert_allclose(scheduler.alphas_cumprod, data["alphas_cumprod"], atol=1e-6)
    np.testing.assert_array_equal(schedule(50).timesteps.flip(0), data["ddim50_timesteps"])
    np.testing.assert_allclose(schedule(50).alphas_cumprod[data["ddim50_timesteps"]], data["ddim50_alphas"], atol=1e-6)
    with torch.inference_mode():
        latents = sample(networks, hint(data["hint_bgr"][None]), torch.from_numpy(data["x_T"]), Options(steps=5))
    np.testing.assert_allclose(latents, data["x0_latent"], atol=1e-3)


def test_decoding_and_the_published_seed(networks, golden_generation):
    data, seed = golden_or_skip(golden_generation / "bfr_vae_decode.npz"), golden_or_skip(golden_generation / "bfr_seed42.npz")
    with torch.inference_mode():
        np.testing.assert_allclose(networks.decode(torch.from_numpy(data["z"])), data["image"], atol=1e-4)
    noise = torch.randn((1, 4, 64, 64), generator=torch.Generator().manual_seed(Options().seed))
    np.testing.assert_array_equal(noise.flatten()[:8], seed["first8"])
    assert float(noise.double().sum()) == pytest.approx(float(seed["sum"]), abs=1e-3)


def test_every_published_tensor_has_its_place(keys_folder):
    published = json.loads((keys_folder / "bfrffusion_keys.json").read_text())
    assert len(published) == 1143
    with torch.device("meta"):
        state = {key: torch.empty(shape) for key, shape in published.items()}
    made = from_state(state, Path("keys"), Sizes())
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in made.parts.items()}
    assert counts["features"] == 331_538_716 and counts["prompt"] == 3_130_368 and round(counts["unet"] / 1e6, 1) == 865.9
    for name, part in zip(("unet", "features", "prompt", "vae"), empty(Sizes())):
        assert {key: value.shape for key, value in made.parts[name].state_dict().items()} == {k: v.shape for k, v in part.state_dict().items()}


@pytest.mark.slow
def test_one_step_at_full_size(golden_generation):
    """5.8 GiB and half a minute on one core."""
    data, hints = golden_or_skip(golden_generation / "bfr_full_forward.npz"), golden_or_skip(golden_generation / "bfr_ddim5.npz")
    keys = json.loads((Path(__file__).parents[1] / "golden" / "keys" / "bfrffusion_keys.json").read_text())
    networks = from_state(rule_state("bfrffusion_full", keys), Path("rule"), Sizes()).to("cpu")
    x, times = torch.from_numpy(data["x"]), torch.tensor([481])
    with torch.inference_mode():
        features, prompt = networks.features(x, hint(hints["hint_bgr"][None]), times), networks.prompt(times)
        for number, feature in enumerate(features):
            np.testing.assert_allclose(feature[:, ::16, ::4, ::4], data[f"mfem_{number}_sub"], atol=1e-3)
        np.testing.assert_allclose(networks.predict(x, times, features=features, prompt=prompt), data["eps"], atol=1e-3)
