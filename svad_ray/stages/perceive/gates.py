"""Quality gates: is the photo good enough for an avatar? Every refusal says what was seen and what to do.

Whether a joint is in the photo is judged by its POSITION: the detector calls hips visible that lie below the photo's border (measured: 0.95).
Source: ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from svad_ray.errors import QualityRejected
from svad_ray.subject import Perception, Photo

MIN_PERSON_PX = 200
MIN_FACE_PX = 24
_MARGIN = 0.005  # of the photo's longer side: a joint nearer to the border counts as cut off
_BORDER_SHARE = 0.1  # of the person's width or height that may touch the border
_HIPS, _KNEES, _FEET = [23, 24], [25, 26], [27, 28, 29, 30, 31, 32]
_SHOULDERS, _HEAD = [11, 12], [0, 2, 5, 7, 8]
_OF_FACES = ("no_face", "face_too_small")
_CROWN = 0.24  # top of the skull above the ears, in torso lengths


@dataclass(frozen=True)
class View:
    """What a gate judges. ``size`` = (width, height)."""

    photo: Photo
    seen: Perception

    @property
    def size(self) -> np.ndarray:
        return np.array(self.photo.image.shape[1::-1], float)

    def outside(self, joints: list[int]) -> bool:
        """Does any of these body landmarks lie outside the photo or on its border?"""
        points, margin = self.seen.landmarks[joints], _MARGIN * self.size.max()
        return bool(((points < margin) | (points > self.size - margin)).any())

    @property
    def person_px(self) -> float:
        """Height or width, whichever is larger, of the landmarks' box inside the photo."""
        return float(np.ptp(self.seen.landmarks.clip(0, self.size), axis=0).max())

    @property
    def face_px(self) -> float:
        """Width of the face: of its mesh, else ear to ear."""
        if self.seen.face_mesh is not None:
            return float(np.ptp(self.seen.face_mesh[:, 0]))
        return float(np.hypot(*(self.seen.landmarks[7] - self.seen.landmarks[8])))

    @property
    def crown(self) -> np.ndarray:
        """(2,) pixels: about where the top of the head is."""
        marks = self.seen.landmarks
        up = marks[_SHOULDERS].mean(0) - marks[_HIPS].mean(0)
        return marks[[7, 8]].mean(0) + _CROWN * up

    def border_shares(self) -> dict[str, float]:
        """How much of each border the mask touches, as a share of the mask's extent along it."""
        mask = self.seen.mask > 0.5
        if not mask.any():
            return {}
        width, height = mask.any(0).sum(), mask.any(1).sum()
        lines = {"top": (mask[0], width), "bottom": (mask[-1], width), "left": (mask[:, 0], height), "right": (mask[:, -1], height)}
        return {name: float(line.sum() / extent) for name, (line, extent) in lines.items()}


@dataclass(frozen=True)
class Gate:
    """One rule.

    Attributes:
        code: Short name, stable.
        fails: Says whether the view breaks the rule.
        found: Message; may use {people}, {person_px}, {face_px}, {borders}.
        expected, remedy: For the person who took the photo.
        waived_by: The option ("largest", "bust") that turns the refusal into a warning; empty = none.
        warns: Only ever a warning.
    """

    code: str
    fails: Callable[[View], bool]
    found: str
    expected: str
    remedy: str
    waived_by: str = ""
    warns: bool = False


def _touching(view: View) -> list[str]:
    return [name for name, share in view.border_shares().items() if share > _BORDER_SHARE]


_STEP_BACK = "take the photo from further away so that the whole person fits, with space on every side"
_BUST = "or ask for a half-body avatar (--bust)"

