"""Bringing a driving person's motion onto the proportions and place of the person in the photo.

Source: MusePose's pose alignment (spec: generation 2, "Pose alignment"; generation_proven 4, 5; SVAD section 3.1). Lengths are measured in shares
of the image's height. Nine factors, each the photo's length over that of the driving person's first frame, scale the parts about their anchors from
the neck outwards; a part follows the joint that it hangs on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from svad_ray.errors import InputError
from svad_ray.pose.openpose import MISSING, WRISTS, OpenPose

NECK = 1
EYES_EARS = (14, 15, 16, 17)
KNUCKLES = (1, 5, 9, 13, 17)  # of a hand: its length is measured to each of them
_PAIRS = {
    "neck": ((0, 1),),
    "face": ((16, 17),),
    "shoulder": ((2, 5),),
    "arm_upper": ((2, 3), (5, 6)),
    "arm_lower": ((3, 4), (6, 7)),
    "leg_upper": ((8, 9), (11, 12)),
    "leg_lower": ((9, 10), (12, 13)),
}
_ARMS = (((2, 3, 4), 1), ((5, 6, 7), 0))  # shoulder, elbow, wrist; number of the hand
_LEGS = ((8, 9, 10), (11, 12, 13))  # hip, knee, ankle
_HANGS_ON = {0: NECK, 2: NECK, 5: NECK, 8: NECK, 11: NECK, 3: 2, 4: 3, 6: 5, 7: 6, 9: 8, 10: 9, 12: 11, 13: 12}
CANVAS_WIDTH = 1024  # pixels of the drawing, whatever the video's size
FRAME_HEIGHT = 768  # pixels of the frames in the end


@dataclass(frozen=True)
class Aligned:
    """The driving poses as they are to be drawn, in shares of the photo's size.

    Attributes:
        poses: One per frame. scales: The nine factors by name.
    """

    poses: list[OpenPose]
    scales: dict[str, float]


def align(
    reference: OpenPose,
    video: Sequence[OpenPose],
    *,
    reference_size: tuple[int, int],
    video_size: tuple[int, int],
    frame: int = 0,
    official: bool = False,
) -> Aligned:
    """Bring the poses of ``video`` onto the person of ``reference``.

    Args:
        reference_size, video_size: (height, width) of the pictures. frame: Which frame of the video is measured.
        official: As the published code does, with its two faults: points that are missing (-1), and body points of too low a score to be drawn,
            take part in lengths as if they were there, and an infinite factor (both ears at one point) stays infinite. Otherwise a part that
            cannot be measured takes the mean of the others, a part whose anchor is missing follows the next joint towards the neck that is
            there, and people without a neck are brought together by the points that both have.

    Raises:
        InputError: The video has no frames, or no ``frame``; or its measured frame and the photo have no body point in common.
    """
    if not 0 <= frame < len(video):
        raise InputError(f"the driving clip has {len(video)} poses and frame {frame} was to be measured", remedy="choose another motion")
    wide = reference_size[1] / reference_size[0]
    own, driven = reference.scaled(wide), [pose.scaled(video_size[1] / video_size[0]) for pose in video]
    if official:
        factors = _official_factors(own, driven[frame])
        offset = own.body[NECK] - driven[frame].body[NECK]
        return Aligned([_moved(pose, factors, offset, _given(pose)).scaled(1 / wide) for pose in driven], factors)
    own_seen, seen = _seen(reference), [_seen(pose) for pose in video]
    factors = _factors(own, driven[frame], own_seen, seen[frame])
    moved = [_moved(pose, factors, np.zeros(2), there, anchors=_anchors(there)) for pose, there in zip(driven, seen)]
    offset = _offset(own, moved[frame], own_seen, seen[frame])
    return Aligned([_without(_shifted(pose, offset).scaled(1 / wide), there) for pose, there in zip(moved, seen)], factors)


def canvas_size(video_size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) at which aligned poses are drawn."""
    return int(video_size[0] * CANVAS_WIDTH / video_size[1]), CANVAS_WIDTH


