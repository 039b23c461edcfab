"""From a pose to Gaussians: the original's forward pass, with everything that does not depend on the pose computed once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from scipy.spatial import cKDTree

from svad_ray.body.lbs import forward_kinematics, rotation_matrices, skin_points
from svad_ray.geometry.mesh import vertex_normals
from svad_ray.geometry.rotations import axis_angle_of
from svad_ray.nets.exavatar.mesh import AvatarMesh
from svad_ray.nets.exavatar.networks import AvatarNetworks

HIPS, JAW, HANDS = (1, 2), 22, slice(25, 55)
JAW_OPEN = 1 / 3  # radians, only where points are looked up in the triplanes


class Assets(NamedTuple):
    """Isotropic Gaussians: means (N, 3) metres, scales (N, 1) metres, colors (N, 3) in [0, 1]."""

    means: torch.Tensor
    scales: torch.Tensor
    colors: torch.Tensor


class Offsets(NamedTuple):
    """What the networks add: mean (N, 3) and pose-dependent mean (N, 3), metres; log scale (N, 1); colour before tanh (N, 3)."""

    mean: torch.Tensor
    mean_offset: torch.Tensor
    scale_offset: torch.Tensor
    rgb_offset: torch.Tensor


@dataclass(frozen=True)
class Canonical:
    """The person's neutral star pose.

    Attributes:
        mesh: (N, 3). low: (L, 3) before subdivision. rest_joints: (55, 3) from which poses are taken.
        unpose: (55, 4, 4) star pose to zero pose.
    """

    mesh: torch.Tensor
    low: torch.Tensor
    rest_joints: torch.Tensor
    unpose: torch.Tensor


class Static(NamedTuple):
    """What no pose changes: features (N, 96), geometry features (N, 128), mean offset (N, 3), log scale (N, 1), colour before tanh (N, 3)."""

    features: torch.Tensor
    geometry: torch.Tensor
    mean: torch.Tensor
    log_scale: torch.Tensor
    rgb: torch.Tensor


@dataclass(frozen=True)
class Posed:
    """Both sets of Gaussians of a pose in the world, with what the regularisers look at.

    Attributes:
        static, refined: Without and with the pose-dependent networks. offsets: What was added. canonical: The person's neutral mesh.
        nearest: (N,) rows of the upsampled skinning weights that were used.
    """

    static: Assets
    refined: Assets
    offsets: Offsets
    canonical: Canonical
    nearest: torch.Tensor


class AvatarModel:
    """A mesh and its networks.

    Args:
        face_offset: (V, 3) metres of the body, felt by joints (ExAvatar's). surface_offset: (V, 3) metres, clothing and hair, felt by none (ours).
        original_hands: Treat the hand mean as the original does, in whose canonical mesh it is while no transform undoes it. False: hands are the
            body's own. Both are equal for a body whose mean hand is flat.
    """

    def __init__(
        self,
        mesh: AvatarMesh,
        networks: AvatarNetworks,
        *,
        face_offset: torch.Tensor | None = None,
        surface_offset: torch.Tensor | None = None,
        original_hands: bool = False,
    ) -> None:
        self.mesh, self.networks, self.original_hands = mesh, networks, original_hands
        self.face_offset, self.surface_offset = face_offset, surface_offset
        self.positions = mesh.up(self._layer(torch.zeros_like(networks.shape_param), None, _star(jaw=JAW_OPEN), identity=False)[0]).detach()
        self._faces = torch.as_tensor(mesh.faces)
        self._own = mesh.hands | mesh.flags["is_face"]
        self._corrected = mesh.hands | mesh.flags["is_face_expr"]
        self._cavity = mesh.flags["is_cavity"][:, None].float()

    def canonical(self) -> Canonical:
        """The neutral mesh with the person's shape, and the transforms that undo its pose."""
        n = self.networks
        joint_offset = torch.cat([torch.zeros_like(n.joint_offset[:1]), n.joint_offset[1:]])  # the pelvis stays
        star = _star()
        vertices, joints, skin, rest = self._layer(n.shape_param, joint_offset, star)
        if self.original_hands:
            back = star.clone()
            back[:] = -back
            unpose = forward_kinematics(rotation_matrices(back)[None], joints[None], self.mesh.body.parents)[2][0]
            rest = self._layer(n.shape_param, joint_offset, torch.zeros(55, 3))[1]
            unpose = torch.cat([unpose, unpose.new_tensor([0, 0, 0, 1.0]).expand(55, 1, 4)], 1)
        else:
            unpose = torch.linalg.inv(skin)
        return Canonical(self.mesh.up(vertices), vertices[self.mesh.low], rest, unpose)

    def _layer(
        self, betas: torch.Tensor, joint_offset: torch.Tensor | None, pose: torch.Tensor, *, identity: bool = True
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Vertices (V, 3), joints (55, 3), skinning transforms (55, 4, 4) and rest joints (55, 3) of the body's own layer."""
        out = self.mesh.body.forward(
            betas=betas[None],
            body_pose=pose[None, 1:22],
            jaw_pose=pose[None, JAW],
            face_offset=self.face_offset if identity else None,
            vertex_offset=self.surface_offset if identity else None,
            joint_offset=joint_offset,
            face_contour=False,
        )
        return out.vertices[0], out.joints[0, :55], out.transforms[0], out.rest_joints[0]

    def static(self) -> Static:
        """The pose-independent heads; the features are looked up once for all of them."""
        n = self.networks
        features = n.features(self.positions, self.mesh.flags["is_face"])
        geometry = n.geo_net(features)
        return Static(features, geometry, n.mean_offset_net(geometry), n.scale_net(geometry), n.rgb_net(features))

    def transforms(self, canonical: Canonical, rotations: torch.Tensor) -> torch.Tensor:
        """(55, 4, 4) from the star pose to a pose given by local rotations (55, 3, 3), hand mean not included."""
        if not self.original_hands:
            rotations = self.with_hands_mean(rotations)
        skin = forward_kinematics(rotations[None], canonical.rest_joints[None], self.mesh.body.parents)[2][0]
        return torch.cat([skin, skin.new_tensor([0, 0, 0, 1.0]).expand(55, 1, 4)], 1) @ canonical.unpose

    def with_hands_mean(self, rotations: torch.Tensor) -> torch.Tensor:
        """The hands' axis-angle mean added to local rotations, as the body's layer adds it."""
        mean = self.mesh.body.hands_mean.reshape(30, 3)
        if not mean.any():
            return rotations
        hands = rotation_matrices(axis_angle_of(rotations[HANDS]) + mean)
        return torch.cat([rotations[: HANDS.start], hands])

    def expression(self, expression: torch.Tensor) -> torch.Tensor:
        """(N, 3) metres that an expression (E,) adds to the canonical mesh."""
        m = self.mesh
        count = min(len(expression), m.exprdirs.shape[-1])
        moved = m.exprdirs[..., :count] @ expression[:count]
        return torch.zeros_like(self.positions).index_add(0, m.expr_rows, moved)

    def nearest(self, means: torch.Tensor, canonical: Canonical) -> torch.Tensor:
        """(N,) whose skinning weights each Gaussian takes: its own on hands and head, else the nearest vertex before subdivision."""
        tree = cKDTree(canonical.low.detach().numpy())
        found = torch.from_numpy(tree.query(means.detach().numpy())[1])
        return torch.where(self._own, torch.arange(len(found)), found)

    def posed(
        self,
        rotations: torch.Tensor,
        expression: torch.Tensor,
        transl: torch.Tensor,
        *,
        camera: tuple[torch.Tensor, torch.Tensor] | None = None,
        static: Static | None = None,
    ) -> Posed:
        """Gaussians of a pose.

        Args:
            rotations: (55, 3, 3) relative to the parent. expression: (E,). transl: (3,) metres.
            camera: (R, t) of a camera in whose axes the pose is given; the result is turned back into the world. None: the pose is the world's.
            static: ``static()`` where it is known already.
        """
        known = self.static() if static is None else static
        canonical = self.canonical()
        pose = rotations[1:22, :2].detach().reshape(1, -1).expand(len(self.mesh), -1)
        geometry = self.networks.geo_offset_net(torch.cat([known.features, pose], 1))
        further, scale_offset = self.networks.mean_offset_offset_net(geometry), self.networks.scale_offset_net(geometry)
        further = further * (~self._corrected)[:, None]
        moved = canonical.mesh + known.mean + self.expression(expression)
        nearest = self.nearest(moved, canonical)
        blended = self.mesh.lbs_weights[nearest]
        skin = self.transforms(canonical, rotations)[None, :, :3]
        means = [skin_points(x, blended, skin)[0] + transl for x in (moved, moved + further + self._correctives(rotations))]
        if camera is not None:
            R, t = camera
            means = [(x - t) @ torch.linalg.inv(R).T for x in means]
        rgb_offset = self._rgb_offset(known.features, pose, means[1])
        static_assets = Assets(means[0], known.log_scale.exp(), _color(known.rgb))
        refined = Assets(means[1], (known.log_scale + scale_offset).exp(), _color(known.rgb + rgb_offset))
        return Posed(static_assets, refined, Offsets(known.mean, further, scale_offset, rgb_offset), canonical, nearest)

    def _correctives(self, rotations: torch.Tensor) -> torch.Tensor:
        """(N, 3) the body's own pose correctives on hands and moving face, zero elsewhere."""
        out = torch.zeros_like(self.positions)
        if self.mesh.posedirs is None:
            return out
        feature = (rotations[1:].detach() - torch.eye(3)).flatten()
        return out.index_add(0, self.mesh.pose_rows, self.mesh.posedirs @ feature)

    def _rgb_offset(self, features: torch.Tensor, pose: torch.Tensor, means: torch.Tensor) -> torch.Tensor:
        normals = vertex_normals(means.detach(), self._faces)
        normals = normals * (1 - 2 * self._cavity)  # the cavity is seen from behind its faces
        return self.networks.rgb_offset_net(torch.cat([features, pose, normals], 1))


def _star(*, jaw: float = 0.0) -> torch.Tensor:
    """(55, 3) axis-angle of the neutral pose: legs apart by a radian each, the mouth open by ``jaw``."""
    pose = torch.zeros(55, 3)
    pose[HIPS[0], 2], pose[HIPS[1], 2], pose[JAW, 0] = 1.0, -1.0, jaw
    return pose


def _color(raw: torch.Tensor) -> torch.Tensor:
    return (torch.tanh(raw) + 1) / 2
