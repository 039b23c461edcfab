"""MusePose's networks and sampler against recorded numbers of the original code on rule-made weights."""

import fnmatch
import json

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from musepose_rules import REDUCED, reduced_networks, rule_fill
from rules import golden_or_skip
from torch import nn

from svad_ray.nets.musepose.keys import is_position_table, to_diffusers
from svad_ray.nets.musepose.load import UNUSED_BY_REFERENCE
from svad_ray.nets.musepose.networks import LATENT_SCALE, FrameGroupNorm, PoseGuider, Sizes, build_denoising, build_reference
from svad_ray.nets.musepose.sample import (
    HerePredict,
    SamplerOptions,
    average,
    clip_pixels,
    decode_float,
    denoise,
    pose_tensor,
    predict,
    prepare,
    reference_latents,
)
from svad_ray.nets.musepose.schedule import ddim, padded_length, windows


@pytest.fixture(scope="module")
def networks(golden_generation):
    return reduced_networks(golden_generation)


def tensor(data, name):
    return torch.from_numpy(np.asarray(data[name], np.float32))


def test_pose_guider(golden_generation):
    data = np.load(golden_generation / "muse_pose_guider.npz")
    guider = rule_fill("pose_guider", PoseGuider(32))
    with torch.inference_mode():
        out = guider(tensor(data, "x")[0].transpose(0, 1)).transpose(0, 1)[None]
    np.testing.assert_allclose(out, data["y"], atol=5e-5)


@pytest.mark.parametrize("frames", [3, 12])
def test_one_denoising_step(golden_generation, networks, frames):
    data = golden_or_skip(golden_generation / f"muse_denoise_F{frames}.npz")
    clip = tensor(data, "clip")
    with torch.inference_mode():
        bank = networks.reference(tensor(data, "ref_latents"), clip)
        names = [str(name) for name in data["bank_names"]]
        assert sorted(bank) == sorted(name.removesuffix(".attn1") for name in names)
        means = np.array([float(bank[name.removesuffix(".attn1")].abs().mean()) for name in names])
        np.testing.assert_allclose(means, data["bank_meanabs_cond"], atol=1e-5)
        np.testing.assert_allclose(bank[sorted(bank)[0]][0], data["bank_first_cond"], atol=5e-5)
        pred = networks.denoiser(
            tensor(data, "latents").repeat(2, 1, 1, 1, 1),
            int(data["timestep"]),
            torch.cat((torch.zeros_like(clip), clip)),
            tensor(data, "pose_fea")[0].transpose(0, 1),
            reference=networks.denoiser.project(bank),
            conditioned=(False, True),
        )
    np.testing.assert_allclose(pred, data["pred"], atol=5e-5)


def test_the_whole_small_pipeline(golden_generation, networks):
    data = np.load(golden_generation / "muse_pipeline.npz")
    np.testing.assert_allclose(clip_pixels(data["ref_image"]), data["clip_pixel_values"], atol=1e-6)
    np.testing.assert_allclose(reference_latents(networks, data["ref_image"], width=128, height=128), data["ref_latents"], atol=1e-5)
    np.testing.assert_allclose(pose_tensor(data["pose_images"][:1], 128, 128)[0], data["pose_tensor_frame0"], atol=1e-6)

    options = SamplerOptions(steps=4, guidance=3.5, window=8, overlap=2, seed=int(data["seed"]))
    conditions = prepare(networks, data["ref_image"], data["pose_images"], width=128, height=128, options=options)
    np.testing.assert_allclose(conditions.clip[:, 0], data["clip_image_embeds"], atol=1e-5)
    np.testing.assert_allclose(conditions.pose[[0, 7, 13]].transpose(0, 1), data["pose_fea_frames_0_7_13"], atol=5e-5)
    made = torch.randn((1, 4, 14, 16, 16), generator=torch.Generator().manual_seed(options.seed))
    np.testing.assert_array_equal(made, data["init_latents"])
    index = windows(14, size=8, overlap=2)
    first = HerePredict(networks)(made, int(data["timesteps"][0]), conditions, index)
    np.testing.assert_allclose(first[0], data["window_pred_first_call"], atol=2e-4)
    np.testing.assert_allclose(first[1], data["window_pred_second_call"], atol=2e-4)

    steps = []

    class Watch(HerePredict):
        def __call__(self, latents, timestep, conditions, index):
            steps.append(latents)
            return super().__call__(latents, timestep, conditions, index)

    final = denoise(Watch(networks), conditions, options)
    for k, latents in enumerate([*steps[1:], final]):
        np.testing.assert_allclose(latents[0], data["latents_after_step"][k], atol=2e-4 * 2 ** (k + 1))
    np.testing.assert_allclose(final, data["final_latents"], atol=2e-4 * 2**4)
    video = decode_float(networks, final)
    np.testing.assert_allclose(video[0], data["video_frame0"], atol=5e-3)
    np.testing.assert_allclose(video[13], data["video_frame13"], atol=5e-3)
    np.testing.assert_allclose(video.mean((2, 3)).T, data["video_frame_mean"], atol=5e-3)


