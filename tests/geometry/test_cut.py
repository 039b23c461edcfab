import numpy as np
import pytest

from svad_ray.geometry.cut import best_cut


@pytest.mark.parametrize("seed", range(6))
def test_no_other_cut_tells_more_right(seed):
    rng = np.random.default_rng(seed)
    beyond = rng.random(25) < np.linspace(0.1, 0.9, 25)
    right = [(~beyond[:k]).sum() + beyond[k:].sum() for k in range(26)]
    assert best_cut(beyond) == (int(np.argmax(right)), max(right))


def test_one_sided_rows_are_cut_at_their_ends():
    assert best_cut(np.ones(3, bool)) == (0, 3) and best_cut(np.zeros(3, bool)) == (3, 3)
