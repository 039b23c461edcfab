"""Models as their makers pickle them."""

import pickle
import sys
import types

from scipy.sparse import csc_matrix


class _Ch:
    """Stands where chumpy's arrays stand in the published pickles."""

    def __init__(self, x):
        self.x = x


def published(arrays, path, *, sparse=True, more=True):
    """The model as its makers pickle it: chumpy arrays, a sparse regressor, Python 2's protocol."""
    module = types.ModuleType("chumpy.ch")
    _Ch.__module__, _Ch.__qualname__, module._Ch = "chumpy.ch", "_Ch", _Ch
    sys.modules.update({"chumpy": types.ModuleType("chumpy"), "chumpy.ch": module})
    try:
        data = dict(arrays)
        if more:
            data["shapedirs"] = _Ch(data["shapedirs"])
            data["J_regressor"] = csc_matrix(data["J_regressor"]) if sparse else data["J_regressor"]
        data["bs_style"] = "lbs"
        path.write_bytes(pickle.dumps(data, protocol=2))
    finally:
        del sys.modules["chumpy"], sys.modules["chumpy.ch"]
    return path
