"""MakeHuman's default rig in SMPL-X terms: which bones make a joint, where joints lie, and how the A-pose becomes the zero pose."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from svad_ray.body.names import HAND_FINGERS, JOINT_INDEX, JOINT_NAMES, PARENTS

_FINGER_NUMBER = {"thumb": 1, "index": 2, "middle": 3, "ring": 4, "pinky": 5}
_FINGER_NAME = {str(number): name for name, number in _FINGER_NUMBER.items()}
_CENTRE = {
    "root": "pelvis", "pelvis": "pelvis", "spine05": "pelvis", "spine04": "spine1", "spine03": "spine2", "spine02": "spine3",
    "spine01": "spine3", "breast": "spine3", "neck01": "neck", "neck02": "neck",
}  # fmt: skip
_SIDED = {
    "upperleg01": "hip", "upperleg02": "hip", "lowerleg01": "knee", "lowerleg02": "knee", "foot": "ankle", "clavicle": "collar",
    "upperarm01": "shoulder", "upperarm02": "shoulder", "lowerarm01": "elbow", "lowerarm02": "elbow", "wrist": "wrist", "eye": "eye",
}  # fmt: skip
# SMPL-X joint -> the bone whose head is that joint; sided bones get ".L" / ".R".
_CENTRE_HEADS = {
    "pelvis": "spine05", "spine1": "spine04", "spine2": "spine03", "spine3": "spine02", "neck": "neck01", "head": "head", "jaw": "jaw",
}  # fmt: skip
_SIDED_HEADS = {
    "hip": "upperleg01", "knee": "lowerleg01", "ankle": "foot", "collar": "clavicle", "shoulder": "upperarm01", "elbow": "lowerarm01",
    "wrist": "wrist", "eye": "eye",
}  # fmt: skip


def bone_shares(bone: str, rig: dict) -> list[tuple[str, float]]:
    """SMPL-X joints that a MakeHuman bone's weight goes to, with shares that sum to 1.

    Args:
        bone: Bone of the default rig.
        rig: That rig's bones (for parents).

    Raises:
        KeyError: The bone is not of the default rig.
    """
    stem, _, letter = bone.partition(".")
    side = {"L": "left", "R": "right"}.get(letter, "")
    if stem in _CENTRE:
        return [(_CENTRE[stem], 1.0)]
    if stem == "neck03":
        return [("neck", 0.5), ("head", 0.5)]
    if stem in _SIDED:
        return [(f"{side}_{_SIDED[stem]}", 1.0)]
    if stem == "shoulder01":
        return [(f"{side}_collar", 0.5), (f"{side}_shoulder", 0.5)]
    if stem.startswith("toe"):
        return [(f"{side}_foot", 1.0)]
    if stem.startswith("metacarpal"):
        return [(f"{side}_wrist", 1.0)]
    if stem.startswith("finger"):
        return [(f"{side}_{_FINGER_NAME[stem[6]]}{stem[-1]}", 1.0)]
    return [(_face_joint(bone, rig), 1.0)]


def _face_joint(bone: str, rig: dict) -> str:
    """ "jaw" for bones below the jaw, "head" for the other bones of the face."""
    walk = bone
    while walk:
        if walk in ("jaw", "head"):
            return walk
        walk = rig[walk]["parent"]
    raise KeyError(bone)


def read_lbs_weights(weights_file: Path, rig: dict, count: int) -> np.ndarray:
    """(count, 55) float64 skinning weights, rows summing to 1, bones merged into SMPL-X joints."""
    out = np.zeros((count, len(JOINT_NAMES)))
    for bone, rows in json.loads(weights_file.read_text())["weights"].items():
        if bone not in rig or not rows:
            continue
        index, value = np.array(rows).T
        for joint, share in bone_shares(bone, rig):
            np.add.at(out[:, JOINT_INDEX[joint]], index.astype(int), value * share)
    return out / out.sum(1, keepdims=True)


def joint_matrix(rig: dict, cubes: dict[str, np.ndarray], count: int) -> np.ndarray:
    """(55, count) float64: each joint as the mean of the vertices that MakeHuman's rig places its bone's head by."""
    out = np.zeros((len(JOINT_NAMES), count))
    for name, row in JOINT_INDEX.items():
        vertices = np.concatenate([_head_vertices(rig[bone]["head"], cubes) for bone in _head_bones(name)])
        np.add.at(out[row], vertices, 1 / len(vertices))
    return out


def _head_bones(joint: str) -> list[str]:
    if joint in _CENTRE_HEADS:
        return [_CENTRE_HEADS[joint]]
    side, part = joint.split("_")
    letter = side[0].upper()
    if part == "foot":  # SMPL-X bends the toes as one: the mean of the five toe bases
        return [f"toe{k}-1.{letter}" for k in range(1, 6)]
    if part in _SIDED_HEADS:
        return [f"{_SIDED_HEADS[part]}.{letter}"]
    return [f"finger{_FINGER_NUMBER[part[:-1]]}-{part[-1]}.{letter}"]


def _head_vertices(head: dict, cubes: dict[str, np.ndarray]) -> np.ndarray:
    if head["strategy"] == "VERTEX":
        return np.array([head["vertex_index"]])
    if head["strategy"] == "CUBE":
        return cubes[head["cube_name"]]
    return np.array(head["vertex_indices"])


def zero_pose_rotations(joints: np.ndarray) -> np.ndarray:
    """(55, 3, 3) world rotations that take MakeHuman's A-posed rest to SMPL-X's zero pose.

    Arms and straightened fingers along +-x, palms down, legs straight below the hips in the front view (the side view keeps its natural bend),
    feet and trunk unturned.

    Args:
        joints: (55, 3) metres, A-pose.
    """
    out = np.tile(np.eye(3), (len(JOINT_NAMES), 1, 1))
    at = {name: joints[i] for name, i in JOINT_INDEX.items()}
    for side, sign in (("left", 1.0), ("right", -1.0)):
        for a, b in (("hip", "knee"), ("knee", "ankle")):
            out[JOINT_INDEX[f"{side}_{a}"]] = _level_leg(at[f"{side}_{b}"] - at[f"{side}_{a}"])
        for a, b in (("shoulder", "elbow"), ("elbow", "wrist"), ("wrist", "middle1")):
            out[JOINT_INDEX[f"{side}_{a}"]] = rotation_between(at[f"{side}_{b}"] - at[f"{side}_{a}"], np.array([sign, 0.0, 0.0]))
        _palm_down(out, at, side)
        _straighten_fingers(out, at, side)
    return out


def _level_leg(bone: np.ndarray) -> np.ndarray:
    """Turn about z that takes the bone's sideways lean away."""
    return _about(2, -np.arctan2(bone[0], -bone[1]))


