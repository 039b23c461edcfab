"""The paper's avatar: ExAvatar's model on the fitted body, trained on the clip."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from svad_ray.backends import Backend
from svad_ray.body import load_body
from svad_ray.body.model import Body
from svad_ray.body.person import check_person, person_joints
from svad_ray.config import AvatarConfig
from svad_ray.errors import InputError
from svad_ray.geometry.mesh import mean_edge
from svad_ray.nets.device import training_device
from svad_ray.nets.exavatar.mesh import avatar_mesh
from svad_ray.nets.exavatar.model import AvatarModel
from svad_ray.nets.exavatar.networks import AvatarNetworks
from svad_ray.nets.lpips import Lpips
from svad_ray.stages.avatar.bake import LEARNED, regions_of
from svad_ray.stages.avatar.colors import View
from svad_ray.stages.avatar.exavatar_training import Perceptual, Poses, Scene, Trainer, cropped, train_exavatar
from svad_ray.stages.avatar.gaussian import clip_views, display_track, photo_view
from svad_ray.stages.avatar.regularisers import Regularisers
from svad_ray.stages.base import NO_CHECKPOINT, Checkpoint, silent
from svad_ray.subject import Avatar, BodyTrack, Clip, Perception, Photo

COVER = 0.6  # first sigma over the mesh's edge length: neighbours overlap
SKIN = (0.65, 0.55, 0.5)  # first colour, until the views have taught a better one
EXPRESSIONS = 50
REFRESH = 10  # steps from one search for nearest vertices to the next: in between Gaussians move by a fraction of a vertex


@dataclass(frozen=True)
class _Prepared:
    """What one person's training starts from."""

    model: AvatarModel
    regularisers: Regularisers
    views: list[View]
    tracks: tuple[BodyTrack, ...]
    rest_joints: torch.Tensor


