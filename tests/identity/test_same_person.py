"""Photos of one person, of several, and of backs that show no face."""

import sys
from dataclasses import replace

import numpy as np
import pytest

from svad_ray.config import PhotosConfig
from svad_ray.errors import BackendUnavailable, QualityRejected
from svad_ray.stages.identity.same_person import PersonCheck, SamePerson, best_face, in_common
from svad_ray.subject import Perception, Photo

RED, BLUE, GREEN, GREY = (200, 30, 30), (30, 40, 160), (30, 150, 40), (128, 128, 128)


def figure(name, torso, legs, *, face=0.0, nose=0.5):
    """A photo of a figure of two colours, and what is seen of it; ``face``: width in pixels, ``nose``: where between the cheeks."""
    image, mask = np.full((400, 200, 3), 255, np.uint8), np.zeros((400, 200), np.float32)
    image[80:200, 60:140], image[200:380, 60:140], mask[80:380, 60:140] = torso, legs, 1
    marks = np.full((33, 2), 100.0, np.float32)
    marks[[11, 12, 23, 24, 25, 26, 27, 28]] = [[130, 90], [70, 90], [120, 200], [80, 200], [120, 290], [80, 290], [120, 370], [80, 370]]
    mesh = None
    if face:
        mesh = np.zeros((468, 3), np.float32)
        mesh[234, :2], mesh[454, :2], mesh[10, :2], mesh[152, :2] = (60, 40), (60 + face, 40), (60 + face / 2, 40 - face / 2), (60, 40 + face / 2)
        mesh[5:] = np.where(mesh[5:] == 0, 50, mesh[5:])
        mesh[:5, :2] = (60 + nose * face, 42)
    nothing = np.full((2, 21, 3), np.nan)
    seen = Perception(np.zeros((133, 2)), np.zeros(133), mask, marks, np.ones(33), np.zeros((33, 3)), mesh, nothing, 1.0, 1)
    return Photo(name, image, name), seen


def checked(*figures, **config):
    gate = PersonCheck(PhotosConfig(**config))
    gate.setup()
    return gate([photo for photo, _ in figures], [seen for _, seen in figures])


@pytest.fixture
def no_dlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "dlib", None)


def test_a_back_is_not_checked_by_the_face_and_says_so(no_dlib):
    found = checked(figure("front", RED, BLUE, face=80), figure("back", RED, BLUE))
    assert found.faces == () and found.clothes == ((1, 2, 1.0, 1.0),) and found.unchecked == (1, 2)
    (warning,) = found.check()
    assert warning.startswith("same_person_unchecked") and "svad-ray[face]" in warning
    assert found.facts()["checked"] is False and found.facts()["unchecked"] == [1, 2]


def test_other_clothes_are_refused(no_dlib):
    with pytest.raises(QualityRejected, match="'anna' and 'bert' do not show one person in one set of clothes"):
        checked(figure("anna", RED, BLUE), figure("bert", GREEN, GREY)).check()


def test_another_shirt_alone_is_only_said(no_dlib):
    assert checked(figure("front", RED, BLUE), figure("back", GREEN, BLUE)).check()[0].startswith("clothes_differ")


def test_an_open_coat_has_another_front_and_the_same_back():
    coat = np.repeat([[20.0, 0, 0]], 100, 0)
    open_coat = np.concatenate([coat, np.repeat([[40.0, 60, 40]], 100, 0)])
    assert in_common(open_coat, coat) == 1.0 and in_common(coat + 50, coat) == 0.0 and in_common(np.empty((0, 3)), coat) == 1.0


def test_faces_that_are_too_far_apart_are_refused():
    same = SamePerson(("a", "b", "c"), "faces", ((1, 2, 0.3), (1, 3, 0.5)), (), (), 0.6)
    assert same.check() == () and same.facts()["checked"]
    with pytest.raises(QualityRejected, match=r"'a' and 'c' show different people: their faces are 0.82 apart"):
        replace(same, faces=((1, 2, 0.3), (1, 3, 0.82))).check()


def test_faces_asked_for_and_no_way_to_compare_them(no_dlib):
    with pytest.raises(BackendUnavailable, match=r"svad-ray\[face\]"):
        PersonCheck(PhotosConfig(same_person="faces"))


def test_the_best_face_is_large_and_looks_at_the_camera():
    small, large, turned, back = (figure("x", RED, BLUE, face=f, nose=n)[1] for f, n in ((40, 0.5), (80, 0.5), (90, 0.1), (0, 0.5)))
    assert best_face([back, small, large, turned]) == 2 and best_face([back, back]) == 0


@pytest.mark.slow
@pytest.mark.models
def test_real_networks_tell_made_up_people_apart():
    pytest.importorskip("dlib")
    from svad_ray.evaluate.synthetic import A_POSE, PEOPLE, build, render
    from svad_ray.stages.perceive.embedded import MediaPipePerceive

    perceive = MediaPipePerceive()
    perceive.setup()
    photos = []
    for number, yaw in ((0, 0.0), (0, 0.2), (1, 0.0)):
        photo = Photo(f"{number}{yaw}", render(build(PEOPLE[number]), A_POSE, yaw=yaw, size=(900, 900), supersample=1).image, f"{number}{yaw}")
        photos.append((photo, perceive(photo)))
    assert len(checked(*photos[:2]).faces) == 1 and checked(*photos[:2]).check() == ()
    with pytest.raises(QualityRejected):
        checked(photos[0], photos[2]).check()
