"""`rasterization`: gsplat's signature on any device."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from svad_ray.errors import BackendUnavailable, InputError

RenderMode = Literal["RGB", "D", "ED", "RGB+D", "RGB+ED"]
_MODES = ("RGB", "D", "ED", "RGB+D", "RGB+ED")
_MAX_DEGREE = 3


def rasterization(
    means: Tensor,
    quats: Tensor | None,
    scales: Tensor | None,
    opacities: Tensor,
    colors: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    radius_clip: float = 0.0,
    eps2d: float = 0.3,
    sh_degree: int | None = None,
    packed: bool = True,
    tile_size: int = 16,
    backgrounds: Tensor | None = None,
    render_mode: RenderMode = "RGB",
    sparse_grad: bool = False,
    absgrad: bool = False,
    rasterize_mode: Literal["classic", "antialiased"] = "classic",
    channel_chunk: int = 32,
    distributed: bool = False,
    camera_model: Literal["pinhole", "ortho", "fisheye", "ftheta"] = "pinhole",
    segmented: bool = False,
    covars: Tensor | None = None,
    with_ut: bool = False,
    with_eval3d: bool = False,
    radial_coeffs: Tensor | None = None,
    tangential_coeffs: Tensor | None = None,
    thin_prism_coeffs: Tensor | None = None,
    ftheta_coeffs: Any = None,
    rolling_shutter: Any = None,
    viewmats_rs: Tensor | None = None,
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Render 3D Gaussians into C pinhole images per batch, differentiably: gsplat on CUDA tensors, our own kernels on CPU tensors.

    On the CPU the gradients reach means, quats, scales (or covars), opacities, colors, viewmats and backgrounds; not Ks, as in gsplat.
    The result does not depend on the number of threads, ``tile_size``, ``packed`` or ``channel_chunk``; meta always has the unpacked
    layout there and leaves out gsplat's tile lists. What the CPU path lacks raises NotImplementedError by name.

    Args:
        means: Centres in metres [..., N, 3]; "..." are any batch dimensions, the same everywhere: each batch has its own Gaussians and cameras.
        quats: Rotations wxyz, of any length [..., N, 4]; ignored (may be None) with ``covars``.
        scales: Standard deviations along the rotated axes in metres [..., N, 3]; ignored (may be None) with ``covars``.
        opacities: [..., N], 0 to 1.
        colors: [..., N, D] or [..., C, N, D], any D >= 1; with ``sh_degree`` coefficients [..., N, K, 3] or [..., C, N, K, 3].
        viewmats: World to camera, OpenCV axes [..., C, 4, 4].
        Ks: Intrinsics in pixels [..., C, 3, 3].
        width: Pixels.
        height: Pixels.
        near_plane: Gaussians with a camera depth below are dropped.
        far_plane: Gaussians with a camera depth above are dropped.
        radius_clip: Gaussians whose radius in pixels is not larger are dropped.
        eps2d: Added to both variances of the projected Gaussian, in square pixels.
        sh_degree: Degree 0 to 3 of the harmonics in ``colors``; None for plain colours.
        packed: Memory layout on CUDA; accepted and without effect on the CPU.
        tile_size: Tile of gsplat's kernels; only reported in meta on the CPU.
        backgrounds: [..., C, D] blended behind (no entry for depth).
        render_mode: "RGB", "D" (depth), "ED" (expected depth), "RGB+D", "RGB+ED" (depth last).
        covars: Covariances in square metres [..., N, 3, 3] instead of ``quats`` and ``scales``; the upper triangle is read.
        absgrad: Put the sums over pixels of the absolute gradients of means2d on ``meta["means2d"].absgrad`` [..., C, N, 2] in the backward
            pass (AbsGS, Ye et al. 2024); on the CPU with at most 8 channels.
        rasterize_mode: "antialiased" multiplies the opacity with sqrt(det S / det(S + eps2d)), S being the projected covariance
            (Mip-Splatting, Yu et al. 2024), so that a Gaussian smaller than a pixel does not grow heavier.
        sparse_grad, channel_chunk, distributed, camera_model, segmented, with_ut, with_eval3d, radial_coeffs,
            tangential_coeffs, thin_prism_coeffs, ftheta_coeffs, rolling_shutter, viewmats_rs: As in gsplat; on the CPU only the
            defaults (``channel_chunk`` and ``segmented`` may be anything).

    Returns:
        render_colors [..., C, height, width, X], render_alphas [..., C, height, width, 1], and meta with radii [..., C, N, 2],
        means2d [..., C, N, 2], depths [..., C, N], conics [..., C, N, 3], opacities [..., C, N] (as blended) and sizes;
        ``meta["means2d"].retain_grad()`` works.

    Raises:
        InputError: Shapes, devices or types that do not fit.
        NotImplementedError: An option that the CPU path lacks.
        BackendUnavailable: CUDA tensors without gsplat.

    Source:
        3D Gaussian Splatting (Kerbl et al. 2023) with gsplat 1.5.3's conventions. Ours: a sigma that rounding would make negative counts
        as 0 instead of dropping the pixel.
    """
    arguments = dict(locals())
    if means.device.type == "cuda":
        return _on_cuda(arguments)
    if means.device.type != "cpu":
        raise NotImplementedError(f"rasterization on device {means.device.type!r}: cuda and cpu only")
    _reject_missing(arguments)
    _check(means, quats, scales, opacities, colors, viewmats, Ks, backgrounds, covars, sh_degree)
    _check_options(width, height, tile_size, render_mode, rasterize_mode)
    from svad_ray.splat.cpu import CpuOptions, rasterize_cpu  # numba loads with the first render, not with the package

    options = CpuOptions(width, height, near_plane, far_plane, radius_clip, eps2d, sh_degree, tile_size, render_mode, absgrad,
                         rasterize_mode == "antialiased")  # fmt: skip
    return rasterize_cpu(means, quats, scales, opacities, colors, viewmats, Ks, backgrounds, covars, options)