def frame_size(reference_size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of the drawn frames in the end: the photo's shape, 768 high, an even width."""
    return FRAME_HEIGHT, int(FRAME_HEIGHT / reference_size[0] * reference_size[1]) // 2 * 2


def _given(pose: OpenPose) -> OpenPose:
    """Which points have coordinates: a pose of truths (N, 1)."""

    def known(points: np.ndarray) -> np.ndarray:
        return ~np.any(points == MISSING, axis=-1, keepdims=True)

    return replace(pose, body=known(pose.body), hands=known(pose.hands), face=known(pose.face))


def _seen(pose: OpenPose) -> OpenPose:
    """Which points are there: those with coordinates, and of the body only those that are certain enough to be drawn."""
    given = _given(pose)
    return replace(given, body=given.body & pose.drawn[:, None])


def _anchors(there: OpenPose) -> dict[int, int | None]:
    """Joint -> itself or, where it is missing, the next joint towards the neck that is there; None without one."""

    def nearest(joint: int) -> int | None:
        if there.body[joint, 0]:
            return joint
        return nearest(_HANGS_ON[joint]) if joint in _HANGS_ON else None

    return {joint: nearest(joint) for joint in (NECK, *_HANGS_ON)}


def _offset(own: OpenPose, moved: OpenPose, own_there: OpenPose, there: OpenPose) -> np.ndarray:
    """(2,) from the moved person to the photo's: neck on neck, or the mean of all body points that both have."""
    common = (own_there.body & there.body)[:, 0]
    if not common.any():
        raise InputError(
            "the photo and the driving pose have no body point in common",
            expected="the same part of a body in both",
            remedy="choose another motion or photo, or --set animate.diffusion.align=none",
        )
    points = np.flatnonzero(common) if not common[NECK] else [NECK]
    return (own.body[points] - moved.body[points]).mean(0)


def _shifted(pose: OpenPose, offset: np.ndarray) -> OpenPose:
    return replace(pose, body=pose.body + offset, hands=pose.hands + offset, face=pose.face + offset)


def _length(points: np.ndarray, a: int, b: int) -> float:
    return float(np.linalg.norm(points[a] - points[b]))


def _trunk(body: np.ndarray) -> float:
    """From the neck to between the hips."""
    return float(np.linalg.norm(body[NECK] - body[[8, 11]].mean(0)))


def _official_factors(own: OpenPose, driven: OpenPose) -> dict[str, float]:
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = {name: np.mean([np.divide(_length(own.body, *p), _length(driven.body, *p)) for p in pairs]) for name, pairs in _PAIRS.items()}
        ratio["body_len"] = np.divide(_trunk(own.body), _trunk(driven.body))
        hands = [np.divide(_length(a, 0, k), _length(b, 0, k)) for a, b in zip(own.hands, driven.hands) for k in KNUCKLES]
    arms = [ratio["arm_upper"], ratio["arm_lower"]]
    valid = [r for r in hands if np.isfinite(r) and r != 0]
    ratio["hand"] = np.mean([np.mean(valid), *arms]) if valid else np.mean(arms)
    return {name: 1.0 if np.isnan(value) else float(value) for name, value in ratio.items()}


def _factors(own: OpenPose, driven: OpenPose, own_there: OpenPose, driven_there: OpenPose) -> dict[str, float]:
    """The same from points that are there; what cannot be measured takes the mean of what can."""

    def ratios(a: np.ndarray, b: np.ndarray, known: np.ndarray, pairs: Sequence[tuple[int, int]]) -> list[float]:
        lengths = [(_length(a, *pair), _length(b, *pair)) for pair in pairs if known[list(pair)].all()]
        return [one / other for one, other in lengths if one > 0 and other > 0]

    known = own_there.body & driven_there.body
    found = {name: ratios(own.body, driven.body, known, pairs) for name, pairs in _PAIRS.items()}
    trunks = _trunk(own.body), _trunk(driven.body)
    found["body_len"] = [trunks[0] / trunks[1]] if known[[NECK, 8, 11]].all() and min(trunks) > 0 else []
    knuckles = [(0, k) for k in KNUCKLES]
    of_hands = (ratios(a, b, k & m, knuckles) for a, b, k, m in zip(own.hands, driven.hands, own_there.hands, driven_there.hands))
    hands = [ratio for hand in of_hands for ratio in hand]
    means = {name: float(np.mean(values)) for name, values in found.items() if values}
    instead = float(np.mean(list(means.values()))) if means else 1.0
    factors = {name: means.get(name, instead) for name in found}
    arms = [factors["arm_upper"], factors["arm_lower"]]
    factors["hand"] = float(np.mean([np.mean(hands), *arms])) if hands else float(np.mean(arms))
    return factors


def _moved(
    pose: OpenPose, factors: dict[str, float], offset: np.ndarray, there: OpenPose, *, anchors: dict[int, int | None] | None = None
) -> OpenPose:
    """One frame: every part scaled about its anchor, which has moved with the part before; in the end all by ``offset``.

    Args:
        anchors: Instead of each joint; a part without any is scaled about the middle of the body points that are there. None = the joints.
    """
    old, body, hands = pose.body, pose.body.copy(), pose.hands.copy()
    middle = old[there.body[:, 0]].mean(0) if there.body.any() else np.zeros(2)

    def grown(points: np.ndarray, joint: int, factor: float) -> np.ndarray:
        """``points``, carried along with their anchor and scaled about it (in single precision, as OpenCV's rotation matrix takes it)."""
        anchor = joint if anchors is None else anchors[joint]
        was, now = (middle, middle) if anchor is None else (old[anchor], body[anchor])
        return factor * (points + (now - was)) + (1 - factor) * now.astype(np.float32).astype(np.float64)

    with np.errstate(invalid="ignore"):
        body[0] = grown(old[0], NECK, factors["neck"])
        body[list(EYES_EARS)] = grown(old[list(EYES_EARS)], 0, factors["face"])
        body[[2, 5]] = grown(old[[2, 5]], NECK, factors["shoulder"])
        for (shoulder, elbow, wrist), hand in _ARMS:
            body[elbow] = grown(old[elbow], shoulder, factors["arm_upper"])
            body[wrist] = grown(old[wrist], elbow, factors["arm_lower"])
            hands[hand] = grown(pose.hands[hand], WRISTS[hand], factors["hand"])
        body[[8, 11]] = grown(old[[8, 11]], NECK, factors["body_len"])
        for hip, knee, ankle in _LEGS:
            body[knee] = grown(old[knee], hip, factors["leg_upper"])
            body[ankle] = grown(old[ankle], knee, factors["leg_lower"])
    parts = {"body": (body, there.body), "hands": (hands, there.hands), "face": (pose.face, there.face)}
    moved = {name: np.where(known & ~np.isnan(points), points, MISSING) + offset for name, (points, known) in parts.items()}
    return replace(pose, **moved)


def _without(pose: OpenPose, there: OpenPose) -> OpenPose:
    """Missing points are -1 again, and not drawn."""
    parts = {"body": there.body, "hands": there.hands, "face": there.face}
    kept = {name: np.where(known & np.isfinite(getattr(pose, name)), getattr(pose, name), MISSING) for name, known in parts.items()}
    return replace(pose, **kept, drawn=pose.drawn & there.body[:, 0])
