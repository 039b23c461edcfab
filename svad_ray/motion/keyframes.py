"""Pose sequences as data: a small JSON file of keyed joint rotations, read and interpolated with smooth quaternion splines.

A file keys joints by SMPL-X name with ``[time, [a, b, c]]`` entries: time in [0, 1] of the sequence, Euler angles in degrees about the
parent's axes in the file's ``euler`` order. With ``mirror_phase`` a file keys only the left side; the right side is its mirror image
that many cycles later (0.5 for a gait, 0 for a symmetric gesture).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from scipy.interpolate import CubicSpline, PchipInterpolator
from scipy.spatial.transform import Rotation, RotationSpline

from svad_ray.body.names import JOINT_INDEX, JOINT_NAMES

MIRROR = np.array([1.0, -1.0, -1.0])  # a rotation vector reflected in the plane x = 0


@dataclass(frozen=True)
class Keyframes:
    """One keyed sequence.

    Attributes:
        duration_s: Seconds of one pass.
        loop: The end meets the start smoothly.
        rotations: Joint name -> (times (K,), rotation vectors (K, 3)).
        sway: (times (K,), metres (K, 3)) of the root; None = the root stays.
    """

    duration_s: float
    loop: bool
    rotations: dict[str, tuple[np.ndarray, np.ndarray]]
    sway: tuple[np.ndarray, np.ndarray] | None

    def sample(self, phase: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(T, 55, 3) axis-angle and (T, 3) root path at ``phase`` (T,) in passes; looped sequences repeat, others hold their end."""
        phase = phase % 1.0 if self.loop else np.clip(phase, 0.0, 1.0)
        pose = np.zeros((len(phase), len(JOINT_NAMES), 3))
        for name, (times, vectors) in self.rotations.items():
            pose[:, JOINT_INDEX[name]] = _rotations(times, vectors, phase, self.loop)
        sway = np.zeros((len(phase), 3)) if self.sway is None else _path(*self.sway, phase, self.loop)
        return pose, sway


@cache
def read_keyframes(name: str) -> Keyframes:
    """The packaged sequence ``name`` (a JSON file in ``motion/data``)."""
    document = json.loads((files("svad_ray.motion") / "data" / f"{name}.json").read_text())
    order = document["euler"]
    rotations = {joint: _keys(rows, order) for joint, rows in document["rotations"].items()}
    if document["mirror_phase"] is not None:
        rotations |= {n.replace("left", "right"): _mirrored(*k, document["mirror_phase"]) for n, k in rotations.items() if n.startswith("left")}
    sway = document.get("sway")
    path = None if sway is None else (np.array([row[0] for row in sway]), np.array([row[1] for row in sway], float))
    return Keyframes(document["duration_s"], document["loop"], rotations, path)


def _keys(rows: list, order: str) -> tuple[np.ndarray, np.ndarray]:
    times = np.array([row[0] for row in rows], float)
    return times, Rotation.from_euler(order, [row[1] for row in rows], degrees=True).as_rotvec()


def _mirrored(times: np.ndarray, vectors: np.ndarray, phase: float) -> tuple[np.ndarray, np.ndarray]:
    shifted = (times + phase) % 1.0 if phase else times
    order = np.argsort(shifted)
    return shifted[order], (vectors * MIRROR)[order]


def _wrapped(times: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The keys with one more pass before and after, so that a spline through them has no seam."""
    return np.concatenate([times - 1, times, times + 1]), np.concatenate([values] * 3)


def _rotations(times: np.ndarray, vectors: np.ndarray, phase: np.ndarray, loop: bool) -> np.ndarray:
    if len(times) == 1:
        return np.broadcast_to(vectors[0], (len(phase), 3))
    if loop:
        times, vectors = _wrapped(times, vectors)
        return RotationSpline(times, Rotation.from_rotvec(vectors))(phase).as_rotvec()
    return _eased(times, vectors, phase)


def _eased(times: np.ndarray, vectors: np.ndarray, phase: np.ndarray) -> np.ndarray:
    """Shortest arcs between keys, each started and ended at rest: a held pose stays held, where a global spline would overshoot."""
    segment = np.clip(np.searchsorted(times, phase, side="right") - 1, 0, len(times) - 2)
    along = np.clip((phase - times[segment]) / (times[segment + 1] - times[segment]), 0.0, 1.0)
    eased = along * along * along * (along * (along * 6 - 15) + 10)  # quintic: velocity and acceleration vanish at both ends
    start, end = Rotation.from_rotvec(vectors[segment]), Rotation.from_rotvec(vectors[segment + 1])
    return (start * Rotation.from_rotvec((start.inv() * end).as_rotvec() * eased[:, None])).as_rotvec()


def _path(times: np.ndarray, values: np.ndarray, phase: np.ndarray, loop: bool) -> np.ndarray:
    if not loop:
        return PchipInterpolator(times, values)(phase)
    closed = np.append(times, times[0] + 1)
    return CubicSpline(closed, np.concatenate([values, values[:1]]), bc_type="periodic")(phase)
