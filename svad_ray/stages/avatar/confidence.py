"""Which regions of an avatar photos showed, and which were made up: a record per Gaussian that travels with the avatar.

It is measured on the avatar's own surface in the poses that were fitted to the photos, so it says the same of every backend that generated the clip.
Avatars of earlier versions have no record. Source: ours (SVAD's failure case C.3: an unseen back is invented).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from svad_ray.fitting.clothed import PARTS, Surface
from svad_ray.subject import Avatar, Further

if TYPE_CHECKING:
    import torch

    from svad_ray.body.model import Body
    from svad_ray.stages.avatar.colors import SurfacePoints

SEEN = 0.5  # share of a Gaussian's look from photos, from which it counts as seen
GENERATED = (190, 94, 150)
PALETTE: tuple[tuple[int, int, int], ...] = (GENERATED, (46, 139, 120), (58, 110, 190), (214, 154, 44), (116, 92, 168), (120, 150, 60))
_TINT = 0.75  # of the region's colour in a picture of the regions; the rest is the avatar's own brightness


@dataclass(frozen=True)
class Confidence:
    """confidence (N,) float16 and source (N,) uint8 per Gaussian, and ``summary``, JSON values per body part."""

    confidence: np.ndarray
    source: np.ndarray
    summary: dict[str, Any]

    @property
    def tensors(self) -> dict[str, np.ndarray]:
        """As the avatar holds them."""
        return {"confidence": self.confidence, "source": self.source}


def measure(body: Body, surface: Surface, points: SurfacePoints, rest_joints: torch.Tensor, photos: Sequence[Further]) -> Confidence:
    """What ``photos``, with the tracks fitted to them, show of points on the surface."""
    shares = np.einsum("nk,vnk->vn", points.bary, vertex_shares(body, surface, rest_joints, photos)[:, surface.faces[points.face]])
    part = surface.part[surface.faces[points.face, 0]]
    return record(shares, part, points.spacing.astype(np.float64) ** 2, [one.photo.name for one in photos])


def vertex_shares(body: Body, surface: Surface, rest_joints: torch.Tensor, photos: Sequence[Further]) -> np.ndarray:
    """(K, N) what each photo gives to the look of the surface's vertices, together at most 1.

    Raises:
        ValueError: A photo has no fit.
    """
    from svad_ray.stages.animate.projection import claims, share_out, visible_in

    views = []
    for one in photos:
        if one.track is None:
            raise ValueError(f"no body was fitted to the photo '{one.photo.name}'")
        views.append(visible_in(body, surface, rest_joints, one.perception, one.track))
    weights = np.stack([view.weight for view in views])
    return share_out(claims(surface, weights, np.stack([view.facing for view in views])), weights)


def record(shares: np.ndarray, part: np.ndarray, area: np.ndarray, names: Sequence[str]) -> Confidence:
    """The record of N Gaussians.

    Args:
        shares: (K, N) of each photo. part: (N,) index into ``PARTS``. area: (N,) of the surface that each stands for. names: Of the K photos.
    """
    confidence = shares.sum(0).clip(0, 1)
    source = np.where(confidence >= SEEN, shares.argmax(0) + 1, 0).astype(np.uint8)
    parts = {name: _part(source, area, part == k, len(names)) for k, name in enumerate(PARTS) if (part == k).any()}
    seen = float(area[source > 0].sum() / max(area.sum(), 1e-12))
    return Confidence(confidence.astype(np.float16), source, {"photos": list(names), "seen": round(seen, 4), "parts": parts})


def _part(source: np.ndarray, area: np.ndarray, here: np.ndarray, photos: int) -> dict[str, Any]:
    whole = max(float(area[here].sum()), 1e-12)
    each = [round(float(area[here & (source == k)].sum()) / whole, 4) for k in range(1, photos + 1)]
    return {"seen": round(float(area[here & (source > 0)].sum()) / whole, 4), "photos": each}


def recorded(avatar: Avatar) -> bool:
    """Does the avatar say which of its regions were seen?"""
    return "confidence" in avatar.tensors and "source" in avatar.tensors


def palette(source: np.ndarray) -> np.ndarray:
    """(N, 3) uint8: the colour of each source; photos beyond the palette's end begin again after "generated"."""
    table = np.array(PALETTE, np.uint8)
    number = np.asarray(source, int)
    return table[np.where(number > 0, (number - 1) % (len(table) - 1) + 1, 0)]


def region_colors(avatar: Avatar) -> np.ndarray | None:
    """(N, 3) float32 in [0, 1]: each Gaussian in the colour of what it comes from, shaded by its own brightness; None where nothing is recorded."""
    if not recorded(avatar):
        return None
    tint = palette(avatar.tensors["source"]).astype(np.float32) / 255
    if "colors" not in avatar.tensors:
        return tint
    light = avatar.tensors["colors"].mean(1, keepdims=True)
    return (_TINT * tint + (1 - _TINT) * light).astype(np.float32)


def summary(avatar: Avatar) -> Mapping[str, Any] | None:
    """What ``facts["confidence"]`` says; None where nothing is recorded."""
    return avatar.facts.get("confidence") if recorded(avatar) else None
