"""gsplat's signature and meta; what the CPU lacks is refused by name; what does not fit is explained."""

from __future__ import annotations

import inspect
import subprocess
import sys

import gsplat
import pytest
import torch
from gsplat.cuda._torch_impl import _quat_scale_to_covar_preci

from svad_ray.errors import InputError
from svad_ray.splat import rasterization

from . import dense
from .scenes import random_scene


def test_names_order_and_defaults_are_gsplats() -> None:
    ours, theirs = inspect.signature(rasterization).parameters, inspect.signature(gsplat.rasterization).parameters
    assert list(ours) == list(theirs)
    for name in ours:
        if name != "rolling_shutter":  # an enum there, whose default means what None means here
            assert ours[name].default == theirs[name].default, name


def call(**options):
    scene = random_scene(20, 24, 20)
    inputs = dict(zip(("means", "quats", "scales", "opacities", "colors", "viewmats"), scene.tensors(torch.float32)))
    inputs.update(Ks=scene.Ks, width=24, height=20)
    inputs.update(options)
    return rasterization(**inputs)


@pytest.mark.parametrize("options", [
    {"sparse_grad": True}, {"absgrad": True, "colors": torch.zeros(20, 9)}, {"distributed": True}, {"with_ut": True}, {"with_eval3d": True},
    {"camera_model": "ortho"}, {"camera_model": "fisheye"}, {"radial_coeffs": torch.zeros(1, 6)}, {"tangential_coeffs": torch.zeros(1, 2)},
    {"thin_prism_coeffs": torch.zeros(1, 4)}, {"ftheta_coeffs": object()}, {"rolling_shutter": object()}, {"viewmats_rs": torch.eye(4)[None]},
    {"sh_degree": 4, "colors": torch.zeros(20, 25, 3)}, {"means": torch.zeros(20, 3, device="meta")},
])  # fmt: skip
def test_what_the_cpu_lacks_is_refused_by_name(options: dict) -> None:
    name = {"means": "meta"}.get(next(iter(options)), next(iter(options)))
    with pytest.raises(NotImplementedError, match=name):
        call(**options)


@pytest.mark.parametrize("options", [
    {"means": torch.zeros(20, 4)}, {"quats": torch.zeros(20, 3)}, {"quats": None}, {"scales": torch.zeros(19, 3)}, {"opacities": torch.zeros(20, 1)},
    {"viewmats": torch.eye(4)}, {"Ks": torch.zeros(2, 3, 3)}, {"colors": torch.zeros(20, 0)}, {"colors": torch.zeros(2, 20, 3)},
    {"colors": torch.zeros(20, 3).double()}, {"colors": torch.zeros(20, 4, 3), "sh_degree": 2}, {"backgrounds": torch.zeros(3)},
    {"backgrounds": torch.zeros(1, 4)}, {"width": 0}, {"means": torch.zeros(2, 20, 3)}, {"means": torch.zeros(3)},
    {"viewmats": torch.zeros(0, 4, 4), "Ks": torch.zeros(0, 3, 3)}, {"rasterize_mode": "sharp"},
    {"render_mode": "BGR"}, {"covars": torch.zeros(20, 6)},
])  # fmt: skip
def test_what_does_not_fit_is_explained(options: dict) -> None:
    with pytest.raises(InputError) as error:
        call(**options)
    assert error.value.expected


@pytest.mark.parametrize("options", [{"packed": False}, {"tile_size": 8}, {"channel_chunk": 2}, {"segmented": True}])
def test_options_without_effect_on_the_result(options: dict) -> None:
    assert torch.equal(call(**options)[0], call()[0])


def test_meta_is_gsplats_in_the_unpacked_layout() -> None:
    scene = random_scene(30, 40, 33, cameras=2)
    _, _, meta = rasterization(*scene.tensors(torch.float32), scene.Ks, 40, 33)
    radii, means2d, depths, conics, _ = dense.project(scene.means, scene.quats, scene.scales, scene.viewmats, scene.Ks, 40, 33)
    seen = (radii > 0).all(-1)
    assert torch.equal(meta["opacities"], scene.opacities.expand(2, 30))
    assert int((meta["radii"] - radii)[seen].max()) <= 1  # ours also follow the opacity, as gsplat's CUDA kernel does
    for name, truth in (("means2d", means2d), ("depths", depths), ("conics", conics)):
        assert torch.allclose(meta[name][seen], truth[seen], rtol=1e-3, atol=1e-5)
    sizes = {name: meta[name] for name in ("width", "height", "tile_size", "tile_width", "tile_height", "n_cameras", "n_batches")}
    assert sizes == {"width": 40, "height": 33, "tile_size": 16, "tile_width": 3, "tile_height": 3, "n_cameras": 2, "n_batches": 1}


