"""dlib's landmarks instead of the face mesh's: as good, another licence, and nothing without the package."""

import sys

import numpy as np
import pytest

from svad_ray.config import load_settings
from svad_ray.deliver import chosen_backends
from svad_ray.errors import BackendUnavailable, SvadError
from svad_ray.stages.identity.dlib_faces import DlibLandmarks, square


def test_another_licence():
    pytest.importorskip("dlib")
    plain, dlib = (next(b for b in chosen_backends(load_settings(sets=sets)) if b.stage == "identity") for sets in ([], ["identity.landmarks=dlib"]))
    assert plain.commercial and not dlib.commercial and "iBUG 300-W" in dlib.commercial_reason
    assert dlib.models == (*plain.models, "dlib") and dlib.extra == "face"


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "dlib", None)
    with pytest.raises(BackendUnavailable, match=r"svad-ray\[face\]"):
        chosen_backends(load_settings(sets=["identity.landmarks=dlib"]))


def test_the_frame_round_a_face():
    dlib = pytest.importorskip("dlib")
    frame = square(dlib, np.array([[10.0, 20], [50, 20], [30, 70]]))
    assert (
        frame.width() == pytest.approx(frame.height(), abs=1)
        and frame.left() < 10
        and frame.top() < 20
        and frame.bottom() == pytest.approx(70, abs=1)
    )


@pytest.mark.slow
@pytest.mark.models
def test_both_see_the_same_face():
    """Two networks that share nothing find eyes, nose and mouth of a person within a few hundredths of the face's width."""
    pytest.importorskip("dlib")
    from svad_ray.evaluate.synthetic.demo import demo_person
    from svad_ray.photo import decode_photo
    from svad_ray.stages.perceive.embedded import MediaPipePerceive
    from svad_ray.stages.perceive.wholebody import face_68

    try:
        perceive, landmarks = MediaPipePerceive(), DlibLandmarks()
        perceive.setup()
        photo = decode_photo(demo_person(0).png, name="demo")
    except SvadError as error:
        pytest.skip(f"model packages cannot be had here: {error.found}")
    mesh = perceive(photo).face_mesh
    ours = face_68(mesh)[:, :2] - 0.5
    theirs = landmarks(photo.image, ours)
    inner = slice(36, 68)  # eyes and mouth; brows and jaw are drawn by taste
    off = np.linalg.norm(ours[inner] - theirs[inner], axis=1) / np.ptp(ours[:, 0])
    assert np.median(off) < 0.06 and off.max() < 0.2, (np.median(off), off.max())
    shifted = landmarks(np.roll(photo.image, 7, axis=1), ours + np.array([7, 0]))
    np.testing.assert_allclose(shifted, theirs + np.array([7, 0]), atol=1.5)
