"""Index tables: mirror symmetry and meaning."""

from __future__ import annotations

import numpy as np

from svad_ray.stages.perceive.landmarkers import FaceLandmarks, HandLandmarks
from svad_ray.stages.perceive.wholebody import BODY_FROM_BLAZEPOSE, FACE_68_FROM_MESH, FEET_FROM_BLAZEPOSE, wholebody


# COCO and BlazePose name their points; the two lists of names are independent of the table.
def names(text: str) -> list[str]:
    return text.split()


COCO = names("nose l_eye r_eye l_ear r_ear l_shoulder r_shoulder l_elbow r_elbow l_wrist r_wrist l_hip r_hip l_knee r_knee l_ankle r_ankle")
BLAZE = names(
    "nose l_eye_inner l_eye l_eye_outer r_eye_inner r_eye r_eye_outer l_ear r_ear l_mouth r_mouth l_shoulder r_shoulder l_elbow r_elbow "
    "l_wrist r_wrist l_pinky r_pinky l_index r_index l_thumb r_thumb l_hip r_hip l_knee r_knee l_ankle r_ankle l_heel r_heel l_toe r_toe"
)
FEET = ["l_toe", None, "l_heel", "r_toe", None, "r_heel"]


def test_body_and_feet_by_name():
    assert [BLAZE[i] for i in BODY_FROM_BLAZEPOSE] == COCO
    assert [BLAZE[i] if i >= 0 else None for i in FEET_FROM_BLAZEPOSE] == FEET


def test_face_table_is_without_repeats():
    assert FACE_68_FROM_MESH.shape == (68,) and len(set(FACE_68_FROM_MESH.tolist())) == 68
    assert FACE_68_FROM_MESH.min() >= 0 and FACE_68_FROM_MESH.max() < 468


def test_missing_parts_have_score_zero():
    points = np.arange(66, dtype=np.float32).reshape(33, 2)
    hand = HandLandmarks(0.8, 0.1, np.full((21, 2), 7, np.float32), np.zeros((21, 3), np.float32))
    keypoints, scores = wholebody(points, np.full(33, 0.9, np.float32), None, hand, None)
    assert keypoints.shape == (133, 2) and scores.shape == (133,)
    np.testing.assert_array_equal(keypoints[9], points[15])
    np.testing.assert_array_equal(keypoints[17:23], points[FEET_FROM_BLAZEPOSE] * (FEET_FROM_BLAZEPOSE >= 0)[:, None])
    assert (scores[:17] == np.float32(0.9)).all() and scores[18] == scores[21] == 0
    assert (scores[23:91] == 0).all() and (scores[91:112] == np.float32(0.8)).all() and (scores[112:] == 0).all()


def test_face_goes_to_its_place():
    mesh = np.arange(468 * 3, dtype=np.float32).reshape(468, 3)
    keypoints, scores = wholebody(np.zeros((33, 2)), np.zeros(33), FaceLandmarks(0.7, mesh), None, None)
    np.testing.assert_array_equal(keypoints[23 + 30], mesh[4, :2])  # tip of the nose
    assert (scores[23:91] == np.float32(0.7)).all()
