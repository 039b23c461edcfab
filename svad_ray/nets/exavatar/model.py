"""From a pose to Gaussians: the original's forward pass, with everything that does not depend on the pose computed once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from scipy.spatial import cKDTree

from svad_ray.body.lbs import blend_transforms, forward_kinematics, rest_joints, rotation_matrices, skin_points
from svad_ray.geometry.rotations import axis_angle_of
from svad_ray.nets.exavatar.mesh import AvatarMesh, SparseMap
from svad_ray.nets.exavatar.networks import BODY_EXTENT, CHANNELS, FACE_EXTENT, PLANES, AvatarNetworks, through

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
    """A mesh and its networks, on the device that the mesh lies on.

    Args:
        face_offset: (V, 3) metres of the body, felt by joints (ExAvatar's). surface_offset: (V, 3) metres, clothing and hair, felt by none (ours).
        original_hands: Treat the hand mean as the original does, in whose canonical mesh it is while no transform undoes it. False: hands are the
            body's own. Both are equal for a body whose mean hand is flat.
        precision: Of the networks' matrix products; None = float32.
    """

    def __init__(
        self,
        mesh: AvatarMesh,
        networks: AvatarNetworks,
        *,
        face_offset: torch.Tensor | None = None,
        surface_offset: torch.Tensor | None = None,
        original_hands: bool = False,
        precision: torch.dtype | None = None,
    ) -> None:
        device = mesh.lbs_weights.device
        self.mesh, self.networks, self.original_hands, self.precision = mesh, networks.to(device), original_hands, precision
        self.face_offset, self.surface_offset = (None if x is None else x.to(device) for x in (face_offset, surface_offset))
        body, low = mesh.body, mesh.low
        self._low_template, self._low_weights, self._low_shapes = body.v_template[low], body.lbs_weights[low], body.shapedirs[low]
        self._hands_mean = body.hands_mean.reshape(30, 3)
        self._flat_hands = not bool(self._hands_mean.any())
        self.through: Callable[..., torch.Tensor] = through
        self._last_row = torch.tensor([0.0, 0, 0, 1], device=device).expand(len(_star()), 1, 4)
        self._star = _star().to(device)
        self._faces = [torch.from_numpy(np.ascontiguousarray(corner)).to(device) for corner in mesh.faces.T]
        self._around = incidence(mesh.faces, len(mesh))
        self._own = mesh.hands | mesh.flags["is_face"]
        self._numbers = torch.arange(len(mesh), device=device)
        self._free = (~(mesh.hands | mesh.flags["is_face_expr"]))[:, None].float()
        self._outwards = 1 - 2 * mesh.flags["is_cavity"][:, None].float()  # the cavity is seen from behind its faces
        with torch.no_grad():
            self._rest_star = self._constant(self._star, identity=True)
            open_mouth = self._star.clone()
            open_mouth[JAW, 0] = JAW_OPEN
            average = torch.zeros_like(networks.shape_param)
            self.positions = mesh.up_low(self._layer(average, None, open_mouth, self._constant(open_mouth, identity=False), identity=False)[0])
        self._look_up = lookups(self.positions, mesh.flags["is_face"], networks.triplane.shape[-1])

    def compile(self) -> None:
        """Fuse the networks' layers for this GPU; the first steps after it wait for the compiler."""
        self.through = torch.compile(through, dynamic=False)

    def canonical(self) -> Canonical:
        """The neutral mesh with the person's shape, and the transforms that undo its pose."""
        n = self.networks
        joint_offset = torch.cat([torch.zeros_like(n.joint_offset[:1]), n.joint_offset[1:]])  # the pelvis stays
        vertices, joints, skin, rest = self._layer(n.shape_param, joint_offset, self._star, self._rest_star)
        if self.original_hands:
            unpose = self._homogeneous(forward_kinematics(rotation_matrices(-self._star)[None], joints[None], self.mesh.body.parents)[2][0])
            rest = self._posed_joints(rest, torch.zeros_like(self._star))
        else:
            turned = skin[:, :, :3].transpose(1, 2)  # the inverse of a rotation and a shift
            unpose = self._homogeneous(torch.cat([turned, -turned @ skin[:, :, 3:]], 2))
        return Canonical(self.mesh.up_low(vertices), vertices, rest, unpose)

    def _homogeneous(self, skin: torch.Tensor) -> torch.Tensor:
        return torch.cat([skin, self._last_row], 1)

    def _constant(self, pose: torch.Tensor, *, identity: bool) -> list[torch.Tensor]:
        """What no training changes of the rest vertices, (L, 3) each: the person's offsets and the pose's own correctives."""
        body, low = self.mesh.body, self.mesh.low
        found = [offset[low] for offset in (self.face_offset, self.surface_offset) if identity and offset is not None]
        if body.posedirs is not None:
            rotations = rotation_matrices(self._with_mean(pose))
            found.append(body.posedirs[low] @ (rotations[1:] - torch.eye(3, device=rotations.device)).flatten())
        return found

    def _with_mean(self, pose: torch.Tensor) -> torch.Tensor:
        return torch.cat([pose[: HANDS.start], pose[HANDS] + self._hands_mean])

    def _layer(
        self, betas: torch.Tensor, joint_offset: torch.Tensor | None, pose: torch.Tensor, constant: list[torch.Tensor], *, identity: bool = True
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Low vertices (L, 3), joints (55, 3), skinning transforms (55, 3, 4) and rest joints (55, 3), as the body's own layer makes them."""
        body = self.mesh.body
        rest = rest_joints(body, betas)
        if identity and self.face_offset is not None:
            rest = rest + body.J_regressor @ self.face_offset
        rest = rest if joint_offset is None else rest + joint_offset
        _, joints, skin = forward_kinematics(rotation_matrices(self._with_mean(pose))[None], rest[None], body.parents)
        shaped = sum(constant, self._low_template + torch.einsum("lkb,b->lk", self._low_shapes[..., : len(betas)], betas))
        vertices = skin_points(shaped, self._low_weights, skin)[0]
        return vertices, joints[0], skin[0], rest

    def _posed_joints(self, rest: torch.Tensor, pose: torch.Tensor) -> torch.Tensor:
        return forward_kinematics(rotation_matrices(self._with_mean(pose))[None], rest[None], self.mesh.body.parents)[1][0]

    def features(self, looks: tuple[SparseMap, SparseMap] | None = None) -> torch.Tensor:
        """(N, 96) what the triplanes hold where the vertices are; of fewer vertices with their ``looks``."""
        n = self.networks
        both = zip(looks or self._look_up, (n.triplane, n.triplane_face))
        found = [look(planes.permute(0, 2, 3, 1).reshape(-1, CHANNELS)) for look, planes in both]
        return (found[0] + found[1]).view(-1, PLANES * CHANNELS)

    def looks(self, rows: np.ndarray) -> tuple[SparseMap, SparseMap]:
        """Look-ups of some vertices (M,) in both triplanes."""
        chosen = (rows[:, None] * PLANES + np.arange(PLANES)).ravel()
        body, face = (SparseMap(look.matrix[chosen]) for look in self._look_up)
        return body, face

    def static(self) -> Static:
        """The pose-independent heads; the features are looked up once for all of them."""
        n, p = self.networks, self.precision
        features = self.features()
        geometry = self.through(n.geo_net, features, precision=p).float()
        return Static(features, geometry, n.mean_offset_net(geometry), n.scale_net(geometry), self.through(n.rgb_net, features, precision=p).float())

    def transforms(self, canonical: Canonical, rotations: torch.Tensor) -> torch.Tensor:
        """(55, 4, 4) from the star pose to a pose given by local rotations (55, 3, 3), hand mean not included."""
        if not self.original_hands:
            rotations = self.with_hands_mean(rotations)
        skin = forward_kinematics(rotations[None], canonical.rest_joints[None], self.mesh.body.parents)[2][0]
        return self._homogeneous(skin) @ canonical.unpose

    def with_hands_mean(self, rotations: torch.Tensor) -> torch.Tensor:
        """The hands' axis-angle mean added to local rotations, as the body's layer adds it."""
        if self._flat_hands:
            return rotations
        hands = rotation_matrices(axis_angle_of(rotations[HANDS]) + self._hands_mean)
        return torch.cat([rotations[: HANDS.start], hands])

    def expression(self, expression: torch.Tensor) -> torch.Tensor:
        """(N, 3) metres that an expression (E,) adds to the canonical mesh."""
        m = self.mesh
        count = min(len(expression), m.exprdirs.shape[-1])
        moved = m.exprdirs[..., :count] @ expression[:count]
        return torch.zeros_like(self.positions).index_add(0, m.expr_rows, moved)

    def nearest(self, means: torch.Tensor, canonical: Canonical) -> torch.Tensor:
        """(N,) whose skinning weights each Gaussian takes: its own on hands and head, else the nearest vertex before subdivision."""
        low, high = canonical.low.detach(), means.detach()
        found = _nearest(high, low) if low.is_cuda else torch.from_numpy(cKDTree(low.numpy()).query(high.numpy())[1])
        return torch.where(self._own, self._numbers, found)

    def posed(
        self,
        rotations: torch.Tensor,
        expression: torch.Tensor,
        transl: torch.Tensor,
        *,
        camera: tuple[torch.Tensor, torch.Tensor] | None = None,
        static: Static | None = None,
        nearest: torch.Tensor | None = None,
    ) -> Posed:
        """Gaussians of a pose.

        Args:
            rotations: (55, 3, 3) relative to the parent. expression: (E,). transl: (3,) metres.
            camera: (R, t) of a camera in whose axes the pose is given; the result is turned back into the world. None: the pose is the world's.
            static: ``static()`` where it is known already.
            nearest: (N,) rows of the skinning weights where they are known already.
        """
        known = self.static() if static is None else static
        canonical = self.canonical()
        n, pose = self.networks, rotations[1:22, :2].detach().flatten()
        geometry = self.through(n.geo_offset_net, known.features, pose=pose, precision=self.precision).float()
        further, scale_offset = n.mean_offset_offset_net(geometry) * self._free, n.scale_offset_net(geometry)
        start = canonical.mesh + known.mean + self.expression(expression)
        nearest = self.nearest(start, canonical) if nearest is None else nearest
        skin = self.transforms(canonical, rotations)[None, :, :3]
        blended = blend_transforms(self.mesh.lbs_weights[nearest], skin)[0]
        means = [moved(x, blended) + transl for x in (start, start + further + self._correctives(rotations))]
        if camera is not None:
            R, t = camera
            means = [(x - t) @ torch.linalg.inv(R).T for x in means]
        normals = self.normals(means[1].detach()) * self._outwards
        rgb_offset = self.through(n.rgb_offset_net, known.features, pose=pose, more=normals, precision=self.precision).float()
        static_assets = Assets(means[0], known.log_scale.exp(), _color(known.rgb))
        refined = Assets(means[1], (known.log_scale + scale_offset).exp(), _color(known.rgb + rgb_offset))
        return Posed(static_assets, refined, Offsets(known.mean, further, scale_offset, rgb_offset), canonical, nearest)

    def _correctives(self, rotations: torch.Tensor) -> torch.Tensor | float:
        """(N, 3) the body's own pose correctives on hands and moving face, zero elsewhere."""
        if self.mesh.posedirs is None:
            return 0.0
        feature = (rotations[1:].detach() - torch.eye(3, device=rotations.device)).flatten()
        return torch.zeros_like(self.positions).index_add(0, self.mesh.pose_rows, self.mesh.posedirs @ feature)

    def normals(self, vertices: torch.Tensor) -> torch.Tensor:
        """(N, 3) unit normals, area weighted, without a gradient."""
        a, b, c = (vertices.index_select(0, corner) for corner in self._faces)
        return torch.nn.functional.normalize(self._around.multiply(torch.linalg.cross(b - a, c - a)), dim=1)


def moved(points: torch.Tensor, blended: torch.Tensor) -> torch.Tensor:
    """(N, 3) points moved by one transform each (N, 3, 4)."""
    return (blended[..., :3] * points[:, None]).sum(2) + blended[..., 3]


def incidence(faces: np.ndarray, count: int) -> SparseMap:
    """Sums over the faces at each vertex: (N, F)."""
    columns = np.repeat(np.arange(len(faces)), 3)
    return SparseMap(sp.coo_matrix((np.ones(3 * len(faces)), (faces.ravel(), columns)), (count, len(faces))))


def lookups(positions: torch.Tensor, face: torch.Tensor, side: int) -> tuple[SparseMap, SparseMap]:
    """Bilinear look-ups (3 N, 3 S S) of the body's and of the face's triplane at places that never change: what grid_sample would sum, as a matrix.

    Args:
        positions: (N, 3) metres. face: (N,) bool points that read the face's triplane instead of the body's. side: S, texels.
    """
    where, near = positions.cpu(), face.cpu()
    parts = ((~near, where.mean(0), BODY_EXTENT), (near, where[near].mean(0), FACE_EXTENT))
    bilinear = [_bilinear(torch.nonzero(rows)[:, 0].numpy(), ((where[rows] - mean) / (extent / 2)).numpy(), side) for rows, mean, extent in parts]
    shape = (PLANES * len(where), PLANES * side * side)
    body, local = (SparseMap(sp.coo_matrix((values, (rows, columns)), shape)) for values, rows, columns in bilinear)
    return body, local


def _bilinear(points: np.ndarray, where: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights, rows and columns of the texels around places in [-1, 1] (M, 3) on three planes; texels outside count nothing."""
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for plane, axes in enumerate(((0, 1), (0, 2), (1, 2))):
        at = ((where[:, axes] + 1) * side - 1) / 2  # in float32, as grid_sample does
        corner = np.floor(at).astype(np.int64)
        for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)):
            texel = corner + np.array((dx, dy))
            weight = np.abs(np.array((1 - dx, 1 - dy), np.float32) - (at - corner).astype(np.float32)).prod(1)
            inside = ((texel >= 0) & (texel < side)).all(1)
            found.append((weight[inside], (points * PLANES + plane)[inside], ((plane * side + texel[:, 1]) * side + texel[:, 0])[inside]))
    values, rows, columns = (np.concatenate(part) for part in zip(*found))
    return values, rows, columns


def _nearest(points: torch.Tensor, among: torch.Tensor) -> torch.Tensor:
    """(N,) numbers of the nearest of ``among`` (L, 3): all distances, some points at a time."""
    exact = "donot_use_mm_for_euclid_dist"
    return torch.cat([torch.cdist(rows, among, compute_mode=exact).argmin(1) for rows in points.split(16384)])


def _star() -> torch.Tensor:
    """(55, 3) axis-angle of the neutral pose: legs apart by a radian each."""
    pose = torch.zeros(55, 3)
    pose[HIPS[0], 2], pose[HIPS[1], 2] = 1.0, -1.0
    return pose


def _color(raw: torch.Tensor) -> torch.Tensor:
    return (torch.tanh(raw) + 1) / 2
