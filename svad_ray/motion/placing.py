"""A motion put on a person: the person's shape, feet on the floor, and a camera that sees all of it.

The floor is y = 0. Cameras are level, face the person's front (+z) and stand far enough away for the whole sequence.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from svad_ray.conventions import BODY_TO_CAMERA
from svad_ray.errors import InputError
from svad_ray.subject import OFFSETS, BodyTrack

if TYPE_CHECKING:
    from svad_ray.body import Body

FOCAL = 1.6  # of the image side: 35 degrees of view, little perspective and no flattening
_EVERY = 16  # every 16th vertex, and all of the lowest ones, bound a body within millimetres of all of them
_SOLE = 0.06  # metres above the lowest rest vertex that count as sole


def retarget(motion: BodyTrack, *, person: BodyTrack, body: Body, size: int = 512, margin: float = 0.06) -> BodyTrack:
    """``motion`` danced by ``person``: poses of the one; shape, clothes offsets and joint offsets of the other; new cameras.

    A motion without vertical root movement (all built-in ones) gets it from its feet: in every frame the lowest sole stands on the floor. A
    motion with its own root path keeps it, scaled by the ratio of leg lengths and moved so that its lowest frame touches the floor.

    Args:
        person: Track of at least one frame; betas and offsets are taken from it.
        body: The body that ``person.body_id`` names.
        size: Side of the square image, pixels.
        margin: Empty part of the image on each side, of its side.

    Raises:
        InputError: A person of another body, or a picture without pixels.
    """
    from svad_ray.body.person import check_person

    if size < 1:
        raise InputError(f"a picture of {size} x {size} pixels", expected="at least 1", remedy="set --size, for example to 512")
    check_person(body, person)
    offsets = {name: getattr(person, name) for name in OFFSETS}
    expression = _fitted(motion.expression, person.expression.shape[1])
    moved = replace(motion, betas=person.betas, body_id=body.id, expression=expression, face=None, **offsets)
    moved = _grounded(_legs_scaled(moved, motion, body), body)
    viewmats, Ks = frame_camera(moved, body, size=size, margin=margin)
    return replace(moved, viewmats=viewmats, Ks=Ks, image_size=(size, size))


def frame_camera(track: BodyTrack, body: Body, *, size: int = 512, margin: float = 0.06) -> tuple[np.ndarray, np.ndarray]:
    """One level camera that holds the whole person over the whole track, centred, repeated for every frame.

    Returns:
        viewmats (T, 4, 4) world to camera and Ks (T, 3, 3), float32; focal length 1.6 x ``size``, principal point in the centre.
    """
    points = outline_points(track, body).reshape(-1, 3).astype(np.float64)
    viewmat = np.repeat(level_camera(points, margin=margin)[None], len(track), 0)
    K = np.array([[FOCAL * size, 0, size / 2], [0, FOCAL * size, size / 2], [0, 0, 1]], np.float32)
    return viewmat, np.repeat(K[None], len(track), 0)


def level_camera(points: np.ndarray, *, margin: float = 0.06) -> np.ndarray:
    """(4, 4) world to camera: the nearest level camera on the +z side that sees all ``points`` (N, 3) with ``margin`` left on every side.

    A point at depth d may stand ``half x d / focal`` off the axis. For an axis position c this asks d >= focal / half x |p - c| + z of every
    point; the smallest distance balances the two opposite bounds, separately in x and y, and the larger of the two distances is taken.
    """
    reach = FOCAL / (0.5 - margin)
    centre, distance = np.zeros(2), 0.0
    for axis in range(2):
        right = np.max(reach * points[:, axis] + points[:, 2])  # distance needed on the positive side is right - reach * c
        left = np.max(-reach * points[:, axis] + points[:, 2])
        centre[axis] = (right - left) / (2 * reach)
        distance = max(distance, (right + left) / 2)
    viewmat = BODY_TO_CAMERA.astype(np.float64)
    viewmat[:3, 3] = [-centre[0], centre[1], distance]
    return viewmat.astype(np.float32)


def outline_points(track: BodyTrack, body: Body) -> np.ndarray:
    """(T, P, 3) metres: a thinned set of the posed surface's points that bounds it (all of the soles, every 16th vertex elsewhere)."""
    from svad_ray.body.person import rest_surface

    return _posed(track, body, _thinned(rest_surface(body, track)[:, 1].numpy()))


def _thinned(height: np.ndarray) -> np.ndarray:
    """Vertex numbers: every 16th, and every one whose rest height is within the sole's band."""
    low = np.flatnonzero(height < height.min() + _SOLE)
    return np.union1d(np.arange(0, len(height), _EVERY), low)


def _posed(track: BodyTrack, body: Body, vertices: np.ndarray, *, chunk: int = 64) -> np.ndarray:
    """(T, len(vertices), 3) skinned positions of some vertices; pose correctives (millimetres) are left out."""
    from svad_ray.body import lbs
    from svad_ray.body.person import person_joints, rest_surface

    real = body.v_template.dtype
    template, joints = rest_surface(body, track, vertices), person_joints(body, track)
    out = []
    for start in range(0, len(track), chunk):
        pose = torch.as_tensor(track.full_pose[start : start + chunk], dtype=real)
        mean = body.hands_mean.reshape(1, 30, 3).to(real)
        rotations = lbs.rotation_matrices(torch.cat([pose[:, :25], pose[:, 25:] + mean], 1))
        _, _, skin = lbs.forward_kinematics(rotations, joints.expand(len(pose), -1, -1), body.parents)
        out.append(
            lbs.skin_points(template, body.lbs_weights[vertices], skin) + torch.as_tensor(track.transl[start : start + chunk, None], dtype=real)
        )
    return torch.cat(out).numpy().astype(np.float32)


def _grounded(track: BodyTrack, body: Body) -> BodyTrack:
    """The track moved so that the soles stand on y = 0 (every frame, or the lowest frame when the root has a path of its own)."""
    lowest = outline_points(track, body)[..., 1].min(1)
    rooted = np.ptp(track.transl[:, 1]) > 1e-6
    transl = track.transl.copy()
    transl[:, 1] -= lowest.min() if rooted else lowest
    return replace(track, transl=transl)


def _legs_scaled(track: BodyTrack, motion: BodyTrack, body: Body) -> BodyTrack:
    """The root path scaled to the new legs; relative to the first frame, which moves over the origin."""
    source = motion.betas if motion.body_id == body.id else np.zeros_like(track.betas)
    ratio = _leg_length(track.betas, body) / _leg_length(source, body)
    path = (motion.transl - motion.transl[:1] * [1.0, 0.0, 1.0]) * ratio
    return replace(track, transl=path.astype(np.float32))


def _leg_length(betas: np.ndarray, body: Body) -> float:
    from svad_ray.body import lbs
    from svad_ray.body.names import JOINT_INDEX

    joints = lbs.rest_joints(body, torch.as_tensor(betas, dtype=body.v_template.dtype)[None])[0]
    return float(joints[JOINT_INDEX["left_hip"], 1] - joints[JOINT_INDEX["left_ankle"], 1])


def _fitted(expression: np.ndarray, count: int) -> np.ndarray:
    """(T, count): coefficients beyond ``count`` dropped, missing ones zero."""
    out = np.zeros((len(expression), count), np.float32)
    shared = min(count, expression.shape[1])
    out[:, :shared] = expression[:, :shared]
    return out