def _palm_down(rotations: np.ndarray, at: dict[str, np.ndarray], side: str) -> None:
    """Roll the hand about x until index and pinky knuckles are level; the forearm takes half of the roll."""
    wrist, elbow = JOINT_INDEX[f"{side}_wrist"], JOINT_INDEX[f"{side}_elbow"]
    knuckles = rotations[wrist] @ (at[f"{side}_index1"] - at[f"{side}_pinky1"])
    angle = np.arctan2(knuckles[1], knuckles[2])
    rotations[wrist] = _about(0, angle) @ rotations[wrist]
    rotations[elbow] = _about(0, angle / 2) @ rotations[elbow]


def _straighten_fingers(rotations: np.ndarray, at: dict[str, np.ndarray], side: str) -> None:
    """Take the curl of the four fingers away (their spread stays); the thumb moves with the hand."""
    hand = rotations[JOINT_INDEX[f"{side}_wrist"]].copy()
    for finger in HAND_FINGERS:
        for k in (1, 2, 3):
            a, b = (k, k + 1) if k < 3 else (2, 3)  # the last bone has no joint at its end: it continues the middle one
            bone = hand @ (at[f"{side}_{finger}{b}"] - at[f"{side}_{finger}{a}"])
            straight = rotation_between(bone, bone * np.array([1.0, 0.0, 1.0])) if finger != "thumb" else np.eye(3)
            rotations[JOINT_INDEX[f"{side}_{finger}{k}"]] = straight @ hand


def _about(axis: int, angle: float) -> np.ndarray:
    """(3, 3) right-handed rotation about a coordinate axis, radians."""
    c, s = np.cos(angle), np.sin(angle)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    out = np.eye(3)
    out[i, i], out[i, j], out[j, i], out[j, j] = c, -s, s, c
    return out


def rotation_between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(3, 3) smallest rotation from direction ``a`` to direction ``b`` (not opposite)."""
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    v, c = np.cross(a, b), float(a @ b)
    k = np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])
    return np.eye(3) + k + k @ k / (1 + c)


def transforms_about_joints(joints: np.ndarray, rotations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Skinning transforms of world rotations.

    Args:
        joints: (55, 3) rest, metres.
        rotations: (55, 3, 3) world rotation of each joint.

    Returns:
        (55, 3, 4) rest-to-posed transforms; (55, 3) posed joints.
    """
    posed = joints.copy()
    for j, parent in enumerate(PARENTS):
        if parent >= 0:
            posed[j] = rotations[parent] @ (joints[j] - joints[parent]) + posed[parent]
    shift = posed - np.einsum("jab,jb->ja", rotations, joints)
    return np.concatenate([rotations, shift[:, :, None]], 2), posed
