"""SMPL-X's 55 joints by name, as motions key them. The tree and the rest positions belong to the body."""

from __future__ import annotations

_CHAIN = ["pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2", "left_ankle", "right_ankle", "spine3", "left_foot"]
_UPPER = ["right_foot", "neck", "left_collar", "right_collar", "head", "left_shoulder", "right_shoulder", "left_elbow", "right_elbow"]
_BODY = [*_CHAIN, *_UPPER, "left_wrist", "right_wrist", "jaw", "left_eye", "right_eye"]
_FINGERS = [f"{finger}{k}" for finger in ("index", "middle", "pinky", "ring", "thumb") for k in (1, 2, 3)]

JOINT_NAMES: tuple[str, ...] = (*_BODY, *(f"{side}_{finger}" for side in ("left", "right") for finger in _FINGERS))
JOINT_INDEX = {name: index for index, name in enumerate(JOINT_NAMES)}
JOINTS = len(JOINT_NAMES)
