"""Each gate fires on its own fault and on nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from svad_ray.errors import QualityRejected
from svad_ray.stages.perceive.gates import GATES, check
from svad_ray.subject import Perception, Photo

PHOTO = Photo("p", np.zeros((360, 240, 3), np.uint8), "")


@pytest.fixture
def good(standing) -> Perception:
    """Somebody whom every gate lets pass."""
    mask = np.zeros((360, 240), np.float32)
    mask[25:345, 60:180] = 1
    face = np.zeros((468, 3), np.float32)
    face[:, 0] = np.linspace(105, 135, 468)
    nothing = np.zeros((133, 2), np.float32)
    return Perception(
        nothing,
        nothing[:, 0],
        mask,
        standing,
        np.ones(33, np.float32),
        np.zeros((33, 3)),
        face,
        np.full((2, 21, 3), np.nan),
        person_score=0.99,
        people=1,
    )


def moved(seen: Perception, number: int, place: tuple[float, float]) -> Perception:
    points = seen.landmarks.copy()
    points[number] = place
    return replace(seen, landmarks=points)


def down_to_the_border(seen: Perception) -> Perception:
    mask = seen.mask.copy()
    mask[25:, 60:180] = 1
    return replace(seen, mask=mask)


CASES = {
    "no_person": lambda seen: replace(seen, people=0, person_score=0.0, landmarks=np.full((33, 2), np.nan, np.float32), face_mesh=None),
    "several_people": lambda seen: replace(seen, people=3),
    "half_body": lambda seen: moved(seen, 25, (135, 375)),
    "feet_cut_off": lambda seen: moved(seen, 31, (145, 361)),
    "head_cut_off": lambda seen: moved(seen, 2, (120, -2)),
    "mask_at_border": down_to_the_border,
}


def test_a_good_photo_passes(good):
    assert check(PHOTO, good) == ()


@pytest.mark.parametrize("code", CASES)
def test_refusal(code, good):
    gate = next(one for one in GATES if one.code == code)
    with pytest.raises(QualityRejected) as caught:
        check(PHOTO, CASES[code](good))
    assert caught.value.expected == gate.expected and caught.value.remedy == gate.remedy
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("code", [code for code in CASES if code != "no_person"])
def test_only_its_own_option_waives(code, good):
    gate = next(one for one in GATES if one.code == code)
    for option in ("largest", "bust"):
        if gate.waived_by == option:
            warnings = check(PHOTO, CASES[code](good), **{option: True})
            assert [text.split(":")[0] for text in warnings] == [code]
        else:
            with pytest.raises(QualityRejected):
                check(PHOTO, CASES[code](good), **{option: True})


def test_crown_above_the_frame_is_a_cut_off_head(good):
    seen = good
    points = seen.landmarks.copy()
    points[:11, 1] -= 45  # ears at 15 px, torso 90 px: the crown is 21 px above the ears
    with pytest.raises(QualityRejected, match="head is cut off"):
        check(PHOTO, replace(seen, landmarks=points))


def test_a_hand_at_the_border_is_no_cut_off_person(good):
    mask = good.mask.copy()
    mask[170:190, 175:] = 1  # 20 of 320 rows
    assert check(PHOTO, replace(good, mask=mask)) == ()


def test_small_person_and_small_face(good):
    seen = good
    small = replace(seen, landmarks=100 + seen.landmarks * 0.4, mask=np.zeros_like(seen.mask), face_mesh=seen.face_mesh * 0.4)
    with pytest.raises(QualityRejected, match=r"person is 11\d pixels"):
        check(PHOTO, small)
    warned = check(PHOTO, replace(seen, face_mesh=seen.face_mesh * 0.5))
    assert warned[0].startswith("face_too_small: the face is 15 pixels")


def test_faceless_person_warns_and_earlier_warnings_stay(good):
    found = check(PHOTO, replace(good, face_mesh=None, warnings=("dark photo",)))
    assert found[0] == "dark photo" and any(text.startswith("no_face") for text in found)


def test_codes_are_unique():
    assert len({gate.code for gate in GATES}) == len(GATES)