def _on_cuda(arguments: dict[str, Any]) -> tuple[Tensor, Tensor, dict[str, Any]]:
    try:
        import gsplat
    except ImportError as error:
        raise BackendUnavailable("gsplat cannot be imported", expected="gsplat 1.5.3 for CUDA tensors", remedy="pip install gsplat") from error
    if arguments["rolling_shutter"] is None:
        del arguments["rolling_shutter"]  # gsplat's default is one of its own enum values
    return gsplat.rasterization(**arguments)


def _reject_missing(arguments: dict[str, Any]) -> None:
    """NotImplementedError for an option that only gsplat's CUDA kernels have."""
    for name in ("sparse_grad", "distributed", "with_ut", "with_eval3d"):
        if arguments[name]:
            raise NotImplementedError(f"{name}=True on CPU tensors: only gsplat's CUDA kernels have it")
    if arguments["camera_model"] != "pinhole":
        raise NotImplementedError(f"camera_model={arguments['camera_model']!r} on CPU tensors: only 'pinhole'")
    for name in ("radial_coeffs", "tangential_coeffs", "thin_prism_coeffs", "ftheta_coeffs", "rolling_shutter", "viewmats_rs"):
        if arguments[name] is not None:
            raise NotImplementedError(f"{name} on CPU tensors: only None")
    if arguments["sh_degree"] is not None and arguments["sh_degree"] > _MAX_DEGREE:
        raise NotImplementedError(f"sh_degree={arguments['sh_degree']} on CPU tensors: at most {_MAX_DEGREE}")


def _check(means: Tensor, quats: Tensor | None, scales: Tensor | None, opacities: Tensor, colors: Tensor, viewmats: Tensor, Ks: Tensor,
           backgrounds: Tensor | None, covars: Tensor | None, sh_degree: int | None) -> None:  # fmt: skip
    if means.dim() < 2:
        raise InputError(f"means has shape {tuple(means.shape)}", expected="(..., N, 3)")
    batch, count = means.shape[:-2], means.shape[-2]
    cameras = viewmats.shape[-3] if viewmats.dim() > 2 else -1
    _expect("means", means, [(*batch, count, 3)])
    _expect("viewmats", viewmats, [(*batch, cameras, 4, 4)])
    _expect("Ks", Ks, [(*batch, cameras, 3, 3)])
    _expect("opacities", opacities, [(*batch, count)])
    if cameras * math.prod(batch) == 0:
        raise InputError(f"{math.prod(batch)} batches of {cameras} cameras", expected="at least one of each")
    if covars is not None:
        _expect("covars", covars, [(*batch, count, 3, 3)])
    else:
        _expect("quats", quats, [(*batch, count, 4)])
        _expect("scales", scales, [(*batch, count, 3)])
    if sh_degree is None:
        depth = colors.shape[-1]
        _expect("colors", colors, [(*batch, count, depth), (*batch, cameras, count, depth)])
    else:
        depth, bases = 3, colors.shape[-2] if colors.dim() > 2 else 0
        _expect("colors", colors, [(*batch, count, bases, 3), (*batch, cameras, count, bases, 3)])
        if sh_degree < 0 or bases < (sh_degree + 1) ** 2:
            raise InputError(f"sh_degree {sh_degree} with {bases} coefficients", expected="(sh_degree + 1)^2 coefficients or more")
    if depth < 1:
        raise InputError("colors without a channel", expected="at least one channel", remedy="render_mode='D' ignores colors, but wants them")
    if backgrounds is not None:
        _expect("backgrounds", backgrounds, [(*batch, cameras, depth)])


def _expect(name: str, tensor: Tensor | None, shapes: list[tuple[int, ...]]) -> None:
    if not isinstance(tensor, Tensor):
        raise InputError(f"{name} is {type(tensor).__name__}", expected=f"a float32 tensor {' or '.join(map(str, shapes))}")
    if tensor.dtype != torch.float32 or tensor.device.type != "cpu":
        raise InputError(
            f"{name} is {tensor.dtype} on {tensor.device}", expected="float32 on the device of means (cpu)", remedy=f"{name}.float().cpu()"
        )
    if tuple(tensor.shape) not in shapes:
        raise InputError(f"{name} has shape {tuple(tensor.shape)}", expected=" or ".join(map(str, shapes)))


def _check_options(width: int, height: int, tile_size: int, render_mode: str, rasterize_mode: str) -> None:
    if width < 1 or height < 1 or tile_size < 1:
        raise InputError(f"an image of {width} x {height} pixels in tiles of {tile_size}", expected="at least 1 each")
    if render_mode not in _MODES:
        raise InputError(f"render_mode {render_mode!r}", expected=" or ".join(_MODES))
    if rasterize_mode not in ("classic", "antialiased"):
        raise InputError(f"rasterize_mode {rasterize_mode!r}", expected="classic or antialiased")
