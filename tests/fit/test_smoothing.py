"""The fit stage's smoothing, and its staying on a motion that drew the clip."""

from dataclasses import replace

import numpy as np
import pytest

from svad_ray.motion import turn, walk
from svad_ray.stages.fit.embedded import smoothed, spread_gaps


def test_smoothing_keeps_a_full_turn_and_lowers_noise():
    clean = turn(60)
    noise = np.random.default_rng(0).normal(0, 0.03, clean.full_pose.shape).astype(np.float32)
    noisy = clean.with_full_pose(clean.full_pose + noise * (np.arange(55) > 0)[None, :, None])
    before = np.abs(noisy.full_pose[:, 1:] - clean.full_pose[:, 1:]).mean()
    after = np.abs(smoothed(noisy).full_pose[:, 1:] - clean.full_pose[:, 1:]).mean()
    assert after < 0.6 * before


def test_short_tracks_are_left_alone():
    short = walk(5)
    assert smoothed(short) is short


def test_translation_is_smoothed_by_a_quadratic_that_keeps_parabolas():
    t = np.arange(30, dtype=np.float32)[:, None] / 30
    path = replace(turn(30), transl=np.concatenate([t, t**2, 0 * t], 1))
    assert np.allclose(smoothed(path).transl, path.transl, atol=1e-5)


@pytest.mark.parametrize("found", [[True, False, False, True], [False, True, True, False]])
def test_frames_without_a_person_borrow_the_nearest_and_weigh_nothing(found):
    from svad_ray.subject import Perception

    z = np.zeros(1, np.float32)
    seen = [Perception(z, z, z, np.full((33, 2), i, np.float32), np.ones(33), z, None, z, 1.0, 1) for i in range(4)]
    out = spread_gaps(seen, np.array(found))
    for i, ok in enumerate(found):
        assert (out[i] is seen[i]) == ok
        if not ok:
            near = min((j for j, good in enumerate(found) if good), key=lambda j: abs(j - i))
            assert (out[i].visibility == 0).all() and out[i].landmarks[0, 0] == near
