"""How the head is turned, from the relative depth of the face mesh's landmarks. Source: ours.

On renders of random people (``landmarks.SHIFT``) it is off by 1 degree in yaw and by 4 degrees in pitch; nose, eyes and ears alone tell pitch to 12.
"""

from __future__ import annotations

import numpy as np

from svad_ray.body.model import Body


def landmark_points(body: Body) -> np.ndarray:
    """(51, 3) metres, the body's iBUG points 17-67 in its zero pose."""
    t = body.tables
    return (body.v_template.numpy()[body.faces[t.landmark_faces]] * t.landmark_bary[..., None]).sum(1)


def similarity(model: np.ndarray, seen: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Scale, rotation (3, 3) and shift (3,) that bring ``model`` (N, 3) onto ``seen`` (N, 3): seen = scale * rotation @ model + shift."""
    a, b = model - model.mean(0), seen - seen.mean(0)
    u, s, vt = np.linalg.svd(b.T @ a)
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = (u * sign) @ vt
    scale = float((s * sign).sum() / (a * a).sum())
    return scale, rotation, seen.mean(0) - scale * rotation @ model.mean(0)


def head_rotation(body: Body, face: np.ndarray, K: np.ndarray) -> np.ndarray:
    """(3, 3) the head's world rotation against the zero pose, for a level camera that looks along -z of the body's world.

    Args:
        face: (51, 3) the landmarks in the picture: pixels, z in pixels relative to the head, negative = nearer.
        K: (3, 3) intrinsics.
    """
    _, rotation, _ = similarity(landmark_points(body), face * [1.0, -1.0, -1.0])
    return _from_straight_ahead(face[:, :2].mean(0), K) @ rotation


def _from_straight_ahead(pixel: np.ndarray, K: np.ndarray) -> np.ndarray:
    """(3, 3) from axes whose z points from a pixel's ray back to the camera to the world's axes."""
    to_camera = np.array([-(pixel[0] - K[0, 2]) / K[0, 0], (pixel[1] - K[1, 2]) / K[1, 1], 1.0])
    to_camera /= np.linalg.norm(to_camera)
    axis = np.cross([0.0, 0.0, 1.0], to_camera)
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + cross + cross @ cross / (1 + to_camera[2])
