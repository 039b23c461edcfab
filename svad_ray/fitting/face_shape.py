"""How the head is turned and what shape its face has, from the face mesh's landmarks with their relative depth. Source: ours.

The 51 iBUG points within the face are known on the body and in the 468-point mesh; between them the head's surface follows smoothly. The mesh puts
them a few millimetres beside the body's points (a nose tip 10 mm farther out), whoever is seen: ``BIAS_MM`` takes that off.

On renders of random people (``landmarks.SHIFT``) it is off by 1 degree in yaw and by 4 degrees in pitch; nose, eyes and ears alone tell pitch to 12.
"""

from __future__ import annotations

import numpy as np
from scipy.interpolate import RBFInterpolator

from svad_ray.body.model import Body

# Millimetres (x, y, z of the zero pose) that the mesh's points 17-67 lie beside the body's in the mean over random people, sides averaged; the
# spread over people is 0.5, 0.6 and 0.3 mm.
BIAS_MM = np.array([
    (-2, -3, -2), (-6, 0, -3), (-6, 3, -2), (-4, 2, 1), (0, 2, 3), (0, 2, 3), (4, 2, 1), (6, 3, -2), (6, 0, -3), (2, -3, -2),
    (0, 2, 4), (0, -1, 8), (0, -3, 10), (0, 1, 5), (0, 0, 0), (1, -1, 1), (0, 0, 0), (-1, -1, 1), (0, 0, 0),
    (1, -1, -1), (0, -2, -2), (2, -2, -1), (4, -1, 0), (2, -2, 0), (0, -1, 0),
    (-4, -1, 0), (-2, -2, -1), (0, -2, -2), (-1, -1, -1), (0, -1, 0), (-2, -2, 0),
    (2, 1, -4), (1, -2, -1), (1, -2, -1), (0, -2, -2), (-1, -2, -1), (-1, -2, -1), (-2, 1, -4), (-2, 3, 1), (-1, 3, 1), (0, 3, 0), (1, 3, 1),
    (2, 3, 1), (0, 1, -4), (5, 1, 1), (0, 2, 1), (-5, 1, 1), (0, 1, -4), (-4, 0, 1), (0, 0, -1), (4, 0, 1),
])  # fmt: skip
FARTHEST = 0.012  # metres that a landmark may move the face; beyond it the mesh is not believed
REACH = 0.09  # metres from the landmarks within which the head follows; the skull and the neck stay
ANCHORS = 120  # vertices beyond that which hold the deformation at zero
SMOOTH = 3e-7  # of the interpolation, so that noise of single landmarks makes no dent


def landmark_points(body: Body, rest: np.ndarray) -> np.ndarray:
    """(51, 3) metres, the body's iBUG points 17-67 on a surface (V, 3) in the zero pose."""
    t = body.tables
    return (rest[body.faces[t.landmark_faces]] * t.landmark_bary[..., None]).sum(1)


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
    _, rotation, _ = similarity(landmark_points(body, body.v_template.numpy()), face * [1.0, -1.0, -1.0])
    return _from_straight_ahead(face[:, :2].mean(0), K) @ rotation


def _from_straight_ahead(pixel: np.ndarray, K: np.ndarray) -> np.ndarray:
    """(3, 3) from axes whose z points from a pixel's ray back to the camera to the world's axes."""
    to_camera = np.array([-(pixel[0] - K[0, 2]) / K[0, 0], (pixel[1] - K[1, 2]) / K[1, 1], 1.0])
    to_camera /= np.linalg.norm(to_camera)
    axis = np.cross([0.0, 0.0, 1.0], to_camera)
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + cross + cross @ cross / (1 + to_camera[2])


def face_offset(body: Body, rest: np.ndarray, face: np.ndarray) -> np.ndarray:
    """(V, 3) metres that bring the face of a shaped body to the landmarks of a photo, whatever their size, place and turn.

    Args:
        rest: (V, 3) the shaped zero pose.
        face: (51, 3) as for :func:`head_rotation`.
    """
    model = landmark_points(body, rest)
    scale, rotation, shift = similarity(model + BIAS_MM / 1000, face * [1.0, -1.0, -1.0])
    step = ((face * [1.0, -1.0, -1.0] - shift) @ rotation) / scale - BIAS_MM / 1000 - model
    step = _at_most(step, FARTHEST)
    distance = np.linalg.norm(rest[:, None] - model[None, ::5], axis=2).min(1)
    near = np.flatnonzero(distance < REACH)
    still = np.flatnonzero((distance > REACH) & (distance < 2 * REACH))
    still = still[:: max(1, len(still) // ANCHORS)]
    spline = RBFInterpolator(
        np.concatenate([model, rest[still]]), np.concatenate([step, np.zeros((len(still), 3))]), kernel="cubic", smoothing=SMOOTH, degree=1
    )
    out = np.zeros_like(rest)
    fade = np.clip(2 - 2 * distance[near] / REACH, 0, 1)[:, None]
    out[near] = _at_most(fade * spline(rest[near]), FARTHEST)
    return out


def _at_most(steps: np.ndarray, length: float) -> np.ndarray:
    """Steps (N, 3) shortened to ``length`` metres where they are longer."""
    return steps * np.minimum(1, length / np.maximum(np.linalg.norm(steps, axis=1, keepdims=True), 1e-9))