def test_schedule_is_the_original_one(golden_generation):
    facts = json.loads((golden_generation / "muse_schedule.json").read_text())
    for steps, timesteps in facts["timesteps"].items():
        assert ddim(int(steps)).timesteps.tolist() == timesteps
    np.testing.assert_allclose(ddim(20).alphas_cumprod, facts["alphas_cumprod"], atol=1e-6)
    for key, value in facts["scheduler_config"].items():
        assert ddim(20).config[key] == value
    data = np.load(golden_generation / "muse_ddim_steps.npz")
    for timestep, prev in zip(data["timesteps"], data["prev"]):
        scheduler = ddim(20)
        out = scheduler.step(tensor(data, "v"), int(timestep), tensor(data, "x"), eta=0.0, return_dict=False)[0]
        np.testing.assert_allclose(out[0], prev, atol=1e-5)


def test_windows_are_the_original_ones(golden_generation):
    facts = json.loads((golden_generation / "muse_schedule.json").read_text())
    for frames, want in facts["context_S48_O4"].items():
        padded = padded_length(int(frames))
        assert padded == want["padded"] == int(frames) + want["pad"]
        got = windows(padded)
        assert [[w[0], w[-1], len(w)] for w in got] == want["windows"]
        assert windows(int(frames)) == want["windows_without_padding"]
    for text, want in facts["context_small(N,S,O)"].items():
        frames, size, overlap = map(int, text.split(","))
        assert windows(frames, size=size, overlap=overlap) == want


def test_norms_have_the_original_eps_and_groups(golden_generation):
    facts = json.loads((golden_generation / "norm_eps.json").read_text())
    for net, module in (("denoising_unet", build_denoising(REDUCED)), ("reference_unet", build_reference(REDUCED))):
        kinds = {name: part for name, part in module.named_modules() if isinstance(part, nn.GroupNorm | nn.LayerNorm)}
        for text, want in facts[net].items():
            kind, *numbers = text.split("|")
            eps = float(numbers[0].removeprefix("eps="))
            for pattern in (to_diffusers(p + ".x").removesuffix(".x") for p in want["patterns"]):
                # the numbered norms of a motion block carry their number in their name
                wanted = [pattern.replace(".norms.*", f".norm{i}") for i in (1, 2)] if ".norms.*" in pattern else [pattern]
                for one in wanted:
                    found = [part for name, part in kinds.items() if fnmatch.fnmatch(name, one)]
                    assert found, one
                    for part in found:
                        assert part.eps == eps and isinstance(part, nn.GroupNorm) == (kind == "GroupNorm")
                        assert kind != "GroupNorm" or part.num_groups == int(numbers[1].removeprefix("groups="))


def test_full_size_key_map_is_complete(keys_folder):
    published = json.loads((keys_folder / "musepose_keys_denoising_unet.json").read_text())
    with torch.device("meta"):
        denoising, reference, guider = build_denoising(Sizes()), build_reference(Sizes()), PoseGuider()
    ours = {key: list(value.shape) for key, value in denoising.state_dict().items()}
    mapped = {to_diffusers(key): list(shape) for key, shape in published.items()}
    assert len(published) == 1274 and len(mapped) == 1253 and mapped == ours
    assert sum(map(is_position_table, published)) == 42 and sum(map(is_position_table, ours)) == 21
    published = json.loads((keys_folder / "musepose_keys_reference_unet.json").read_text())
    assert len(published) == 682
    assert {k: list(v.shape) for k, v in reference.state_dict().items() if k not in UNUSED_BY_REFERENCE} == published
    published = json.loads((keys_folder / "musepose_keys_pose_guider.json").read_text())
    assert len(published) == 16 and {k: list(v.shape) for k, v in guider.state_dict().items()} == published


def test_frames_are_normalised_one_by_one():
    norm, plain = FrameGroupNorm(8, 32), nn.GroupNorm(8, 32)
    x = torch.randn(2, 32, 5, 4, 4) * torch.arange(1.0, 6.0)[:, None, None]
    for frame in range(5):
        torch.testing.assert_close(norm(x)[:, :, frame], plain(x[:, :, frame]))
    assert (norm(x) - plain(x)).abs().max() > 0.5


def test_the_unconditional_half_knows_no_photo(golden_generation, networks):
    data = np.load(golden_generation / "muse_pipeline.npz")
    options = SamplerOptions(steps=2, window=4, overlap=1)
    latents = torch.randn(1, 4, 4, 16, 16)
    halves = []
    for image in (data["ref_image"], 255 - data["ref_image"]):
        conditions = prepare(networks, image, data["pose_images"][:4], width=128, height=128, options=options)
        halves.append(torch.cat([predict(networks, latents, 499, conditions, half=half) for half in (False, True)]))
        both = networks.denoiser(
            latents.repeat(2, 1, 1, 1, 1),
            499,
            torch.cat((torch.zeros_like(conditions.clip), conditions.clip)),
            conditions.pose,
            reference=conditions.reference,
            conditioned=(False, True),
        )
        torch.testing.assert_close(both, halves[-1], atol=2e-5, rtol=0)
    assert torch.equal(halves[0][0], halves[1][0])
    assert (halves[0][1] - halves[1][1]).abs().max() > 0.05


def test_average_counts_every_window():
    index = windows(14, size=8, overlap=2)
    parts = [torch.full((2, 4, 8, 1, 1), float(i)) for i in range(2)]
    assert average(parts, index, 14)[0, 0, :, 0, 0].tolist() == [0.0] * 6 + [0.5] * 2 + [1.0] * 6


def test_latent_scale_is_the_autoencoders():
    assert AutoencoderKL().config.scaling_factor == LATENT_SCALE
