"""The page's sliders as data: which joints one turns, about which axes, how far; and which faces the body can make.

Axes are those of the joint's parent in the rest pose: y up, x to the person's left, z forward.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from svad_ray.body.model import Body
from svad_ray.body.names import HAND_FINGERS, JOINT_INDEX, SIDES

Axis = tuple[float, float, float]
X, Y, Z = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
_THUMB: Axis = (0.35, -0.9, 0.0)  # the left thumb bends towards the palm, which faces down
_CAUGHT = 0.5  # share of a face unit's movement that the avatar's expression space must hold for the unit to be offered
_PERSONAL = 4  # sliders of a body whose expressions have no names
_FACES = {  # slider -> the ARKit face units that it drives
    "Smile": ("mouthSmileLeft", "mouthSmileRight"),
    "Frown": ("mouthFrownLeft", "mouthFrownRight"),
    "Pucker": ("mouthPucker",),
    "Puff": ("cheekPuff",),
    "Blink": ("eyeBlinkLeft", "eyeBlinkRight"),
    "Brows": ("browInnerUp", "browOuterUpLeft", "browOuterUpRight"),
}


@dataclass(frozen=True)
class Slider:
    """One control.

    Attributes:
        name: Of the row. side: "left" or "right" of the person, "" for neither.
        low, high: Its ends; degrees, or shares of an expression.
        turns: (joint, axis) pairs, the joint's angle being the slider's value times the axis' length.
        expression: Coefficients at the value 1, empty where it turns joints.
    """

    name: str
    low: float
    high: float
    turns: tuple[tuple[str, Axis], ...] = ()
    side: str = ""
    expression: tuple[float, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """What the page reads; joints by number."""
        turns = [[JOINT_INDEX[joint], *axis] for joint, axis in self.turns]
        return {"name": self.name, "side": self.side, "low": self.low, "high": self.high, "turns": turns, "expression": list(self.expression)}


def groups(body: Body, expressions: int) -> dict[str, tuple[Slider, ...]]:
    """Name of a group -> its sliders, for an avatar with so many expression coefficients on ``body``."""
    return {"Head and torso": _TRUNK, "Arms": tuple(_both(_ARM)), "Legs": tuple(_both(_LEG)), "Face": (*_JAW_AND_EYES, *faces(body, expressions))}


def faces(body: Body, expressions: int) -> Iterator[Slider]:
    """Sliders of the face units that ``expressions`` coefficients can make; the first coefficients themselves where units have no names."""
    if not body.expression_units or body.unit_to_expression is None:
        for k in range(min(_PERSONAL, expressions)):
            yield Slider(f"Shape {k + 1}", -3, 3, expression=tuple(float(k == e) for e in range(expressions)))
        return
    reach = body.exprdirs.square().sum((0, 1)).numpy()  # the directions are orthogonal: squared movements add up
    for name, units in _FACES.items():
        whole = np.sum([body.unit_to_expression[body.expression_units.index(unit)] for unit in units], 0)
        moved = whole**2 * reach
        if moved[:expressions].sum() >= _CAUGHT * moved.sum():
            yield Slider(name, 0, 1, expression=tuple(float(c) for c in whole[:expressions]))


def _both(left: tuple[Slider, ...]) -> Iterator[Slider]:
    """Each slider for the left side, and for the right with its axes mirrored in the plane between them."""
    for slider in left:
        for side, sign in zip(SIDES, (1.0, -1.0)):
            turns = tuple((f"{side}_{joint}", (x, sign * y, sign * z)) for joint, (x, y, z) in slider.turns)
            yield Slider(slider.name, slider.low, slider.high, turns, side)


def _times(axis: Axis, factor: float) -> Axis:
    return (axis[0] * factor, axis[1] * factor, axis[2] * factor)


_SPINE = ("spine1", "spine2", "spine3")
_TRUNK = (
    Slider("Look aside", -80, 80, (("neck", _times(Y, 0.4)), ("head", _times(Y, 0.6)))),
    Slider("Nod", -40, 40, (("neck", _times(X, 0.4)), ("head", _times(X, 0.6)))),
    Slider("Tilt", -35, 35, (("neck", _times(Z, 0.5)), ("head", _times(Z, 0.5)))),
    Slider("Bow", -25, 80, tuple((joint, _times(X, 1 / 3)) for joint in _SPINE)),
    Slider("Lean", -40, 40, tuple((joint, _times(Z, 1 / 3)) for joint in _SPINE)),
    Slider("Twist", -60, 60, tuple((joint, _times(Y, 1 / 3)) for joint in _SPINE)),
)
_FIST = tuple((f"{finger}{k}", _times(Z, -1) if finger != "thumb" else _times(_THUMB, 0.4)) for finger in HAND_FINGERS for k in (1, 2, 3))
_ARM = (  # of the left side
    Slider("Raise", -60, 130, (("collar", _times(Z, 0.15)), ("shoulder", _times(Z, 0.85)))),
    Slider("Forward", -50, 110, (("shoulder", _times(X, -1)),)),
    Slider("Elbow", 0, 140, (("elbow", _times(Y, -1)),)),
    Slider("Wrist", -80, 80, (("wrist", X),)),
    Slider("Fist", 0, 80, _FIST),
)
_LEG = (
    Slider("Forward", -40, 110, (("hip", _times(X, -1)),)),
    Slider("Aside", -15, 70, (("hip", Z),)),
    Slider("Knee", 0, 140, (("knee", X),)),
    Slider("Foot", -30, 50, (("ankle", X),)),
)
_EYES = ("left_eye", "right_eye")
_JAW_AND_EYES = (
    Slider("Jaw", 0, 28, (("jaw", X),)),
    Slider("Eyes aside", -30, 30, tuple((eye, Y) for eye in _EYES)),
)
