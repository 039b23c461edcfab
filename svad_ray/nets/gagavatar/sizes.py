"""The numbers of the network, once."""

from __future__ import annotations

from dataclasses import dataclass

FLAME_VERTICES = 5023
FOCAL = 12.0  # in half widths of the picture
COLORS = 32  # channels that are splatted
HARMONICS = 4
DIRECTION = 3 * (2 * HARMONICS + 1)  # length of an encoded direction


@dataclass(frozen=True)
class DinoSizes:
    """A DINOv2 vision transformer; the defaults are ViT-B/14.

    Attributes:
        image: Side of the picture in pixels. patch: Side of a patch. dim: Channels. heads, depth: Of attention, and how many blocks.
    """

    image: int = 518
    patch: int = 14
    dim: int = 768
    heads: int = 12
    depth: int = 12

    @property
    def side(self) -> int:
        """Patches along one side."""
        return self.image // self.patch


@dataclass(frozen=True)
class Sizes:
    """All of the network; the defaults are the published one.

    Attributes:
        dino: The feature network.
        levels: Channels of its last four layers after their projection.
        feature: Channels of the fused feature map, and of a vertex' own code.
        vertices: Of the head mesh.
        picture: Side of splatted and final picture in pixels, a power of two.
        down: Channels of the last network's encoder from 4 pixels up to ``picture``.
        decoder: Channels of its decoder likewise.
        style: Length of its style code.
    """

    dino: DinoSizes = DinoSizes()
    levels: tuple[int, int, int, int] = (256, 512, 1024, 1024)
    feature: int = 256
    vertices: int = FLAME_VERTICES
    picture: int = 512
    down: tuple[int, ...] = (256, 256, 256, 256, 128, 64, 32, 16)
    decoder: tuple[int, ...] = (512, 512, 512, 512, 256, 128, 64, 32)
    style: int = 512

    @property
    def plane(self) -> int:
        """Gaussians along one side of a plane: eight to a patch."""
        return 8 * self.dino.side
