"""Joint names of the SMPL-X skeleton and where each COCO-WholeBody keypoint is found on a body, by name.

Nothing outside this folder knows a vertex number: other code asks ``body.tables.vertex["left_heel"]`` or the tables below.
"""

from __future__ import annotations

_BODY = {
    "pelvis": "", "left_hip": "pelvis", "right_hip": "pelvis", "spine1": "pelvis", "left_knee": "left_hip", "right_knee": "right_hip",
    "spine2": "spine1", "left_ankle": "left_knee", "right_ankle": "right_knee", "spine3": "spine2", "left_foot": "left_ankle",
    "right_foot": "right_ankle", "neck": "spine3", "left_collar": "spine3", "right_collar": "spine3", "head": "neck",
    "left_shoulder": "left_collar", "right_shoulder": "right_collar", "left_elbow": "left_shoulder", "right_elbow": "right_shoulder",
    "left_wrist": "left_elbow", "right_wrist": "right_elbow", "jaw": "head", "left_eye": "head", "right_eye": "head",
}  # fmt: skip
HAND_FINGERS = ("index", "middle", "pinky", "ring", "thumb")  # the order of the hand poses
FINGERS = ("thumb", "index", "middle", "ring", "pinky")  # the order of finger tips and of COCO-WholeBody
SIDES = ("left", "right")


def _tree() -> dict[str, str]:
    hands = {
        f"{side}_{finger}{k}": f"{side}_{finger}{k - 1}" if k > 1 else f"{side}_wrist" for side in SIDES for finger in HAND_FINGERS for k in (1, 2, 3)
    }
    return {**_BODY, **hands}


PARENT_NAMES: dict[str, str] = _tree()
JOINT_NAMES: tuple[str, ...] = tuple(PARENT_NAMES)
JOINT_INDEX: dict[str, int] = {name: i for i, name in enumerate(JOINT_NAMES)}
# Joints of the right side, and their partners on the left in the same order.
RIGHT_JOINTS: tuple[int, ...] = tuple(i for i, name in enumerate(JOINT_NAMES) if name.startswith("right_"))
LEFT_JOINTS: tuple[int, ...] = tuple(JOINT_INDEX[JOINT_NAMES[i].replace("right_", "left_")] for i in RIGHT_JOINTS)
PARENTS: tuple[int, ...] = tuple(JOINT_INDEX.get(parent, -1) for parent in PARENT_NAMES.values())

# The named vertices that follow the 55 joints in the output, in smplx's order.
VERTEX_JOINT_NAMES: tuple[str, ...] = (
    "nose", "right_eye", "left_eye", "right_ear", "left_ear",
    *(f"{side}_{part}" for side in SIDES for part in ("big_toe", "small_toe", "heel")),
    *(f"{side}_{finger}_tip" for side in SIDES for finger in FINGERS),
)  # fmt: skip

# The face as iBUG numbers it: 0-16 contour (person's right ear to left ear), 17-67 brows, nose, eyes, lips.
FACE_LANDMARKS, CONTOUR_LANDMARKS = 51, 17

_FIRST_VERTEX_JOINT = len(JOINT_NAMES)
_FIRST_LANDMARK = _FIRST_VERTEX_JOINT + len(VERTEX_JOINT_NAMES)
_FIRST_CONTOUR = _FIRST_LANDMARK + FACE_LANDMARKS
# Every output of Body.forward().joints; joint names win where an eye is both a joint and a vertex (the vertex is "left_eye_vertex").
OUTPUT_NAMES: tuple[str, ...] = (
    *JOINT_NAMES,
    *(f"{name}_vertex" if name in JOINT_INDEX else name for name in VERTEX_JOINT_NAMES),
    *(f"face_{i}" for i in range(17, 68)),
    *(f"face_{i}" for i in range(17)),
)
OUTPUT_INDEX: dict[str, int] = {name: i for i, name in enumerate(OUTPUT_NAMES)}


def _wholebody() -> tuple[str, ...]:
    """Names of the 133 COCO-WholeBody keypoints in this module's terms; hand roots are the wrists."""
    pairs = ("ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
    body = ["nose", "left_eye_vertex", "right_eye_vertex"] + [f"{side}_{part}" for part in pairs for side in SIDES]
    feet = [f"{side}_{part}" for side in SIDES for part in ("big_toe", "small_toe", "heel")]
    face = [f"face_{i}" for i in range(68)]
    hands: list[str] = []
    for side in SIDES:
        hands.append(f"{side}_wrist")
        for finger in FINGERS:
            hands += [f"{side}_{finger}{k}" for k in (1, 2, 3)] + [f"{side}_{finger}_tip"]
    return tuple(body + feet + face + hands)


WHOLEBODY_NAMES: tuple[str, ...] = _wholebody()
# (133,) index into Body.forward().joints of every COCO-WholeBody keypoint. The two hand roots repeat the wrists (9, 10); the paper's fit drops them.
WHOLEBODY_TO_OUTPUT: tuple[int, ...] = tuple(OUTPUT_INDEX[name] for name in WHOLEBODY_NAMES)
WHOLEBODY_HAND_ROOTS = (91, 112)
