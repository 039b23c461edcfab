"""Key points and cameras as the losses take them, and where both bodies stand at first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from svad_ray.body.flame import Flame
from svad_ray.body.model import Body
from svad_ray.body.names import FINGERS, OUTPUT_INDEX, SIDES, WHOLEBODY_NAMES
from svad_ray.errors import InputError
from svad_ray.geometry.rotations import aligning_rotations

SPACE = 8.0  # side of the square that a person's crop is scaled to; all 2D losses are in its units
SEEN = 0.2  # score above which a key point counts
EXTENT = 2.0  # metres that a person's crop is taken to show
_WIDER, _MARGIN = 1.2, 1.25


def _hand(side: str) -> list[str]:
    return [f"{side}_{finger}{k}" if k < 4 else f"{side}_{finger}_tip" for finger in FINGERS for k in (1, 2, 3, 4)]


_PAIRS = ("hip", "knee", "ankle")
_FEET = ("big_toe", "small_toe", "heel")
_FACE = [f"face_{i}" for i in (*range(17, 68), *range(17))]  # inner points first, contour last
NAMES: tuple[str, ...] = (
    "pelvis", *(f"{side}_{part}" for part in _PAIRS for side in SIDES), "neck",
    *(f"{side}_{part}" for part in ("shoulder", "elbow", "wrist") for side in SIDES), *(f"{side}_{part}" for side in SIDES for part in _FEET),
    "left_ear", "right_ear", "left_eye_vertex", "right_eye_vertex", "nose", *_hand("left"), *_hand("right"), "head", "jaw", *_FACE,
)  # fmt: skip
OUTPUT = np.array([OUTPUT_INDEX[name] for name in NAMES])  # rows of Body.forward().joints
INDEX = {name: i for i, name in enumerate(NAMES)}
LEFT_HAND, RIGHT_HAND = (np.array([INDEX[name] for name in _hand(side)]) for side in SIDES)
FACE = np.array([INDEX[name] for name in _FACE])
# What FLAME's points are among them: five joints, 68 landmarks, ears.
HEAD = np.array([INDEX[name] for name in ("neck", "head", "jaw", "left_eye_vertex", "right_eye_vertex", *_FACE, "left_ear", "right_ear")])
_UNSEEN = {"pelvis", "neck", "head", "jaw"}  # no detector marks them
_SOURCE = np.array([-1 if name in _UNSEEN else WHOLEBODY_NAMES.index(name) for name in NAMES])


@dataclass(frozen=True)
class Targets:
    """What is seen of T frames.

    Attributes:
        points: (T, 135, 2) key points in the units of ``SPACE``, in the order of ``NAMES``. valid: (T, 135, 1), 1 = seen.
        focal, centre: (T, 2) of the cameras that project to those units.
        head_valid: (T,) bool, whether FLAME's first values come from a face that was found.
        found: (T,) bool, whether anybody was seen in the frame.
    """

    points: torch.Tensor
    valid: torch.Tensor
    focal: torch.Tensor
    centre: torch.Tensor
    head_valid: torch.Tensor
    found: torch.Tensor

    def frames(self, index: torch.Tensor) -> Targets:
        """Some of the frames."""
        return Targets(*(getattr(self, name)[index] for name in self.__dataclass_fields__))


def reordered(keypoints: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(T, 133, 2) COCO-WholeBody points and (T, 133) scores -> (T, 135, 2) and (T, 135) in the order of ``NAMES``; unseen ones are zero."""
    has = _SOURCE >= 0
    points = np.where(has[None, :, None], keypoints[:, _SOURCE], 0)
    marks = np.where(has[None], scores[:, _SOURCE], 0)
    good = np.isfinite(points).all(2) & np.isfinite(marks)
    return np.where(good[..., None], points, 0).astype(np.float32), np.where(good, marks, 0).astype(np.float32)


def boxes(points: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (T, 4) x, y, width, height round the seen points: 1.2 times as large; and those made square and 1.25 times larger again."""
    low = np.where(valid[..., None], points, np.inf).min(1)
    high = np.where(valid[..., None], points, -np.inf).max(1)
    empty = ~valid.any(1)
    low[empty], high[empty] = 0, 1
    size = np.maximum((high - low) * _WIDER, 1e-3)
    middle = (low + high) / 2
    tight = np.concatenate([middle - size / 2, size], 1)
    side = np.repeat(size.max(1, keepdims=True) * _MARGIN, 2, 1)
    return tight.astype(np.float32), np.concatenate([middle - side / 2, side], 1).astype(np.float32)


def make_targets(keypoints: np.ndarray, scores: np.ndarray, cameras: np.ndarray, head_valid: np.ndarray) -> tuple[Targets, np.ndarray]:
    """Targets of T frames, and the (T, 4) square boxes.

    Args:
        keypoints, scores: (T, 133, 2) pixels and (T, 133), COCO-WholeBody; what is not finite is not seen.
        cameras: (T, 4) focal lengths and principal point, pixels. head_valid: (T,) bool.

    Raises:
        InputError: Nobody is seen in any frame.
    """
    points, marks = reordered(keypoints, scores)
    valid = marks > SEEN
    found = valid.any(1)
    if not found.any():
        raise InputError(
            "no key point is seen in any frame", expected=f"a person with scores above {SEEN}", remedy="use a clip that shows the person"
        )
    _, square = boxes(points, valid)
    square[~found] = square[found][0]
    scale = SPACE / square[:, 2:]
    face = valid[:, HEAD].any(1)
    tensors = ((points - square[:, None, :2]) * scale[:, None], valid[..., None], cameras[:, :2] * scale, (cameras[:, 2:] - square[:, :2]) * scale)
    at, seen, focal, centre = (torch.tensor(np.asarray(value, np.float32)) for value in tensors)
    return Targets(at, seen, focal, centre, torch.tensor(np.asarray(head_valid, bool) & face), torch.tensor(found)), square


def first_translation(square: np.ndarray, cameras: np.ndarray) -> np.ndarray:
    """(T, 3) metres in the camera: as far away as a person of two metres fills the box, in the box' middle."""
    depth = np.sqrt(cameras[:, 0] * cameras[:, 1] * EXTENT**2 / (square[:, 2] * square[:, 3]))
    middle = square[:, :2] + square[:, 2:] / 2
    return np.concatenate([(middle - cameras[:, 2:]) / cameras[:, :2] * depth[:, None], depth[:, None]], 1).astype(np.float32)


def first_head(body: Body, flame: Flame, head: np.ndarray, root_pose: np.ndarray, translation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """FLAME's first rotation (axis-angle) and translation, (T, 3) each: its template laid on the head of the turned body template.

    Args:
        head: (F,) the body's vertex of each of FLAME's. root_pose: (T, 3) axis-angle. translation: (T, 3) metres.
    """
    template, own = body.v_template.double(), flame.v_template.double()
    there = (template - template.mean(0))[torch.as_tensor(head)]
    root = torch.as_tensor(Rotation.from_rotvec(root_pose).as_matrix())
    rotation = root @ aligning_rotations(own, there)
    middle = root @ there.mean(0) + torch.as_tensor(translation)
    return Rotation.from_matrix(rotation.numpy()).as_rotvec().astype(np.float32), (middle - rotation @ own.mean(0)).numpy().astype(np.float32)
