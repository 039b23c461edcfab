"""Our training of the avatar ``exavatar`` against the original's order of work: the same scene, networks and machine.

Ours: a start fitted to the mesh's vertices, two renders of the person's crop, what no pose changes prepared once, structural terms in compiled loops,
the perceptual term on a window of the crop (on a GPU: on the whole crop), few fused optimiser groups. The original's: ``original_order.py``, which
says what it does. ``--start ours``: each as a user runs it, the original from random weights with its rates and warm-up, ours with its start, whose
time counts. ``--start same``: both from our start, which then costs neither, with our rates, to compare single steps.

    python benchmarks/training.py --size 512 --levels 0 --steps 4 --lpips --start same
    python benchmarks/training.py --size 160 --steps 1000 --lpips --only original --out original.json     (half an hour on a core)
    python benchmarks/training.py --size 160 --steps 100 --lpips --only ours --against original.json

prints seconds a step of both (of one thread: its CPU time, which a busy machine disturbs less), their ratio, PSNR over time (mean over the frames,
pose-dependent Gaussians; the last number is of frames between the training's), PSNR after equal steps, and how long each took to the PSNR with which
the original's order ended. All steps count as one training: rates fall in its last quarter.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from original_order import OriginalOrder  # beside this file

from svad_ray.body import load_body
from svad_ray.body.model import Body
from svad_ray.config import AvatarConfig
from svad_ray.evaluate.metrics import psnr
from svad_ray.fitting.clothed import clothed_surface
from svad_ray.fitting.state import pose_body, state_of
from svad_ray.geometry.raster import interpolate, rasterize_mesh, to_camera
from svad_ray.motion import retarget
from svad_ray.motion.builtin import a_pose_turn
from svad_ray.nets.device import training_device
from svad_ray.nets.exavatar.mesh import avatar_mesh
from svad_ray.nets.exavatar.model import AvatarModel
from svad_ray.nets.lpips import Lpips
from svad_ray.stages.animate.embedded import spread
from svad_ray.stages.avatar.bake import regions_of
from svad_ray.stages.avatar.colors import View
from svad_ray.stages.avatar.exavatar import REFRESH, fresh_networks
from svad_ray.stages.avatar.exavatar_training import Perceptual, Poses, Trainer, cropped, draw, train_exavatar
from svad_ray.stages.avatar.first import begin, closing, inset
from svad_ray.stages.avatar.gaussian import clip_views
from svad_ray.stages.avatar.regularisers import Regularisers
from svad_ray.subject import BodyTrack, Clip

RATE = 0.001  # the original's
PAPER_STEPS = 12_750


@dataclass(frozen=True)
class Problem:
    """A coloured body in a turn, with the true pictures; every second frame is for training."""

    body: Body
    track: BodyTrack
    views: list[View]
    unseen: list[View]
    unseen_track: BodyTrack


def problem(body: Body, size: int, frames: int) -> Problem:
    """A body whose colour is a function of its rest position, with broad and fine changes."""
    nobody = BodyTrack(**{**vars(a_pose_turn(2)), "betas": np.zeros(20, np.float32), "body_id": body.id})
    track = retarget(spread(a_pose_turn(), 2 * frames + 1), person=nobody, body=body, size=size).frames(slice(0, 2 * frames))
    surface = clothed_surface(body, track.betas, None)
    color = 0.5 + 0.3 * np.sin(surface.rest * [9.0, 7.0, 11.0]) + 0.15 * np.sin(surface.rest[:, [1, 2, 0]] * 60.0)
    joints = body.J_regressor @ body.v_template
    skin = pose_body(body, joints, state_of(track).pose, state_of(track).transl).skin
    pictures, masks = np.full((len(track), size, size, 3), 255, np.uint8), np.zeros((len(track), size, size), np.uint8)
    for i in range(len(track)):
        buffers = rasterize_mesh(to_camera(surface.posed(skin[i]), track.viewmats[i]), surface.faces, track.Ks[i], size, size)
        pictures[i][buffers.mask] = interpolate(buffers, surface.faces, color) * 255
        masks[i][buffers.mask] = 255
    views = clip_views(body, joints, Clip(pictures, masks, track, ("",) * len(track)), track)
    return Problem(body, track.frames(slice(0, None, 2)), views[::2], views[1::2], track.frames(slice(1, None, 2)))


def lpips_of(kind: str, device: torch.device, precision: torch.dtype | None) -> Lpips | None:
    """The perceptual network: "vgg", "random" (its size with random weights: for times where its file is not there), or none."""
    if kind == "none":
        return None
    if kind == "vgg":
        return Lpips("vgg").to(device, precision)
    from svad_ray.nets.lpips import BACKBONES

    found = Lpips.__new__(Lpips)
    found.layout = BACKBONES["vgg"]
    widths, rng = (3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512), torch.Generator().manual_seed(0)
    found.convs = [(torch.randn(b, a, 3, 3, generator=rng) * (2 / (9 * a)) ** 0.5, torch.zeros(b)) for a, b in pairwise(widths)]
    found.heads = [torch.full((1, c, 1, 1), 1 / c) for c in (64, 128, 256, 512, 512)]
    return found.to(device, precision)


class Ours:
    """Our trainer of the problem."""

    like_ours = True  # starts from what our start leaves

    def __init__(self, given: Problem, a: argparse.Namespace, *, precision: torch.dtype | None = None) -> None:
        self.given, self.settings, self.prefit = given, AvatarConfig(), a.prefit
        self.same, self.precision = a.start == "same", precision
        mesh = avatar_mesh(given.body, regions_of(given.body), levels=a.levels)
        networks = fresh_networks(given.track, triplane=a.triplane, seed=0)
        below = torch.from_numpy(inset(given.body, given.track, mesh)) if self.like_ours else None
        self.model = AvatarModel(mesh.to(a.device), networks, surface_offset=below, precision=precision)
        canonical = self.model.canonical().mesh.detach()
        closed = closing(canonical.cpu().numpy(), mesh.faces)
        regularisers = Regularisers(mesh, canonical, networks.joint_offset.detach().clone(), closed=closed, device=a.device)
        poses = Poses((given.track,), min(50, given.body.exprdirs.shape[-1]), device=a.device)
        network = lpips_of(a.lpips, torch.device(a.device), precision)
        cuda = a.device == "cuda"
        views = [view.to(a.device) for view in cropped(given.views, alike=cuda)]
        perceptual = Perceptual(network.distances, 0 if cuda else a.window) if network else None
        self.trainer = Trainer(self.model, regularisers, poses, views, lpips=perceptual, gentle=True, refresh=REFRESH, every=a.every)
        self.mesh, self.network = mesh, network
        if a.compile and precision is not None:
            self.model.compile()
            if perceptual and network:
                network.compile()
                self.trainer.lpips = Perceptual(network.distances)

    def begin(self) -> None:
        """Our start: colours from the views, and the fit to them."""
        c, given = self.settings, self.given
        start = {"looks": c.color_views, "steps": self.prefit, "rate": c.exavatar.prefit_rate, "seed": 0}
        if self.same:  # to the last bit: the original's order knows no half precision
            self.model.precision = None
        begin(self.model, self.mesh, given.body, given.track, given.views, **start)
        self.model.precision = self.precision

    def train(self, *, iterations: int, progress: Any) -> None:
        """All steps."""
        rate = self.settings.exavatar.rate
        train_exavatar(self.trainer, iterations=iterations, rate=rate, seed=0, progress=lambda done: progress(round(done * iterations)))

    def refined(self, track_row: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> Any:
        """Refined Gaussians of a pose."""
        return self.model.posed(*track_row).refined


class Original(Ours):
    """The original's order on the same problem."""

    def __init__(self, given: Problem, a: argparse.Namespace, *, precision: torch.dtype | None = None) -> None:
        self.like_ours = a.start == "same"
        super().__init__(given, a)
        self.whole = [view.to(a.device) for view in given.views]

    def begin(self) -> None:
        """Nothing, or our start where it is to be the same."""
        if self.like_ours:
            super().begin()

    def train(self, *, iterations: int, progress: Any) -> None:
        """All steps."""
        distance = self.network.distance if self.network else None
        ours = self.trainer
        order = OriginalOrder(self.model, self.mesh, ours.regularisers, ours.poses, self.whole, distance, like_ours=self.like_ours)
        order.train(iterations=iterations, rate=RATE, seed=0, progress=progress)


