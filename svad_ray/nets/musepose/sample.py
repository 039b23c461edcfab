"""The sampler: conditions of a run, denoising over context windows with guidance, and decoding.

Source: MusePose's long-video pipeline (spec: generation 3, "Sampler"). Its duplicated work is gone: conditional self-attention is computed once, the
reference network runs on one image once, its keys and values are projected once, and frames are decoded in batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from svad_ray.errors import ConfigError, InputError
from svad_ray.nets.musepose.attention import Projected
from svad_ray.nets.musepose.networks import DOWN, LATENT_SCALE, POSITIONS, Networks
from svad_ray.nets.musepose.schedule import ddim, padded_length, windows

_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_CLIP_SIZE = 224
Progress = Callable[[float], None]


@dataclass(frozen=True)
class SamplerOptions:
    """How a clip is sampled.

    Attributes:
        steps: Of DDIM. guidance: Of classifier-free guidance. window, overlap: Frames denoised together, and shared with the next window.
        shorten: End the last window with the last frame instead of repeating the last pose until it is full; equal where nothing was repeated.
        seed: Of the first noise. decode_batch: Frames decoded at once.
    """

    steps: int = 20
    guidance: float = 3.5
    window: int = 48
    overlap: int = 4
    shorten: bool = False
    seed: int = 99
    decode_batch: int = 4


@dataclass(frozen=True)
class Conditions:
    """What stays the same through all steps and windows.

    Attributes:
        clip: (1, 1, C) image embedding of the photo. reference: Keys and values of the photo's reference tokens.
        pose: (N, C0, h, w) features of every (padded) pose. frames: How many of them are wanted in the end.
    """

    clip: Tensor
    reference: Projected
    pose: Tensor
    frames: int

    def window(self, index: Sequence[int]) -> Conditions:
        """The same with the poses ``index`` alone."""
        return replace(self, pose=self.pose[list(index)])


class Predict(Protocol):
    """Computes the windows of one denoising step, wherever that is best done."""

    def __call__(self, latents: Tensor, timestep: int, conditions: Conditions, index: Sequence[Sequence[int]]) -> list[Tensor]:
        """(1, 4, N, h, w) -> for each window (2, 4, its length, h, w) float32, unconditional half first."""


HALVES = (False, True)
"""Halves of guidance: unconditional, conditional."""


class HerePredict:
    """All windows one after the other in this process.

    The halves of guidance too: a window's frames fill any device, one half needs half the memory, and who computes what changes no rounding.
    """

    def __init__(self, networks: Networks) -> None:
        self.networks = networks

    def __call__(self, latents: Tensor, timestep: int, conditions: Conditions, index: Sequence[Sequence[int]]) -> list[Tensor]:
        """As ``Predict``."""
        parts = []
        for one in index:
            noisy, of_window = latents[:, :, list(one)], conditions.window(one)
            parts.append(torch.cat([predict(self.networks, noisy, timestep, of_window, half=half) for half in HALVES]))
        return parts


def predict(networks: Networks, latents: Tensor, timestep: int, conditions: Conditions, *, half: bool) -> Tensor:
    """One half of guidance of one window.

    Args:
        latents: (1, 4, F, h, w). conditions: Of these frames. half: True = conditional.

    Returns:
        (1, 4, F, h, w) float32.
    """
    clip = conditions.clip if half else torch.zeros_like(conditions.clip)
    noisy = latents.to(networks.device, networks.dtype)
    with torch.inference_mode():
        out = networks.denoiser(noisy, timestep, clip, conditions.pose, reference=conditions.reference, conditioned=(half,))
    return out.float().to(latents.device)


def generate(
    networks: Networks,
    reference: np.ndarray,
    poses: np.ndarray,
    *,
    width: int,
    height: int,
    options: SamplerOptions | None = None,
    predict: Predict | None = None,
    progress: Progress = lambda done: None,
) -> np.ndarray:
    """The clip: (T, height, width, 3) uint8 RGB.

    Args:
        reference: (H, W, 3) uint8 RGB photo. poses: (T, h, w, 3) uint8 RGB drawn skeletons.
        width, height: Of the frames, multiples of 8. predict: Where the windows are computed; here by default.

    Raises:
        ConfigError: Sizes or options that cannot be used. InputError: No poses.
    """
    batches = stream(networks, reference, poses, width=width, height=height, options=options, predict=predict, progress=progress)
    return np.concatenate(list(batches))


def stream(
    networks: Networks,
    reference: np.ndarray,
    poses: np.ndarray,
    *,
    width: int,
    height: int,
    options: SamplerOptions | None = None,
    predict: Predict | None = None,
    progress: Progress = lambda done: None,
) -> Iterator[np.ndarray]:
    """As ``generate``, in batches of decoded frames as they are ready."""
    options = options or SamplerOptions()
    check(width, height, options)
    conditions = prepare(networks, reference, poses, width=width, height=height, options=options)
    latents = denoise(predict or HerePredict(networks), conditions, options, progress=lambda done: progress(0.9 * done))
    for start in range(0, conditions.frames, options.decode_batch):
        yield decode(networks, latents[:, :, start : min(start + options.decode_batch, conditions.frames)])
        progress(0.9 + 0.1 * min(1.0, (start + options.decode_batch) / conditions.frames))


def check(width: int, height: int, options: SamplerOptions) -> None:
    """Raises ConfigError on what cannot be sampled."""
    if width % DOWN or height % DOWN or min(width, height) < 8 * DOWN:
        raise ConfigError(f"frames of {width}x{height} pixels cannot be generated", expected=f"multiples of {DOWN}, at least {8 * DOWN}")
    if options.steps < 1 or options.decode_batch < 1:
        raise ConfigError(f"{options.steps} steps in decoding batches of {options.decode_batch}", expected="at least one of each")
    if options.window > POSITIONS:
        raise ConfigError(f"windows of {options.window} frames are longer than the motion modules know", expected=f"at most {POSITIONS}")


def prepare(networks: Networks, reference: np.ndarray, poses: np.ndarray, *, width: int, height: int, options: SamplerOptions) -> Conditions:
    """Everything that is computed once: image embedding, reference tokens, pose features."""
    if poses.ndim != 4 or len(poses) == 0:
        raise InputError(
            f"the pose sequence has the shape {poses.shape}", expected="(T, h, w, 3) with at least one frame", remedy="choose another motion"
        )
    frames = len(poses)
    count = frames if options.shorten else padded_length(frames, size=options.window, overlap=options.overlap)
    with torch.inference_mode():
        clip = networks.image_encoder(clip_pixels(reference).to(networks.device, networks.dtype)).image_embeds[:, None]
        bank = networks.reference(reference_latents(networks, reference, width=width, height=height), clip)
        features = [networks.guider(pose_tensor(poses[i : i + 8], width, height).to(networks.device, networks.dtype)) for i in range(0, frames, 8)]
        pose = torch.cat(features)
        pose = torch.cat((pose, pose[-1:].expand(count - frames, -1, -1, -1)))
        return Conditions(clip, networks.denoiser.project(bank), pose, frames)


def denoise(predict: Predict, conditions: Conditions, options: SamplerOptions, *, progress: Progress = lambda done: None) -> Tensor:
    """Noise -> latents (1, 4, N, h, w), float32 on the CPU between the steps.

    Overlapping windows are averaged before guidance, then one DDIM step is made on all frames.
    """
    scheduler = ddim(options.steps)
    count, _, height, width = conditions.pose.shape
    index = windows(count, size=options.window, overlap=options.overlap, shorten=options.shorten)
    latents = torch.randn((1, 4, count, height, width), generator=torch.Generator().manual_seed(options.seed))
    for done, timestep in enumerate(scheduler.timesteps.tolist(), 1):
        both = average(predict(latents, timestep, conditions, index), index, count)
        guided = both[:1] + options.guidance * (both[1:] - both[:1])
        latents = scheduler.step(guided, timestep, latents, eta=0.0, return_dict=False)[0]
        progress(done / options.steps)
    return latents


def average(parts: Sequence[Tensor], index: Sequence[Sequence[int]], count: int) -> Tensor:
    """Mean over the windows that saw a frame: (2, 4, count, h, w)."""
    total = parts[0].new_zeros((2, 4, count, *parts[0].shape[-2:]))
    seen = parts[0].new_zeros(count)
    for part, one in zip(parts, index, strict=True):
        total[:, :, list(one)] += part
        seen[list(one)] += 1
    return total / seen[:, None, None]


def decode(networks: Networks, latents: Tensor) -> np.ndarray:
    """(1, 4, F, h, w) -> (F, H, W, 3) uint8 RGB."""
    return (decode_float(networks, latents) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def decode_float(networks: Networks, latents: Tensor) -> Tensor:
    """(1, 4, F, h, w) -> (F, 3, H, W) in [0, 1], float32 on the CPU."""
    with torch.inference_mode():
        flat = (latents[0].transpose(0, 1) / LATENT_SCALE).to(networks.device, networks.dtype)
        return (networks.vae.decode(flat).sample.float().cpu() / 2 + 0.5).clamp(0, 1)


def clip_pixels(image: np.ndarray) -> Tensor:
    """(1, 3, 224, 224) as CLIP's image encoder wants it; the aspect ratio is squashed, as in the original."""
    pixels = _pixels(image, _CLIP_SIZE, _CLIP_SIZE, Image.Resampling.BICUBIC)
    return (pixels - torch.tensor(_CLIP_MEAN)[:, None, None]) / torch.tensor(_CLIP_STD)[:, None, None]


def reference_latents(networks: Networks, image: np.ndarray, *, width: int, height: int) -> Tensor:
    """(1, 4, h, w): mean of the photo's latent distribution, scaled; the photo is squashed to the frames' size, as in the original."""
    pixels = 2 * _pixels(image, width, height, Image.Resampling.LANCZOS) - 1
    with torch.inference_mode():
        return networks.vae.encode(pixels.to(networks.device, networks.dtype)).latent_dist.mean * LATENT_SCALE


def pose_tensor(images: np.ndarray, width: int, height: int) -> Tensor:
    """(F, h, w, 3) uint8 -> (F, 3, height, width) in [0, 1]."""
    return torch.cat([_pixels(image, width, height, Image.Resampling.LANCZOS) for image in images])


def _pixels(image: np.ndarray, width: int, height: int, resampling: Image.Resampling) -> Tensor:
    """(1, 3, height, width) in [0, 1]."""
    resized = np.asarray(Image.fromarray(image).resize((width, height), resampling), np.float32) / 255
    return torch.from_numpy(resized).permute(2, 0, 1)[None]
