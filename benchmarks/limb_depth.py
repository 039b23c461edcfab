"""Learn how deep a photo's joints lie, and measure it on people left out: the table of ``svad_ray.fitting.limb_depth``.

    python -m benchmarks.limb_depth render FOLDER [--seeds 41000-41100]     about ten seconds a person of seven pictures; goes on where it stopped
    python -m benchmarks.limb_depth learn FOLDER [--to TABLE] [--seeds ...]

People are ``random_person(seed)`` in poses of ``svad_ray.evaluate.synthetic.gaits``. No figure of the results page or of docs/quality.md is
measured on these seeds, and its poses are not among these poses. ``learn`` prints the errors of joints in depth, millimetres, in five parts by
people, each told by what was learned on the other four; their covariance is stored with the table.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from svad_ray.body.names import JOINT_INDEX as J
from svad_ray.evaluate.synthetic import build, random_person
from svad_ray.evaluate.synthetic.gaits import Kind, random_photo
from svad_ray.fitting.keypoints import person_size
from svad_ray.fitting.limb_depth import JOINTS, MIRRORED, TABLE, DepthTable, features, mirrored
from svad_ray.geometry.raster import to_camera
from svad_ray.subject import Photo

MOMENTS: tuple[Kind, ...] = ("gait", "gait", "gait", "gait", "gesture", "stand", "stand")
PARTS = 5
HIDDEN, MEMBERS, STEPS, BATCH = 48, 6, 600, 256
RATE, DECAY, NOISE = 4e-3, 3e-2, 0.15  # of the learning; noise in standard deviations of the features
DIRECTIONS = 25  # in which the pictures differ most, for what is unlike them
SHRINK, FLOOR = 0.1, 0.004  # of the covariance: off-diagonal share taken off, standard deviation added
UNIT_MM = 540  # what an adult's pelvis-head length is about; for printing


@dataclass(frozen=True)
class Samples:
    """Features (N, F), true depths (N, K) in pelvis-head lengths, and the seed of each."""

    x: np.ndarray
    y: np.ndarray
    seed: np.ndarray

    def of(self, some: np.ndarray) -> Samples:
        return Samples(self.x[some], self.y[some], self.seed[some])

    def both_ways(self) -> Samples:
        """With the mirror's pictures."""
        return Samples(*(np.concatenate(pair) for pair in ((self.x, mirrored(self.x)), (self.y, self.y[:, MIRRORED]), (self.seed, self.seed))))


def render_people(folder: Path, seeds: range) -> None:
    """One file of samples for every person."""
    from svad_ray.stages.perceive.embedded import MediaPipePerceive

    perceive = MediaPipePerceive()
    perceive.setup()
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        path = folder / f"{seed}.npz"
        if path.exists():
            continue
        start, rng, character = time.process_time(), np.random.default_rng([seed, 31]), build(random_person(seed))
        rest, xs, ys = character.joints, [], []
        for kind in MOMENTS:
            view, _ = random_photo(rng, character, kind)
            seen = perceive(Photo(f"{seed}", view.image, ""))
            x = features(seen, person_size(seen)) if seen.people else None
            if x is not None:
                z = -to_camera(view.joints3d, view.viewmat)[:, 2]
                xs.append(x)
                ys.append((z[list(JOINTS)] - z[0]) / np.linalg.norm(rest[J["head"]] - rest[0]))
        np.savez(path, x=np.array(xs), y=np.array(ys))
        print(f"{seed}: {len(xs)} pictures, {time.process_time() - start:.1f} s", flush=True)


def load_samples(folder: Path, seeds: range) -> Samples:
    """What :func:`render_people` wrote of these seeds."""
    found = [(seed, np.load(folder / f"{seed}.npz")) for seed in seeds if (folder / f"{seed}.npz").exists()]
    found = [(seed, one) for seed, one in found if len(one["x"])]
    if not found:
        raise SystemExit(f"{folder} holds no pictures of seeds {seeds.start}-{seeds.stop}: run render first")
    seed = np.concatenate([np.full(len(one["x"]), number) for number, one in found])
    return Samples(np.concatenate([one["x"] for _, one in found]), np.concatenate([one["y"] for _, one in found]), seed)