@torch.no_grad()
def quality(kind: Ours, given: Problem, device: str) -> tuple[float, float]:
    """Mean PSNR in dB of the refined Gaussians on white, whole frames: the training's, and those between them."""
    found = []
    for track, views in ((given.track, given.views), (given.unseen_track, given.unseen)):
        poses, figures = Poses((track,), min(50, given.body.exprdirs.shape[-1]), device=device), []
        for i, view in enumerate(views):
            image, _ = draw(kind.refined(poses.of(i)), view.to(device))
            figures.append(psnr(image[0].permute(1, 2, 0).cpu().numpy().astype(np.float64), view.image.numpy().astype(np.float64)))
        found.append(round(float(np.mean(figures)), 3))
    return found[0], found[1]


def measure(kind: Ours, given: Problem, a: argparse.Namespace) -> dict[str, Any]:
    """Seconds a step, and the curve [(step, seconds of training, PSNR, PSNR held out)]; looking at the quality is not counted."""

    def now() -> float:
        if a.device == "cuda":
            torch.cuda.synchronize()
        return time.process_time() if a.device == "cpu" and a.threads == 1 else time.perf_counter()

    looks = sorted({0, 1, 2, 5, *range(0, a.steps, max(1, a.steps // a.looks)), a.steps})
    begun = now()
    kind.begin()
    spent = now() - begun if a.start == "ours" else 0.0
    curve = [(0, round(spent, 3), *quality(kind, given, a.device))]
    print(type(kind).__name__, *curve[-1], flush=True)
    begun = now()

    def progress(step: int) -> None:
        nonlocal spent, begun
        if step not in looks:
            return
        spent += now() - begun
        curve.append((step, round(spent, 3), *quality(kind, given, a.device)))
        print(type(kind).__name__, *curve[-1], flush=True)
        begun = now()

    kind.train(iterations=a.steps, progress=progress)
    first = next(i for i, row in enumerate(curve) if row[0] >= min(2, a.steps - 1))
    steps, seconds = curve[-1][0] - curve[first][0], curve[-1][1] - curve[first][1]
    return {"step_s": seconds / max(1, steps), "gaussians": len(kind.model.mesh), "curve": curve}


def _profile(kind: Ours) -> None:
    """Print the kernels of five steps, by their time on the device and on the host."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        kind.train(iterations=5, progress=lambda step: None)
        torch.cuda.synchronize()
    for order in ("self_cuda_time_total", "self_cpu_time_total"):
        print(seen.key_averages().table(sort_by=order, row_limit=30, max_name_column_width=60), flush=True)


def seconds_to(curve: list[Any], wanted: float) -> float | None:
    """Seconds until the curve reaches a PSNR, between two looks in a straight line."""
    if curve[0][2] >= wanted:
        return float(curve[0][1])
    for before, after in pairwise(curve):
        if after[2] >= wanted > before[2]:
            return float(before[1] + (after[1] - before[1]) * (wanted - before[2]) / (after[2] - before[2]))
    return None


def report(found: dict[str, Any]) -> dict[str, Any]:
    """Ratios of the two."""
    if not {"ours", "original"} <= set(found):
        return {}
    ours, original = found["ours"], found["original"]
    end = original["curve"][-1]
    took = seconds_to(ours["curve"], end[2])
    at = {row[0]: row[2:] for row in ours["curve"]}
    return {
        "ratio_per_step": round(original["step_s"] / ours["step_s"], 2),
        "psnr_original_last": end[2:],
        "psnr_after_equal_steps": {row[0]: (row[2:], at[row[0]]) for row in original["curve"] if row[0] in at},
        "seconds_to_original_last": (end[1], took),
        "ratio_to_original_last": round(end[1] / took, 2) if took else None,
    }


def main(given_arguments: Sequence[str] | None = None) -> None:
    """Run what is asked for and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    numbers = (
        ("size", 512),
        ("frames", 4),
        ("levels", 0),
        ("triplane", 128),
        ("steps", 4),
        ("looks", 20),
        ("threads", 1),
        ("window", 96),
        ("every", 1),
        ("prefit", AvatarConfig().exavatar.prefit),
    )
    for name, value in numbers:
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--lpips", nargs="?", const="vgg", default="none", choices=("none", "vgg", "random"), help="with the perceptual terms")
    parser.add_argument("--start", choices=("ours", "same"), default="ours", help="each with its own start, counted, or both with ours, for nothing")
    parser.add_argument("--only", choices=("ours", "original"), help="one of the two")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="auto", help="of our networks and LPIPS, as avatar.precision")
    parser.add_argument("--compile", action="store_true", help="ours by torch.compile, with bfloat16")
    parser.add_argument("--profile", action="store_true", help="print where our steps on a GPU spend their time")
    parser.add_argument("--body", default="", help="a body file; the open body without one")
    parser.add_argument("--out", default="", help="keep the JSON object here")
    parser.add_argument("--against", default="", help="JSON object of a run of the other")
    a = parser.parse_args(given_arguments)
    torch.set_num_threads(a.threads)
    given = problem(load_body(a.body or None), a.size, a.frames)
    found: dict[str, Any] = json.loads(Path(a.against).read_text()) if a.against else {}
    _, precision = training_device(a.device, a.precision)
    for name in (a.only,) if a.only else ("ours", "original"):
        made = Original if name == "original" else Ours
        if a.device == "cpu":  # kernels are compiled outside the measurement
            once = made(given, a, precision=precision)
            once.begin()
            once.train(iterations=1, progress=lambda step: None)
        torch.manual_seed(0)
        kind = made(given, a, precision=precision)
        found[name] = measure(kind, given, a)
        if a.device == "cuda":
            found[name] |= {
                "minutes_of_12750": round(found[name]["step_s"] * PAPER_STEPS / 60, 2),
                "peak_gib": torch.cuda.max_memory_allocated() / 2**30,
            }
            print(json.dumps({name: {key: found[name][key] for key in ("step_s", "minutes_of_12750", "peak_gib", "gaussians")}}), flush=True)
        if a.profile:
            _profile(kind)
    found |= {"settings": vars(a), **report(found)}
    text = json.dumps(found)
    print(text)
    if a.out:
        Path(a.out).write_text(text)


if __name__ == "__main__":
    main()
