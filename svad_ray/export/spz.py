"""The avatar as ``.spz``, Niantic's compressed Gaussians: a fifth of the PLY. The package gsply writes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from svad_ray.errors import BackendUnavailable
from svad_ray.export.atomic import atomic_path
from svad_ray.export.ply import OPACITY_RANGE, SH_C0, SMALLEST_SCALE, placed
from svad_ray.stages.avatar.bake import baked
from svad_ray.subject import Avatar, BodyTrack

_VERSION = 3  # what viewers read today; 4 needs another decompressor


def write_spz(avatar: Avatar, path: str | Path, *, pose: BodyTrack | None = None, frame: int = 0) -> None:
    """Write the Gaussians; the format's axes (x right, y up, z to the viewer) are the body's own.

    Args and Raises as :func:`svad_ray.export.ply.write_ply`; BackendUnavailable: gsply is not installed. Centres are kept to 0.12 mm, log scales to
    1/32, colour and opacity to 8 bits.
    """
    try:
        from gsply import GSData
        from gsply import write_spz as written
    except ImportError as error:
        raise BackendUnavailable(
            "gsply, which writes spz, is not installed", expected="the extra 'spz'", remedy='pip install "svad-ray[spz]"'
        ) from error
    avatar = baked(avatar)
    means, quats = placed(avatar, pose, frame, y_up=True)
    t = avatar.tensors
    opacity = t["opacities"].astype(np.float64).clip(*OPACITY_RANGE)
    values = {
        "means": means,
        "scales": np.log(np.maximum(t["scales"], SMALLEST_SCALE)),
        "quats": quats / np.linalg.norm(quats, axis=1, keepdims=True),
        "opacities": np.log(opacity / (1 - opacity)),
        "sh0": (t["colors"] - 0.5) / SH_C0,
        "shN": np.zeros((len(means), 0, 3)),
    }
    arrays: dict[str, Any] = {name: np.ascontiguousarray(value, np.float32) for name, value in values.items()}
    data = GSData(**arrays)
    with atomic_path(path) as temporary:
        written(temporary, data, version=_VERSION)
