"""Alignment beyond the recorded cases: what must hold for any two people."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from svad_ray.errors import InputError
from svad_ray.pose.align import align
from svad_ray.pose.openpose import MISSING, OpenPose, from_wholebody

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


WRIST, ELBOW, SHOULDERS = 9, 7, (5, 6)  # of COCO-WholeBody: the person's left arm, joints 7 and 6 of OpenPose


def detected(seed, *, unseen=(), off=(0.0, 0.0)):
    """A person as a detector reports one: points that it is not certain of have a place all the same, here a far one."""
    random = np.random.default_rng(seed)
    points, scores = random.uniform(100, 300, (133, 2)), np.ones(133)
    points[list(unseen)], scores[list(unseen)] = random.uniform(2000, 3000, 2), 0.05
    return from_wholebody(points + off, scores, width=400, height=400)


SQUARE = {"reference_size": (400, 400), "video_size": (400, 400)}


def test_joints_of_low_score_take_no_part_in_lengths():
    reference = detected(1)
    for unseen, scale, names in ((WRIST, "arm_lower", "arm_lower hand"), (ELBOW, "arm_upper", "arm_lower arm_upper hand")):
        whole, partly = (align(reference, [detected(2, unseen=points)], **SQUARE).scales for points in ((), (unseen,)))
        other_arm = [
            np.linalg.norm(pose.body[a] - pose.body[b]) for pose in (reference, detected(2)) for a, b in [(3, 4) if scale == "arm_lower" else (2, 3)]
        ]
        assert partly[scale] == pytest.approx(other_arm[0] / other_arm[1])
        assert {name for name in whole if whole[name] != pytest.approx(partly[name])} == set(names.split())
        official = [align(reference, [detected(2, unseen=points)], official=True, **SQUARE).scales[scale] for points in ((), (unseen,))]
        assert official[0] > 1.2 * official[1]  # the far joint is taken for a long arm


def test_a_part_whose_anchor_is_not_seen_follows_the_next_joint_that_is():
    reference, frames = detected(1), [detected(2), detected(3, unseen=(ELBOW,))]
    got, whole = (align(reference, [frames[0], pose], **SQUARE) for pose in (frames[1], detected(3)))
    shoulder, wrist = got.poses[1].body[5], got.poses[1].body[7]
    np.testing.assert_allclose(shoulder, whole.poses[1].body[5])  # the shoulder does not know of the elbow
    np.testing.assert_allclose(wrist - shoulder, got.scales["arm_lower"] * (frames[1].body[7] - frames[1].body[5]), atol=1e-6)
    assert (got.poses[1].body[6] == MISSING).all() and not got.poses[1].drawn[6] and got.poses[1].drawn[7]


def test_people_without_a_neck_are_brought_together_by_what_both_have():
    same = detected(4, unseen=SHOULDERS)
    got = align(same, [detected(4, unseen=SHOULDERS, off=(60.0, -25.0))], **SQUARE)
    seen = same.drawn
    assert 10 < seen.sum() < 16 and (got.poses[0].drawn == seen).all()
    np.testing.assert_allclose(got.poses[0].body[seen], same.body[seen], atol=1e-7)
    np.testing.assert_allclose(got.poses[0].hands, same.hands, atol=1e-7)


def test_nothing_in_common_is_refused():
    upper, lower = tuple(range(11)), tuple(range(11, 17))
    with pytest.raises(InputError, match="no body point in common"):
        align(detected(1, unseen=upper), [detected(2, unseen=lower)], **SQUARE)
