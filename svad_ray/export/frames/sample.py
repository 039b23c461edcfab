"""One labelled frame, and what each of its fields means."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from svad_ray.fitting.clothed import PARTS

SMPLX = ("global_orient", "body_pose", "left_hand_pose", "right_hand_pose", "jaw_pose", "leye_pose", "reye_pose", "expression", "transl")
MEANING = {
    "key": "unique name of the sample: subject's folder, digest of its order, frame number",
    "subject_id": "the caller's name for the subject",
    "frame": "number in the subject's clip, from 0",
    "height": "pixels",
    "width": "pixels",
    "image": "encoded RGB picture, PNG or JPEG: the restored frame",
    "mask": "PNG, 8 bit, 255 = person",
    "depth": "PNG, 16 bit, millimetres along the camera's z axis of the fitted body with its clothing offset, 0 = no body there",
    "keypoints": "133 x 2 pixels in COCO-WholeBody order, projected from the fitted body; the centre of the top left pixel is (0.5, 0.5)",
    "scores": "133: 1 = in the picture and seen, 0.5 = hidden by the body itself, 0 = outside the picture or behind the camera",
    "visible": "133: COCO's flag: 2 = seen, 1 = hidden by the body itself, 0 = outside the picture or behind the camera",
    "part_seen": f"10: share of the surface of {', '.join(PARTS)} that the camera sees in this frame; about a half at most",
    "part_photo": "10: share of the same parts' surface that a photo showed; the rest is completed. NaN (null in tars): not recorded",
    "betas": "shape coefficients of the body 'body_id'",
    "global_orient": "3, axis-angle, radians, world has y up",
    "body_pose": "21 x 3, axis-angle relative to the parent joint",
    "left_hand_pose": "15 x 3, axis-angle, hand mean not included",
    "right_hand_pose": "15 x 3, axis-angle, hand mean not included",
    "jaw_pose": "3, axis-angle",
    "leye_pose": "3, axis-angle",
    "reye_pose": "3, axis-angle",
    "expression": "expression coefficients",
    "transl": "3, metres",
    "viewmat": "4 x 4, world to camera, OpenCV axes",
    "K": "3 x 3, pinhole intrinsics, pixels",
    "body_id": "the body that the coefficients belong to",
    "fps": "frames per second of the clip",
    "residual_px": "weighted mean landmark residual of the fit in this frame, pixels; NaN when not known",
    "remark": "what identity and restore said of the frame; empty = nothing",
    "source_restore": "artefact of the frame's pixels",
    "source_fit": "artefact of the body track",
}


@dataclass(frozen=True)
class Sample:
    """One frame; fields as in ``MEANING``.

    Attributes:
        image, mask, depth: Encoded bytes. values: Every other field. area, box: Pixels of the mask, and its (x, y, width, height).
    """

    key: str
    image: bytes
    mask: bytes
    depth: bytes
    values: dict[str, Any]
    area: int
    box: tuple[int, int, int, int]
    size: int = field(init=False)

    def __post_init__(self) -> None:
        arrays = sum(value.nbytes for value in self.values.values() if isinstance(value, np.ndarray))
        object.__setattr__(self, "size", len(self.image) + len(self.mask) + len(self.depth) + arrays)
