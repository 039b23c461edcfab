"""Alignment beyond the recorded cases: what must hold for any two people."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from svad_ray.errors import InputError
from svad_ray.pose.align import align
from svad_ray.pose.openpose import MISSING, OpenPose

SIZES = {"reference_size": (512, 384), "video_size": (480, 640)}


def person(seed=0):
    random = np.random.default_rng(seed)
    return OpenPose(random.uniform(0.2, 0.8, (18, 2)), np.ones(18, bool), random.uniform(0.2, 0.8, (2, 21, 2)), random.uniform(0.2, 0.8, (68, 2)))


def without(pose, joint):
    body, drawn = pose.body.copy(), pose.drawn.copy()
    body[joint], drawn[joint] = MISSING, False
    return replace(pose, body=body, drawn=drawn)


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_a_person_aligned_with_themself_stays(seed):
    pose = person(seed)
    got = align(pose, [pose], reference_size=(500, 400), video_size=(500, 400))
    assert all(scale == pytest.approx(1.0) for scale in got.scales.values())
    np.testing.assert_allclose(got.poses[0].body, pose.body, atol=1e-7)
    np.testing.assert_allclose(got.poses[0].hands, pose.hands, atol=1e-7)


@given(st.integers(0, 10_000), st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_limbs_of_the_first_frame_get_the_photos_lengths(a, b):
    reference, video = person(a), [person(b), person(b + 1)]
    got = align(reference, video, **SIZES).poses[0].body * [384 / 512, 1]
    own = reference.body * [384 / 512, 1]
    np.testing.assert_allclose(got[1], own[1], atol=1e-7)
    for i, j in ((0, 1), (16, 17), (2, 5)):
        assert np.linalg.norm(got[i] - got[j]) == pytest.approx(np.linalg.norm(own[i] - own[j]), rel=1e-5)


def test_the_two_codes_agree_where_nothing_is_missing():
    reference, video = person(1), [person(2), person(3)]
    ours, theirs = (align(reference, video, official=official, **SIZES) for official in (False, True))
    assert ours.scales == pytest.approx(theirs.scales)
    for a, b in zip(ours.poses, theirs.poses):
        np.testing.assert_allclose(a.body, b.body, atol=1e-9)


def test_a_missing_point_takes_no_part_in_lengths_and_is_not_drawn():
    reference, video = person(1), [without(person(2), 3), person(3)]
    ours, theirs = (align(reference, video, official=official, **SIZES) for official in (False, True))
    whole = align(reference, [person(2), person(3)], **SIZES)
    other_arm = np.linalg.norm((reference.body[5] - reference.body[6]) * [384 / 512, 1]) / np.linalg.norm(
        (video[0].body[5] - video[0].body[6]) * [640 / 480, 1]
    )
    assert ours.scales["arm_upper"] == pytest.approx(other_arm)
    assert theirs.scales["arm_upper"] != pytest.approx(other_arm, rel=0.05)
    assert ours.scales["leg_upper"] == whole.scales["leg_upper"]
    assert (ours.poses[0].body[3] == MISSING).all() and not ours.poses[0].drawn[3] and (theirs.poses[0].body[3] != MISSING).any()


def test_both_ears_at_one_point_do_not_lose_the_face():
    pose = person(2)
    body = pose.body.copy()
    body[17] = body[16]
    reference, video = person(1), [replace(pose, body=body), person(3)]
    ours = align(reference, video, **SIZES)
    others = [ours.scales[name] for name in ("neck", "shoulder", "arm_upper", "arm_lower", "leg_upper", "leg_lower", "body_len")]
    assert ours.scales["face"] == pytest.approx(np.mean(others)) and np.isfinite(ours.poses[1].body).all()
    assert align(reference, video, official=True, **SIZES).scales["face"] == np.inf


def test_no_poses_are_refused():
    with pytest.raises(InputError, match="0 poses"):
        align(person(), [], **SIZES)
