"""The five networks, built empty, and how the two UNets are called.

Source: MusePose's inference configuration (spec: generation 3). Sizes are those of Stable Diffusion 1.5 with motion modules after every resnet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DConditionModel, UNetMotionModel
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D
from torch import Tensor, nn
from transformers import CLIPVisionModelWithProjection

from svad_ray.nets.musepose.attention import Bank, Call, Projected, Record, SelfAttention, SingleTokenAttention, project, spatial_blocks

LATENT_SCALE = 0.18215  # of the Stable Diffusion 1 autoencoder
DOWN = 8  # pixels per latent pixel
POSITIONS = 128  # length of the motion modules' position table


@dataclass(frozen=True)
class Sizes:
    """What the checkpoints leave open.

    Attributes:
        channels: Of the four levels. layers: Resnets per level. context: Channels of the image embedding. heads: Of every attention.
        guider: Channels of the pose guider's levels.
    """

    channels: tuple[int, ...] = (320, 640, 1280, 1280)
    layers: int = 2
    context: int = 768
    heads: int = 8
    guider: tuple[int, ...] = (16, 32, 96, 256)


class FrameGroupNorm(nn.GroupNorm):
    """Group normalisation of (B, C, F, H, W) with the statistics of every frame by itself; diffusers' motion module pools them over frames."""

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as ``x``."""
        batch, channels, frames, height, width = x.shape
        folded = x.transpose(1, 2).reshape(batch * frames, channels, height, width)
        return super().forward(folded).view(batch, frames, channels, height, width).transpose(1, 2)


class PoseGuider(nn.Module):
    """Drawn skeletons -> features that are added after the denoising network's first convolution.

    Args:
        out: Channels of that convolution. channels: Of the levels in between; each halves the image.
    """

    def __init__(self, out: int = 320, channels: Sequence[int] = Sizes.guider) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(3, channels[0], 3, padding=1)
        self.blocks = nn.ModuleList()
        for here, following in pairwise(channels):
            self.blocks += [nn.Conv2d(here, here, 3, padding=1), nn.Conv2d(here, following, 3, padding=1, stride=2)]
        self.conv_out = nn.Conv2d(channels[-1], out, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """(F, 3, H, W) in [0, 1] -> (F, out, H / 8, W / 8)."""
        x = F.silu(self.conv_in(images))
        for block in self.blocks:
            x = F.silu(block(x))
        return self.conv_out(x)


def build_denoising(sizes: Sizes) -> UNetMotionModel:
    """The denoising UNet with every frame normalised by itself."""
    unet = UNetMotionModel(
        sample_size=64,
        block_out_channels=sizes.channels,
        layers_per_block=sizes.layers,
        cross_attention_dim=sizes.context,
        num_attention_heads=sizes.heads,
        motion_num_attention_heads=sizes.heads,
        motion_max_seq_length=POSITIONS,
        use_motion_mid_block=True,
    )
    for module in unet.modules():
        if isinstance(module, AnimateDiffTransformer3D):
            old = module.norm
            module.norm = FrameGroupNorm(old.num_groups, old.num_channels, eps=old.eps)
    return unet


def build_reference(sizes: Sizes) -> UNet2DConditionModel:
    """The reference UNet."""
    return UNet2DConditionModel(
        sample_size=64,
        block_out_channels=sizes.channels,
        layers_per_block=sizes.layers,
        cross_attention_dim=sizes.context,
        attention_head_dim=sizes.heads,
    )


def _install(unet: nn.Module, self_attention: Any) -> None:
    for name, block in spatial_blocks(unet):
        block.attn1.processor = self_attention(name)
        block.attn2.processor = SingleTokenAttention()


class Denoiser(nn.Module):
    """The denoising UNet with pose features and reference attention."""

    def __init__(self, unet: UNetMotionModel) -> None:
        super().__init__()
        self.unet, self._call = unet, Call()
        self._pose: Tensor | None = None
        _install(unet, lambda name: SelfAttention(name, self._call))
        unet.conv_in.register_forward_hook(self._add_pose)

    def _add_pose(self, module: nn.Module, given: Any, out: Tensor) -> Tensor:
        return out if self._pose is None else out + self._pose

    def project(self, bank: Bank) -> Projected:
        """Keys and values of the reference, once per run."""
        return project(self.unet, bank)

    def forward(
        self,
        latents: Tensor,
        timestep: int,
        clip: Tensor,
        pose: Tensor,
        *,
        reference: Projected | None,
        conditioned: Sequence[bool],
    ) -> Tensor:
        """One prediction (v).

        Args:
            latents: (B, 4, F, h, w). timestep: Of the noise schedule.
            clip: (B, 1, C) image embedding, zeros for unconditional elements.
            pose: (F, C0, h, w) features of the pose guider, the same for every batch element.
            reference: From ``project``. conditioned: B truths, False before True.

        Returns:
            (B, 4, F, h, w).
        """
        if sorted(conditioned) != list(conditioned) or len(conditioned) != len(latents):
            raise ValueError(f"{len(latents)} batch elements need as many marks, unconditional first; found {tuple(conditioned)}")
        batch, _, frames = latents.shape[:3]
        self._call.projected, self._call.conditioned, self._call.frames = reference, tuple(conditioned), frames
        self._pose = pose.repeat(batch, 1, 1, 1)
        try:
            steps = torch.full((batch,), timestep, dtype=torch.long, device=latents.device)
            return self.unet(latents, steps, encoder_hidden_states=clip.repeat_interleave(frames, 0), return_dict=False)[0]
        finally:
            self._call.projected, self._pose = None, None


class ReferenceNet(nn.Module):
    """The reference UNet, of which only what its self-attentions saw is wanted."""

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, latents: Tensor, clip: Tensor) -> Bank:
        """(1, 4, h, w) latents and (1, 1, C) image embedding -> bank."""
        record = Record()
        _install(self.unet, record.processor)
        self.unet(latents, torch.zeros(len(latents), dtype=torch.long, device=latents.device), encoder_hidden_states=clip)
        return record.bank


@dataclass
class Networks:
    """Everything that makes a clip, on one device and in one dtype.

    Attributes:
        facts: For provenance: sha256 of the files read, parameters of each network, ``rule_made`` when the weights are not trained ones.
    """

    denoiser: Denoiser
    reference: ReferenceNet
    guider: PoseGuider
    image_encoder: CLIPVisionModelWithProjection
    vae: AutoencoderKL
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def parts(self) -> dict[str, nn.Module]:
        """The five by name."""
        return {name: getattr(self, name) for name in ("denoiser", "reference", "guider", "image_encoder", "vae")}

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return next(self.guider.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Of their parameters."""
        return next(self.guider.parameters()).dtype

    def compile(self, *, backend: str = "inductor") -> Networks:
        """Compile the denoising network (once for each half of guidance and each length of window); returns self.

        Args:
            backend: Of ``torch.compile``.
        """
        self.denoiser.unet.compile(backend=backend, dynamic=False)  # its inputs are tensors: a time given as a number would be compiled anew
        return self

    def to(self, device: str | torch.device, dtype: torch.dtype) -> Networks:
        """Move all of them; returns self."""
        for part in self.parts.values():
            nn.Module.to(part, device=device, dtype=dtype).eval().requires_grad_(False)  # diffusers' own warns of every cast
        return self
