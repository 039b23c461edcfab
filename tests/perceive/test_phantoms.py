"""Small bodies that the landmark network sees in a person's own clothes are not people."""

import numpy as np

from svad_ray.stages.perceive.embedded import _lies_on

BODY = np.zeros((33, 2))
BODY[[0, 11, 12, 23, 24, 25, 26, 27, 28, 31, 32]] = [
    [257, 86], [295, 135], [221, 136], [278, 247], [236, 247], [278, 336], [239, 334], [278, 420], [234, 416], [282, 440], [230, 436],
]  # fmt: skip
BODY[[13, 14, 15, 16, 19, 20]] = [[330, 190], [190, 190], [360, 245], [160, 245], [370, 260], [150, 260]]


def phantom(core):
    points = np.zeros((33, 2))
    points[[0, 11, 12, 23, 24]] = core
    return points


def test_a_body_in_a_skirt_is_not_a_person():
    assert _lies_on(phantom([[245, 425], [262, 396], [242, 396], [267, 307], [248, 308]]), BODY)


def test_a_body_in_a_sleeve_is_not_a_person():
    assert _lies_on(phantom([[155, 250], [172, 216], [165, 216], [197, 174], [193, 173]]), BODY)


def test_a_neighbour_and_a_child_in_front_of_nobody_are_people():
    assert not _lies_on(BODY + np.array([90, 0]), BODY)
    assert not _lies_on(BODY * 0.5 + np.array([330, 220]), BODY)
