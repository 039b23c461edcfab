"""Faces and tiles restored together against one by one: same networks, same process, same outputs.

    python benchmarks/restoration.py [--rounds 3] [--faces 4] [--side 256] [--threads 2]

Small networks of the real classes with random weights. On a GPU batches fill the device; on the CPU one face fills it as well, and what is gained is
the overhead of a call. Ratios of medians of interleaved rounds.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from svad_ray.nets.bfrffusion.control import FaceFeatures, TimePrompt
from svad_ray.nets.bfrffusion.networks import Networks, Options, Sizes, build_unet, build_vae, restore
from svad_ray.nets.rrdbnet import RRDBNet
from svad_ray.nets.upscale import enlarge

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.diffusion import interleaved

SMALL = Sizes(channels=32, heads=16, context=64, hidden=64, prompt_heads=4, time=128, vae=32)
STEPS, TILE, PAD, TILES = 2, 64, 10, 8


def small_networks() -> Networks:
    """BFRffusion of ``SMALL`` with random weights."""
    torch.manual_seed(0)
    features, prompt = FaceFeatures(SMALL.channels, SMALL.time), TimePrompt(SMALL.hidden, SMALL.context, heads=SMALL.prompt_heads)
    torch.nn.init.normal_(prompt.learnable_param)
    return Networks(build_unet(SMALL), features, prompt, build_vae(SMALL)).to("cuda" if torch.cuda.is_available() else "cpu")


def compare(name: str, together: Callable[[], np.ndarray], serial: Callable[[], np.ndarray], rounds: int) -> tuple[str, float, int]:
    """Name, seconds one by one over seconds together, largest difference in grey levels."""
    difference = int(np.abs(together().astype(int) - serial()).max())
    seconds = interleaved(together, serial, rounds)
    return name, seconds[1] / seconds[0], difference


def measure(faces: int, side: int, rounds: int) -> list[tuple[str, float, int]]:
    """Both comparisons."""
    random = np.random.default_rng(0)
    networks, crops = small_networks(), random.integers(0, 255, (faces, side, side, 3), np.uint8)
    torch.manual_seed(0)
    net, frame = RRDBNet(scale=2, blocks=2).eval().to(networks.device), random.integers(0, 255, (side, side, 3), np.uint8)
    return [
        compare(
            f"{faces} faces of {side} pixels, {STEPS} steps",
            lambda: restore(networks, crops, Options(steps=STEPS, batch=faces))[0],
            lambda: restore(networks, crops, Options(steps=STEPS, batch=1))[0],
            rounds,
        ),
        compare(
            f"tiles of {TILE} pixels, {TILES} at once",
            lambda: enlarge(net, frame, tile=TILE, tile_pad=PAD, batch=TILES),
            lambda: enlarge(net, frame, tile=TILE, tile_pad=PAD),
            rounds,
        ),
    ]


def main(argv: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--faces", type=int, default=4)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    table = Table("what", "one by one / together", "largest difference, grey levels", box=None)
    for name, ratio, difference in measure(args.faces, args.side, args.rounds):
        table.add_row(name, f"{ratio:.2f}", str(difference))
    Console(width=110).print(table)
    print(f"{'GPU' if torch.cuda.is_available() else 'CPU'}, {args.threads} threads, medians of {args.rounds} interleaved rounds")


if __name__ == "__main__":
    main()
