"""The body: SMPL-X's parameters in, vertices and joints out.

Source: SMPL-X (Pavlakos et al. 2019), section 3.1, as the file layout fixes it; the offsets are ExAvatar's (Moon et al. 2024).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np
import torch

from svad_ray.body.lbs import forward_kinematics, rest_joints, rotation_matrices, skin_points
from svad_ray.body.names import JOINT_INDEX
from svad_ray.body.tables import BodyTables
from svad_ray.errors import InputError

JOINTS = 55
YAW_LIMIT = 39  # degrees covered by the contour's look-up table on either side


@dataclass(frozen=True)
class BodyOutput:
    """A posed batch.

    Attributes:
        vertices: (B, V, 3) metres.
        joints: (B, 144, 3) metres, in the order of :data:`svad_ray.body.names.OUTPUT_NAMES`; 127 without the face contour.
        transforms: (B, 55, 4, 4) rest-to-posed skinning transforms, translation included.
        rest_vertices: (B, V, 3) metres, the mesh that was skinned (shape, expression, offsets and pose correctives applied).
        rest_joints: (B, 55, 3) metres, joint offset included.
    """

    vertices: torch.Tensor
    joints: torch.Tensor
    transforms: torch.Tensor
    rest_vertices: torch.Tensor
    rest_joints: torch.Tensor


@dataclass(frozen=True)
class Body:
    """One body in SMPL-X layout.

    Attributes:
        id: Short content hash; betas belong to the id they were fitted with.
        name, licence: For people.
        v_template: (V, 3) metres, zero pose. faces: (F, 3) int64 array, outward counter-clockwise.
        shapedirs: (V, 3, S). exprdirs: (V, 3, E). posedirs: (V, 3, 486), None where the body has no pose correctives.
        J_regressor: (55, V). lbs_weights: (V, 55). parents: 55 numbers, -1 for the root.
        hands_mean: (2, 45) axis-angle, left then right. hands_components: (2, 45, 45) rows of the hand PCA.
        expression_units, unit_to_expression: Names and (U, E) coefficients of the ARKit face units this body can mimic; empty for bodies without.
    """

    id: str
    name: str
    licence: str
    v_template: torch.Tensor
    faces: np.ndarray
    shapedirs: torch.Tensor
    exprdirs: torch.Tensor
    posedirs: torch.Tensor | None
    J_regressor: torch.Tensor
    lbs_weights: torch.Tensor
    parents: tuple[int, ...]
    hands_mean: torch.Tensor
    hands_components: torch.Tensor
    tables: BodyTables
    expression_units: tuple[str, ...] = ()
    unit_to_expression: np.ndarray | None = None

    @cached_property
    def joint_template(self) -> torch.Tensor:
        """(55, 3) metres."""
        return self.J_regressor @ self.v_template

    @cached_property
    def joint_shapedirs(self) -> torch.Tensor:
        """(55, 3, S): how joints follow betas."""
        return torch.einsum("jv,vkb->jkb", self.J_regressor, self.shapedirs)

    @cached_property
    def joint_exprdirs(self) -> torch.Tensor:
        """(55, 3, E): how joints follow the expression (they do, a little, as in SMPL-X)."""
        return torch.einsum("jv,vke->jke", self.J_regressor, self.exprdirs)

    def to(self, dtype: torch.dtype) -> Body:
        """This body in another floating dtype."""
        return self._moved(dtype)

    def on(self, device: torch.device | str) -> Body:
        """This body with its tensors on a device."""
        return self._moved(device)

    def _moved(self, where: torch.dtype | torch.device | str) -> Body:
        changed = {f.name: getattr(self, f.name).to(where) for f in fields(self) if isinstance(getattr(self, f.name), torch.Tensor)}
        return replace(self, **changed)

    def forward(
        self,
        *,
        betas: torch.Tensor,
        expression: torch.Tensor | None = None,
        global_orient: torch.Tensor | None = None,
        body_pose: torch.Tensor | None = None,
        left_hand_pose: torch.Tensor | None = None,
        right_hand_pose: torch.Tensor | None = None,
        jaw_pose: torch.Tensor | None = None,
        leye_pose: torch.Tensor | None = None,
        reye_pose: torch.Tensor | None = None,
        transl: torch.Tensor | None = None,
        face_offset: torch.Tensor | None = None,
        joint_offset: torch.Tensor | None = None,
        locator_offset: torch.Tensor | None = None,
        vertex_offset: torch.Tensor | None = None,
        flat_hand_mean: bool = False,
        face_contour: bool = True,
    ) -> BodyOutput:
        """Shape and pose the body; a missing argument is zero.

        Args:
            betas, expression: (B, b) and (B, e), any number of coefficients up to the body's.
            global_orient, jaw_pose, leye_pose, reye_pose, transl: (B, 3) axis-angle and metres.
            body_pose: (B, 63) or (B, 21, 3). left_hand_pose, right_hand_pose: (B, 45) or (B, 15, 3), without the hand mean.
            face_offset: (B, V, 3) or (V, 3) metres, added to the template before joints are regressed.
            joint_offset: (B, 55, 3) or (55, 3) metres, added to the regressed joints; skinning feels it.
            locator_offset: (B, 55, 3) or (55, 3) metres; only the 55 output joints feel it.
            vertex_offset: (B, V, 3) or (V, 3) metres, clothing: added to the rest surface, felt by no joint (ours).
            flat_hand_mean: Leave the hand mean out.
            face_contour: Append the 17 contour points; they slide with the head's yaw in the world, as in smplx.

        Raises:
            InputError: Batch sizes or coefficient counts do not fit.

        Source: smplx's layer; offsets as in ExAvatar's changed layer.
        """
        parts = (global_orient, body_pose, jaw_pose, leye_pose, reye_pose, left_hand_pose, right_hand_pose)
        limits = (self.shapedirs.shape[-1], self.exprdirs.shape[-1])
        batch = batch_of(betas, expression, transl, *parts, limits=limits, what="body", remedy=f"use a track of body {self.id}")
        pose = self._full_pose(parts, batch, flat_hand_mean=flat_hand_mean)
        rotations = rotation_matrices(pose)
        joints = rest_joints(self, betas, expression)
        rest = self._shaped(betas, expression)
        if face_offset is not None:
            joints, rest = joints + self.J_regressor @ face_offset, rest + face_offset
        joints = joints if joint_offset is None else joints + joint_offset
        rest = rest if vertex_offset is None else rest + vertex_offset
        rest = rest if self.posedirs is None else rest + self._pose_correctives(rotations)
        world, posed, skin = forward_kinematics(rotations, joints, self.parents)
        if locator_offset is not None:
            posed = forward_kinematics(rotations, joints + locator_offset, self.parents)[1]
        vertices = skin_points(rest, self.lbs_weights, skin)
        posed = torch.cat([posed, vertices[:, self.tables.vertex_joints], self._landmarks(vertices, world, face_contour=face_contour)], 1)
        transforms = torch.cat([skin, skin.new_tensor([0, 0, 0, 1.0]).expand(batch, JOINTS, 1, 4)], 2)
        if transl is not None:
            vertices, posed, transforms = vertices + transl[:, None], posed + transl[:, None], _shifted(transforms, transl)
        return BodyOutput(vertices, posed, transforms, rest.expand(batch, -1, -1), joints.expand(batch, -1, -1))

    def _full_pose(self, parts: tuple[torch.Tensor | None, ...], batch: int, *, flat_hand_mean: bool) -> torch.Tensor:
        """(B, 55, 3) axis-angle in joint order, hand mean included."""
        counts = (1, 21, 1, 1, 1, 15, 15)
        zero = self.v_template.new_zeros(1, 1, 3)
        rows = [(zero if x is None else x.reshape(len(x), n, 3)).expand(batch, n, 3) for x, n in zip(parts, counts)]
        if not flat_hand_mean:
            rows[5:] = [row + mean.reshape(1, 15, 3) for row, mean in zip(rows[5:], self.hands_mean)]
        return torch.cat(rows, 1)

    def _shaped(self, betas: torch.Tensor, expression: torch.Tensor | None) -> torch.Tensor:
        """(B, V, 3) template with shape and expression."""
        rest = self.v_template + torch.einsum("vkb,nb->nvk", self.shapedirs[..., : betas.shape[1]], betas)
        return rest if expression is None else rest + torch.einsum("vke,ne->nvk", self.exprdirs[..., : expression.shape[1]], expression)

    def _pose_correctives(self, rotations: torch.Tensor) -> torch.Tensor:
        """(B, V, 3): linear in the rotations' difference from identity, root left out (SMPL-X eq. 4)."""
        if self.posedirs is None:
            raise InputError(f"body {self.name!r} has no pose correctives")
        feature = (rotations[:, 1:] - torch.eye(3, dtype=rotations.dtype)).flatten(1)
        return torch.einsum("vkp,np->nvk", self.posedirs, feature)

    def _landmarks(self, vertices: torch.Tensor, world: torch.Tensor, *, face_contour: bool) -> torch.Tensor:
        """(B, 51 or 68, 3): inner face, then contour."""
        t = self.tables
        fixed = on_faces(vertices, self.faces[t.landmark_faces][None], vertices.new_tensor(t.landmark_bary)[None])
        if not face_contour:
            return fixed
        bins = contour_bins(world[:, JOINT_INDEX["neck"]]).numpy()
        moving = on_faces(vertices, self.faces[t.contour_faces[bins]], vertices.new_tensor(t.contour_bary[bins]))
        return torch.cat([fixed, moving], 1)


