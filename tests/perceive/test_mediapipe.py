"""The networks on pictures with known truth, and on real photos."""

from __future__ import annotations

import numpy as np
import pytest

from svad_ray.errors import QualityRejected
from svad_ray.stages.perceive.gates import check
from svad_ray.stages.perceive.wholebody import FACE_68_FROM_MESH
from svad_ray.subject import Photo

pytestmark = pytest.mark.models

# BlazePose landmark -> SMPL-X joint
LIMBS = {11: 16, 12: 17, 13: 18, 14: 19, 15: 20, 16: 21, 23: 1, 24: 2, 25: 4, 26: 5, 27: 7, 28: 8}


@pytest.fixture(scope="module")
def seen(perceive, drawn):
    return perceive(Photo("drawn", drawn.image, ""))


def iou(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a > 0.5, b > 0.5
    return float((a & b).sum() / (a | b).sum())


def test_shapes_and_types(seen, drawn):
    assert seen.keypoints.shape == (133, 2) and seen.scores.shape == (133,)
    assert seen.mask.shape == drawn.mask.shape and seen.mask.dtype == np.float32 and 0 <= seen.mask.min() <= seen.mask.max() <= 1
    assert seen.landmarks_world.shape == (33, 3) and seen.hands_world.shape == (2, 21, 3)
    assert seen.face_mesh is not None and seen.face_mesh.shape == (468, 3)
    assert seen.people == 1 and seen.person_score > 0.9


def test_joints_are_where_the_person_was_drawn(seen, drawn):
    truth = drawn.keypoints2d[list(LIMBS.values())]
    error = np.hypot(*(seen.landmarks[list(LIMBS)] - truth).T)
    height = float(np.ptp(np.nonzero(drawn.mask.any(1))[0]))
    assert error.mean() < 0.03 * height  # detectors mark knees and hips beside the joint centres: about 1.5-2 % of the height


def test_world_landmarks_have_the_bodys_axes(seen, drawn):
    found = seen.landmarks_world[list(LIMBS)]
    truth = drawn.joints3d[list(LIMBS.values())]
    truth = truth - drawn.joints3d[[1, 2]].mean(0)
    for axis in (0, 1):  # x to the person's left, y up; depth is weak in one photo
        assert np.corrcoef(found[:, axis], truth[:, axis])[0, 1] > 0.97
    assert np.linalg.norm(found - truth, axis=1).mean() < 0.16
    toes, heels = seen.landmarks_world[[31, 32], 2], seen.landmarks_world[[29, 30], 2]
    assert (toes > heels).all()  # z towards the camera that the person faces


def test_mask(seen, drawn):
    assert iou(seen.mask, drawn.mask) > 0.95


def test_hands_and_face_sit_on_the_person(seen, drawn):
    assert np.isfinite(seen.hands_world).all()
    wrists = drawn.keypoints2d[[20, 21]]
    assert np.hypot(*(seen.keypoints[[91, 112]] - wrists).T).max() < 15
    inside = seen.keypoints[seen.scores > 0.5]
    columns, rows = inside.astype(int).clip(0, 511).T
    assert drawn.mask[rows, columns].mean() > 0.85
    span = np.linalg.norm(seen.hands_world[:, 0] - seen.hands_world[:, 12], axis=1)
    assert (span > 0.1).all() and (span < 0.25).all()  # wrist to middle finger tip, metres


def test_mirrored_picture_gives_the_mirrored_person(perceive, seen, drawn):
    other = perceive(Photo("mirrored", np.ascontiguousarray(drawn.image[:, ::-1]), ""))
    swap = [12, 11, 14, 13, 16, 15, 24, 23, 26, 25, 28, 27]
    expected = np.column_stack([512 - seen.landmarks[swap, 0], seen.landmarks[swap, 1]])
    assert np.hypot(*(other.landmarks[list(LIMBS)] - expected).T).mean() < 6


@pytest.mark.parametrize("quarter", [1, 2])
def test_given_roi_turns_with_the_picture(perceive, seen, drawn, quarter):
    """A person lying or upside down, when the caller says where the head is: the landmarks turn with the picture, the 3D points too."""
    turned = np.ascontiguousarray(np.rot90(drawn.image, quarter))

    def turn(points: np.ndarray) -> np.ndarray:
        for _ in range(quarter):  # rot90 is counter-clockwise on screen: (x, y) -> (y, W - x)
            points = np.column_stack([points[:, 1], 512 - points[:, 0]])
        return points

    hips = seen.landmarks[[23, 24]].mean(0)
    head = hips + 0.55 * (seen.landmarks[[7, 8]].mean(0) - seen.landmarks[[27, 28]].mean(0))
    roi = turn(np.stack([hips, head]))
    found = perceive.track(turned[None], rois=roi[None])[0]
    assert found.person_score > 0.9
    assert np.hypot(*(found.landmarks[list(LIMBS)] - turn(seen.landmarks[list(LIMBS)])).T).mean() < 10
    up = found.landmarks_world[[11, 12]].mean(0)
    expected = {1: [-1, 0], 2: [0, -1]}[quarter]
    assert up[:2] @ expected > 0.95 * np.hypot(*up[:2])


def test_track_follows_and_costs_no_masks(perceive, drawn):
    shifts = [0, 6, 12, 18]
    frames = np.stack([np.roll(drawn.image, shift, 1) for shift in shifts])
    track = perceive.track(frames)
    assert len(track) == 4 and all(one.mask.shape == (512, 512) and not one.mask.any() for one in track)
    moved = [float((one.landmarks[:, 0] - track[0].landmarks[:, 0]).mean()) for one in track]
    np.testing.assert_allclose(moved, shifts, atol=3)
    assert track[0].face_mesh is None and np.isnan(track[0].hands_world).all()


def test_nobody(perceive):
    grey = np.full((300, 400, 3), 128, np.uint8)
    none = perceive(Photo("grey", grey, ""))
    assert none.people == 0 and none.person_score == 0 and not none.mask.any()
    with pytest.raises(QualityRejected, match="no person"):
        check(Photo("grey", grey, ""), none)
    assert perceive.track(grey[None])[0].person_score == 0


def test_two_people_are_seen_and_refused(perceive, drawn):
    photo = Photo("two", np.concatenate([drawn.image[:, 80:432], drawn.image[:, 80:432]], 1), "")
    found = perceive(photo)
    assert found.people == 2
    with pytest.raises(QualityRejected, match="2 people"):
        check(photo, found)


def test_drawn_person_passes_and_cut_ones_do_not(perceive, seen, drawn):
    assert check(Photo("drawn", drawn.image, ""), seen) == ()
    rows = np.nonzero(drawn.mask.any(1))[0]
    for name, image in {"feet": drawn.image[: rows[-1] - 25], "head": drawn.image[rows[0] + 40 :]}.items():
        photo = Photo(name, np.ascontiguousarray(image), "")
        with pytest.raises(QualityRejected, match=f"{name} (are|is) cut off"):
            check(photo, perceive(photo))


def test_half_body_photo_is_refused_unless_a_bust_is_wanted(perceive, astronaut):
    found = perceive(astronaut)
    assert found.people == 1
    with pytest.raises(QualityRejected, match="half a body"):
        check(astronaut, found)
    assert any(text.startswith("half_body") for text in check(astronaut, found, bust=True))


def test_sixty_eight_points_lie_on_the_face_as_the_scheme_says(perceive, astronaut):
    mesh = perceive(astronaut).face_mesh
    face = mesh[FACE_68_FROM_MESH, :2]
    jaw, brows, bridge, eyes, lips = face[:17], face[17:27], face[27:31], face[36:48], face[48:]
    assert (np.diff(jaw[2:15, 0]) > 0).all() and jaw[8, 1] == jaw[:, 1].max()
    assert (np.diff(brows[:, 0]) > 0).all() and brows[:, 1].max() < eyes[:, 1].min()
    assert (np.diff(bridge[:, 1]) > 0).all() and bridge[-1, 1] < lips[:, 1].min()
    # Her eyes, nose tip and mouth corners, read off the 512 px photo by hand.
    for part, place in {(36, 42): (203, 103), (42, 48): (245, 103), (30, 31): (223, 128), (48, 49): (205, 143), (54, 55): (246, 142)}.items():
        np.testing.assert_allclose(face[slice(*part)].mean(0), place, atol=6)


def test_street_photo(perceive, street):
    """The detector alone sees one of these two men; crops of both pass every gate."""
    whole = perceive(Photo("street", street, ""))
    assert whole.people >= 2
    truth = np.array([[205, 861], [78, 867]])  # the left man's ankles, read off the photo by hand
    assert np.hypot(*(whole.landmarks[[27, 28]] - truth).T).max() < 35
    for box in ((slice(380, 960), slice(20, 260)), (slice(370, 900), slice(200, 370))):
        photo = Photo("man", np.ascontiguousarray(street[box]), "")
        found = perceive(photo)
        assert check(photo, found) == () and 0.15 < float(found.mask.mean()) < 0.6
