"""How good the avatar of one photo is: synthetic people, their front photo, and the truth of four views.

    python -m benchmarks.people [--people 0,1,2 | all] [--poses a,b] [--photos front,back] [--light side] [--avatar] [--views OUT]

Without ``--avatar`` the clothed surface that the animate stage draws its clip from is scored (about 20 s a photo); with it the trained
Gaussians at the end of the whole pipeline (minutes a photo). Protocol: ``svad_ray.evaluate.synthetic.protocol``; what such figures are
worth: ``svad_ray.evaluate.synthetic``. The reference row is what the first prototype reached on earlier versions of people 0, 1 and 2
(surface, same poses by name); people and placing have changed since, so only a large difference means anything.

``--photos`` makes the avatar of several photos of the person, the first with the face. ``--light side`` lights the person by a low sun that stands
still beside them, in photos and truths alike.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import time
from dataclasses import astuple, dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from svad_ray.body import load_body
from svad_ray.config import Settings, override
from svad_ray.conventions import to_uint8
from svad_ray.demo import fitted_joints, true_views
from svad_ray.evaluate.synthetic import (
    A_POSE,
    PEOPLE,
    STEP,
    VIEWS,
    WALK,
    JointError,
    View,
    ViewScore,
    build,
    evaluation_cameras,
    joint_error,
    render,
    score_views,
)
from svad_ray.evaluate.synthetic.render import SIDE_SUN
from svad_ray.fitting.state import pose_body, state_of
from svad_ray.geometry.raster import to_camera
from svad_ray.local import LocalRunner, prepare
from svad_ray.nets.lpips import Lpips
from svad_ray.pipeline import create
from svad_ray.stages.animate.appearance import draw
from svad_ray.stages.animate.embedded import reproject
from svad_ray.stages.perceive.embedded import MediaPipePerceive
from svad_ray.stages.perceive.gates import check
from svad_ray.store import ArtefactStore
from svad_ray.subject import BodyTrack, Further, Photo

POSES = {"a": A_POSE, "b": WALK, "c": STEP}
LIGHTS = {"studio": None, "side": SIDE_SUN}
PROTOTYPE = {
    "front": ViewScore(28.0, 0.981, 0.026, 0.965),
    "left": ViewScore(18.2, 0.901, 0.090, 0.76),
    "right": ViewScore(18.3, 0.904, 0.091, 0.76),
    "back": ViewScore(19.8, 0.880, 0.070, 0.925),
}
PROTOTYPE_JOINTS_MM = 37.0
Pictures = list[tuple[np.ndarray, np.ndarray | None]]


@dataclass(frozen=True)
class Outcome:
    """One photo's scores, in the order of ``VIEWS``."""

    name: str
    scores: list[ViewScore]
    joints: JointError
    seconds: float


def photo_of(name: str, view: View) -> Photo:
    """A truth as the pipeline's input."""
    return Photo(name, view.image, hashlib.sha256(view.image.tobytes()).hexdigest())


def surface_views(photo: Photo, truth: View, truths: list[View], perceive: MediaPipePerceive, settings: Settings) -> tuple[Pictures, BodyTrack]:
    """The clothed, painted surface of the animate stage at the true cameras."""
    body = load_body()
    seen = perceive(photo)
    check(photo, seen, largest=True)
    also = [Further(one, perceive(one)) for one in photo.also]
    person = reproject(body, photo, seen, settings.animate, lambda done: None, also=also)
    track = person.photo_track
    state = state_of(track)
    posed = pose_body(body, person.rest_joints, state.pose, state.transl)
    cameras = evaluation_cameras(posed.joints[0, 0].numpy(), track.Ks[0], track.viewmats[0], truth, truths)
    pictures: Pictures = []
    for camera, view in zip(cameras, truths):
        points = to_camera(person.surface.posed(posed.skin[0]), camera)
        image, alpha, _ = draw(person.surface, person.look, points, view.K, *view.mask.shape, supersample=2)
        pictures.append((image, alpha))
    return pictures, track


def avatar_views(photo: Photo, truth: View, truths: list[View], settings: Settings) -> tuple[Pictures, BodyTrack]:
    """The trained avatar at the true cameras."""
    with tempfile.TemporaryDirectory() as folder:
        made = create(photo, settings, LocalRunner(ArtefactStore(folder), settings))
        track = made.animation.value.photo_track
        return true_views(made.avatar.value, track, truth, truths), track


