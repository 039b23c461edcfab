"""How an avatar made from one photo of a synthetic person is scored against the person's true views.

**Placing.** One photo tells neither the focal length nor the distance, so the fit assumes a focal length and finds a size to match. Scoring
that guess would drown everything else. The fitted person is therefore brought to the true camera by the one similarity that keeps their pelvis
on its pixel and their size in pixels: depth of the pelvis and focal length are taken from the truth, nothing else. Lean, turn, pose, shape
and position in the picture stay as they were fitted, errors included. From there the true cameras turn about the true vertical axis.
A similarity of the world is the same as a change of the camera: :func:`evaluation_cameras` returns rigid cameras for the fitted person's own world.

**Views.** Front, left (the person's left side shows), right and back: turns of 0, -90, +90 and 180 degrees, in the photo's pose, at 512 px on
white. PSNR and SSIM are over the whole picture, LPIPS is on AlexNet, the overlap compares silhouettes at one half.

**Joints.** 22 body joints, pelvis on pelvis, scaled by the pelvis-head length, no rotation, in the photo camera's axes.

What the figures can and cannot say is written in the package's docstring.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from svad_ray.body.names import JOINT_NAMES
from svad_ray.conventions import to_float
from svad_ray.errors import InputError
from svad_ray.evaluate.metrics import psnr, silhouette_iou, ssim
from svad_ray.evaluate.synthetic.render import View
from svad_ray.geometry.raster import project, to_camera

VIEWS: Mapping[str, float] = {"front": 0.0, "left": -np.pi / 2, "right": np.pi / 2, "back": np.pi}
BODY_JOINTS = 22
Perceptual = Callable[[np.ndarray, np.ndarray], float]


@dataclass(frozen=True)
class ViewScore:
    """Scores of one view; ``lpips`` is NaN where no network was given, ``iou`` where no mask was."""

    psnr: float
    ssim: float
    lpips: float
    iou: float


@dataclass(frozen=True)
class JointError:
    """Millimetres: mean and worst joint, and the mean of the part along the camera's axis."""

    mean_mm: float
    worst_mm: float
    depth_mm: float


def evaluation_cameras(pelvis: np.ndarray, K: np.ndarray, viewmat: np.ndarray, photo: View, truths: Sequence[View]) -> np.ndarray:
    """Cameras that show the fitted person as ``truths`` show the true one.

    Args:
        pelvis: (3,) the fitted pelvis joint in the fit's world.
        K, viewmat: The camera that the fit assumed for the photo, (3, 3) for the photo's own size and (4, 4).
        photo: The truth of the photo itself.
        truths: Turned views of the same moment.

    Returns:
        (N, 4, 4) rigid world-to-camera matrices for the fit's world, to be used with each truth's own ``K``.
    """
    fitted = to_camera(np.asarray(pelvis, np.float64)[None], viewmat)[0]
    pixel = project(fitted[None], np.asarray(K, np.float64))[0]
    depth = to_camera(photo.joints3d[:1], photo.viewmat)[0, 2]
    ray = np.linalg.solve(photo.K, np.array([*pixel, 1.0]))
    scale = (K[0, 0] / fitted[2]) * (depth / photo.K[0, 0])
    place = np.eye(4)  # fitted camera axes -> true camera axes at the photo
    place[:3, :3] *= scale
    place[:3, 3] = ray * depth - scale * fitted
    out = np.stack([t.viewmat @ np.linalg.inv(photo.viewmat) @ place @ viewmat for t in truths])
    out[:, :3] /= scale  # a pinhole does not see the scale of the world
    return out


def score_views(
    renders: Sequence[tuple[np.ndarray, np.ndarray | None]], truths: Sequence[View], *, perceptual: Perceptual | None = None
) -> list[ViewScore]:
    """Scores of pictures against true views, one by one.

    Args:
        renders: Pairs of image (H, W, 3), uint8 or float in [0, 1], on the truth's background, and mask (H, W), bool or in [0, 1], or None.
        truths: The true views, same order.
        perceptual: A distance of two float images, such as ``svad_ray.nets.lpips.Lpips()``; None = not scored.

    Raises:
        InputError: The numbers or the sizes of the pictures differ.
    """
    if len(renders) != len(truths):
        raise InputError(f"{len(renders)} renders for {len(truths)} true views.", expected="one render for each true view")
    return [_score(image, mask, truth, perceptual) for (image, mask), truth in zip(renders, truths)]


def _score(image: np.ndarray, mask: np.ndarray | None, truth: View, perceptual: Perceptual | None) -> ViewScore:
    a = to_float(image) if image.dtype == np.uint8 else image.astype(np.float32)
    b = to_float(truth.image)
    distance = perceptual(a, b) if perceptual else float("nan")
    return ViewScore(psnr(a, b), ssim(a, b), distance, silhouette_iou(mask, truth.mask) if mask is not None else float("nan"))


def joint_error(joints: np.ndarray, truth: np.ndarray) -> JointError:
    """How far fitted joints are from the true ones after pelvis and size are aligned.

    Args:
        joints, truth: (22 or more, 3) SMPL-X order, both in the photo camera's axes (z = depth), any unit for ``joints``, metres for ``truth``.
    """
    if min(len(joints), len(truth)) < BODY_JOINTS:
        raise InputError(f"{len(joints)} joints against {len(truth)}.", expected=f"at least the {BODY_JOINTS} body joints each")
    head = JOINT_NAMES.index("head")
    a, b = (np.asarray(x[:BODY_JOINTS], np.float64) - x[0] for x in (joints, truth))
    difference = a * (np.linalg.norm(b[head]) / np.linalg.norm(a[head])) - b
    each = np.linalg.norm(difference, axis=1) * 1000
    return JointError(float(each.mean()), float(each.max()), float(np.abs(difference[:, 2]).mean() * 1000))
