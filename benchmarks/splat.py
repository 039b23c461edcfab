"""How fast the CPU rasteriser is: ratios against a dense float64 twin, against gsplat's torch projection, and against the machine's peak.

    python benchmarks/splat.py [--threads 2] [--quick]

Everything runs in one process, so that the ratios survive a busy machine; wall times do not. The scene is shaped like a person:
six ellipsoid shells 1.7 m high that fill 85 % of the image, with Gaussians scattered over them by area.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numba
import numpy as np
import torch
from torch import Tensor

sys.path[:0] = [str(Path(__file__).parents[1])]  # the dense twin lives among the tests

from svad_ray.splat import rasterization, set_threads  # noqa: E402
from svad_ray.splat.functions import Covariance, Projection  # noqa: E402
from svad_ray.splat.kernels import binning, composite, jit, simd  # noqa: E402
from tests.splat import dense  # noqa: E402

SHELLS = (
    ((0, 0.35, 0), (0.17, 0.30, 0.12)), ((0, 0.78, 0), (0.09, 0.12, 0.10)), ((0.3, 0.42, 0), (0.22, 0.05, 0.05)),
    ((-0.3, 0.42, 0), (0.22, 0.05, 0.05)), ((0.1, -0.42, 0), (0.08, 0.44, 0.09)), ((-0.1, -0.42, 0), (0.08, 0.44, 0.09)),
)  # fmt: skip
FLOPS_FORWARD, FLOPS_BACKWARD = 40, 60  # per lane, counted by hand in `composite`


def _area(axes: tuple[float, float, float]) -> float:
    """Surface of an ellipsoid (Thomsen's approximation)."""
    a, b, c = (axis**1.6075 for axis in axes)
    return 4 * math.pi * ((a * b + a * c + b * c) / 3) ** (1 / 1.6075)


def person(count: int) -> list[Tensor]:
    """means, quats, scales, opacities, colors of ``count`` Gaussians; scales are 0.6 of their spacing, log-normal."""
    g = torch.Generator().manual_seed(0)
    areas = torch.tensor([_area(axes) for _, axes in SHELLS])
    shell = torch.multinomial(areas, count, replacement=True, generator=g)
    direction = torch.nn.functional.normalize(torch.randn(count, 3, generator=g), dim=1)
    centers, axes = torch.tensor([c for c, _ in SHELLS]), torch.tensor([a for _, a in SHELLS])
    spacing = math.sqrt(float(areas.sum()) / count)
    scales = 0.6 * spacing * torch.exp(0.5 * torch.randn(count, 3, generator=g))
    return [direction * axes[shell] + centers[shell], torch.randn(count, 4, generator=g), scales,
            0.5 + 0.49 * torch.rand(count, generator=g), torch.rand(count, 3, generator=g)]  # fmt: skip


def camera(size: int) -> tuple[Tensor, Tensor]:
    c, s = math.cos(0.3), math.sin(0.3)
    focal = 0.85 * size / 1.76 * 2.5
    view = torch.tensor([[c, 0, s, 0], [0, -1, 0, 0], [s, 0, -c, 2.5], [0, 0, 0, 1]])
    return view[None], torch.tensor([[[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]]])


def best(work: Callable[[], object], *, repeats: int) -> tuple[float, float]:
    """Least wall and least CPU time of the process over some repeats, in milliseconds."""
    wall, cpu = math.inf, math.inf
    for _ in range(repeats):
        w, c = time.perf_counter(), time.process_time()
        work()
        wall, cpu = min(wall, time.perf_counter() - w), min(cpu, time.process_time() - c)
    return 1e3 * wall, 1e3 * cpu


def both_ways(renderer: Callable[..., tuple[Tensor, ...]], gaussians: list[Tensor], size: int) -> tuple[Callable[[], object], Callable[[], object]]:
    """(forward alone, forward and backward) of a renderer over a white background."""
    dtype = gaussians[0].dtype
    inputs = [t.clone().requires_grad_() for t in gaussians]
    view, K = (t.to(dtype) for t in camera(size))
    white, weights = torch.ones(1, 3, dtype=dtype), torch.randn(1, size, size, 3, dtype=dtype)

    def forward() -> Tensor:
        return renderer(*inputs, view, K, size, size, backgrounds=white)[0]

    return forward, lambda: torch.autograd.grad(forward(), inputs, weights)


@numba.njit(fastmath=False)
def _fma_chains(rounds):
    """Ten independent chains of fused multiply-adds on eight lanes: what the core can do at most."""
    x, y = simd.broadcast(np.float32(0.999)), simd.broadcast(np.float32(1e-3))
    a, b, c, d, e = y, y, y, y, y
    f, g, h, i, j = y, y, y, y, y
    for _ in range(rounds):
        a, b, c, d, e = simd.fma(a, x, y), simd.fma(b, x, y), simd.fma(c, x, y), simd.fma(d, x, y), simd.fma(e, x, y)
        f, g, h, i, j = simd.fma(f, x, y), simd.fma(g, x, y), simd.fma(h, x, y), simd.fma(i, x, y), simd.fma(j, x, y)
    out = np.empty(1, np.float32)
    simd.store_sums(out, 0, (a + b + c + d + e + f + g + h + i + j,))
    return out[0]


def peak_gflops() -> float:
    """Measured float32 peak of one thread."""
    rounds = 2_000_000
    _fma_chains(10)
    return rounds * 10 * 8 * 2 / (best(lambda: _fma_chains(rounds), repeats=5)[1] * 1e6)


@numba.njit
def _lanes(boxes, packed, offsets, ids, tiles_x, width, height):
    """Lanes that a step of eight pixels along a row evaluates where it covers what an ellipse covers of a row of a tile, and no more."""
    lanes, pairs = 0, 0
    for tile in range(len(offsets) - 1):
        left, upper = (tile % tiles_x) * binning.TILE, (tile // tiles_x) * binning.TILE
        for i in ids[offsets[tile] : offsets[tile + 1]]:
            box, row = boxes[i], packed[i]
            x0, x1 = max(left, box[0]), min(left + binning.TILE, width, box[1])
            for y in range(max(upper, box[2]), min(upper + binning.TILE, height, box[3])):
                dy = row[1] - y - 0.5
                budget = row[5] - row[4] * dy * dy - composite._LOG2_ALPHA_MIN
                if budget < 0:
                    lanes += 8 if x1 - x0 <= 8 else 0
                    continue
                reach, centre = math.sqrt(budget / row[2]), row[0] + row[3] * dy - 0.5
                a, b = max(x0, math.ceil(centre - reach)), min(x1, math.floor(centre + reach) + 1)
                pairs += max(0, b - a)
                lanes += 8 if x1 - x0 <= 8 else max(0, (b - a + 7) // 8 * 8)
    return lanes, pairs


def count_lanes(gaussians: list[Tensor], size: int) -> tuple[int, int, int]:
    """From what a forward pass saved: lanes of the bound, pairs of Gaussian and pixel inside an ellipse, and pairs that changed a pixel."""
    means = gaussians[0].clone().requires_grad_()
    view, K = camera(size)
    image, _, _ = rasterization(means, *gaussians[1:], view, K, size, size)
    _, _, _, _, _, lists, tiles_x, _, counts, changed, _, _, packs = image.grad_fn.next_functions[0][0].inputs
    offsets, ids, _, _, room = lists
    boxes = meta_boxes(gaussians, size)
    used = np.add.reduceat(np.append(counts, 0), np.minimum(offsets[:-1], len(counts))) * (np.diff(offsets) > 0)
    masks = np.concatenate([changed[a : a + n] for a, n in zip(room, used)]) // 256
    return *_lanes(boxes, packs[0], offsets, ids, tiles_x, size, size), int(np.unpackbits(masks.astype(np.uint8)).sum())


def meta_boxes(gaussians: list[Tensor], size: int) -> np.ndarray:
    """Pixel boxes [N, 4] as the projection gives them."""
    view, K = camera(size)
    covars = Covariance.apply(*gaussians[1:3])
    return Projection.apply(gaussians[0], covars, view[0], gaussians[3], K[0], (size, size), (0.3, 0.01, 1e10, 0.0), False)[4].numpy()


def masked_stores() -> dict[str, int]:
    """vmaskmov instructions in the compositing kernels, compiled afresh; more than 0 means a lost speed trap."""
    f, i, tag = numba.float32, numba.int64, numba.types.UniTuple(numba.float64, 3)
    arrays = {n: numba.types.Array(f, n, "C") for n in (1, 2, 3)}
    ints = {n: numba.types.Array(numba.int32, n, "C") for n in (1, 2)}
    lists = (arrays[2], ints[2], ints[1], ints[1])
    forward = (i, i, *lists, i, tag, i, arrays[1], arrays[3], arrays[2], arrays[2])
    backward = (i, i, *lists, ints[1], i, tag, i, arrays[1], arrays[2], arrays[2], arrays[3], arrays[2], arrays[2])
    found = {}
    for kernel, signature in ((composite.composite_forward, forward), (composite.composite_backward, backward)):
        fresh = numba.njit(**jit.OPTIONS)(kernel.py_func)
        fresh.compile(signature)
        found[kernel.__name__] = next(iter(fresh.inspect_asm().values())).count("vmaskmov")
    return found


def projection_ratio(count: int) -> float:
    """gsplat's torch projection in float32 against our covariance and projection kernels, forward, one thread each."""
    means, quats, scales, opacities, _ = person(count)
    view, K = camera(256)
    planes = (0.3, 0.01, 1e10, 0.0)
    ours = best(lambda: Projection.apply(means, Covariance.apply(quats, scales), view[0], opacities, K[0], (256, 256), planes, False), repeats=7)
    theirs = best(lambda: dense.project(means, quats, scales, view, K, 256, 256), repeats=7)
    print(f"projection of {count}: ours {ours[1]:.1f} ms, gsplat's torch {theirs[1]:.1f} ms CPU")
    return theirs[1] / ours[1]


def report(count: int, size: int, threads: int, peak: float, *, repeats: int) -> None:
    gaussians = person(count)
    lanes = count_lanes(gaussians, size)
    for number in sorted({1, threads}):
        set_threads(number)
        forward, whole = both_ways(rasterization, gaussians, size)
        whole()
        (fw, fc), (ww, wc) = best(forward, repeats=repeats), best(whole, repeats=repeats)
        limit = lanes * (FLOPS_FORWARD + FLOPS_BACKWARD) / peak / 1e6
        times = f"forward {fw:5.1f} ms wall, {fc:5.1f} CPU; with backward {ww:5.1f} wall, {wc:5.1f} CPU"
        print(f"{count:6d} Gaussians {size:3d} px, {number} thread(s): {times}")
        print(f"       {lanes / 1e6:.2f} M lanes: {wc / limit:.1f} x the CPU time that blending alone would take at FMA peak")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="fewer repeats, the small scene only")
    options = parser.parse_args()
    torch.set_num_threads(1)
    repeats = 3 if options.quick else 11
    peak = peak_gflops()
    print(f"FMA peak of one thread: {peak:.0f} GFLOP/s")
    for count, size in ((20_000, 256),) if options.quick else ((20_000, 256), (100_000, 512)):
        report(count, size, options.threads, peak, repeats=repeats)
    set_threads(1)
    small = person(1000)
    ours, twin = both_ways(rasterization, small, 48), both_ways(dense.render, [t.double() for t in small], 48)
    for name, a, b in zip(("forward", "forward + backward"), ours, twin):
        a()
        ratio = best(b, repeats=2)[1] / best(a, repeats=repeats)[1]
        print(f"1000 Gaussians 48 px, {name}: {ratio:.0f} x faster than the dense float64 twin")
    print(f"projection: {projection_ratio(20_000 if options.quick else 100_000):.1f} x faster than gsplat's torch implementation")
    print("masked stores:", masked_stores())


if __name__ == "__main__":
    main()
