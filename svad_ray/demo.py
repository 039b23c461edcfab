"""The demo: a person made on the spot, one photo of them, the avatar of that photo, and how near it comes to the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from svad_ray.config import Settings
from svad_ray.deliver import Delivery, deliver
from svad_ray.evaluate.synthetic.demo import DemoPerson, demo_person
from svad_ray.evaluate.synthetic.protocol import VIEWS, JointError, ViewScore, evaluation_cameras, joint_error, score_views
from svad_ray.evaluate.synthetic.render import View
from svad_ray.export.atomic import atomic_path
from svad_ray.export.report import Table
from svad_ray.export.sheets import contact_sheet
from svad_ray.geometry.raster import to_camera
from svad_ray.local import StepProgress, prepare
from svad_ray.motion.labels import posed
from svad_ray.nets.lpips import Lpips
from svad_ray.subject import Avatar, BodyTrack

CONSENT = "a person made by svad-ray; nobody's likeness"


def run_demo(out: Path, settings: Settings, *, seed: int = 0, progress: StepProgress | None = None) -> tuple[Delivery, Sequence[Table]]:
    """Make the demo's person, photo, avatar and scores below ``out``.

    Args:
        seed: Which person.
    """
    tell = progress or (lambda name, done: None)
    prepare(settings)
    tell("person", 0.0)
    person = demo_person(seed)
    tell("person", 1.0)
    tables: list[Table] = []

    def measure(delivery: Delivery, body: Any) -> Sequence[Table]:
        truths = person.truth(list(VIEWS.values()))
        track = delivery.created.animation.value.photo_track
        pictures = true_views(delivery.avatar, track, person.view, truths)
        scores = score_views(pictures, truths, perceptual=Lpips("alex"))
        tables.append(score_table(scores, joint_error(fitted_joints(track, body), to_camera(person.view.joints3d, person.view.viewmat))))
        _write_sheet(person, pictures, truths, out / "truth.png")
        return tables

    delivery = deliver(person.photo, out, settings, consent=CONSENT, measure=measure, progress=tell)
    with atomic_path(out / "photo.png") as temporary:
        temporary.write_bytes(person.png)
    return delivery, tables


def true_views(avatar: Avatar, photo_track: BodyTrack, photo: View, truths: Sequence[View]) -> list[tuple[np.ndarray, np.ndarray | None]]:
    """The avatar in the photo's pose as the true cameras see it: pairs of image (H, W, 3) float in [0, 1] on white and alpha (H, W)."""
    from svad_ray.stages.avatar.asset import PosableAvatar

    pelvis = avatar.tensors["rest_joints"][0] + photo_track.transl[0]
    cameras = evaluation_cameras(pelvis, photo_track.Ks[0], photo_track.viewmats[0], photo, truths)
    posable = PosableAvatar(avatar)
    pictures: list[tuple[np.ndarray, np.ndarray | None]] = []
    for camera, truth in zip(cameras, truths):
        seen = replace(
            photo_track,
            viewmats=camera[None].astype(np.float32),
            Ks=truth.K[None].astype(np.float32),
            image_size=(truth.image.shape[0], truth.image.shape[1]),
        )
        image, alpha = posable.render(seen, 0)
        pictures.append((image.clip(0, 1), alpha))
    return pictures


def fitted_joints(photo_track: BodyTrack, body: Any) -> np.ndarray:
    """(55, 3) joints of the photo's fit in its camera's axes."""
    return to_camera(posed(body, photo_track).joints[0, :55].numpy(), photo_track.viewmats[0])


def score_table(scores: Sequence[ViewScore], joints: JointError) -> Table:
    """One row a view, and the mean."""
    rows = [_row(name, score) for name, score in zip(VIEWS, scores)]
    mean = ViewScore(*(float(np.mean([getattr(s, name) for s in scores])) for name in ("psnr", "ssim", "lpips", "iou")))
    caption = (
        "Against the truth, from the front photo only, 512 px on white. "
        f"Joints of the fit: {joints.mean_mm:.0f} mm in the mean, {joints.worst_mm:.0f} mm at worst."
    )
    return Table(("view", "PSNR dB", "SSIM", "LPIPS", "silhouette IoU"), (*rows, _row("mean", mean)), caption)


def _row(name: str, score: ViewScore) -> tuple[str, ...]:
    return name, f"{score.psnr:.1f}", f"{score.ssim:.3f}", f"{score.lpips:.3f}", f"{score.iou:.3f}"


def _write_sheet(person: DemoPerson, pictures: Sequence[tuple[np.ndarray, Any]], truths: Sequence[View], path: Path) -> None:
    """The photo and the avatar's views above the true ones, for looking."""
    from svad_ray.conventions import to_uint8
    from svad_ray.deliver import save_picture

    views = [person.photo.image, *(to_uint8(image) for image, _ in pictures), person.view.image, *(truth.image for truth in truths)]
    labels = ["photo", *(f"avatar, {name}" for name in VIEWS), "photo", *(f"truth, {name}" for name in VIEWS)]
    save_picture(contact_sheet(views, labels=labels, columns=len(VIEWS) + 1, cell=256), path)
