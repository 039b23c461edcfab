"""The whole network: a photo -> Gaussians once, then those Gaussians on any posed head -> pictures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from svad_ray.errors import InputError
from svad_ray.nets.gagavatar import geometry
from svad_ray.nets.gagavatar.features import BaseModel
from svad_ray.nets.gagavatar.generators import Gaussians, PlaneGenerator, PointGenerator, join
from svad_ray.nets.gagavatar.sizes import COLORS, Sizes
from svad_ray.nets.gagavatar.styleunet import StyleUNet
from svad_ray.splat import rasterization


@dataclass(frozen=True)
class HeadGaussians:
    """One person's head: everything that does not change from frame to frame.

    Attributes:
        gaussians: One head's Gaussians (B = 1): those of the vertices first, then the front plane's, then the back plane's.
        planes: (2 * side * side, 3) centres of the Gaussians that lie off the mesh, in the head's space.
        covariances: (N, 3, 3).
    """

    gaussians: Gaussians
    planes: Tensor
    covariances: Tensor


@dataclass
class Facts:
    """What is known of loaded weights: whether a rule made them, hash of each file, number of parameters."""

    rule_made: bool = False
    fingerprint: dict[str, str] = field(default_factory=dict)
    parameters: int = 0


class GAGAvatar(nn.Module):
    """Under the names of the published checkpoint.

    Source: Chu and Harada, Generalizable and Animatable Gaussian Head Avatar (2024).
    """

    def __init__(self, sizes: Sizes | None = None) -> None:
        super().__init__()
        self.sizes = sizes = sizes or Sizes()
        self.head_base = nn.Parameter(torch.randn(sizes.vertices, sizes.feature))
        self.base_model = BaseModel(sizes)
        self.gs_generator_g = PointGenerator(sizes.feature, sizes.dino.dim)
        self.gs_generator_l0, self.gs_generator_l1 = PlaneGenerator(sizes.feature), PlaneGenerator(sizes.feature)
        self.upsampler = StyleUNet(COLORS, sizes.down, sizes.decoder, sizes.style)
        self.facts = Facts()

    @torch.no_grad()
    def identity(self, image: Tensor, transform: Tensor) -> HeadGaussians:
        """The Gaussians of one photo.

        Args:
            image: (3, S, S) in [0, 1], the head on black, S = ``sizes.dino.image``.
            transform: (3, 4) the photo's camera, see ``geometry``.
        """
        side = self.sizes.dino.image
        if image.shape != (3, side, side):
            raise InputError(f"a photo of shape {tuple(image.shape)}", expected=f"(3, {side}, {side})")
        local, token = self.base_model(image[None])
        return self.lift(local, token, transform)

    def lift(self, local: Tensor, token: Tensor, transform: Tensor) -> HeadGaussians:
        """The Gaussians of features (1, feature, h, h) and (1, dim)."""
        points, direction = geometry.plane_points(transform, local.shape[-1])
        encoded = geometry.encode_direction(direction[None])
        codes = torch.cat((self.head_base, token.expand(len(self.head_base), -1)), 1)
        front, ahead = self.gs_generator_l0(local, encoded)
        back, behind = self.gs_generator_l1(local, encoded)
        gaussians = join([self.gs_generator_g(codes[None], encoded), front, back])
        planes = torch.cat((points + ahead[0] * direction, points - behind[0] * direction))
        return HeadGaussians(gaussians, planes, geometry.covariances(gaussians.quats[0], gaussians.scales[0]))

    @torch.no_grad()
    def splat(self, head: HeadGaussians, vertices: Tensor, transforms: Tensor) -> Tensor:
        """(B, 32, S, S) blended channels of the head on (B, V, 3) posed vertices seen by (B, 3, 4) cameras; black behind.

        The covariances are given: a rasteriser that makes them itself normalises the quaternions, which the trained model did not.
        """
        if vertices.shape[1:] != (self.sizes.vertices, 3):
            raise InputError(f"a head mesh of shape {tuple(vertices.shape[1:])}", expected=f"FLAME's ({self.sizes.vertices}, 3)")
        side, K = self.sizes.picture, geometry.intrinsics(self.sizes.picture, device=vertices.device)
        images = [
            rasterization(
                torch.cat((points, head.planes)),
                None,
                None,
                head.gaussians.opacities[0, :, 0],
                head.gaussians.colors[0],
                viewmat[None],
                K[None],
                side,
                side,
                near_plane=geometry.NEAR,
                far_plane=geometry.FAR,
                covars=head.covariances,
            )[0][0]
            for points, viewmat in zip(vertices, geometry.view_matrices(transforms))
        ]
        return torch.stack(images).permute(0, 3, 1, 2)

    @torch.no_grad()
    def render(self, head: HeadGaussians, vertices: Tensor, transforms: Tensor, *, seeds: list[int]) -> Tensor:
        """(B, 3, S, S) pictures in [0, 1]; the noise of each follows from its own seed, so that a batch equals a loop."""
        if not len(vertices) == len(transforms) == len(seeds):
            raise InputError(f"{len(vertices)} meshes, {len(transforms)} cameras, {len(seeds)} seeds", expected="one of each for every picture")
        return self.upsampler(self.splat(head, vertices, transforms), self.upsampler.draw_noises(seeds))

    def counted(self) -> int:
        """Parameters without the feature network."""
        return sum(p.numel() for name, p in self.named_parameters() if not name.startswith("base_model.dino_model."))

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """As usual, then evaluation mode without gradients: the network is used, never trained here."""
        result = super().load_state_dict(state_dict, strict=strict, assign=assign)
        self.eval().requires_grad_(False)
        return result