@pytest.mark.parametrize("cameras", [1, 2])
def test_the_gradient_of_means2d_can_be_kept(cameras: int) -> None:
    """Densification reads it; a shift of an image Gaussian by d moves the loss by gradient x d."""
    scene = random_scene(30, 40, 33, cameras=cameras)
    inputs = scene.tensors(torch.float32, grad=True)
    image, _, meta = rasterization(*inputs, scene.Ks, 40, 33)
    meta["means2d"].retain_grad()
    image.square().sum().backward()
    assert meta["means2d"].grad.shape == (cameras, 30, 2) and float(meta["means2d"].grad.abs().max()) > 0


def test_covariances_instead_of_quaternions_and_scales() -> None:
    scene = random_scene(60, 40, 36, seed=6)
    covars = _quat_scale_to_covar_preci(scene.quats, scene.scales, True, False)[0].requires_grad_()
    image, _, _ = rasterization(scene.means, None, None, scene.opacities, scene.colors, scene.viewmats, scene.Ks, 40, 36, covars=covars)
    twin = covars.detach().double().requires_grad_()
    m, _, _, o, c, v = scene.tensors(torch.float64)
    truth, _ = dense.render(m, None, None, o, c, v, scene.Ks.double(), 40, 36, covars=twin)
    assert float((image - truth).detach().abs().max()) < 1e-5
    weights = torch.randn(image.shape, generator=torch.Generator().manual_seed(4))
    (ours,) = torch.autograd.grad((image * weights).sum(), covars)
    (full,) = torch.autograd.grad((truth * weights).sum(), twin)
    upper = torch.triu(full + full.transpose(1, 2)) - torch.diag_embed(torch.diagonal(full, dim1=1, dim2=2))  # only the upper triangle is read
    assert float((ours - upper).norm()) < 1e-3 * float(upper.norm())


def test_colours_per_camera() -> None:
    scene = random_scene(50, 40, 36, cameras=2)
    scene.colors = torch.rand(2, 50, 5, generator=torch.Generator().manual_seed(1))
    image, _, _ = rasterization(*scene.tensors(torch.float32), scene.Ks, 40, 36)
    truth, _ = dense.render(*scene.tensors(torch.float64), scene.Ks.double(), 40, 36)
    assert float((image - truth).abs().max()) < 1e-5


def test_thirty_two_channels_are_thirty_two_images() -> None:
    scene = random_scene(50, 40, 36, channels=32)
    image, _, _ = rasterization(*scene.tensors(torch.float32), scene.Ks, 40, 36)
    for k in (0, 7, 8, 31):
        single, _, _ = rasterization(*scene.tensors(torch.float32)[:4], scene.colors[:, k : k + 1], scene.viewmats, scene.Ks, 40, 36)
        assert float((image[..., k : k + 1] - single).abs().max()) < 1e-6


def test_gradient_of_the_view_matrix_by_finite_differences() -> None:
    """Against the float64 twin's values, not its derivatives."""
    scene = random_scene(40, 32, 32, seed=12)
    inputs = scene.tensors(torch.float32, grad=True)
    image, _, _ = rasterization(*inputs, scene.Ks, 32, 32)
    weights = torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    (gradient,) = torch.autograd.grad((image * weights).sum(), inputs[5])
    m, q, s, o, c, v = scene.tensors(torch.float64)
    for row, column in ((0, 3), (1, 2), (2, 3), (2, 0)):
        step = torch.zeros_like(v)
        step[0, row, column] = 1e-7
        plus, minus = (dense.render(m, q, s, o, c, v + sign * step, scene.Ks.double(), 32, 32)[0] for sign in (1, -1))
        numeric = float(((plus - minus) * weights).sum()) / 2e-7
        assert abs(float(gradient[0, row, column]) - numeric) < 2e-3 * float(gradient.abs().max())


def test_importing_the_package_loads_neither_numba_nor_gsplat() -> None:
    program = "import sys, svad_ray, svad_ray.splat; assert 'numba' not in sys.modules and 'gsplat' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_equals_gsplat_on_cuda() -> None:
    scene = random_scene(2000, 160, 120, seed=2, size=0.03)
    image, alpha, _ = rasterization(*scene.tensors(torch.float32), scene.Ks, 160, 120)
    inputs = [t.cuda() for t in scene.tensors(torch.float32)]
    cuda_image, cuda_alpha, _ = rasterization(*inputs, scene.Ks.cuda(), 160, 120)
    assert float((image - cuda_image.cpu()).abs().quantile(0.999)) < 1e-4 and float((alpha - cuda_alpha.cpu()).abs().quantile(0.999)) < 1e-4
