"""Faces out of a frame and back into it, against recorded outputs of the original code, and where they do not fit."""

import numpy as np
import pytest
from rules import golden_or_skip

from svad_ray.stages.restore import faces


@pytest.fixture
def recorded(golden_generation):
    return lambda name: golden_or_skip(golden_generation / name)


def rgb(image):
    return np.ascontiguousarray(image[..., ::-1])


def close(got, wanted, levels):
    difference = np.abs(got.astype(int) - wanted.astype(int))
    assert difference.max() <= levels, (difference.max(), (difference > levels).mean())


def test_alignment(recorded):
    scene, data = rgb(recorded("face_paste.npz")["scene_bgr"]), recorded("face_align.npz")
    aligned = [faces.align(scene, points) for points in data["landmarks5"]]
    np.testing.assert_allclose([one.matrix for one in aligned], data["affine"], atol=1e-9)
    close(aligned[0].crop, rgb(data["crop0_bgr"]), 2)
    close(aligned[3].crop[::4, ::4], rgb(data["crop3_bgr_sub4"]), 2)
    np.testing.assert_allclose([one.crop.mean((0, 1)) for one in aligned], data["crop_mean"][:, ::-1], atol=0.01)


def test_paste(recorded):
    data = recorded("face_paste.npz")
    scene, restored, labels = rgb(data["scene_bgr"]), rgb(data["restored_face_bgr"]), data["labels"]
    matrices = [faces.align(scene, points).matrix for points in data["landmarks5"]]
    np.testing.assert_allclose([faces.inverse(m, 2) for m in matrices], data["inverse_affine_after_offset"], atol=1e-6)
    weights = faces.soft_mask(labels)
    one = faces.paste(rgb(data["background_bgr"]), [(restored, matrices[0], weights)], scale=2)
    close(one, rgb(data["out_labels_1face_bg"]), 2)
    import cv2

    enlarged = cv2.resize(scene, None, fx=2, fy=2, interpolation=cv2.INTER_LANCZOS4)
    both = [(restored, matrices[0], weights), (restored[:, ::-1], matrices[1], weights)]
    close(faces.paste(enlarged, both, scale=2), rgb(data["out_labels_2faces_nobg"]), 2)


def scene(random):
    coarse = random.integers(60, 200, (20, 25, 3)).astype(np.uint8)
    return np.kron(coarse, np.ones((10, 10, 1), np.uint8))


LANDMARKS = np.array([[100.0, 90], [140, 90], [120, 113], [103, 130], [137, 130]])


def test_a_face_comes_back_where_it_was():
    """The frame's own crop, pasted back, changes next to nothing; a brighter crop changes the face and nothing else."""
    frame = scene(np.random.default_rng(0))
    face, labels = faces.align(frame, LANDMARKS), np.ones((512, 512), np.uint8)
    same = faces.paste(frame, [(face.crop, face.matrix, faces.soft_mask(labels))], scale=1)
    assert np.abs(same.astype(int) - frame).mean() < 1.5
    bright = np.clip(face.crop.astype(int) + 40, 0, 255).astype(np.uint8)
    lit = faces.paste(frame, [(bright, face.matrix, faces.soft_mask(labels))], scale=1).astype(int) - frame
    assert lit[100:125, 105:135].mean() > 30 and np.abs(lit[:, :30]).max() == 0


def test_gradients_are_cloned_and_a_face_at_the_border_is_blended():
    frame = scene(np.random.default_rng(1))
    for shift, reasons in ((0, 0), (-110, 1)):
        face, labels = faces.align(frame, LANDMARKS + np.array([shift, 0])), np.ones((512, 512), np.uint8)
        bright = np.clip(face.crop.astype(int) + 40, 0, 255).astype(np.uint8)
        out, said = faces.paste_gradients(frame, [(bright, face.matrix, faces.soft_mask(labels))], scale=1)
        assert out.shape == frame.shape and len(said) == reasons
        lit = (out.astype(int) - frame)[95:125, max(0, 105 + shift) : 135 + shift]
        assert lit.mean() < 5 if not shift else lit.mean() > 15  # the border decides the level of what is cloned, not of what is blended


def test_landmarks_in_one_place_are_no_face():
    assert faces.align(np.zeros((50, 50, 3), np.uint8), np.full((5, 2), 20.0)) is None