GATES: tuple[Gate, ...] = (
    Gate(
        "no_person",
        lambda view: view.seen.people == 0 or view.seen.person_score < 0.5,
        "no person was found in the photo",
        "one person, mostly facing the camera",
        "use a sharper, brighter photo of one person",
    ),
    Gate(
        "several_people",
        lambda view: view.seen.people > 1,
        "{people} people were found in the photo",
        "one person",
        "crop the photo to one person, or ask for the largest (--largest)",
        waived_by="largest",
    ),
    Gate(
        "half_body",
        lambda view: view.outside(_HIPS) or view.outside(_KNEES),
        "the photo shows half a body: hips or knees lie outside it",
        "the whole person, head to feet",
        f"{_STEP_BACK}; {_BUST}",
        waived_by="bust",
    ),
    Gate(
        "feet_cut_off",
        lambda view: view.outside(_FEET),
        "the feet are cut off",
        "both feet inside the photo",
        f"{_STEP_BACK}; {_BUST}",
        waived_by="bust",
    ),
    Gate(
        "head_cut_off",
        lambda view: view.outside(_HEAD) or bool((view.crown < 0).any() or (view.crown > view.size).any()),
        "the head is cut off",
        "the whole head, with some space above it",
        _STEP_BACK,
    ),
    Gate(
        "mask_at_border",
        lambda view: bool(_touching(view)),
        "the person runs into the photo's border ({borders})",
        "space between the person and every border",
        f"{_STEP_BACK}; {_BUST}",
        waived_by="bust",
    ),
    Gate(
        "person_too_small",
        lambda view: view.person_px < MIN_PERSON_PX,
        "the person is {person_px:.0f} pixels high",
        f"at least {MIN_PERSON_PX} pixels",
        "come closer, or use the photo at its full resolution",
    ),
    Gate(
        "face_too_small",
        lambda view: view.face_px < MIN_FACE_PX,
        "the face is {face_px:.0f} pixels wide, so its likeness will be poor",
        f"at least {MIN_FACE_PX} pixels",
        "use the photo at its full resolution, or come closer",
        warns=True,
    ),
    Gate(
        "no_face",
        lambda view: view.seen.face_mesh is None,
        "no face was found; the head keeps only what the photo shows of it",
        "a face turned to the camera",
        "use a photo that shows the face",
        warns=True,
    ),
)


def check(photo: Photo, perception: Perception, *, largest: bool = False, bust: bool = False) -> tuple[str, ...]:
    """Judge a photo.

    Args:
        photo: The photo.
        perception: What the perceive stage saw in it.
        largest: Several people are no reason to refuse: the largest was taken.
        bust: Half a body is no reason to refuse.

    Returns:
        Warnings, each beginning with its gate's code; waived refusals are among them.

    Raises:
        QualityRejected: With what was seen, what was expected and the remedy.
    """
    view, allowed = View(photo, perception), {"largest": largest, "bust": bust, "": False}
    warnings = list(perception.warnings)
    for gate in GATES:
        if not gate.fails(view):
            continue
        found = gate.found.format(
            people=perception.people, person_px=_number(view, "person_px"), face_px=_number(view, "face_px"), borders=", ".join(_touching(view))
        )
        if not (gate.warns or allowed[gate.waived_by]):
            raise QualityRejected(found, expected=gate.expected, remedy=gate.remedy)
        warnings.append(f"{gate.code}: {found}")
    return tuple(warnings)


def check_all(photos: Sequence[Photo], seen: Sequence[Perception], *, largest: bool = False, bust: bool = False) -> tuple[str, ...]:
    """``check`` for all photos of a subject, each named when there are several; that a photo shows no face is no fault while another one does."""
    if len(photos) == 1:
        return check(photos[0], seen[0], largest=largest, bust=bust)
    face = any(one.face_mesh is not None for one in seen)
    warnings: list[str] = []
    for photo, one in zip(photos, seen):
        try:
            found = check(photo, one, largest=largest, bust=bust)
        except QualityRejected as error:
            raise QualityRejected(f"'{photo.name}': {error.found}", expected=error.expected, remedy=error.remedy) from error
        said = [text for text in found if not (face and text.startswith(_OF_FACES))]
        warnings += [f"{code}: '{photo.name}': {text}" for code, _, text in (warning.partition(": ") for warning in said)]
    return tuple(warnings)


def _number(view: View, name: str) -> float:
    return 0.0 if view.seen.people == 0 else float(getattr(view, name))