def batch_of(
    betas: torch.Tensor, expression: torch.Tensor | None, *rest: torch.Tensor | None, limits: tuple[int, int], what: str, remedy: str = ""
) -> int:
    """The batch size of a layer's arguments, where those of one row count for all.

    Args:
        limits: How many betas and expressions there are. what: The layer's name for messages.

    Raises:
        InputError: Batch sizes or coefficient counts do not fit.
    """
    sizes = {len(x) for x in (betas, expression, *rest) if x is not None} - {1}
    if len(sizes) > 1:
        raise InputError(f"parameters of the {what} come in batches of {sorted(sizes)}", expected="one batch size (or 1) for all")
    for name, x, limit in (("betas", betas, limits[0]), ("expression", expression, limits[1])):
        if x is not None and (x.dim() != 2 or x.shape[1] > limit):
            raise InputError(f"{name} of shape {tuple(x.shape)}", expected=f"(batch, at most {limit})", remedy=remedy)
    return sizes.pop() if sizes else 1


def contour_bins(neck: torch.Tensor) -> torch.Tensor:
    """Row of the contour's look-up table for each head.

    Args:
        neck: (B, 3, 3) world rotation of the neck joint.

    Returns:
        (B,) int64: n for n degrees to the person's right, 39 + n for n degrees to the left; both ends at 39 degrees.

    Source: smplx's look-up (its yaw includes the global orientation: the camera is taken to look along -z).
    """
    neck = neck.detach()
    yaw = torch.atan2(-neck[:, 2, 0], torch.hypot(neck[:, 0, 0], neck[:, 1, 0]))
    right = torch.round(torch.clamp(-torch.rad2deg(yaw), -YAW_LIMIT, YAW_LIMIT)).long()
    return torch.where(right < 0, YAW_LIMIT - right, right)


def on_faces(vertices: torch.Tensor, corners: np.ndarray, bary: torch.Tensor) -> torch.Tensor:
    """(B, L, 3) points at barycentric coordinates (1 or B, L, 3) of vertex triples (1 or B, L, 3)."""
    rows = torch.arange(len(vertices))[:, None, None]
    return (vertices[rows, torch.as_tensor(corners)] * bary[..., None]).sum(2)


def _shifted(transforms: torch.Tensor, transl: torch.Tensor) -> torch.Tensor:
    shift = torch.zeros_like(transforms)
    shift[..., :3, 3] = transl[:, None]
    return transforms + shift
