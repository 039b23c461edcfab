"""Names against the recorded tables: smplx's joint order and the paper's COCO-WholeBody correspondence."""

from __future__ import annotations

import pytest

from svad_ray.body.names import JOINT_NAMES, OUTPUT_INDEX, OUTPUT_NAMES, PARENTS, WHOLEBODY_NAMES, WHOLEBODY_TO_OUTPUT

# COCO keypoint -> SMPL-X output joint, as the official fitting code has it.
PAPER = {0: 55, 1: 57, 2: 56, 3: 59, 4: 58, 5: 16, 6: 17, 7: 18, 8: 19, 9: 20, 10: 21, 11: 1, 12: 2, 13: 4, 14: 5, 15: 7, 16: 8}
PAPER |= dict(zip(range(17, 23), range(60, 66))) | dict(zip(range(23, 40), range(127, 144))) | dict(zip(range(40, 91), range(76, 127)))
_FINGERS = [37, 38, 39, 66, 25, 26, 27, 67, 28, 29, 30, 68, 34, 35, 36, 69, 31, 32, 33, 70]
PAPER |= dict(zip(range(92, 112), _FINGERS)) | dict(zip(range(113, 133), [j + (15 if j < 55 else 5) for j in _FINGERS]))


def test_every_wholebody_keypoint_is_the_papers_joint() -> None:
    assert len(WHOLEBODY_TO_OUTPUT) == len(WHOLEBODY_NAMES) == 133
    assert {k: WHOLEBODY_TO_OUTPUT[k] for k in PAPER} == PAPER
    assert (WHOLEBODY_TO_OUTPUT[91], WHOLEBODY_TO_OUTPUT[112]) == (20, 21)


def test_names_are_unique() -> None:
    assert len(OUTPUT_INDEX) == len(OUTPUT_NAMES) == 144


def test_joint_names_equal_smplx() -> None:
    names = pytest.importorskip("smplx.joint_names").JOINT_NAMES[:55]
    assert [name.replace("_eye_smplhf", "_eye") for name in names] == list(JOINT_NAMES)


def test_parents_come_first() -> None:
    assert PARENTS[0] == -1 and all(0 <= p < j for j, p in enumerate(PARENTS) if j)
    assert [PARENTS[j] for j in (1, 15, 22, 25, 40, 54)] == [0, 12, 15, 20, 21, 53]
