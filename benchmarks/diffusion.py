"""Our denoising against a plain twin of the original's order of work: same weights, same process, small networks, CPU.

    python benchmarks/diffusion.py [--rounds 3] [--latent 48] [--frames 4] [--threads 2]

The twin does what MusePose's code does (spec: generation 3, "Reference attention" and "Sampler"): the reference network runs on a batch of two; keys
and values of its tokens are projected anew in every layer and step, repeated over the frames, for both halves of guidance; the unconditional half's
self-attention is then computed again without them; cross-attention to the one image token is computed in full; frames are decoded one by one.
Ratios of medians of interleaved rounds. What is gained depends on how much of the work is spatial attention, so two sizes are
printed; at 768 pixels the latents are 96 x 96.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import AttnProcessor2_0
from rich.console import Console
from rich.table import Table
from torch import Tensor

from svad_ray.nets.musepose.attention import heads, spatial_blocks
from svad_ray.nets.musepose.networks import LATENT_SCALE, Denoiser, Networks, PoseGuider, ReferenceNet, Sizes, build_denoising, build_reference
from svad_ray.nets.musepose.sample import HALVES, HerePredict, SamplerOptions, decode_float, denoise, pose_tensor, predict, prepare, reference_latents
from svad_ray.nets.musepose.schedule import ddim
from svad_ray.nets.musepose.tiny import image_encoder, rule_weights, vae

SMALL = Sizes(channels=(64, 128, 128, 128), layers=1, context=32, heads=8)
STEPS, GUIDANCE = 3, 3.5


class TwinSelfAttention:
    """The original's reader: with the bank for both halves, then the unconditional half again without."""

    def __init__(self, bank: dict[str, Tensor], name: str) -> None:
        self.bank, self.name = bank, name

    def __call__(self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **_: Any) -> Tensor:
        frames = len(hidden_states) // 2
        both = torch.cat((hidden_states, self.bank[self.name].repeat_interleave(frames, 0)), 1)
        out = self._attend(attn, hidden_states, both)
        out[:frames] = self._attend(attn, hidden_states[:frames], hidden_states[:frames])
        return out

    @staticmethod
    def _attend(attn: Any, query: Tensor, context: Tensor) -> Tensor:
        parts = (heads(attn, project(x)) for project, x in ((attn.to_q, query), (attn.to_k, context), (attn.to_v, context)))
        return attn.to_out[0](F.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2))


class Twin:
    """The original's order of work on the weights of ``networks``."""

    def __init__(self, networks: Networks, sizes: Sizes) -> None:
        self.networks, self.bank, self.pose = networks, {}, None
        self.unet, self.reference = build_denoising(sizes), build_reference(sizes)
        self.unet.load_state_dict(networks.denoiser.unet.state_dict(), assign=True)
        self.reference.load_state_dict(networks.reference.unet.state_dict(), assign=True)
        for name, block in spatial_blocks(self.unet):
            block.attn1.processor, block.attn2.processor = TwinSelfAttention(self.bank, name), AttnProcessor2_0()
        for name, block in spatial_blocks(self.reference):
            block.attn1.processor, block.attn2.processor = AttnProcessor2_0(), AttnProcessor2_0()
            block.attn1.register_forward_pre_hook(lambda module, given, name=name: self.bank.__setitem__(name, given[0]))
        self.unet.conv_in.register_forward_hook(lambda module, given, out: out + self.pose)

    def begin(self, photo: np.ndarray, clip: Tensor, size: int) -> None:
        """The reference network on a batch of two."""
        latents = reference_latents(self.networks, photo, width=size, height=size).repeat(2, 1, 1, 1)
        with torch.inference_mode():
            self.reference(latents, torch.zeros(2), encoder_hidden_states=torch.cat((torch.zeros_like(clip), clip)))

    def step(self, latents: Tensor, timestep: int, clip: Tensor, pose: Tensor) -> Tensor:
        """(1, 4, F, h, w) -> (2, 4, F, h, w)."""
        self.pose = pose.repeat(2, 1, 1, 1)
        text = torch.cat((torch.zeros_like(clip), clip)).repeat_interleave(latents.shape[2], 0)
        with torch.inference_mode():
            return self.unet(latents.repeat(2, 1, 1, 1, 1), torch.full((2,), timestep), encoder_hidden_states=text, return_dict=False)[0]

    def run(self, photo: np.ndarray, poses: np.ndarray, clip: Tensor, size: int) -> Tensor:
        """A whole small clip of one window: (T, 3, H, W) in [0, 1]."""
        self.begin(photo, clip, size)
        with torch.inference_mode():
            pose = self.networks.guider(pose_tensor(poses, size, size))
            scheduler = ddim(STEPS)
            latents = torch.randn((1, 4, *pose.shape[:1], *pose.shape[2:]), generator=torch.Generator().manual_seed(SamplerOptions.seed))
            for timestep in scheduler.timesteps.tolist():
                uncond, cond = self.step(latents, timestep, clip, pose).chunk(2)
                latents = scheduler.step(uncond + GUIDANCE * (cond - uncond), timestep, latents, eta=0.0, return_dict=False)[0]
            frames = [self.networks.vae.decode(latents[:, :, i] / LATENT_SCALE).sample for i in range(latents.shape[2])]
            return (torch.cat(frames) / 2 + 0.5).clamp(0, 1)


