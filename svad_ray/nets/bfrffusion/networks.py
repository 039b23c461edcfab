"""All of BFRffusion, and how it restores faces.

Source: spec generation 6 and generation_proven 1. UNet, autoencoder and schedule are those of Stable Diffusion 2.1-base through diffusers; the
damaged face reaches them only through the features that are added inside the UNet, never through the autoencoder's encoder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn

from svad_ray.errors import ConfigError, InputError
from svad_ray.nets.bfrffusion.control import FaceFeatures, TimePrompt, places

LATENT_SCALE = 0.18215
DOWN = 8  # pixels per latent pixel
SIDE = 512  # pixels of an aligned face


@dataclass(frozen=True)
class Sizes:
    """What the published networks have; other values serve tests.

    Attributes:
        channels: Of the UNet's first level and of the features. heads: Channels of a head in the UNet. context: Channels of the prompt.
        hidden, prompt_heads: Of the prompt network. time: Of the features' time embedding. vae: Channels of the autoencoder's first level.
    """

    channels: int = 320
    heads: int = 64
    context: int = 1024
    hidden: int = 512
    prompt_heads: int = 8
    time: int = 1280
    vae: int = 128


def build_unet(sizes: Sizes) -> UNet2DConditionModel:
    """The denoising network."""
    widths = tuple(sizes.channels * times for times in (1, 2, 4, 4))
    return UNet2DConditionModel(
        sample_size=64,
        block_out_channels=widths,
        layers_per_block=2,
        cross_attention_dim=sizes.context,
        attention_head_dim=tuple(width // sizes.heads for width in widths),
        use_linear_projection=True,
    )


def build_vae(sizes: Sizes) -> AutoencoderKL:
    """The autoencoder, of which only the decoder is used."""
    return AutoencoderKL(
        block_out_channels=tuple(sizes.vae * times for times in (1, 2, 4, 4)),
        layers_per_block=2,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        sample_size=SIDE,
    )


def schedule(steps: int) -> DDIMScheduler:
    """DDIM as the original samples: 1, 21, ..., 981 for 50 steps, and the last step onto the first noise level."""
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        timestep_spacing="leading",
    )
    scheduler.set_timesteps(steps)
    return scheduler


@dataclass(frozen=True)
class Options:
    """How faces are restored.

    Attributes:
        steps: Of DDIM. guidance: 1 = none, as published; above, away from what the network predicts without the face's features.
        batch: Faces at once. seed: Of the noise, which is the same for every face: neighbouring frames then differ by their faces alone.
    """

    steps: int = 50
    guidance: float = 1.0
    batch: int = 4
    seed: int = 42


@dataclass
class Networks:
    """The four networks on one device and in one dtype.

    Attributes:
        facts: For provenance: ``rule_made`` when the weights are not trained ones, fingerprint of the file.
    """

    unet: UNet2DConditionModel
    features: FaceFeatures
    prompt: TimePrompt
    vae: AutoencoderKL
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._added: Sequence[Tensor] | None = None
        for number, module in enumerate(places(self.unet)):
            module.register_forward_hook(self._adder(number))

    def _adder(self, number: int) -> Callable[..., Any]:
        def add(module: nn.Module, given: Any, out: Any) -> Any:
            if self._added is None:
                return out
            if isinstance(out, tuple):
                return (out[0] + self._added[number], *out[1:])
            return out + self._added[number]

        return add

    @property
    def parts(self) -> dict[str, nn.Module]:
        """The four by name."""
        return {name: getattr(self, name) for name in ("unet", "features", "prompt", "vae")}

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self.prompt.learnable_param.device

    @property
    def dtype(self) -> torch.dtype:
        """Of their parameters."""
        return self.prompt.learnable_param.dtype

    def to(self, device: str | torch.device) -> Networks:
        """Move all of them; returns self."""
        for part in self.parts.values():
            nn.Module.to(part, device=device).eval().requires_grad_(False)
        return self

    def predict(self, latents: Tensor, timesteps: Tensor, *, features: Sequence[Tensor] | None, prompt: Tensor) -> Tensor:
        """The noise in (B, 4, h, w) latents at (B,) times; ``features`` None = as if there were no face."""
        self._added = features
        try:
            return self.unet(latents, timesteps, encoder_hidden_states=prompt, return_dict=False)[0]
        finally:
            self._added = None

    def decode(self, latents: Tensor) -> Tensor:
        """(B, 4, h, w) -> (B, 3, 8 h, 8 w), about -1 to 1."""
        return self.vae.decode(latents / LATENT_SCALE, return_dict=False)[0]


def restore(networks: Networks, faces: np.ndarray, options: Options | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Aligned faces, restored.

    Args:
        faces: (N, S, S, 3) uint8 RGB, S = 512 (any multiple of 64 works).

    Returns:
        (N, S, S, 3) uint8 RGB, and (N,) bool: False where the network gave no numbers and the face is as it was.

    Raises:
        ConfigError: Options that cannot be used. InputError: Other shapes.
    """
    options = options or Options()
    if options.steps < 1 or options.batch < 1 or options.guidance < 1:
        raise ConfigError(f"{options}", expected="at least one step, one face at once and a guidance of 1", remedy="change restore.faces")
    if faces.ndim != 4 or faces.shape[3] != 3 or faces.shape[1] % 64 or faces.shape[2] % 64:
        raise InputError(f"faces of the shape {faces.shape}", expected="(N, 512, 512, 3)")
    made = [_batch(networks, faces[start : start + options.batch], options) for start in range(0, len(faces), options.batch)]
    if not made:
        return faces.copy(), np.zeros(0, bool)
    restored, good = (np.concatenate(parts) for parts in zip(*made))
    return restored, good


def _batch(networks: Networks, faces: np.ndarray, options: Options) -> tuple[np.ndarray, np.ndarray]:
    hint = torch.from_numpy(np.ascontiguousarray(faces)).to(networks.device).permute(0, 3, 1, 2).to(networks.dtype) / 255
    shape = (1, 4, faces.shape[1] // DOWN, faces.shape[2] // DOWN)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(options.seed)).expand(len(faces), -1, -1, -1)
    with torch.inference_mode():
        images = networks.decode(sample(networks, hint, noise.to(networks.device), options).to(networks.dtype)).float()
    good = torch.isfinite(images).flatten(1).all(1).cpu().numpy()
    pixels = ((images.nan_to_num() + 1) * 127.5).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return np.where(good[:, None, None, None], pixels, faces), good


def sample(networks: Networks, hint: Tensor, latents: Tensor, options: Options) -> Tensor:
    """(B, 3, H, W) damaged faces in [0, 1] and (B, 4, h, w) noise -> (B, 4, h, w) float32 latents without noise."""
    scheduler = schedule(options.steps)
    for timestep in scheduler.timesteps.tolist():
        times = torch.full((len(latents),), timestep, device=latents.device)
        noisy, prompt = latents.to(networks.dtype), networks.prompt(times)
        noise = networks.predict(noisy, times, features=networks.features(noisy, hint, times), prompt=prompt)
        if options.guidance > 1:
            free = networks.predict(noisy, times, features=None, prompt=prompt)
            noise = free + options.guidance * (noise - free)
        latents = scheduler.step(noise.float(), timestep, latents, eta=0.0, return_dict=False)[0]
    return latents
