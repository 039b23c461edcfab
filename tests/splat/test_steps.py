"""Each compiled step alone, against gsplat's torch implementations in float64 or against numpy."""

from __future__ import annotations

import math

import numba
import numpy as np
import pytest
import torch
from gsplat.cuda._torch_impl import _quat_scale_to_covar_preci, _spherical_harmonics
from hypothesis import given, settings
from hypothesis import strategies as st

from svad_ray.splat.functions import Covariance, Harmonics, Projection, channel_groups
from svad_ray.splat.kernels import binning, simd

from . import dense
from .scenes import random_scene

ROWS, COLUMNS = [0, 0, 0, 1, 1, 2], [0, 1, 2, 1, 2, 2]


def gradients(output: torch.Tensor, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(2)).to(output)
    return list(torch.autograd.grad((output * weights).sum(), inputs))


def close(value: torch.Tensor, truth: torch.Tensor, tolerance: float = 2e-5) -> bool:
    return bool((value.double() - truth).norm() <= tolerance * truth.norm())


def test_covariance_and_its_gradient() -> None:
    scene = random_scene(200, 8, 8, seed=1)
    ours = [scene.quats.clone().requires_grad_(), scene.scales.clone().requires_grad_()]
    twin = [t.detach().double().requires_grad_() for t in ours]
    value = Covariance.apply(*ours)
    truth = _quat_scale_to_covar_preci(*twin, True, False)[0][:, ROWS, COLUMNS]
    assert close(value, truth)
    assert all(close(a, b) for a, b in zip(gradients(value, ours), gradients(truth, twin)))


def test_projection_and_its_gradient_also_outside_the_view() -> None:
    """Gaussians near the border use the clamped Jacobian, whose gradient differs."""
    scene = random_scene(400, 64, 48, seed=5)
    scene.means[:, 0] *= 6
    covars = _quat_scale_to_covar_preci(scene.quats.double(), scene.scales.double(), True, False)[0]
    ours = [scene.means.clone().requires_grad_(), covars[:, ROWS, COLUMNS].float().requires_grad_(), scene.viewmats[0].clone().requires_grad_()]
    means2d, conics, depths, radii, _, _ = Projection.apply(*ours, torch.ones(400), scene.Ks[0], (64, 48), (0.3, 0.01, 1e10, 0.0), False)
    twin = [scene.means.double().requires_grad_(), covars.requires_grad_(), scene.viewmats.double().requires_grad_()]
    true_radii, true_means2d, true_depths, true_conics, _ = dense.project(twin[0], None, None, twin[2], scene.Ks.double(), 64, 48, covars=twin[1])
    seen = (true_radii[0] > 0).all(-1)
    assert 50 < int(seen.sum()) < 400 and torch.equal((radii > 0).all(-1), seen)
    assert int((radii - true_radii[0]).abs().max()) <= 1  # ceil of a float32
    value = torch.cat([means2d * 0.01, conics, depths[:, None]], 1)[seen]
    truth = torch.cat([true_means2d[0] * 0.01, true_conics[0], true_depths[0][:, None]], 1)[seen]
    assert close(value, truth)
    v_means, v_upper, v_view = gradients(value, ours)
    t_means, t_covars, t_view = gradients(truth, twin)
    folded = (t_covars + t_covars.transpose(1, 2))[:, ROWS, COLUMNS] / torch.tensor([2.0, 1, 1, 2, 1, 2])  # the upper entries stand for both halves
    assert close(v_means, t_means, 1e-4) and close(v_upper, folded, 1e-4) and close(v_view[:3], t_view[0, :3], 1e-4)


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_harmonics_and_their_gradient(degree: int) -> None:
    g = torch.Generator().manual_seed(degree)
    ours = [torch.randn(100, 3, generator=g).requires_grad_(), torch.randn(100, 16, 3, generator=g).requires_grad_()]
    twin = [t.detach().double().requires_grad_() for t in ours]
    value = Harmonics.apply(*ours, torch.ones(100, 2, dtype=torch.int32), degree)
    truth = torch.clamp_min(_spherical_harmonics(degree, *twin) + 0.5, 0)
    assert close(value, truth) and int((truth == 0).sum()) > 5
    (v_directions, v_coefficients), (t_directions, t_coefficients) = gradients(value, ours), gradients(truth, twin)
    assert close(v_coefficients, t_coefficients)
    assert close(v_directions, t_directions, 1e-4)


