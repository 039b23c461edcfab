"""How fast a stored avatar moves: frames a second of posing and rasterising, side by side against one after another, and with the video's encoder.

    python benchmarks/animation.py out/demo [--motion walk] [--size 512] [--frames 56] [--threads 2] [--rounds 3]

Same frames, same process; the pictures of all ways are compared. Frames a second are medians of interleaved rounds, and depend on the machine's other
work, as the ratios do; CPU time (the least of all rounds) hardly does.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from svad_ray.body import load_body
from svad_ray.deliver import danced
from svad_ray.export.video import write_mp4
from svad_ray.splat import set_threads
from svad_ray.stages.avatar.asset import PosableAvatar
from svad_ray.store import load_avatar
from svad_ray.subject import Avatar, BodyTrack

SIDE_BY_SIDE, INSIDE, SERIAL = "frames side by side", "one frame at a time, threads inside it", "one after another, one thread"
ANEW, VIDEO = "static part made anew for every frame, side by side otherwise", "side by side, with the encoder of the video"


def ways(avatar: Avatar, track: BodyTrack, threads: int, video: Path) -> dict[str, Callable[[], Iterable[np.ndarray]]]:
    """Name -> frames; the video's way yields none, its frames go through the encoder."""
    kept = PosableAvatar(avatar)

    def one_by_one(count: int) -> Iterator[np.ndarray]:
        set_threads(count)
        for k in range(len(track)):
            yield next(iter(kept.frames_of(track.frames(slice(k, k + 1)))))

    def side_by_side() -> Iterator[np.ndarray]:
        set_threads(threads)
        return kept.frames_of(track)

    def anew() -> Iterator[np.ndarray]:
        set_threads(threads)
        for k in range(len(track)):
            yield next(iter(PosableAvatar(avatar).frames_of(track.frames(slice(k, k + 1)))))

    def encoded() -> Iterator[np.ndarray]:
        write_mp4(side_by_side(), video, track.fps)
        return iter(())

    return {SIDE_BY_SIDE: side_by_side, INSIDE: lambda: one_by_one(threads), SERIAL: lambda: one_by_one(1), ANEW: anew, VIDEO: encoded}


def measure(avatar: Avatar, track: BodyTrack, threads: int, rounds: int) -> tuple[dict[str, float], dict[str, float], dict[str, int]]:
    """Of every way: frames a second, least CPU milliseconds a frame, and largest difference from the serial frames in grey levels."""
    with tempfile.TemporaryDirectory(prefix="svad-ray-") as folder:
        chosen = ways(avatar, track, threads, Path(folder, "a.mp4"))
        truth = np.stack(list(chosen[SERIAL]())).astype(int)
        found = {name: np.stack(frames) for name, way in chosen.items() if (frames := list(way()))}
        seconds: dict[str, list[float]] = {name: [] for name in chosen}
        cpu = dict.fromkeys(chosen, float("inf"))
        for _ in range(rounds):
            for name, way in chosen.items():
                began, used = time.perf_counter(), time.process_time()
                for _ in way():
                    pass
                seconds[name].append(time.perf_counter() - began)
                cpu[name] = min(cpu[name], 1e3 * (time.process_time() - used) / len(track))
    rate = {name: len(track) / statistics.median(values) for name, values in seconds.items()}
    return rate, cpu, {name: int(np.abs(frames - truth).max()) for name, frames in found.items()}


def main(argv: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("avatar", type=Path)
    parser.add_argument("--body", type=Path)
    parser.add_argument("--motion", default="walk")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--frames", type=int, default=56)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    avatar = load_avatar(args.avatar)
    track = danced(avatar, args.motion, load_body(args.body), size=args.size).frames(slice(0, args.frames))
    rate, cpu, difference = measure(avatar, track, args.threads, args.rounds)
    set_threads(None)
    table = Table("way", "frames a second", "times serial", "CPU ms a frame", "largest difference, grey levels", box=None)
    for name, fps in rate.items():
        table.add_row(name, f"{fps:.1f}", f"{fps / rate[SERIAL]:.2f}", f"{cpu[name]:.1f}", str(difference.get(name, "")))
    Console(width=150).print(table)
    count = len(PosableAvatar(avatar).scales)
    print(f"{count} Gaussians, {args.size} px, {len(track)} frames of {args.motion}, {args.threads} threads, medians of {args.rounds} rounds")


if __name__ == "__main__":
    main()