class ExAvatar:
    """The avatar stage with ExAvatar's model, on SMPL-X or on the open body."""

    backend = Backend(
        name="exavatar",
        stage="avatar",
        summary="ExAvatar: triplanes and MLPs on the subdivided body mesh, trained on the clip; on the open body unless avatar.body names SMPL-X",
        code_licence="Apache-2.0",
        weights_licence="open body built from CC0 data; SMPL-X, when named, non-commercial research",
        commercial=True,
        commercial_reason="everything it uses is CC0 or Apache-2.0; not with SMPL-X, which is for non-commercial research",
        models=("makehuman",),
        memory_gib=4.0,
    )
    version = 2

    def __init__(self, config: AvatarConfig | None = None) -> None:
        self.config = config or AvatarConfig()

    def setup(self) -> None:
        """Load the body, and the perceptual network where it is used."""
        self.body: Body = load_body(self.config.body or None)
        self.device, self.precision = training_device(self.config.device, self.config.precision)
        self.lpips = Lpips("vgg").to(self.device, self.precision) if self.config.exavatar.lpips else None

    def __call__(
        self,
        clip: Clip,
        track: BodyTrack,
        photo: Photo,
        perception: Perception,
        photo_track: BodyTrack,
        *,
        progress: Callable[[float], None] = silent,
        checkpoint: Checkpoint = NO_CHECKPOINT,
    ) -> Avatar:
        """Train the avatar of one person; arguments as of ``GaussianAvatar``.

        Raises:
            InputError: The track is of another body, or holds values that are no numbers.
        """
        c = self.config
        check_track(track, self.body)
        ready = self._prepare(clip, track, photo, perception, photo_track)
        model, official = ready.model, c.exavatar.official
        views = ready.views if official else cropped(ready.views, alike=self.device.type == "cuda")
        trainer = Trainer(
            model,
            ready.regularisers,
            Poses(ready.tracks, min(EXPRESSIONS, self.body.exprdirs.shape[-1]), device=self.device),
            [view.to(self.device) for view in views],
            lpips=self._perceptual(),
            scene=Scene(views[0], seed=c.seed).to(self.device) if official else None,
            warm_up=official,
            gentle=not official,
            refresh=1 if official else REFRESH,
        )
        rate = c.exavatar.rate
        losses = train_exavatar(trainer, iterations=c.iterations, rate=rate, seed=c.seed, progress=progress, checkpoint=checkpoint)
        return self._asset(model, track, ready.rest_joints, losses)

    def _perceptual(self) -> Perceptual | None:
        whole = self.config.exavatar.official or self.device.type == "cuda"
        return Perceptual(self.lpips.distances, 0 if whole else self.config.exavatar.lpips_window) if self.lpips else None

    def _prepare(self, clip: Clip, track: BodyTrack, photo: Photo, perception: Perception, photo_track: BodyTrack) -> _Prepared:
        c = self.config
        joints = person_joints(self.body, track)
        views = clip_views(self.body, joints, clip, track)
        longest = max(clip.frames.shape[1:3])
        views.append(photo_view(self.body, joints, photo, perception, photo_track, longest=longest, weight=c.photo_weight))
        mesh = avatar_mesh(self.body, regions_of(self.body), levels=c.exavatar.levels)
        networks = fresh_networks(track, triplane=c.exavatar.triplane, seed=c.seed)
        face, worn = (None if x is None else torch.tensor(x, dtype=torch.float32) for x in (track.face_offset, track.vertex_offset))
        model = AvatarModel(mesh.to(self.device), networks, face_offset=face, surface_offset=worn, precision=self.precision)
        if not c.exavatar.official:
            settle(model)
        started = networks.joint_offset.detach().clone()
        regularisers = Regularisers(mesh, model.canonical().mesh.detach(), started, device=self.device)
        return _Prepared(model, regularisers, views, (track, photo_track), joints)

    def _asset(self, model: AvatarModel, track: BodyTrack, joints: torch.Tensor, losses: list[float]) -> Avatar:
        tensors = {LEARNED + key: value.detach().cpu().numpy().copy() for key, value in model.networks.state_dict().items()}
        if track.vertex_offset is not None:
            tensors["surface_offset"] = np.asarray(track.vertex_offset, np.float32)
        tail = losses[-max(1, len(losses) // 10) :]
        facts = {
            "gaussians": len(model.mesh),
            "levels": self.config.exavatar.levels,
            "body": self.config.body,
            "face_texture": "none: no FLAME texture was unwrapped, its loss term was left out",
            "regions": "the body's own tables",
            "background": "scene Gaussians" if self.config.exavatar.official else "random plain colours",
            "iterations": len(losses),
            "device": self.device.type,
            "loss_first": losses[0],
            "loss_last": float(np.mean(tail)),
        }
        return Avatar("exavatar", tensors, display_track(track, joints), facts)


def check_track(track: BodyTrack, body: Body) -> None:
    """Refuse a track of another body or with values that are no numbers."""
    if track.body_id != body.id:
        raise InputError(f"a track of body {track.body_id}", expected=f"body {body.id}", remedy="fit the clip to the body that avatar.body names")
    check_person(body, track)
    if not all(np.isfinite(x).all() for x in (track.full_pose, track.transl, track.betas, track.expression, track.Ks, track.viewmats)):
        raise InputError("the track holds values that are no numbers", expected="finite poses and cameras", remedy="fit the clip again")


def fresh_networks(track: BodyTrack, *, triplane: int, seed: int) -> AvatarNetworks:
    """Networks with random weights of a seed, and the track's shape and joint offsets."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        networks = AvatarNetworks(len(track.betas), triplane=triplane)
    with torch.no_grad():
        networks.shape_param.copy_(torch.tensor(track.betas))
        if track.joint_offset is not None:
            networks.joint_offset.copy_(torch.tensor(track.joint_offset))
    return networks


@torch.no_grad()
def settle(model: AvatarModel) -> None:
    """Start from Gaussians that cover the mesh, in skin's colour, instead of from random ones (ours: saves the original's warm-up)."""
    networks = model.networks
    edge = np.median(mean_edge(model.canonical().mesh.cpu().numpy(), model.mesh.faces))
    first = {networks.scale_net[-1]: np.log(COVER * edge), networks.scale_offset_net[-1]: 0.0}
    first |= {networks.mean_offset_net[-1]: 0.0, networks.mean_offset_offset_net[-1]: 0.0, networks.rgb_offset_net[-1]: 0.0}
    for layer, value in first.items():
        if isinstance(layer, nn.Linear):
            layer.weight.mul_(0.1)
            layer.bias.fill_(float(value))
    if isinstance(networks.rgb_net[-1], nn.Linear):
        networks.rgb_net[-1].bias.copy_(torch.atanh(2 * torch.tensor(SKIN) - 1).to(networks.triplane.device))
    networks.mean_offset_net[-1].weight.mul_(0.1)  # type: ignore[operator,union-attr]
    networks.mean_offset_offset_net[-1].weight.mul_(0.1)  # type: ignore[operator,union-attr]
    for planes in (networks.triplane, networks.triplane_face):
        planes.add_((0.1 * torch.randn(planes.shape, generator=torch.Generator().manual_seed(0))).to(planes.device))