def measure(number: int, pose: str, options: argparse.Namespace, *, perceive: MediaPipePerceive, lpips: Lpips, settings: Settings) -> Outcome:
    """Make and score one person in one pose."""
    character, light = build(PEOPLE[number]), LIGHTS[options.light]
    truths = [render(character, POSES[pose], yaw=yaw, light=light) for yaw in VIEWS.values()]
    first, *others = (photo_of(name, truths[list(VIEWS).index(name)]) for name in options.photos.split(","))
    photo = replace(first, name=f"{number}{pose}", also=tuple(others))
    trained, folder = options.avatar, options.views
    start = time.perf_counter()
    if trained:
        pictures, track = avatar_views(photo, truths[0], truths, settings)
    else:
        pictures, track = surface_views(photo, truths[0], truths, perceive, settings)
    seconds = time.perf_counter() - start
    if folder is not None:
        save_sheet(folder / f"{photo.name}.png", pictures, truths)
    joints = joint_error(fitted_joints(track, load_body()), to_camera(truths[0].joints3d, truths[0].viewmat))
    return Outcome(photo.name, score_views(pictures, truths, perceptual=lpips), joints, seconds)


def save_sheet(path: Path, pictures: Pictures, truths: list[View]) -> None:
    """Renders above truths, for looking."""
    rows = [[to_uint8(image) if image.dtype != np.uint8 else image for image, _ in pictures], [t.image for t in truths]]
    cv2.imwrite(str(path), np.concatenate([np.concatenate(row, axis=1) for row in rows])[..., ::-1])


def mean_scores(outcomes: list[Outcome], view: int) -> ViewScore:
    """The mean of one view over all photos."""
    return ViewScore(*np.mean([astuple(o.scores[view]) for o in outcomes], axis=0))


def line(name: str, scores: list[ViewScore], joints_mm: float, seconds: float | None = None) -> str:
    """One row of the table: PSNR, SSIM, LPIPS, overlap of each view."""
    cells = [f"{s.psnr:5.1f} {s.ssim:.3f} {s.lpips:.3f} {s.iou:.3f}" for s in scores]
    return " | ".join([f"{name:10s}", *cells, f"{joints_mm:6.1f}", "" if seconds is None else f"{seconds:5.0f}"])


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", default="0,1,2", help="numbers of the cast, or all")
    parser.add_argument("--poses", default="a,b", help="a = A-pose, b = slight walk, c = the same step with both feet on one ground")
    parser.add_argument("--photos", default="front", help="views that the avatar is made of: front, back, left, right")
    parser.add_argument("--light", choices=LIGHTS, default="studio", help="what lights the person")
    parser.add_argument("--avatar", action="store_true", help="score the trained Gaussians instead of the surface")
    parser.add_argument("--views", type=Path, help="folder for pictures: renders above truths")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    settings = override(Settings(), {"perceive.largest": True})  # a ghost beside the person is perceive's fault, not the avatar's
    prepare(settings)
    perceive, lpips = MediaPipePerceive(), Lpips("alex")
    perceive.setup()
    if options.views:
        options.views.mkdir(parents=True, exist_ok=True)
    numbers = range(len(PEOPLE)) if options.people == "all" else [int(n) for n in options.people.split(",")]
    print(
        "photo      | " + " | ".join(f"{name:^25s}" for name in VIEWS) + " | joints |  s\n" + " " * 11 + "|  PSNR  SSIM LPIPS   IoU   " * 4 + "|   mm"
    )
    outcomes = []
    for number in numbers:
        for pose in options.poses.split(","):
            outcomes.append(measure(number, pose, options, perceive=perceive, lpips=lpips, settings=settings))
            o = outcomes[-1]
            print(line(o.name, o.scores, o.joints.mean_mm, o.seconds), flush=True)
    print(line("mean", [mean_scores(outcomes, k) for k in range(len(VIEWS))], float(np.mean([o.joints.mean_mm for o in outcomes]))))
    print(line("prototype", list(PROTOTYPE.values()), PROTOTYPE_JOINTS_MM))


if __name__ == "__main__":
    main()
