"""People-Snapshot: the first training frame is the photo; the avatar takes the test frames' SMPL poses before their camera.

SVAD does not publish how SMPL's poses reach its SMPL-X body. Here the 22 body joints' rotations are taken joint by joint onto the avatar's own
skeleton, the root moves as SMPL's does, and size and place are set once, in the photo's frame.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from svad_ray.config import Settings
from svad_ray.conventions import to_float, to_uint8
from svad_ray.evaluate.metrics import temporal_flicker
from svad_ray.evaluate.rows import Row
from svad_ray.evaluate.scoring import Choice, Protocol, Scorer
from svad_ray.evaluate.snapshot import SPLITS, Sequence, read_sequence, subject_names
from svad_ray.geometry.raster import project, to_camera
from svad_ray.protocols.orders import Order, Result, worst_strips
from svad_ray.protocols.pipeline_run import Made, made_of
from svad_ray.protocols.refine import Refinement, refined
from svad_ray.stages.avatar.asset import PosableAvatar
from svad_ray.store import digest
from svad_ray.subject import BodyTrack, Photo

SMPL_PELVIS = np.array([0.0, -0.22, 0.03])  # metres from SMPL's origin to its root joint at rest, to the centimetre; only the depth uses it
NOTES = (
    "male-4-casual: SVAD's driving motion is this subject's own turn, so its published row has seen these poses.",
    "One image in, as in SVAD: rows of methods that train on the whole video are not comparable.",
)


def orders(
    root: Path, out: str, settings: Settings, choice: Choice, *, background: str, mask_mode: str, refine: Refinement | None, every: int = 1
) -> list[Order]:
    """One order a subject.

    Args:
        refine: Refine test poses on the test pictures; None = do not. every: Score each n-th of the split's test frames.
    """
    made = []
    for name in subject_names(root):
        parameters = {
            "root": str(root), "name": name, "background": background, "mask_mode": mask_mode, "every": every,
            "refine": asdict(refine) if refine else None,
        }  # fmt: skip
        files = [path for path in sorted((root / name).rglob("*")) if path.is_file() and path.suffix in (".hdf5", ".pkl", ".npz", ".mp4")]
        inputs = (digest(*(part for path in files for part in (path.name, path.read_bytes()))),)
        made.append(Order("people-snapshot", name, parameters, out, settings.model_dump(mode="json"), asdict(choice), inputs))
    return made


def measure(order: Order, scorer: Scorer, tell: Callable[[str, float], None]) -> Result:
    """Make the avatar from the first training frame and score the test frames."""
    p = order.parameters
    root, split = Path(p["root"]), SPLITS[p["name"]]
    first = read_sequence(root, p["name"], "train", numbers=[split.train[0]])
    test = read_sequence(root, p["name"], "test", numbers=split.frames("test")[:: p["every"]])
    made = made_of(_photo(first), order, tell)
    track = test_track(made, first, test)
    posable = PosableAvatar(made.avatar)
    ground = {"white": 1.0, "black": 0.0}[p["background"]]
    share = test.masks[..., None]
    how = Refinement(**p["refine"]) if p["refine"] else None
    if how is not None:
        track = refined(posable, track, to_float(test.images) * share + 1 - share, test.masks, how)
    truths = to_uint8(to_float(test.images) * share + ground * (1 - share))
    drawn = [posable.render(track, frame, background=ground) for frame in range(len(track))]
    renders = to_uint8(np.stack([image for image, _ in drawn]))
    protocol = Protocol(
        "people-snapshot",
        background=p["background"],
        mask_mode=p["mask_mode"],
        poses=f"from {test.source}, {how or 'not refined'}",
        placement="size and place set once by the photo's frame; SMPL's rotations joint by joint",
        photo=f"frame {split.train[0]}, {first.images.shape[2]} x {first.images.shape[1]} px, on white by its mask",
    )
    protocol = scorer.described(protocol, truths[0])
    rows: list[Row] = []
    for number, truth, image, (_, alpha), mask in zip(test.numbers, truths, renders, drawn, test.masks):
        figures = scorer(image, truth, protocol, mask=alpha, true_mask=mask)
        rows.append({"subject": order.subject, "view": f"frame {number:04d}", **figures, **protocol.columns()})
        tell("scoring", len(rows) / len(test.numbers))
    if len(rows) > 1:
        rows[0]["flicker"] = temporal_flicker(to_float(renders), to_float(truths))
    return Result(order.subject, rows, worst_strips(rows, lambda n: (renders[n], truths[n])), usage=made.usage, warnings=made.warnings)


def _photo(first: Sequence) -> Photo:
    share = first.masks[0][..., None]
    image = to_uint8(to_float(first.images[0]) * share + 1 - share)
    return Photo(first.name, image, hashlib.sha256(image.tobytes()).hexdigest(), (f"People-Snapshot, frame {first.numbers[0]}",))


def test_track(made: Made, first: Sequence, test: Sequence) -> BodyTrack:
    """The avatar's track over the test frames: the world is the camera's axes, its unit the avatar's own metre."""
    fit, rest = made.photo_track, np.asarray(made.avatar.tensors["rest_joints"], np.float64)
    seen = to_camera((rest[0] + fit.transl[0]).astype(np.float64)[None], fit.viewmats[0].astype(np.float64))[0]
    pixel = project(seen[None], fit.Ks[0].astype(np.float64))[0]
    turn, shift = first.viewmat[:3, :3], first.viewmat[:3, 3]
    depth = float((turn @ (first.poses.transl[0] + SMPL_PELVIS) + shift)[2])
    scale = (fit.Ks[0, 0, 0] / seen[2]) * (depth / first.K[0, 0])  # true metres to the avatar's
    there = np.linalg.solve(first.K, [*pixel, 1.0]) * depth
    pelvis = there + (test.poses.transl - first.poses.transl[0]) @ turn.T
    count = len(test.numbers)
    pose = np.zeros((count, 55, 3), np.float32)
    pose[:, :22] = test.poses.thetas[:, :22]
    pose[:, 0] = (Rotation.from_matrix(turn) * Rotation.from_rotvec(test.poses.thetas[:, 0])).as_rotvec()
    one = fit.frames(np.zeros(count, int))
    height, width = test.images.shape[1:3]
    return replace(
        one.with_full_pose(pose),
        transl=(pelvis / scale - rest[0]).astype(np.float32),
        expression=np.zeros((count, fit.expression.shape[1]), np.float32),
        viewmats=np.repeat(np.eye(4, dtype=np.float32)[None], count, 0),
        Ks=np.repeat(test.K.astype(np.float32)[None], count, 0),
        image_size=(height, width),
        residual_px=None,
    )
