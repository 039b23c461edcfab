"""The driving skeleton of a motion: the body's own key points as a detector would report them, and the pictures drawn from them.

No video and no detector is needed for a motion that is known: the 133 points are projected, and those that the body itself hides from the camera
(the face of a person who turns away, a hand behind the back) are missing, as they would be for a detector.
"""

from __future__ import annotations

import numpy as np

from svad_ray.body.model import Body
from svad_ray.conventions import WHOLEBODY_BODY
from svad_ray.motion.labels import SEEN, Labeller
from svad_ray.pose.draw import draw_pose
from svad_ray.pose.openpose import OpenPose, from_wholebody
from svad_ray.subject import BodyTrack

_FACE_JOINTS = 5  # nose, eyes and ears come first among the body's points
_BLOCK = 16  # frames posed at once


def driving_poses(body: Body, track: BodyTrack) -> tuple[list[OpenPose], np.ndarray]:
    """Poses of every frame of ``track``, and the (T, H, W) uint8 silhouettes of the body (255 = body).

    Joints of trunk and limbs are always known; nose, eyes, ears, face and hands only where they are seen.
    """
    height, width = track.image_size
    label, poses, silhouettes = Labeller(body, track), [], []
    for start in range(0, len(track), _BLOCK):
        labels = label(slice(start, start + _BLOCK))
        scores = (labels.visible == SEEN).astype(np.float32)
        scores[:, WHOLEBODY_BODY.start + _FACE_JOINTS : WHOLEBODY_BODY.stop] = 1.0
        poses += [from_wholebody(points, score, width=width, height=height) for points, score in zip(labels.keypoints, scores)]
        silhouettes.append(np.where(labels.depth_mm > 0, 255, 0).astype(np.uint8))
    return poses, np.concatenate(silhouettes)


def draw_poses(poses: list[OpenPose], height: int, width: int) -> np.ndarray:
    """(T, height, width, 3) uint8 RGB."""
    return np.stack([draw_pose(pose, height, width) for pose in poses])
