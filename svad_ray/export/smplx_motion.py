"""A motion as an SMPL-X npz with the keys of AMASS: what smplx-based tools and our own ``load_motion`` read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from svad_ray.body.model import Body
from svad_ray.body.tables import SMPLX_VERTEX_COUNT
from svad_ray.export.atomic import atomic_path
from svad_ray.export.gltf import check_clip, whole_pose
from svad_ray.stages.avatar.bake import baked, body_of
from svad_ray.subject import Avatar, BodyTrack

_NO_SHAPE = 10  # betas of the average person


def write_smplx(avatar: Avatar, track: BodyTrack, path: str | Path, *, body: Body, name: str = "motion") -> None:
    """Write ``track``, danced by the avatar's person.

    poses (T, 165) axis-angle in SMPL-X joint order with the mean hand included, trans (T, 3) metres, betas, expression (T, E), gender,
    surface_model_type, fps. The world is y up, as smplx's own is; the key ``mocap_frame_rate``, which tells of AMASS's z up, is left out.
    Betas are the person's only on SMPL-X itself: those of the open body would be another shape there, and zeros are written instead.

    Args:
        body: The avatar's own.

    Raises:
        InputError: A motion of another body or with values that are not finite, or a path that cannot be written.
    """
    check_clip(name, track, avatar)
    body = body_of(avatar, body)
    shape = avatar.track.betas if len(body.v_template) == SMPLX_VERTEX_COUNT else np.zeros(_NO_SHAPE)
    arrays: dict[str, Any] = {
        "poses": whole_pose(baked(avatar, body=body).tensors, track).reshape(len(track), -1),
        "trans": track.transl,
        "betas": shape,
        "expression": track.expression,
    }
    arrays = {key: np.asarray(value, np.float32) for key, value in arrays.items()}
    arrays |= {"gender": np.array("neutral"), "surface_model_type": np.array("smplx"), "fps": np.float64(track.fps)}
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, **arrays)
