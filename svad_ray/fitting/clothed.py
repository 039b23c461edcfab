"""The clothed surface: a body's outer skin, shaped, clothed, subdivided once, ready to be posed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from svad_ray.body.lbs import skin_points
from svad_ray.body.model import Body
from svad_ray.body.names import JOINT_INDEX, JOINT_NAMES
from svad_ray.fitting.coat_shell import CoatShell
from svad_ray.fitting.loose import Loose, loose_weights
from svad_ray.geometry.mesh import subdivide

PARTS = ("head", "torso", "left_arm", "right_arm", "left_leg", "right_leg", "left_hand", "right_hand", "left_foot", "right_foot")
HALF_COAT = (0.4, 0.4)  # share of coat, and of its back, from which a vertex halfway between coat and leg is coat
MIRRORED_PART = np.array([0, 1, 3, 2, 5, 4, 7, 6, 9, 8])


@dataclass(frozen=True)
class Surface:
    """A subdivided body surface in the shaped, clothed zero pose.

    Attributes:
        rest: (N, 3) metres. faces: (F, 3). lbs_weights: (N, 55). template: (N, 3) the body's unshaped zero pose, for symmetric look-ups.
        part: (N,) int, see ``PARTS``. regions: name -> (N,) bool.
    """

    rest: np.ndarray
    faces: np.ndarray
    lbs_weights: torch.Tensor
    template: np.ndarray
    part: np.ndarray
    regions: dict[str, np.ndarray]

    @property
    def neck(self) -> np.ndarray:
        """(N,) bool: moved by the neck joint as much as by the head."""
        return self.lbs_weights.numpy()[:, JOINT_INDEX["neck"]] > 0.4

    def posed(self, skin: torch.Tensor) -> np.ndarray:
        """(N, 3) world points under skinning transforms (55, 3, 4)."""
        return skin_points(torch.as_tensor(self.rest), self.lbs_weights, skin[None])[0].numpy()


def clothed_surface(
    body: Body,
    betas: np.ndarray,
    vertex_offset: np.ndarray | None,
    *,
    loose: Loose = "off",
    hair: np.ndarray | None = None,
    coat: CoatShell | None = None,
) -> Surface:
    """The outer surface (no teeth, no tongue) of a shaped and clothed body, subdivided once.

    Args:
        vertex_offset: (V, 3) metres; None = naked.
        loose: Which clothes follow a smooth blend of both legs instead of the nearest one, see ``svad_ray.fitting.loose``.
        hair: (V,) share of each vertex that is hair below the scalp; becomes the region "hair".
        coat: An open coat; becomes the region "coat", and "coat_back" the part of it behind the legs.
    """
    inner = body.tables.regions["inner_mouth"]
    base_faces = body.faces[~inner[body.faces].any(1)]
    matrix, faces = subdivide(base_faces, len(inner))
    template = body.v_template.numpy()
    rest = template + (body.shapedirs[..., : len(betas)] @ torch.as_tensor(betas, dtype=torch.float32)).numpy()
    own = (matrix @ body.lbs_weights.numpy()).astype(np.float32)
    weights = own
    if vertex_offset is not None:
        weights = (matrix @ loose_weights(body, rest, vertex_offset, loose)).astype(np.float32)
        rest = rest + vertex_offset
    regions = {name: (matrix @ mask.astype(np.float32)) > 0.5 for name, mask in body.tables.regions.items()}
    worn = (None, None) if coat is None else (coat.share, coat.back.astype(np.float32))
    for name, share, least in zip(("hair", "coat", "coat_back"), (hair, *worn), (0.5, *HALF_COAT)):
        regions[name] = np.zeros(matrix.shape[0], bool) if share is None else (matrix @ share) > least
    rest, template = ((matrix @ points).astype(np.float32) for points in (rest, template))
    return Surface(rest, faces, torch.from_numpy(weights), template, parts_of(own), regions)


def parts_of(weights: np.ndarray) -> np.ndarray:
    """(N,) int, see ``PARTS``: the part that moves each point most. ``weights``: (N, 55) skinning weights."""
    group = np.zeros(len(JOINT_NAMES), int)
    for j, name in enumerate(JOINT_NAMES):
        side = 1 if name.startswith("right") else 0
        if name in ("head", "jaw", "neck", "left_eye", "right_eye"):
            group[j] = 0
        elif name.endswith(("shoulder", "elbow")):
            group[j] = 2 + side
        elif name.endswith(("hip", "knee")):
            group[j] = 4 + side
        elif name.endswith(("ankle", "foot")):
            group[j] = 8 + side
        elif name.endswith("wrist") or (name[-1].isdigit() and "spine" not in name):
            group[j] = 6 + side
        else:
            group[j] = 1
    share = np.stack([weights[:, group == k].sum(1) for k in range(len(PARTS))], 1)
    return share.argmax(1)