def test_degree_0_looks_the_same_from_everywhere() -> None:
    directions, coefficients = torch.randn(9, 3, requires_grad=True), torch.rand(9, 1, 3)
    value = Harmonics.apply(directions, coefficients, torch.ones(9, 2, dtype=torch.int32), 0)
    assert torch.allclose(value, 0.5 + coefficients[:, 0] / (2 * math.sqrt(math.pi)))  # Y_0 = 1 / (2 sqrt(pi))
    assert float(torch.autograd.grad(value.sum(), directions)[0].abs().max()) == 0


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=300))
def test_depth_order_is_a_stable_sort(values: list[float]) -> None:
    depths = np.array(values, np.float32) + np.float32(0)  # -0 becomes 0: the sort sees bits, numpy sees numbers
    boxes = np.tile(np.array([0, 1, 0, 1], np.int32), (len(depths), 1))
    boxes[::7, 1] = 0
    visible = np.flatnonzero(boxes[:, 1] > 0)
    expected = visible[np.argsort(depths[visible], kind="stable")]
    assert np.array_equal(binning.depth_order(boxes, depths), expected)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 40), st.integers(1, 130), st.integers(1, 130))
def test_tile_lists_hold_every_pair_once(seed: int, count: int, width: int, height: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = np.sort(rng.integers(0, width + 1, (count, 2))), np.sort(rng.integers(0, height + 1, (count, 2)))
    boxes = np.concatenate([x, y], 1).astype(np.int32)
    order = binning.depth_order(boxes, rng.random(count, dtype=np.float32))
    tiles_x, tiles_y = -(-width // binning.TILE), -(-height // binning.TILE)
    offsets, ids, slots, firsts, room = binning.tile_lists(order, boxes, tiles_x, tiles_y)
    found = [(tile, int(i)) for tile in range(tiles_x * tiles_y) for i in ids[offsets[tile] : offsets[tile + 1]]]
    t = binning.TILE
    expected, blocks = [], []
    for tile in range(tiles_x * tiles_y):
        left, upper = tile % tiles_x * t, tile // tiles_x * t
        touched = 1
        for i in order:
            x0, x1, y0, y1 = boxes[i]
            if x0 < left + t and x1 > left and y0 < upper + t and y1 > upper:
                expected.append((tile, i))
                columns = {x // binning.BLOCK_WIDTH for x in range(max(x0, left), min(x1, left + t))}
                touched += len(columns) * len({y // binning.BLOCK_HEIGHT for y in range(max(y0, upper), min(y1, upper + t))})
        blocks.append(touched)
    assert found == expected
    assert sorted(slots) == list(range(len(expected))) and all(firsts[i] <= s < firsts[i + 1] for i, s in zip(ids, slots))
    assert np.diff(room).tolist() == blocks


def test_channel_groups_cover_all_channels() -> None:
    for channels in range(1, 40):
        groups = channel_groups(channels)
        covered = [first + k for first, tag in groups for k in range(len(tag)) if first + k < channels]
        assert covered == list(range(channels))


@numba.njit
def _exp2_of(values, out):
    for i in range(0, len(values), simd.LANES):
        simd.store(out, i, simd.exp2(simd.load(values, i)))


@numba.njit
def _lane_sums(values, out):
    x = simd.load(values, 0)
    simd.store_sums(out, 1, (x, x + simd.lane_numbers() * simd.broadcast(np.float32(10)), x * x, x, x, x, x, x, x + x, x * x))


def test_exp2_is_as_good_as_float32() -> None:
    x = np.concatenate([np.linspace(-8, 1, 80_000), np.arange(-8, 8)]).astype(np.float32)
    out = np.empty_like(x)
    _exp2_of(x, out)
    assert np.abs(out / np.exp2(x.astype(np.float64)) - 1).max() < 2.5e-7
    assert np.array_equal(out[-16:], np.exp2(np.arange(-8.0, 8.0)).astype(np.float32))  # whole powers are exact


def test_sums_of_lanes_land_in_their_places() -> None:
    out = np.full(12, -1, np.float32)
    _lane_sums(np.arange(8, dtype=np.float32), out)
    assert out.tolist() == [-1, 28, 308, 140, 28, 28, 28, 28, 28, 56, 140, -1]
