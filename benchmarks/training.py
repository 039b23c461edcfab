"""Our training step of the avatar ``exavatar`` against the original's order of work: the same scene, weights and machine.

Ours: two renders of the person's crop, features looked up once a step, structural terms on the crop. The original's: five renders of the whole
frame, a scene of Gaussians, and the features once for each of the heads that read them.

    python benchmarks/training.py --size 512 --levels 0 --steps 6

prints seconds a step of both, their ratio, and PSNR (mean over the frames, pose-dependent Gaussians) over time.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from svad_ray.body import load_body
from svad_ray.evaluate.metrics import psnr
from svad_ray.fitting.clothed import clothed_surface
from svad_ray.fitting.state import pose_body, state_of
from svad_ray.geometry.raster import interpolate, rasterize_mesh, to_camera
from svad_ray.motion import retarget, turn
from svad_ray.nets.exavatar.mesh import avatar_mesh
from svad_ray.nets.exavatar.model import AvatarModel, Static
from svad_ray.stages.animate.embedded import spread
from svad_ray.stages.avatar.bake import regions_of
from svad_ray.stages.avatar.colors import View
from svad_ray.stages.avatar.exavatar import fresh_networks, settle
from svad_ray.stages.avatar.exavatar_training import Poses, Scene, Trainer, cropped, draw, train_exavatar
from svad_ray.stages.avatar.gaussian import clip_views
from svad_ray.stages.avatar.regularisers import Regularisers
from svad_ray.subject import BodyTrack, Clip

READERS = 4  # geometry, pose-dependent geometry, colour, pose-dependent colour


class FeaturesPerHead(AvatarModel):
    """The same model, whose features are looked up again for each network that reads them."""

    def static(self) -> Static:
        """The same numbers, four times the look-ups."""
        n, face = self.networks, self.mesh.flags["is_face"]
        features = [n.features(self.positions, face) for _ in range(READERS)]
        geometry = n.geo_net(features[0])
        return Static((features[1] + features[3]) / 2, geometry, n.mean_offset_net(geometry), n.scale_net(geometry), n.rgb_net(features[2]))


@dataclass(frozen=True)
class Problem:
    """A coloured body in a turn, with the true pictures."""

    clip: Clip
    track: BodyTrack
    views: list[View]


def problem(size: int, frames: int) -> Problem:
    """A body whose colour is a function of its rest position."""
    body = load_body()
    nobody = BodyTrack(**{**vars(turn(2)), "betas": np.zeros(20, np.float32), "body_id": body.id})
    track = retarget(spread(turn(), frames), person=nobody, body=body, size=size)
    surface = clothed_surface(body, track.betas, None)
    color = 0.5 + 0.4 * np.sin(surface.rest * [9.0, 7.0, 11.0])
    joints = body.J_regressor @ body.v_template
    skin = pose_body(body, joints, state_of(track).pose, state_of(track).transl).skin
    pictures, masks = np.full((frames, size, size, 3), 255, np.uint8), np.zeros((frames, size, size), np.uint8)
    for i in range(frames):
        buffers = rasterize_mesh(to_camera(surface.posed(skin[i]), track.viewmats[i]), surface.faces, track.Ks[i], size, size)
        pictures[i][buffers.mask] = interpolate(buffers, surface.faces, color) * 255
        masks[i][buffers.mask] = 255
    clip = Clip(pictures, masks, track, ("",) * frames)
    return Problem(clip, track, clip_views(body, joints, clip, track))


def trainer(given: Problem, *, levels: int, triplane: int, original: bool, lpips: bool) -> Trainer:
    """A trainer of either kind from the same first weights."""
    body = load_body()
    networks = fresh_networks(given.track, triplane=triplane, seed=0)
    mesh = avatar_mesh(body, regions_of(body), levels=levels)
    model = (FeaturesPerHead if original else AvatarModel)(mesh, networks)
    settle(model)
    regularisers = Regularisers(mesh, model.canonical().mesh.detach(), networks.joint_offset.detach().clone())
    views = given.views if original else [cropped(view) for view in given.views]
    distance = None
    if lpips:
        from svad_ray.nets.lpips import Lpips

        distance = Lpips("vgg").distance
    poses = Poses((given.track,), min(50, body.exprdirs.shape[-1]))
    return Trainer(model, regularisers, poses, views, lpips=distance, scene=Scene(given.views[0]) if original else None, gentle=True)


@torch.no_grad()
def quality(kind: Trainer, given: Problem) -> float:
    """Mean PSNR in dB of the refined Gaussians on white, whole frames."""
    figures = []
    for i, view in enumerate(given.views):
        image = draw(kind.model.posed(*kind.poses.of(i)).refined, view, torch.ones(3))
        figures.append(psnr(image[0].permute(1, 2, 0).numpy().astype(np.float64), view.image.numpy().astype(np.float64)))
    return float(np.mean(figures))


def measure(kind: Trainer, given: Problem, *, steps: int, rounds: int, clock: Callable[[], float] = time.perf_counter) -> dict[str, object]:
    """Seconds a step (median) and the curve [(seconds, PSNR)] over ``rounds`` trainings of ``steps`` each."""
    curve, spent, took = [(0.0, quality(kind, given))], 0.0, []
    for k in range(rounds):
        marks = [clock()]
        train_exavatar(kind, iterations=steps, rate=0.004, seed=k, progress=lambda done, marks=marks: marks.append(clock()))  # type: ignore[misc]
        took += list(np.diff(marks))
        spent += marks[-1] - marks[0]
        curve.append((round(spent, 2), round(quality(kind, given), 2)))
    return {"step_s": float(np.median(took)), "curve": curve}


def main() -> None:
    """Run both and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    for name, value in (("size", 512), ("frames", 4), ("levels", 0), ("triplane", 128), ("steps", 4), ("rounds", 2), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--lpips", action="store_true", help="with the perceptual terms")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    given = problem(a.size, a.frames)
    found = {}
    for name, original in (("ours", False), ("original", True)):
        kind = trainer(given, levels=a.levels, triplane=a.triplane, original=original, lpips=a.lpips)
        for _ in range(2):  # kernels, forward and backward, are compiled outside the measurement
            torch.stack(list(kind.terms(0, torch.ones(3), 0).values())).sum().backward()
        found[name] = measure(kind, given, steps=a.steps, rounds=a.rounds)
        found[name]["gaussians"] = len(kind.model.mesh)
    ratio = float(found["original"]["step_s"]) / float(found["ours"]["step_s"])  # type: ignore[arg-type]
    print(json.dumps({"settings": vars(a), "ratio_per_step": round(ratio, 2), **found}, indent=1))


if __name__ == "__main__":
    main()
