"""Batches, the antialiased mode and absolute gradients of the CPU path, each against something independent."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from svad_ray.splat import rasterization

from . import dense
from .scenes import Scene, random_scene

SIZE = 40, 36


def absolute_gradient(scene: Scene, weights: Tensor) -> Tensor:
    """[C, N, 2]: every pixel of the float64 twin gets its own copy of the means, whose gradients are added without their signs."""
    m, q, s, o, c, v = scene.tensors(torch.float64)
    radii, means2d, depths, conics, _ = dense.project(m, q, s, v, scene.Ks.double(), *SIZE)
    total = torch.zeros_like(means2d)
    for camera in range(len(v)):
        index = torch.nonzero((radii[camera] > 0).all(-1))[:, 0]
        index = index[torch.argsort(depths[camera][index], stable=True)]
        copies = means2d[camera][index].expand(SIZE[0] * SIZE[1], -1, -1).clone().requires_grad_()
        image, left = dense.blend(copies, conics[camera][index], o[index], c[index], *SIZE)
        (gradient,) = torch.autograd.grad((image * weights[camera]).sum() + left.sum(), copies)
        total[camera, index] = gradient.abs().sum(0)
    return total


@pytest.mark.parametrize("cameras", [1, 2])
def test_absolute_gradients_equal_the_twins(cameras: int) -> None:
    scene = random_scene(80, *SIZE, cameras=cameras, channels=5, seed=2)
    inputs = scene.tensors(torch.float32, grad=True)
    image, alpha, meta = rasterization(*inputs, scene.Ks, *SIZE, absgrad=True)
    meta["means2d"].retain_grad()
    weights = torch.randn(image.shape, generator=torch.Generator().manual_seed(3))
    assert not hasattr(meta["means2d"], "absgrad")
    grads = torch.autograd.grad((image * weights).sum() - alpha.sum(), [*inputs, meta["means2d"]], retain_graph=True)
    found = meta["means2d"].absgrad
    truth = absolute_gradient(scene, weights.double())
    assert found.shape == (cameras, 80, 2) and not found.requires_grad
    assert float((found - truth).norm()) < 1e-4 * float(truth.norm())
    assert bool((found >= grads[-1].abs() * (1 - 1e-4)).all()) and float(found.sum()) > 1.2 * float(grads[-1].abs().sum())
    plain = rasterization(*inputs, scene.Ks, *SIZE)
    again = torch.autograd.grad((plain[0] * weights).sum() - plain[1].sum(), [*inputs, plain[2]["means2d"]])
    assert torch.equal(plain[0], image) and all(torch.equal(a, b) for a, b in zip(grads, again)) and not hasattr(plain[2]["means2d"], "absgrad")
    torch.autograd.grad(2 * (image * weights).sum() - 2 * alpha.sum(), inputs)
    assert torch.allclose(meta["means2d"].absgrad, 2 * truth.float(), rtol=1e-3, atol=1e-5)  # the last backward pass counts, not the sum


def test_antialiased_keeps_the_weight_of_a_gaussian_below_a_pixel() -> None:
    """Far below a pixel the alphas add up to opacity x 2 pi x the area of S without eps2d; the classic mode makes it opacity x 2 pi eps2d."""
    scene = random_scene(1, *SIZE)
    scene.means[:], scene.scales[:], scene.opacities[:] = 0.0, 0.018, 0.9
    total = {
        mode: float(rasterization(*scene.tensors(torch.float32), scene.Ks, *SIZE, rasterize_mode=mode)[1].sum())
        for mode in ("classic", "antialiased")
    }
    sharp = 0.018 * 0.8 * SIZE[1] / 1.8  # standard deviation in pixels across; 1.05 times that downwards
    expected = 0.9 * 2 * torch.pi * 1.05 * sharp**2
    assert abs(total["antialiased"] / expected - 1) < 0.1 and total["classic"] > 3 * expected  # a tenth lies below 1/255


def test_antialiased_gradient_by_finite_differences() -> None:
    """Against the float64 twin's values, not its derivatives."""
    scene = random_scene(30, *SIZE, seed=5, size=0.02)
    inputs = scene.tensors(torch.float32, grad=True)
    image = rasterization(*inputs, scene.Ks, *SIZE, rasterize_mode="antialiased")[0]
    weights = torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    gradients = torch.autograd.grad((image * weights).sum(), inputs)
    exact = scene.tensors(torch.float64)
    for which, place in ((0, (3, 2)), (1, (4, 1)), (2, (5, 0)), (2, (9, 2)), (3, (7,)), (5, (0, 2, 3))):
        step = torch.zeros_like(exact[which])
        step[place] = 1e-7
        plus, minus = (
            dense.render(
                *[t + sign * step if k == which else t for k, t in enumerate(exact)], scene.Ks.double(), *SIZE, rasterize_mode="antialiased"
            )[0]
            for sign in (1, -1)
        )
        numeric = float(((plus - minus) * weights).sum()) / 2e-7
        assert abs(float(gradients[which][place]) - numeric) < 2e-3 * float(gradients[which].abs().max()), which