def small_networks(sizes: Sizes = SMALL) -> Networks:
    """Rule-made networks of ``sizes``."""
    denoising, reference, guider = build_denoising(sizes), build_reference(sizes), PoseGuider(sizes.channels[0], sizes.guider)
    for name, module in (("denoising_unet", denoising), ("reference_unet", reference), ("pose_guider", guider)):
        module.load_state_dict(rule_weights(name, module))
    return Networks(Denoiser(denoising), ReferenceNet(reference), guider, image_encoder(sizes.context), vae()).to("cpu", torch.float32)


def compare(latent: int, frames: int, rounds: int) -> dict[str, float]:
    """Differences and ratios (twin over ours) at one size."""
    size, random = 8 * latent, np.random.default_rng(0)
    photo, poses = random.integers(0, 255, (size, size, 3), np.uint8), random.integers(0, 255, (frames, size, size, 3), np.uint8)
    networks = small_networks()
    twin, options = Twin(networks, SMALL), SamplerOptions(steps=STEPS, guidance=GUIDANCE, window=frames, overlap=0)
    conditions = prepare(networks, photo, poses, width=size, height=size, options=options)
    twin.begin(photo, conditions.clip, size)
    latents = torch.randn((1, 4, frames, latent, latent), generator=torch.Generator().manual_seed(1))

    def our_step() -> Tensor:
        return torch.cat([predict(networks, latents, 499, conditions, half=half) for half in HALVES])

    def our_run() -> Tensor:
        again = prepare(networks, photo, poses, width=size, height=size, options=options)
        return decode_float(networks, denoise(HerePredict(networks), again, options)[:, :, :frames])

    out = {}
    for name, ours, theirs in (
        ("step", our_step, lambda: twin.step(latents, 499, conditions.clip, conditions.pose)),
        ("run", our_run, lambda: twin.run(photo, poses, conditions.clip, size)),
    ):
        out[f"{name} difference"] = float((ours() - theirs()).abs().max())
        seconds = interleaved(ours, theirs, rounds)
        out[f"{name} ratio"] = seconds[1] / seconds[0]
    return out


def interleaved(ours: Callable[[], Any], theirs: Callable[[], Any], rounds: int) -> tuple[float, float]:
    """Median seconds of both, measured in turns."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for call, kept in zip((ours, theirs), times):
            began = time.perf_counter()
            call()
            kept.append(time.perf_counter() - began)
    return statistics.median(times[0]), statistics.median(times[1])


def main(argv: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--latent", type=int, nargs="+", default=[48, 16], help="sides of the latents")
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    table = Table(
        "latent", "frames", "step: twin / ours", "largest difference", f"whole run of {STEPS} steps: twin / ours", "largest difference", box=None
    )
    for latent in args.latent:
        got = compare(latent, args.frames, args.rounds)
        ratios = [f"{got['step ratio']:.2f}", f"{got['step difference']:.1e}", f"{got['run ratio']:.2f}", f"{got['run difference']:.1e}"]
        table.add_row(f"{latent} x {latent}", str(args.frames), *ratios)
    Console().print(table)
    print(f"channels {SMALL.channels}, {args.threads} threads, medians of {args.rounds} interleaved rounds")


if __name__ == "__main__":
    main()
