"""Where the body's head is in every frame: its transform, how far it is turned away, the square of pixels that holds it."""

from __future__ import annotations

import numpy as np
import torch

from svad_ray.body.lbs import rest_joints
from svad_ray.body.model import Body
from svad_ray.body.names import JOINT_INDEX
from svad_ray.fitting.state import pose_body
from svad_ray.geometry.raster import project, to_camera
from svad_ray.subject import BodyTrack

HEAD_CENTRE = np.array([0.0, 0.09, 0.03], np.float32)  # metres from the head joint, in its axes: the middle of skull, hair and chin
HEAD_HALF = 0.17  # metres from there to the edge of the crop


def head_transforms(body: Body, track: BodyTrack) -> np.ndarray:
    """(T, 4, 4) float32: head joint's axes (x to the person's left, y up, z forward) -> camera."""
    pose, transl, betas = (torch.tensor(np.asarray(x, np.float32)) for x in (track.full_pose, track.transl, track.betas))
    posed = pose_body(body, rest_joints(body, betas).reshape(-1, 55, 3)[0], pose, transl)
    world = np.tile(np.eye(4, dtype=np.float32), (len(track), 1, 1))
    head = JOINT_INDEX["head"]
    world[:, :3, :3], world[:, :3, 3] = posed.rotations[:, head].numpy(), posed.joints[:, head].numpy()
    return np.asarray(track.viewmats, np.float32) @ world


def facing_deg(head_to_camera: np.ndarray) -> np.ndarray:
    """(T,) degrees between where the head looks and the camera: 0 = full face, 180 = back of the head."""
    centre = _centre(head_to_camera)
    cosine = -(head_to_camera[:, :3, 2] * centre).sum(1) / np.linalg.norm(centre, axis=1)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def head_boxes(head_to_camera: np.ndarray, Ks: np.ndarray) -> np.ndarray:
    """(T, 4) float32 pixels (x0, y0, x1, y1) of a square round the head; may leave the image."""
    centre = _centre(head_to_camera)
    xy = np.stack([project(c, K) for c, K in zip(centre, Ks)])
    half = HEAD_HALF * Ks[:, 0, 0] / centre[:, 2]
    return np.concatenate([xy - half[:, None], xy + half[:, None]], 1).astype(np.float32)


def _centre(head_to_camera: np.ndarray) -> np.ndarray:
    """(T, 3) metres, middle of the head in the camera."""
    return np.stack([to_camera(HEAD_CENTRE, m) for m in head_to_camera])
