"""The CPU rasteriser against the float64 dense twin, forward and backward."""

from __future__ import annotations

import pytest
import torch

from svad_ray.splat import rasterization

from . import dense
from .scenes import Scene, random_scene

NAMES = ("means", "quats", "scales", "opacities", "colors", "viewmats", "backgrounds")
CASES = {
    "rgb": {},
    "rgb, large": {"size": 0.3},
    "rgb, opaque": {"size": 0.12, "opacity": (0.9, 1.0)},
    "one channel": {"channels": 1},
    "two channels": {"channels": 2},
    "eleven channels": {"channels": 11},
    "depth": {"render_mode": "D"},
    "expected depth": {"render_mode": "ED"},
    "rgb and depth": {"render_mode": "RGB+D"},
    "rgb and expected depth": {"render_mode": "RGB+ED"},
    "degree 0": {"sh_degree": 0, "coefficients": 1},
    "degree 1 of 16 bases": {"sh_degree": 1, "coefficients": 16},
    "degree 2": {"sh_degree": 2, "coefficients": 9},
    "degree 3 and depth": {"sh_degree": 3, "coefficients": 16, "render_mode": "RGB+D"},
    "two cameras": {"cameras": 2},
    "wide image": {"width": 75, "height": 33},
    "no background": {"background": False},
    "antialiased": {"rasterize_mode": "antialiased"},
    "antialiased, smaller than a pixel": {"rasterize_mode": "antialiased", "size": 0.012, "opacity": (0.5, 1.0)},
    "antialiased, degree 1 and depth": {"rasterize_mode": "antialiased", "sh_degree": 1, "coefficients": 4, "render_mode": "RGB+ED", "size": 0.03},
    "antialiased, two cameras": {"rasterize_mode": "antialiased", "cameras": 2, "size": 0.03},
}


def both_renders(scene: Scene, background: bool, **options):
    """((image, alpha, inputs) of the rasteriser, (image, alpha, inputs) of the twin)."""
    channels = 3 if options.get("sh_degree") is not None else scene.colors.shape[-1]
    behind = torch.rand(len(scene.viewmats), channels, generator=torch.Generator().manual_seed(9))
    results = []
    for dtype, renderer in ((torch.float32, rasterization), (torch.float64, dense.render)):
        inputs = scene.tensors(dtype, grad=True)
        backgrounds = behind.to(dtype).requires_grad_() if background else None
        image, alpha = renderer(*inputs, scene.Ks.to(dtype), scene.width, scene.height, backgrounds=backgrounds, **options)[:2]
        results.append((image, alpha, [*inputs, backgrounds] if background else inputs))
    return results


def relative(value: torch.Tensor, truth: torch.Tensor) -> float:
    return float((value.double() - truth).norm() / truth.norm().clamp(min=1e-12))


@pytest.mark.parametrize("name", CASES)
def test_equals_the_dense_twin(name: str) -> None:
    options = dict(CASES[name])
    shape = options.pop("width", 48), options.pop("height", 52)
    of_scene = {k: options.pop(k) for k in ("size", "channels", "opacity", "cameras", "coefficients") if k in options}
    background = options.pop("background", True)
    scene = random_scene(300, *shape, seed=3, **of_scene)
    (image, alpha, inputs), (true_image, true_alpha, true_inputs) = both_renders(scene, background, **options)

    assert image.shape == true_image.shape and alpha.shape == true_alpha.shape
    depth_scale = 2.5 if "D" in options.get("render_mode", "RGB") else 1.0  # depths are about 2.5, so their rounding is too
    assert float((alpha - true_alpha).detach().abs().max()) < 1e-5
    covered = (true_alpha > 1e-3).expand_as(true_image) if options.get("render_mode", "").endswith("ED") else torch.ones_like(true_image) > 0
    assert float((image - true_image).detach()[covered].abs().max()) < 1e-5 * depth_scale

    g = torch.Generator().manual_seed(1)
    v_image, v_alpha = torch.randn(image.shape, generator=g) * covered, torch.randn(alpha.shape, generator=g)
    wanted = [t for t, n in zip(inputs, NAMES) if not (n in ("colors", "backgrounds") and options.get("render_mode") in ("D", "ED"))]
    true_wanted = [t for t, n in zip(true_inputs, NAMES) if not (n in ("colors", "backgrounds") and options.get("render_mode") in ("D", "ED"))]
    grads = torch.autograd.grad((image * v_image).sum() + (alpha * v_alpha).sum(), wanted)
    truth = torch.autograd.grad((true_image * v_image).sum() + (true_alpha * v_alpha).sum(), true_wanted)
    errors = {n: relative(a[..., :3, :] if n == "viewmats" else a, b[..., :3, :] if n == "viewmats" else b) for n, a, b in zip(NAMES, grads, truth)}
    assert max(errors.values()) < 1e-3, errors
