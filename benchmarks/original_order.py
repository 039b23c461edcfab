"""The original's order of work, plainly written, with the package's own arithmetic nowhere: what `training.py` compares with.

Read from the original's model and modules (ExAvatar d452687). A step of it, batch 1, on whole frames:

- the body's whole layer three times (neutral pose, zero pose, image pose), the mesh upsampled, features looked up once with grid_sample, the four
  networks with the body pose repeated on every row and torch's group normalisation, the nearest vertex searched for static and refined alike;
- five splat renders: scene; person; scene + person; refined person; scene + refined person, the scene detached in the composites;
- SSIM by grouped 11 x 11 convolutions on both composites' person boxes and on the whole scene render; LPIPS (VGG) on both boxes, each with its own
  pass over the truth; plain L1 terms on the boxes;
- each Laplacian by gathering ten neighbours, six times; normals by scattered sums;
- Adam, unfused, one group for each tensor, one parameter for each part of each frame's pose.

Left out, which only makes it faster here than the original is: the two renders of the face's texture, harmonics and densification of the scene's
Gaussians, and reading frames from disk.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial import cKDTree
from torch import nn

from svad_ray.body.lbs import forward_kinematics, rotation_matrices
from svad_ray.geometry.mesh import vertex_normals
from svad_ray.geometry.rotations import axis_angle_of, matrices_of_rows, rows_of
from svad_ray.nets.exavatar.mesh import AvatarMesh
from svad_ray.nets.exavatar.model import Assets, AvatarModel
from svad_ray.nets.exavatar.networks import BODY_EXTENT, FACE_EXTENT
from svad_ray.stages.avatar.colors import View
from svad_ray.stages.avatar.exavatar_training import GENTLE, POSE_SHARE, Poses, Scene, _person_crop, draw, rate_factor
from svad_ray.stages.avatar.losses import HUMAN, LPIPS, RGB, SSIM, over
from svad_ray.stages.avatar.regularisers import WARM_UP, Regularisers, drawn, neighbours
from svad_ray.stages.avatar.ssim import C1, C2, SIGMA, WINDOW

Distance = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class OriginalOrder:
    """A model, its poses and its scene, trained as the original trains them.

    Args:
        model: Whose networks are trained. poses: First poses. views: Whole frames. distance: LPIPS; None leaves it out.
        mesh: The model's mesh on the CPU. regularisers: Those terms that have no cheaper form are taken from here.
        like_ours: Go on from our start: with our rates, and without the original's first steps of small Gaussians. False: all as the original.
    """

    def __init__(
        self,
        model: AvatarModel,
        mesh: AvatarMesh,
        regularisers: Regularisers,
        poses: Poses,
        views: list[View],
        distance: Distance | None,
        *,
        like_ours: bool = False,
    ) -> None:
        self.model, self.views, self.distance, self.regularisers, self.like_ours = model, views, distance, regularisers, like_ours
        self.device = model.positions.device
        self.scene = Scene(views[0]).to(self.device)
        parts = [poses.of(i) for i in range(len(views))]
        self.poses = [[nn.Parameter(x.clone()) for x in (rows_of(r), e, t)] for r, e, t in parts]
        self.faces = torch.as_tensor(mesh.faces, device=self.device)
        index, weight = neighbours(mesh.faces, len(mesh))
        self.near, self.share = index.to(self.device), weight.to(self.device)
        self.crops = [_person_crop(view) for view in views]
        self.groups()

    def groups(self) -> None:
        """Adam's groups: one for every tensor."""
        n = self.model.networks
        for norm in (m for m in n.modules() if isinstance(m, nn.GroupNorm)):
            norm.forward = lambda x, norm=norm: F.group_norm(x, norm.num_groups, norm.weight, norm.bias, norm.eps)  # type: ignore[method-assign]
        for name in ("triplane", "triplane_face"):
            setattr(n, name, nn.Parameter(getattr(n, name).detach().contiguous()))
        made = [{"params": [p], "share": GENTLE.get(name.split(".")[0], 1.0) if self.like_ours else 1.0} for name, p in n.named_parameters()]
        made += [{"params": [p], "share": POSE_SHARE} for frame in self.poses for p in frame]
        made += [{"params": [p], "share": 1.0} for p in self.scene.parameters()]
        self.adam = torch.optim.Adam(made, lr=0.0, eps=1e-15, foreach=False, fused=False)

    def posed(self, frame: int) -> tuple[Assets, Assets, dict[str, torch.Tensor]]:
        """Static and refined Gaussians of a frame, and what the regularisers look at."""
        m, n = self.model, self.model.networks
        rotations, expression, transl = matrices_of_rows(self.poses[frame][0]), *self.poses[frame][1:]
        joint_offset = torch.cat([torch.zeros_like(n.joint_offset[:1]), n.joint_offset[1:]])
        star = torch.zeros(55, 3, device=self.device)
        star[1, 2], star[2, 2] = 1.0, -1.0
        neutral = self._layer(star, joint_offset)
        self._layer(torch.zeros_like(star), joint_offset)
        self._layer(axis_angle_of(rotations), n.joint_offset)
        canonical = m.canonical()
        mesh = m.mesh.matrix(neutral)
        features = self._features()
        geometry = n.geo_net(features)
        mean, scale, rgb = n.mean_offset_net(geometry), n.scale_net(geometry), n.rgb_net(features)
        pose = rotations[1:22, :2].detach().reshape(1, -1).expand(len(mesh), -1)
        geometry = n.geo_offset_net(torch.cat([features, pose], 1))
        further, more = n.mean_offset_offset_net(geometry) * m._free, n.scale_offset_net(geometry)
        moved = mesh + mean + m.expression(expression)
        skin = m.transforms(canonical, rotations)[:, :3].reshape(55, 12)
        means = []
        for x in (moved, moved + further + m._correctives(rotations)):
            nearest = m._own * m._numbers + ~m._own * self._nearest(x.detach(), neutral.detach())
            blended = (m.mesh.lbs_weights[nearest] @ skin).view(-1, 3, 4)
            means.append((blended[..., :3] @ x[..., None])[..., 0] + blended[..., 3] + transl)
        normals = vertex_normals(means[1].detach(), self.faces) * m._outwards
        tint = n.rgb_offset_net(torch.cat([features, pose, normals], 1))
        static = Assets(means[0], scale.exp(), (torch.tanh(rgb) + 1) / 2)
        refined = Assets(means[1], (scale + more).exp(), (torch.tanh(rgb + tint) + 1) / 2)
        return static, refined, {"scale": static.scales, "mean": mean, "further": further, "more": more, "mesh": mesh}

    def _layer(self, pose: torch.Tensor, joint_offset: torch.Tensor) -> torch.Tensor:
        body, n = self.model.mesh.body, self.model.networks
        joints = body.joint_template + torch.einsum("jkb,b->jk", body.joint_shapedirs[..., : len(n.shape_param)], n.shape_param) + joint_offset
        rest = body.v_template + torch.einsum("vkb,b->vk", body.shapedirs[..., : len(n.shape_param)], n.shape_param)
        for offset in (self.model.face_offset, self.model.surface_offset):
            rest = rest if offset is None else rest + offset
        if body.posedirs is not None:
            rest = rest + body.posedirs @ (rotation_matrices(pose)[1:] - torch.eye(3, device=self.device)).flatten()
        skin = forward_kinematics(rotation_matrices(pose)[None], joints[None], body.parents)[2][0].reshape(55, 12)
        blended = (body.lbs_weights @ skin).view(-1, 3, 4)
        return ((blended[..., :3] @ rest[..., None])[..., 0] + blended[..., 3])[self.model.mesh.low]

    def _features(self) -> torch.Tensor:
        n, where, face = self.model.networks, self.model.positions, self.model.mesh.flags["is_face"]
        body = _sample(n.triplane, (where - where.mean(0)) / (BODY_EXTENT / 2))
        near = where[face]
        body = body.clone()
        body[face] = _sample(n.triplane_face, (near - near.mean(0)) / (FACE_EXTENT / 2))
        return body

    def _nearest(self, points: torch.Tensor, among: torch.Tensor) -> torch.Tensor:
        if not points.is_cuda:
            return torch.from_numpy(cKDTree(among.numpy()).query(points.numpy())[1])
        return torch.cat([torch.cdist(rows, among).argmin(1) for rows in points.split(16384)])

    def loss(self, frame: int, step: int, background: torch.Tensor) -> torch.Tensor:
        """Every term of a step, summed."""
        warm = step < WARM_UP and not self.like_ours
        view = self.views[frame]
        truth, mask, crop = view.image.permute(2, 0, 1)[None], view.alpha[None, None], self.crops[frame]
        static, refined, more = self.posed(frame)
        static, refined = (x._replace(scales=drawn(x.scales, warm_up=warm)) for x in (static, refined))
        scene = self.scene.assets()
        alone, _ = draw(scene, view)
        terms = [((alone - truth).abs() * (1 - mask)).mean() * RGB, (1 - _ssim(alone * (1 - mask), truth * (1 - mask)).mean()) * SSIM]
        for person in (static, refined):
            both, _ = draw(Assets(*(torch.cat([a.detach(), b]) for a, b in zip(scene, person))), view)
            single = over(*draw(person, view), background[:, None, None])
            a, b = crop.of(both), crop.of(truth)
            terms += [(a - b).abs().mean() * RGB, (1 - _ssim(a, b).mean()) * SSIM]
            if self.distance:
                terms.append(self.distance(a, b) * LPIPS)
            terms.append((crop.of(single) - crop.of(truth * mask + (1 - mask) * background[:, None, None])).abs().mean() * HUMAN)
        return torch.stack(terms).sum() + self._regularisers(static, refined, more)

    def _regularisers(self, static: Assets, refined: Assets, more: dict[str, torch.Tensor]) -> torch.Tensor:
        r, w, mesh, mean, further = self.regularisers, self.regularisers.weights, more["mesh"].detach(), more["mean"], more["further"]
        still = self._curved(mesh)
        terms = [
            ((mean.square() + further.square()) * w.mean).mean(),
            ((more["scale"].square() + more["more"].square()) * w.scale).mean(),
            (((self._curved(mesh + mean) - still).square() + (self._curved(mesh + mean + further) - still).square()) * w.lap_mean).mean(),
            ((self._curved(static.scales).square() + self._curved(refined.scales).square()) * w.lap_scale).mean(),
            ((self._curved(static.colors).square() + self._curved(refined.colors).square()) * w.lap_rgb).mean(),
        ]
        normals = vertex_normals(mesh, self.faces)[r._outside.rows]
        terms += [(normals * F.normalize(x[r._outside.rows], dim=1)).sum(1).clamp(min=0).mean() for x in (mean, further)]
        terms += [0.01 * r._even_hands(x.colors) + 0.1 * r._even_arms(x.colors) for x in (static, refined)]
        offset = self.model.networks.joint_offset
        terms += [((offset - r.joint_offset).square() * r._joint_weight).mean(), r._symmetric(offset)]
        if self.like_ours:
            terms.append(r.shortfall(static, refined))
        return torch.stack(terms).sum()

    def _curved(self, values: torch.Tensor) -> torch.Tensor:
        return values + (values[self.near] * self.share[..., None]).sum(1)

    def train(self, *, iterations: int, rate: float, seed: int, progress: Callable[[int], None]) -> None:
        """The steps; ``progress`` is called with the number of every finished one."""
        rng, order = np.random.default_rng(seed), list[int]()
        for step in range(iterations):
            order = order or list(rng.permutation(len(self.views)))
            for group in self.adam.param_groups:
                group["lr"] = rate * group["share"] * rate_factor(step, iterations)
            loss = self.loss(order.pop(), step, torch.rand(3, device=self.device))
            self.adam.zero_grad()
            loss.backward()
            self.adam.step()
            float(loss.detach())
            progress(step + 1)


def _sample(planes: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    grids = [where[None, :, None, axes] for axes in ((0, 1), (0, 2), (1, 2))]
    return torch.cat([F.grid_sample(plane[None], grid, align_corners=False)[0, ..., 0] for plane, grid in zip(planes, grids)]).T


def _ssim(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    reach = torch.arange(WINDOW, dtype=torch.float32, device=a.device) - WINDOW // 2
    line = torch.exp(-reach.square() / (2 * SIGMA**2))
    window = torch.outer(line / line.sum(), line / line.sum()).expand(3, 1, WINDOW, WINDOW).contiguous()
    mean_a, mean_b, aa, bb, ab = (F.conv2d(x, window, padding=WINDOW // 2, groups=3) for x in (a, b, a * a, b * b, a * b))
    top = (2 * mean_a * mean_b + C1) * (2 * (ab - mean_a * mean_b) + C2)
    return top / ((mean_a.square() + mean_b.square() + C1) * (aa - mean_a.square() + bb - mean_b.square() + C2))
