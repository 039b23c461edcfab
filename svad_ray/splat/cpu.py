"""`rasterization` on CPU tensors: the steps of `functions` for every camera, stacked as gsplat stacks them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from svad_ray.splat.functions import Blending, Covariance, Harmonics, Projection

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


def rasterize_cpu(means: Tensor, quats: Tensor | None, scales: Tensor | None, opacities: Tensor, colors: Tensor, viewmats: Tensor, Ks: Tensor,
                  backgrounds: Tensor | None, covars: Tensor | None, options: CpuOptions) -> tuple[Tensor, Tensor, dict[str, Any]]:  # fmt: skip
    """Render every camera; arguments are checked already, shapes as in `rasterization`.

    Returns:
        render_colors [C, H, W, X], render_alphas [C, H, W, 1], meta.
    """
    upper = covars[:, _UPPER[0], _UPPER[1]] if covars is not None else Covariance.apply(quats, scales)
    size = (options.width, options.height)
    planes = (options.eps2d, options.near_plane, options.far_plane, options.radius_clip)
    views = [Projection.apply(means, upper, viewmat, opacities, K, size, planes) for viewmat, K in zip(viewmats, Ks)]
    means2d, conics, depths, radii = (_stack([view[i] for view in views]) for i in range(4))  # stacked first: a caller may retain means2d's gradient
    images, alphas = [], []
    for index, viewmat in enumerate(viewmats):
        features = _features(means, _own(colors, index, options), viewmat, depths[index], radii[index], options)
        background = _background(None if backgrounds is None else backgrounds[index], features, options.render_mode)
        image, alpha = Blending.apply(means2d[index], conics[index], features, opacities, background, depths[index], views[index][4], size, None)
        images.append(_expected_depth(image, alpha) if options.render_mode.endswith("ED") else image)
        alphas.append(alpha)
    meta = _meta({"radii": radii, "means2d": means2d, "depths": depths, "conics": conics}, opacities, options)
    return _stack(images), _stack(alphas)[..., None], meta


def _stack(tensors: list[Tensor]) -> Tensor:
    return tensors[0][None] if len(tensors) == 1 else torch.stack(tensors)


def _own(colors: Tensor, index: int, options: CpuOptions) -> Tensor:
    """The colours or coefficients of one camera."""
    return colors[index] if colors.dim() == (3 if options.sh_degree is None else 4) else colors


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
    cameras, size = len(projected["depths"]), options.tile_size
    meta: dict[str, Any] = {"batch_ids": None, "camera_ids": None, "gaussian_ids": None, **projected}
    meta["opacities"] = opacities.expand(cameras, -1)
    meta.update(tile_width=-(-options.width // size), tile_height=-(-options.height // size), width=options.width, height=options.height)
    meta.update(tile_size=size, n_batches=1, n_cameras=cameras)
    return meta