def learn(samples: Samples, *, seed: int = 0, steps: int = STEPS, members: int = MEMBERS) -> DepthTable:
    """A committee that tells depths from features, without its covariance."""
    g = torch.Generator().manual_seed(seed)
    mean, spread = samples.x.mean(0), np.maximum(samples.x.std(0), 0.02)
    middle, scale = samples.y.mean(0), samples.y.std(0)
    x, y = (torch.tensor(a, dtype=torch.float32) for a in ((samples.x - mean) / spread, (samples.y - middle) / scale))
    sizes = (x.shape[1], HIDDEN, HIDDEN, y.shape[1])
    layers = [
        (
            (0.7 * torch.randn(members, i, o, generator=g) / i**0.5).requires_grad_(),
            torch.zeros(members, o, requires_grad=True),
        )
        for i, o in pairwise(sizes)
    ]
    adam = torch.optim.AdamW([p for layer in layers for p in layer], lr=RATE, weight_decay=DECAY)
    rate = torch.optim.lr_scheduler.OneCycleLR(adam, 2 * RATE, total_steps=steps)
    for _ in range(steps):
        some = torch.randint(len(x), (members, BATCH), generator=g)
        h = x[some] + NOISE * torch.randn(members, BATCH, x.shape[1], generator=g)
        for k, (weight, bias) in enumerate(layers):
            h = torch.bmm(h, weight) + bias[:, None]
            h = torch.tanh(h) if k + 1 < len(layers) else h
        adam.zero_grad()
        torch.nn.functional.smooth_l1_loss(h, y[some]).backward()
        adam.step()
        rate.step()
    stored = tuple((w.detach().numpy().astype(np.float64), b.detach().numpy().astype(np.float64)) for w, b in layers)
    basis, limit = familiar((samples.x - mean) / spread)
    return DepthTable(mean, spread, stored, middle, scale, np.zeros((2, y.shape[1], y.shape[1])), basis, limit)


def familiar(x: np.ndarray) -> tuple[np.ndarray, float]:
    """The directions in which features (N, F) differ, scaled to vary by one, and the length that one in a hundred exceeds."""
    value, vector = np.linalg.eigh(np.cov(x.T))
    basis = vector[:, -DIRECTIONS:] / np.sqrt(np.maximum(value[-DIRECTIONS:], 1e-6))
    return basis, float(np.quantile(np.linalg.norm(x @ basis, axis=1), 0.99))


def left_out(samples: Samples, *, steps: int = 2 * STEPS // 3, members: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """(N, K) errors of people told by what was learned on others, and (N,) how strange they were."""
    people = {seed: i % PARTS for i, seed in enumerate(np.unique(samples.seed))}
    part = np.array([people[seed] for seed in samples.seed])
    error, strange = np.zeros_like(samples.y), np.zeros(len(part))
    for k in range(PARTS):
        table, here = learn(samples.of(part != k).both_ways(), steps=steps, members=members), part == k
        ahead, turned = table.predict(samples.x[here]), table.predict(mirrored(samples.x[here]))[:, MIRRORED]
        error[here] = (ahead + turned) / 2 - samples.y[here]
        strange[here] = table.strangeness(samples.x[here])
    return error, strange


def covariance(error: np.ndarray) -> np.ndarray:
    """(K, K) of errors (N, K), both ways, careful with what few samples tell."""
    both = np.concatenate([error, error[:, MIRRORED]])
    c = both.T @ both / len(both)
    return (1 - SHRINK) * c + SHRINK * np.diag(np.diag(c)) + FLOOR**2 * np.eye(len(c))


def report(label: str, error: np.ndarray) -> None:
    """Root mean squares of each pair of joints, millimetres, and of the distance between the ankles."""
    mm = UNIT_MM * np.sqrt((error**2).mean(0))
    names = ("hips", "knees", "ankles", "feet", "shoulders", "elbows", "wrists")
    cells = [f"{name} {np.sqrt((mm[2 * i] ** 2 + mm[2 * i + 1] ** 2) / 2):.0f}" for i, name in enumerate(names)]
    stride = UNIT_MM * np.sqrt(((error[:, 4] - error[:, 5]) ** 2).mean())
    print(f"{label:22s} {len(error):4d} pictures: {', '.join(cells)}, neck {mm[14]:.0f}, head {mm[15]:.0f}; ankles apart {stride:.0f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("render", "learn"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", default="41000-41100", help="first and one past the last")
    parser.add_argument("--to", type=Path, default=TABLE)
    options = parser.parse_args()
    seeds = range(*(int(n) for n in options.seeds.split("-")))
    if options.what == "render":
        return render_people(options.folder, seeds)
    samples = load_samples(options.folder, seeds)
    error, strange = left_out(samples)
    apart = samples.x[:, -5] > 0
    report("left out", error)
    report("legs seen apart", error[apart])
    report("legs not seen apart", error[~apart])
    report("spread of the truth", samples.y - samples.y.mean(0))
    print(f"strangeness of people left out: half below {np.median(strange):.2f}, nine in ten below {np.quantile(strange, 0.9):.2f}")
    table = replace(learn(samples.both_ways()), covariance=np.stack([covariance(error[~apart]), covariance(error[apart])]))
    table.save(options.to)
    print(f"{options.to}: {options.to.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main()
