"""Where a row of yes and no is told best by one edge."""

from __future__ import annotations

import numpy as np


def best_cut(beyond: np.ndarray) -> tuple[int, int]:
    """The first index such that most of (N,) bool is told right as no before it and yes from it on, in [0, N]; and how many are."""
    right = np.concatenate([[0], np.cumsum(~beyond)]) + np.concatenate([np.cumsum(beyond[::-1])[::-1], [0]])
    cut = int(np.argmax(right))
    return cut, int(right[cut])
