"""The makers' pickled models as npz files, which every tool reads and nothing in which can run."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from svad_ray.body.flame import flame_from_arrays
from svad_ray.body.load import body_from_arrays, read_body
from svad_ray.body.pickled import read_pickle
from svad_ray.errors import InputError, WeightsMissing

_HEAD_JOINTS = 5


def converted(path: Path) -> tuple[str, dict[str, np.ndarray]]:
    """What a pickled model is ("SMPL-X" or "FLAME"), and its arrays, which a body or a head has been built from as a check.

    Raises:
        WeightsMissing: No such file.
        InputError: It is damaged, no such model, or its arrays do not fit together.
    """
    if not path.is_file():
        raise WeightsMissing(f"there is no file {path}", expected="SMPLX_*.pkl or FLAME_*.pkl, as their sites give them", remedy="check the path")
    data = {key: value for key, value in read_pickle(path).items() if isinstance(value, np.ndarray) and value.dtype.kind in "fiub"}
    table = data.get("kintree_table")
    if table is None or table.ndim != 2:
        raise InputError(f"{path.name} holds no kintree_table", expected="a model in SMPL-X's or FLAME's layout", remedy="choose another file")
    if table.shape[1] == _HEAD_JOINTS:
        flame_from_arrays(data, name=path.stem)
        return "FLAME", data
    known = read_body(path)
    body_from_arrays(known, name=path.stem)
    return "SMPL-X", known
