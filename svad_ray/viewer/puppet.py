"""What the viewer shows, without the viewer: a frame of a clip, joints bent by hand on top of it, and what follows from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from svad_ray.body.model import Body
from svad_ray.body.names import JOINT_INDEX
from svad_ray.deliver import danced
from svad_ray.errors import InputError
from svad_ray.export.gltf import Skinned, surface_of
from svad_ray.motion import MOTIONS
from svad_ray.splat.functions import Covariance
from svad_ray.stages.avatar.asset import PosableAvatar
from svad_ray.subject import Avatar, BodyTrack

EXPRESSION = "Expression"
CONFIDENCE = "confidence"  # the avatar's tensor (N,) in [0, 1], if it carries one
_UNSURE, _SURE = np.array([0.85, 0.2, 0.1], np.float32), np.array([0.1, 0.6, 0.25], np.float32)
_SQUARE = (0, 1, 2, 1, 3, 4, 2, 4, 5)  # upper entries of a symmetric 3 x 3, row by row


@dataclass(frozen=True)
class Bend:
    """One joint about one axis of its parent, degrees."""

    joint: str
    axis: tuple[float, float, float]
    low: float
    high: float


# Signs follow the body's axes: y up, x to its left, z forward.
BENDS: dict[str, Bend] = {
    "Head turn": Bend("head", (0, 1, 0), -70, 70),
    "Head nod": Bend("head", (1, 0, 0), -35, 40),
    "Jaw": Bend("jaw", (1, 0, 0), 0, 25),
    "Bow": Bend("spine1", (1, 0, 0), -15, 60),
    "Left arm up": Bend("left_shoulder", (0, 0, 1), -60, 120),
    "Right arm up": Bend("right_shoulder", (0, 0, -1), -60, 120),
    "Left elbow": Bend("left_elbow", (0, -1, 0), 0, 130),
    "Right elbow": Bend("right_elbow", (0, 1, 0), 0, 130),
    "Left leg forward": Bend("left_hip", (-1, 0, 0), -30, 90),
    "Right leg forward": Bend("right_hip", (-1, 0, 0), -30, 90),
    "Left knee": Bend("left_knee", (1, 0, 0), 0, 120),
    "Right knee": Bend("right_knee", (1, 0, 0), 0, 120),
}


@dataclass(frozen=True)
class Splats:
    """Posed Gaussians as viewers take them: centers (N, 3) metres, covariances (N, 3, 3), colors (N, 3) and opacities (N, 1) in [0, 1]."""

    centers: np.ndarray
    covariances: np.ndarray
    colors: np.ndarray
    opacities: np.ndarray


class Puppet:
    """An avatar, the clips it can play, and its surface. Clips are put on the person when first asked for.

    Args:
        body: The avatar's body.
    """

    def __init__(self, avatar: Avatar, body: Body) -> None:
        self.avatar, self.body, self.posable = avatar, body, PosableAvatar(avatar)
        self._sources: dict[str, str] = {name: name for name in MOTIONS}
        self._tracks: dict[str, BodyTrack] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Of the clips."""
        return tuple(self._sources)

    @property
    def has_confidence(self) -> bool:
        """Whether the avatar says how sure it is of each Gaussian."""
        return len(self.posable.avatar.tensors.get(CONFIDENCE, ())) == self.posable.count

    def add(self, motion: str, *, name: str = "") -> str:
        """Take in a motion by name or file; returns the name under which it plays.

        Raises:
            InputError: A motion that cannot be read, or a body that is not the avatar's.
        """
        if motion in MOTIONS:
            return motion
        name = name or Path(motion).stem
        if name in MOTIONS:
            name = f"{name} (file)"
        track = danced(self.avatar, motion, self.body)
        self._sources[name], self._tracks[name] = motion, track
        return name

    def clip(self, name: str) -> BodyTrack:
        """A clip on this person."""
        if name not in self._sources:
            raise InputError(f"no clip '{name}'", expected=" or ".join(self.names))
        if name not in self._tracks:
            self._tracks[name] = danced(self.avatar, self._sources[name], self.body)
        return self._tracks[name]

    def at(self, name: str, frame: int, bent: Mapping[str, float]) -> BodyTrack:
        """One frame of a clip with bends (degrees) and an ``EXPRESSION`` (of its first direction) on top."""
        track = self.clip(name).frames(slice(frame, frame + 1))
        pose, expression = track.full_pose.copy(), track.expression.copy()
        for label, bend in BENDS.items():
            if degrees := bent.get(label, 0.0):
                joint = JOINT_INDEX[bend.joint]
                turn = Rotation.from_rotvec(np.array(bend.axis) * degrees, degrees=True)
                pose[0, joint] = (turn * Rotation.from_rotvec(pose[0, joint])).as_rotvec()
        expression[:, :1] += bent.get(EXPRESSION, 0.0)
        return replace(track.with_full_pose(pose), expression=expression)

    def splats(self, track: BodyTrack, *, sure: bool = False) -> Splats:
        """The Gaussians of a single frame; ``sure`` paints them by confidence, red to green."""
        g = self.posable.posed(track, 0)
        covariances = Covariance.apply(g.quats, g.scales).numpy()[:, _SQUARE].reshape(-1, 3, 3)
        colors = self._surety if sure else g.colors.numpy()
        return Splats(g.means.numpy(), covariances, colors, g.opacities.numpy()[:, None])

    def bones(self, track: BodyTrack) -> np.ndarray:
        """(54, 2, 3) metres: from each joint's parent to the joint, of a single frame."""
        joints = self.posable.joints(track)[0]
        return np.stack([joints[self.posable.parents[1:]], joints[1:]], 1)

    @cached_property
    def surface(self) -> Skinned:
        """The clothed surface at rest."""
        return surface_of(self.avatar, self.body)

    def vertices(self, track: BodyTrack) -> np.ndarray:
        """(V, 3) metres: the surface in a single frame."""
        rows = self.posable.skin(track)[0].reshape(-1, 12)
        blended = np.einsum("vk,vke->ve", self.surface.weights, rows[self.surface.joints]).reshape(-1, 3, 4)
        return (np.einsum("vij,vj->vi", blended[..., :3], self.surface.positions) + blended[..., 3]).astype(np.float32)

    @cached_property
    def _surety(self) -> np.ndarray:
        share = np.asarray(self.posable.avatar.tensors[CONFIDENCE], np.float32).clip(0, 1)[:, None]
        return _UNSURE + share * (_SURE - _UNSURE)
