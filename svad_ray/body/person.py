"""One person's body at rest: shape and offsets of a track on its body."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from svad_ray.body.lbs import rest_joints
from svad_ray.errors import InputError

if TYPE_CHECKING:
    from svad_ray.body.model import Body
    from svad_ray.subject import BodyTrack


def rest_surface(body: Body, track: BodyTrack, vertices: np.ndarray | slice = slice(None)) -> torch.Tensor:
    """(N, 3) metres: the chosen vertices with the person's shape, face and clothes, unposed."""
    real = body.v_template.dtype
    rest = body.v_template[vertices] + body.shapedirs[vertices][..., : len(track.betas)] @ torch.as_tensor(track.betas, dtype=real)
    worn = track.surface_offset
    return rest if worn is None else rest + torch.as_tensor(worn[vertices], dtype=real)


def person_joints(body: Body, track: BodyTrack, expression: torch.Tensor | None = None) -> torch.Tensor:
    """(55, 3) metres: the joints of that surface, which feel the face and not the clothes; (T, 55, 3) with a (T, E) ``expression``."""
    real = body.v_template.dtype
    joints = rest_joints(body, torch.as_tensor(track.betas, dtype=real), expression)
    if track.face_offset is not None:
        joints = joints + body.J_regressor @ torch.as_tensor(track.face_offset, dtype=real)
    return joints if track.joint_offset is None else joints + torch.as_tensor(track.joint_offset, dtype=real)


def check_person(body: Body, track: BodyTrack) -> None:
    """Refuse a track whose shape or offsets belong to another body.

    Raises:
        InputError: Another body, or offsets of another number of vertices or joints.
    """
    if track.body_id and track.body_id != body.id:
        raise InputError(
            f"the person's shape belongs to body '{track.body_id}', the loaded body is '{body.id}'",
            expected="shape coefficients and body file that belong together",
            remedy="load the body file that the person was fitted with (--body FILE; without it the open body)",
        )
    vertices, joints = (len(body.v_template), 3), (55, 3)
    for name, shape in (("vertex_offset", vertices), ("face_offset", vertices), ("joint_offset", joints), ("locator_offset", joints)):
        offset = getattr(track, name)
        if offset is not None and offset.shape != shape:
            raise InputError(
                f"a {name} of shape {offset.shape} on body '{body.name}'", expected=f"{shape}", remedy="use the body that it was made on"
            )
