"""An independent float64 renderer: every Gaussian against every pixel, in plain torch with autograd.

Projection and harmonics are gsplat's own torch implementations; the blending is written from the rules of gsplat 1.5.3's kernels.
"""

from __future__ import annotations

import torch
from gsplat.cuda._torch_impl import _fully_fused_projection, _quat_scale_to_covar_preci, _spherical_harmonics
from torch import Tensor

ALPHA_MIN, ALPHA_MAX, END = 1 / 255, 0.999, 1e-4


def project(means, quats, scales, viewmats, Ks, width, height, *, covars=None, eps2d=0.3, near=0.01, far=1e10):
    """gsplat's torch projection: radii [C, N, 2], means2d, depths, conics, compensations of the antialiased mode."""
    if covars is None:
        covars, _ = _quat_scale_to_covar_preci(quats, scales, True, False)
    return _fully_fused_projection(means, covars, viewmats, Ks, width, height, eps2d, near, far, calc_compensations=True)


def harmonic_colors(degree: int, means: Tensor, viewmat: Tensor, coefficients: Tensor) -> Tensor:
    center = torch.linalg.inv(viewmat)[:3, 3]
    return torch.clamp_min(_spherical_harmonics(degree, means - center, coefficients) + 0.5, 0)


def blend(means2d, conics, opacities, features, width, height) -> tuple[Tensor, Tensor]:
    """Composite depth-sorted Gaussians: features [H, W, X] without background, transmittance [H, W].

    ``means2d`` is [N, 2], or [H W, N, 2] to have every pixel see its own.
    """
    ys, xs = torch.meshgrid(torch.arange(height).to(means2d) + 0.5, torch.arange(width).to(means2d) + 0.5, indexing="ij")
    delta = (means2d if means2d.dim() == 3 else means2d[None]) - torch.stack([xs, ys], -1).reshape(-1, 1, 2)
    sigma = 0.5 * (conics[:, 0] * delta[..., 0] ** 2 + conics[:, 2] * delta[..., 1] ** 2) + conics[:, 1] * delta[..., 0] * delta[..., 1]
    alpha = torch.clamp_max(opacities * torch.exp(-sigma), ALPHA_MAX)
    alpha = torch.where((sigma >= -1e-9) & (alpha >= ALPHA_MIN), alpha, torch.zeros_like(alpha))
    alpha = alpha * (torch.cumprod(1 - alpha, 1) > END)  # the product only falls, so all behind the first end are dropped too
    left = torch.cumprod(1 - alpha, 1)
    before = torch.cat([torch.ones_like(left[:, :1]), left], 1)
    image = (alpha * before[:, :-1]) @ features
    return image.reshape(height, width, -1), before[:, -1].reshape(height, width)


def render(means, quats, scales, opacities, colors, viewmats, Ks, width, height, *, sh_degree=None, backgrounds=None, render_mode="RGB",
           covars=None, eps2d=0.3, near=0.01, far=1e10, rasterize_mode="classic") -> tuple[Tensor, Tensor]:  # fmt: skip
    """render_colors [C, H, W, X], render_alphas [C, H, W, 1] as gsplat defines them."""
    radii, means2d, depths, conics, compensations = project(
        means, quats, scales, viewmats, Ks, width, height, covars=covars, eps2d=eps2d, near=near, far=far
    )
    images, alphas = [], []
    for c in range(len(viewmats)):
        strengths = opacities * compensations[c] if rasterize_mode == "antialiased" else opacities
        keep = (radii[c] > 0).all(-1) & (strengths >= ALPHA_MIN)
        index = torch.nonzero(keep)[:, 0]
        index = index[torch.argsort(depths[c][index], stable=True)]
        own = colors[c] if colors.dim() == (3 if sh_degree is None else 4) else colors
        features = own if sh_degree is None else harmonic_colors(sh_degree, means, viewmats[c], own)
        if render_mode != "RGB":
            features = torch.cat([features, depths[c][:, None]], 1) if "RGB" in render_mode else depths[c][:, None]
        image, left = blend(means2d[c][index], conics[c][index], strengths[index], features[index], width, height)
        if backgrounds is not None and "RGB" in render_mode:
            behind = torch.cat([backgrounds[c], backgrounds.new_zeros(image.shape[-1] - backgrounds.shape[1])])
            image = image + left[..., None] * behind
        alpha = 1 - left[..., None]
        if render_mode.endswith("ED"):
            image = torch.cat([image[..., :-1], image[..., -1:] / alpha.clamp(min=1e-10)], -1)
        images.append(image)
        alphas.append(alpha)
    return torch.stack(images), torch.stack(alphas)
