"""The paper's fit, ours against the original order of work: the same people, key points, first poses and machine.

Ours: Gauss-Newton on all frames at once, then a part of the schedule. The original's: the whole schedule, 64 frames after 64 frames.

    python -m benchmarks.fit --frames 64

prints for both, for each of three people in a full turn, the seconds, the original's own loss with its own first poses, the joints' error and the
reprojection; then the loss that ours has after the same schedule's terms with the original's anchors, and the ratio of seconds up to there.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch

from svad_ray.body import load_body
from svad_ray.body.model import Body
from svad_ray.conventions import WHOLEBODY_FACE
from svad_ray.evaluate.synthetic.tracks import drifted, joint_error_mm, reprojection_px, seen_clip, turning_person
from svad_ray.fitting.paper.losses import Losses, Start
from svad_ray.fitting.paper.model import FitBodies, State
from svad_ray.fitting.paper.solve import EXAVATAR, Schedule, fit
from svad_ray.fitting.paper.staged import settle
from svad_ray.fitting.paper.targets import Targets, make_targets
from svad_ray.fitting.paper.tracks import begin, smoothed, to_track
from svad_ray.subject import BodyTrack

BATCH = 64
MESH_EVERY = 33  # of the body's vertices, the mesh term of ours is taken on one in so many
TO_THE_LOSS = replace(EXAVATAR.scaled(0.9), warm_up=0, first_every=20)  # until the original's loss is reached; its first poses pull far


@dataclass(frozen=True)
class Problem:
    """One clip: the truth, the first guess, what is seen of it, and the fit's form of both."""

    truth: BodyTrack
    guess: BodyTrack
    clean: np.ndarray
    targets: Targets
    state: State
    start: Start


def problem(body: Body, bodies: FitBodies, seed: int, frames: int, degrees: float) -> Problem:
    """Person ``seed``; the guess is ``degrees`` off."""
    truth = turning_person(body, seed, frames)
    guess, seen = drifted(truth, seed=seed, degrees=degrees), seen_clip(body, truth, seed=seed)
    cameras = np.stack([truth.Ks[:, 0, 0], truth.Ks[:, 1, 1], truth.Ks[:, 0, 2], truth.Ks[:, 1, 2]], 1)
    targets, _ = make_targets(seen.keypoints, seen.scores, cameras, seen.scores[:, WHOLEBODY_FACE].max(1) > 0)
    return Problem(truth, guess, seen.clean, targets, *begin(bodies, guess, keep_shape=False))


class Row(NamedTuple):
    """What one way makes of a clip: seconds, the original's loss with its own first poses, mean errors of joints and of key points."""

    way: str
    seconds: float
    loss: float
    joints_mm: float
    px: float

    def __str__(self) -> str:
        return f"{self.way:28s} {self.seconds:7.1f} s  loss {self.loss:.4f}  joints {self.joints_mm:5.1f} mm  {self.px:5.2f} px"


def measured(body: Body, seed: int, frames: int, *, degrees: float, original: Schedule) -> Iterator[Row]:
    """The first guess, Gauss-Newton, then the terms from there, and the original, as they are found."""
    full, ours = FitBodies(body), FitBodies(body, mesh_rows=np.arange(0, len(body.v_template), MESH_EVERY))
    task, judge, quick = problem(body, full, seed, frames, degrees), Losses(full), Losses(ours)

    def row(way: str, state: State, seconds: float) -> Row:
        track = smoothed(to_track(full, state, task.guess))
        with torch.no_grad():
            loss = float(torch.stack(list(judge.main(state, task.targets, task.start, relaxed=True).values())).sum())
        return Row(way, seconds, loss, joint_error_mm(body, track, task.truth), reprojection_px(body, track, task.clean))

    yield row("first guess", task.state, 0.0)
    began = time.perf_counter()
    state = settle(ours, task.state, task.targets, quick.face_seen(task.state, task.targets, task.start), fps=task.truth.fps)
    settled = time.perf_counter() - began
    yield row("gauss-newton", state, settled)
    began = time.perf_counter()
    state = fit(quick, state, task.targets, task.start, TO_THE_LOSS)
    yield row("gauss-newton, then the terms", state, settled + time.perf_counter() - began)
    began = time.perf_counter()
    state = fit(judge, task.state, task.targets, task.start, replace(original, batch=BATCH))
    yield row("original", state, time.perf_counter() - began)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--people", type=int, default=3)
    parser.add_argument("--degrees", type=float, default=5.0, help="how far the joints of the first guess are turned away")
    parser.add_argument("--share", type=float, default=1.0, help="of the original's steps that are taken")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    body = load_body()
    for seed in range(given.people):
        rows = []
        for row in measured(body, seed, given.frames, degrees=given.degrees, original=EXAVATAR.scaled(given.share)):
            print(f"{seed}  {row}", flush=True)
            rows.append(row)
        ours, theirs = rows[-2:]
        print(f"{seed}  {theirs.seconds / ours.seconds:.1f} times as fast, at a {'lower' if ours.loss <= theirs.loss else 'HIGHER'} loss", flush=True)


if __name__ == "__main__":
    main()
