"""`rasterization` on CPU tensors: the steps of `functions` for every image, stacked as gsplat stacks them."""

from __future__ import annotations

import math
import weakref
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from svad_ray.splat.functions import Blending, Covariance, Harmonics, Projection
from svad_ray.splat.kernels.composite import WIDTHS

_UPPER = ((0, 0, 0, 1, 1, 2), (0, 1, 2, 1, 2, 2))


@dataclass(frozen=True)
class CpuOptions:
    """What `rasterization` was asked for, checked; names as there."""

    width: int
    height: int
    near_plane: float
    far_plane: float
    radius_clip: float
    eps2d: float
    sh_degree: int | None
    tile_size: int
    render_mode: str
    absgrad: bool
    antialiased: bool


def rasterize_cpu(means: Tensor, quats: Tensor | None, scales: Tensor | None, opacities: Tensor, colors: Tensor, viewmats: Tensor, Ks: Tensor,
                  backgrounds: Tensor | None, covars: Tensor | None, options: CpuOptions) -> tuple[Tensor, Tensor, dict[str, Any]]:  # fmt: skip
    """Render every camera of every batch; arguments are checked already, shapes as in `rasterization`.

    Returns:
        render_colors [..., C, H, W, X], render_alphas [..., C, H, W, 1], meta.
    """
    batch, count, cameras = means.shape[:-2], means.shape[-2], viewmats.shape[-3]
    batches = math.prod(batch)
    pictures = batches * cameras
    means, opacities = means.reshape(batches, count, 3), opacities.reshape(batches, count)
    upper = (Covariance.apply(quats, scales) if covars is None else covars[..., _UPPER[0], _UPPER[1]]).reshape(batches, count, 6)
    viewmats, Ks = viewmats.reshape(pictures, 4, 4), Ks.reshape(pictures, 3, 3)
    size = (options.width, options.height)
    planes = (options.eps2d, options.near_plane, options.far_plane, options.radius_clip)
    of = [image // cameras for image in range(pictures)]  # which batch's Gaussians an image shows
    views = [
        Projection.apply(means[b], upper[b], viewmat, opacities[b], K, size, planes, options.antialiased) for b, viewmat, K in zip(of, viewmats, Ks)
    ]
    means2d, conics, depths, radii = (_stack([view[i] for view in views], batch) for i in range(4))  # stacked first: a caller may retain a gradient
    strengths = [opacities[b] * view[5] if options.antialiased else opacities[b] for b, view in zip(of, views)]
    absolute = _AbsoluteGradient(means2d) if options.absgrad else None
    inner = colors.shape[-2:] if options.sh_degree is None else colors.shape[-3:]
    per_picture = colors.dim() > len(batch) + len(inner)
    all_colors = colors.reshape(pictures if per_picture else batches, *inner)
    images, alphas = [], []
    means2d_of, conics_of, depths_of = means2d.reshape(pictures, count, 2), conics.reshape(pictures, count, 3), depths.reshape(pictures, count)
    for index, (b, viewmat) in enumerate(zip(of, viewmats)):
        own = all_colors[index if per_picture else b]
        features = _features(means[b], own, viewmat, depths_of[index], views[index][3], options)
        if absolute and features.shape[1] > WIDTHS[-1]:
            raise NotImplementedError(f"absgrad=True with {features.shape[1]} channels on CPU tensors: at most {WIDTHS[-1]}")
        background = _background(None if backgrounds is None else backgrounds.reshape(pictures, -1)[index], features, options.render_mode)
        image, alpha = Blending.apply(means2d_of[index], conics_of[index], features, strengths[index], background, depths_of[index],
                                      views[index][4], size, partial(absolute.keep, index) if absolute else None)  # fmt: skip
        images.append(_expected_depth(image, alpha) if options.render_mode.endswith("ED") else image)
        alphas.append(alpha)
    meta = _meta({"radii": radii, "means2d": means2d, "depths": depths, "conics": conics}, _stack(strengths, batch), options)
    return _stack(images, batch), _stack(alphas, batch)[..., None], meta


class _AbsoluteGradient:
    """Puts the sums of absolute gradients where gsplat does: on ``meta["means2d"].absgrad``, when the backward pass has run."""

    def __init__(self, means2d: Tensor) -> None:
        self._means2d = weakref.ref(means2d)  # the graph holds this object, and the tensor holds the graph

    def keep(self, index: int, value: Tensor) -> None:
        means2d: Any = self._means2d()
        if means2d is None:
            return
        if getattr(means2d, "absgrad", None) is None:
            means2d.absgrad = torch.zeros(means2d.shape)
        means2d.absgrad.view(means2d.shape.numel() // max(value.numel(), 1) or 1, *value.shape)[index] = value


def _stack(tensors: list[Tensor], batch: torch.Size) -> Tensor:
    """Images stacked and laid out by batch and camera."""
    stacked = tensors[0][None] if len(tensors) == 1 else torch.stack(tensors)
    return stacked.reshape(*batch, len(tensors) // math.prod(batch), *stacked.shape[1:]) if batch else stacked


def _expected_depth(image: Tensor, alpha: Tensor) -> Tensor:
    return torch.cat([image[..., :-1], image[..., -1:] / alpha[..., None].clamp(min=1e-10)], -1)


def _features(means: Tensor, colors: Tensor, viewmat: Tensor, depths: Tensor, radii: Tensor, options: CpuOptions) -> Tensor:
    """What is blended for one camera: [N, X]."""
    if "RGB" not in options.render_mode:
        return depths[:, None]
    if options.sh_degree is not None:
        center = torch.linalg.inv(viewmat)[:3, 3]
        colors = Harmonics.apply(means - center, colors, radii, options.sh_degree)
    return colors if options.render_mode == "RGB" else torch.cat([colors, depths[:, None]], -1)


def _background(background: Tensor | None, features: Tensor, mode: str) -> Tensor:
    """The caller's background with 0 behind the depth channel; 0 everywhere without one."""
    if background is None or mode in ("D", "ED"):
        return features.new_zeros(features.shape[1])
    return background if mode == "RGB" else torch.cat([background, background.new_zeros(1)])


def _meta(projected: dict[str, Tensor], opacities: Tensor, options: CpuOptions) -> dict[str, Any]:
    """gsplat's dictionary in its unpacked layout, without the tile lists (ours use other tiles)."""
    size, (*batch, cameras, _) = options.tile_size, opacities.shape
    meta: dict[str, Any] = {"batch_ids": None, "camera_ids": None, "gaussian_ids": None, **projected}
    meta["opacities"] = opacities
    meta.update(tile_width=-(-options.width // size), tile_height=-(-options.height // size), width=options.width, height=options.height)
    meta.update(tile_size=size, n_batches=math.prod(batch), n_cameras=cameras)
    return meta