@pytest.mark.parametrize(
    "options", [{}, {"sh_degree": 1}, {"render_mode": "RGB+ED", "rasterize_mode": "antialiased"}, {"per_camera": True}, {"covars": True}]
)
def test_batches_are_as_many_calls(options: dict) -> None:
    """Batch dimensions (2, 2): own Gaussians, cameras, colours and backgrounds; values and gradients to the last bit."""
    options = dict(options)
    coefficients = 4 if "sh_degree" in options else 0
    scenes = [random_scene(60, *SIZE, seed=seed, cameras=2, coefficients=coefficients) for seed in range(4)]
    g = torch.Generator().manual_seed(6)
    fields = {name: torch.stack([getattr(s, name) for s in scenes]) for name in ("means", "quats", "scales", "opacities", "colors", "viewmats", "Ks")}
    fields["backgrounds"] = torch.rand(4, 2, 3, generator=g)
    fields["viewmats"][:, :, 2, 3] += 0.3 * torch.rand(4, 1, generator=g)
    if options.pop("per_camera", False):
        fields["colors"] = torch.rand(4, 2, 60, 3, generator=g)
    if options.pop("covars", False):
        factor = 0.05 * torch.randn(4, 60, 3, 3, generator=g)
        fields["covars"] = factor @ factor.transpose(-1, -2) + 1e-4 * torch.eye(3)
    wanted = [name for name in fields if name != "Ks" and not ("covars" in fields and name in ("quats", "scales"))]

    def draw(leaves: dict[str, Tensor]) -> tuple[Tensor, Tensor, dict]:
        return rasterization(**leaves, width=SIZE[0], height=SIZE[1], absgrad=True, **options)

    whole = {name: value.clone().requires_grad_(name in wanted) for name, value in fields.items()}
    image, alpha, meta = draw({name: value.reshape(2, 2, *value.shape[1:]) for name, value in whole.items()})
    assert image.shape[:3] == (2, 2, 2) and alpha.shape == (2, 2, 2, SIZE[1], SIZE[0], 1) and (meta["n_batches"], meta["n_cameras"]) == (4, 2)
    weights = torch.randn(image.shape, generator=g)
    grads = torch.autograd.grad((image * weights).sum() + alpha.sum(), [whole[name] for name in wanted])
    for b in range(4):
        own = {name: value[b].clone().requires_grad_(name in wanted) for name, value in fields.items()}
        one_image, one_alpha, one_meta = draw(own)
        place = divmod(b, 2)
        assert torch.equal(image[place], one_image) and torch.equal(alpha[place], one_alpha)
        for name in ("radii", "means2d", "depths", "conics", "opacities"):
            assert torch.equal(meta[name][place], one_meta[name])
        single = torch.autograd.grad((one_image * weights[place]).sum() + one_alpha.sum(), [own[name] for name in wanted])
        assert all(torch.equal(a[b], s) for a, s in zip(grads, single))
        assert torch.equal(meta["means2d"].absgrad[place], one_meta["means2d"].absgrad)
