"""Random people in a step, standing or pointing at something, as a camera might catch them: broad on purpose, for learning and not for scoring.

A step is drawn from its length, how far each thigh goes, how the knees bend and how the arms swing against the legs, each with its own spread. The
body is then turned until its mass is over the feet, and mostly both feet are put on one ground: who walks has one foot in the air every other moment.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from svad_ray.body.names import JOINT_INDEX as J
from svad_ray.evaluate.synthetic.character import Character
from svad_ray.evaluate.synthetic.poses import joint_transforms, lowered_arm, move_joints, skin
from svad_ray.evaluate.synthetic.render import View, render

Kind = Literal["gait", "gesture", "stand"]
Named = dict[str, tuple[float, float, float]]
LONGEST_STEP, LONGEST_SHIFT = 0.8, 0.3  # radians between the thighs of who walks and of who gestures
MOST_TILT = 0.12  # radians that balance may turn the pelvis; poses that would need more are drawn anew
LEVEL = 0.008  # metres between the soles that count as one ground
SPARSE = 7  # every so many vertices of the shoes tell where the ground is
# Shares of the body's mass, by the joints whose middle carries it. Source: usual tables of segment masses.
_TRUNK = ("pelvis", "spine1", "spine2", "spine3", "neck")
_LIMBS = (
    (0.028, "shoulder", "elbow"),
    (0.022, "elbow", "wrist"),
    (0.10, "hip", "knee"),
    (0.047, "knee", "ankle"),
    (0.014, "ankle", "foot"),
)


def random_moment(rng: np.random.Generator, character: Character, kind: Kind) -> tuple[Named, float]:
    """A pose, and the radians that the person is turned from the camera."""
    while True:
        turned = float(rng.normal(0, 0.12)) if rng.random() < 0.8 else float(rng.uniform(-0.5, 0.5))
        step = 0.0 if kind == "stand" else float(rng.uniform(0.05, LONGEST_STEP) if kind == "gait" else rng.uniform(0, LONGEST_SHIFT))
        front, rear = ("left", "right") if rng.random() < 0.5 else ("right", "left")
        pose = _trunk_and_legs(rng, kind, step, front, rear) | (_gesture(rng) if kind == "gesture" else _swing(rng, step, front))
        grounds = rng.random() < (0.9 if kind == "stand" else 0.6)
        off, load = float(rng.normal(0, 0.015)), float(rng.uniform(0.38, 0.62) if step else rng.uniform(0.45, 0.55))
        for _ in range(3):
            pose = balanced(pose, character, {front: load, rear: 1 - load}, off=off)
            pose = grounded(pose, character, rear) if grounds else pose
        if abs(pose["pelvis"][0]) <= MOST_TILT:
            return pose, turned


def random_photo(rng: np.random.Generator, character: Character, kind: Kind) -> tuple[View, Named]:
    """A picture of a random moment from the front, by a nearly level camera of some focal length before some ground."""
    pose, yaw = random_moment(rng, character, kind)
    focal = float(np.exp(rng.uniform(np.log(1.2), np.log(2.1))))
    distance = 3.4 * focal / 1.4 * float(rng.uniform(0.95, 1.25))
    r, g, b = rng.uniform(0.5, 1, 3) if rng.random() < 0.6 else np.ones(3)
    pitch = float(rng.normal(0, 0.035))
    ground = (float(r), float(g), float(b))
    return render(character, pose, yaw=yaw, pitch=pitch, focal=512 * focal, distance=distance, supersample=2, background=ground), pose


def _trunk_and_legs(rng: np.random.Generator, kind: Kind, step: float, front: str, rear: str) -> Named:
    calm = 0.5 if kind == "stand" else 1.0

    def n(spread: float) -> float:
        return float(rng.normal(0, spread))

    share = float(rng.uniform(0.35, 0.85))  # of the step that the front thigh makes
    lean = float(rng.normal(0.03 if kind == "gait" else 0.0, 0.035 if kind == "stand" else 0.05))
    pose: Named = {"pelvis": (0.0, float(rng.normal(0, 0.12 * min(1, 2 * step))), n(0.02))}
    for spine in ("spine1", "spine2", "spine3"):
        pose[spine] = (lean / 3 + n(0.015 * calm), n(0.04 * calm), n(0.012))
    pose["neck"], pose["head"] = (n(0.05), n(0.05), n(0.03)), (n(0.1), n(0.15), n(0.04))
    pose[f"{front}_hip"] = (-share * step + n(0.04 * calm), n(0.08), n(0.03))
    pose[f"{rear}_hip"] = ((1 - share) * step + n(0.04 * calm), n(0.08), n(0.03))
    pose[f"{front}_knee"] = (0.14 * step + abs(n(0.07 * calm)), 0.0, 0.0)
    pose[f"{rear}_knee"] = (0.5 * step * float(rng.uniform(0.3, 1.5)) + abs(n(0.07 * calm)), 0.0, 0.0)
    pose[f"{front}_ankle"] = (n(0.08) + float(rng.uniform(-0.2, 0.2)) * step, n(0.1), 0.0)
    pose[f"{rear}_ankle"] = (n(0.08) - 0.15 * step, n(0.1), 0.0)
    return pose


def _swing(rng: np.random.Generator, step: float, front: str) -> Named:
    """Arms against the legs, mostly; some people hardly swing them, or the wrong way."""
    against = float(rng.uniform(0.1, 1.0)) if rng.random() < 0.85 else float(rng.uniform(-0.3, 0.1))
    low, pose = float(rng.uniform(0.75, 1.32)), {}
    for side, sign in (("left", 1), ("right", -1)):
        back = (1 if side == front else -1) * step * against * 0.7 + float(rng.normal(0, 0.10)) - float(rng.uniform(-0.1, 0.15))
        pose[f"{side}_shoulder"] = lowered_arm(-sign * (low + float(rng.normal(0, 0.06))), back)
        twist, bend = float(rng.normal(0, 0.1)), float(rng.uniform(0.05, 0.45)) + (0.2 * step if back < 0 else 0.0)
        pose[f"{side}_elbow"] = (twist, -sign * max(0.03, bend), 0.0)
    return pose


def _gesture(rng: np.random.Generator) -> Named:
    """Each arm hangs or is lifted somewhere before the body."""
    pose: Named = {}
    for side, sign in (("left", 1), ("right", -1)):
        lifted = rng.random() < 0.5
        low = float(rng.uniform(0.1, 1.2) if lifted else rng.uniform(0.8, 1.3))
        pose[f"{side}_shoulder"] = lowered_arm(-sign * low, float(rng.uniform(-1.0, 0.4) if lifted else rng.normal(0, 0.15)))
        pose[f"{side}_elbow"] = (0.0, -sign * float(rng.uniform(0.1, 1.6) if lifted else rng.uniform(0.05, 0.5)), 0.0)
    return pose


def centre_of_mass(joints: np.ndarray) -> np.ndarray:
    """(3,) metres, of joints (55, 3)."""
    masses = [(0.08, joints[J["head"]]), (0.50, joints[[J[name] for name in _TRUNK]].mean(0))]
    for side in ("left", "right"):
        masses += [(mass, (joints[J[f"{side}_{a}"]] + joints[J[f"{side}_{b}"]]) / 2) for mass, a, b in _LIMBS]
    return sum(mass * at for mass, at in masses) / sum(mass for mass, _ in masses)


def balanced(pose: Named, character: Character, load: dict[str, float], *, off: float = 0.0) -> Named:
    """The pose with the pelvis pitched so that the mass is over the feet, as it is in the zero pose, plus ``off`` metres to the front.

    Args:
        load: Which share each foot ("left", "right") carries.
    """
    rest = character.joints
    goal = centre_of_mass(rest)[2] - (rest[J["left_ankle"], 2] + rest[J["right_ankle"], 2]) / 2 + off

    def miss(pitch: float) -> float:
        joints = move_joints(rest, joint_transforms(pose | {"pelvis": (pitch, *pose["pelvis"][1:])}, rest))
        return abs(centre_of_mass(joints)[2] - sum(share * joints[J[f"{side}_ankle"], 2] for side, share in load.items()) - goal)

    return pose | {"pelvis": (min(map(float, np.linspace(-0.3, 0.3, 41)), key=miss), *pose["pelvis"][1:])}


def grounded(pose: Named, character: Character, rear: str) -> Named:
    """The pose with both feet on one level ground: by the rear ankle, and where that is not enough by the knee of the lower foot."""

    def apart(of: Named) -> float:
        left, right = _soles(character, of)
        return abs(left - right)

    x, y, z = pose[f"{rear}_ankle"]
    turns = [(float(turn), pose | {f"{rear}_ankle": (x + float(turn), y, z)}) for turn in np.linspace(-0.35, 0.6, 20)]
    pose = min(turns, key=lambda one: apart(one[1]) + 0.02 * abs(one[0]))[1]
    left, right = _soles(character, pose)
    if abs(left - right) < LEVEL:
        return pose
    lower = "left" if left < right else "right"
    knee, hip = pose[f"{lower}_knee"][0], pose[f"{lower}_hip"]
    bends = [
        pose | {f"{lower}_knee": (knee + float(d), 0.0, 0.0), f"{lower}_hip": (hip[0] - 0.5 * float(d), *hip[1:])} for d in np.linspace(0, 0.5, 20)
    ]
    return min(bends, key=apart)


def _soles(character: Character, pose: Named) -> tuple[float, float]:
    """Heights of the lowest points of the left and the right shoe."""
    (shoes,) = (mesh for mesh in character.meshes if mesh.name == "shoes")
    at, weights = shoes.vertices[::SPARSE], shoes.lbs_weights[::SPARSE]
    y = skin(at, weights, joint_transforms(pose, character.joints))[:, 1]
    return float(y[at[:, 0] > 0].min()), float(y[at[:, 0] <= 0].min())
