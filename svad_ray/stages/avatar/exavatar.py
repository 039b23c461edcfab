"""The paper's avatar: ExAvatar's model on the fitted body, trained on the clip."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.spatial import cKDTree

from svad_ray.backends import Backend
from svad_ray.body import load_body
from svad_ray.body.model import Body
from svad_ray.body.person import check_person, person_joints
from svad_ray.config import AvatarConfig
from svad_ray.errors import InputError
from svad_ray.fitting.clothed import clothed_surface
from svad_ray.fitting.textured_face import clip_face, face_seen
from svad_ray.geometry.mesh import face_areas
from svad_ray.nets.device import training_device
from svad_ray.nets.exavatar.mesh import avatar_mesh
from svad_ray.nets.exavatar.model import AvatarModel
from svad_ray.nets.exavatar.networks import AvatarNetworks
from svad_ray.nets.lpips import Lpips
from svad_ray.stages.avatar.bake import LEARNED, regions_of, total_offset
from svad_ray.stages.avatar.colors import View
from svad_ray.stages.avatar.confidence import Confidence, record, vertex_shares
from svad_ray.stages.avatar.exavatar_training import Perceptual, Poses, Scene, Trainer, cropped, train_exavatar
from svad_ray.stages.avatar.face import FacePicture
from svad_ray.stages.avatar.first import begin, closing, inset
from svad_ray.stages.avatar.gaussian import clip_views, display_track, photo_view
from svad_ray.stages.avatar.regularisers import Regularisers
from svad_ray.stages.base import NO_CHECKPOINT, Checkpoint, silent
from svad_ray.subject import Avatar, BodyTrack, Clip, Further, Perception, Photo

EXPRESSIONS = 50
FACE_VISITS = 16  # of a frame on a GPU for which the face's triangles in its picture are taken as found
REFRESH = 10  # steps from one search for nearest vertices to the next: in between Gaussians move by a fraction of a vertex


@dataclass(frozen=True)
class _Prepared:
    """What one person's training starts from."""

    model: AvatarModel
    regularisers: Regularisers
    face: FacePicture | None
    texture: str
    views: list[View]
    tracks: tuple[BodyTrack, ...]
    rest_joints: torch.Tensor
    inset: np.ndarray | None


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
    # 2: a faster step, the face's texture, several photos; 3: starts closed, in the clip's colours; 4: stays closed, no white in the rim, bfloat16;
    # 5: every step on white and on a colour, the outline's error
    version = 5

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
        also: Sequence[Further] = (),
        progress: Callable[[float], None] = silent,
        checkpoint: Checkpoint = NO_CHECKPOINT,
    ) -> Avatar:
        """Train the avatar of one person; arguments as of ``GaussianAvatar``.

        Raises:
            InputError: The track is of another body, or holds values that are no numbers.
        """
        c = self.config
        check_track(track, self.body)
        photos = (Further(photo, perception, photo_track), *also)
        ready = self._prepare(clip, track, photos)
        model, official = ready.model, c.exavatar.official
        views = ready.views if official else cropped(ready.views, alike=self.device.type == "cuda")
        trainer = Trainer(
            model,
            ready.regularisers,
            Poses(ready.tracks, min(EXPRESSIONS, self.body.exprdirs.shape[-1]), device=self.device),
            [view.to(self.device) for view in views],
            lpips=self._perceptual(),
            face=ready.face,
            scene=Scene(views[0], seed=c.seed).to(self.device) if official else None,
            warm_up=official,
            gentle=not official,
            refresh=1 if official else REFRESH,
        )
        rate = c.exavatar.rate
        losses = train_exavatar(trainer, iterations=c.iterations, rate=rate, seed=c.seed, progress=progress, checkpoint=checkpoint)
        made = self._asset(ready, track, losses)
        known = self._confidence(model, track, ready.rest_joints, photos)
        return replace(made, tensors=made.tensors | known.tensors, facts=made.facts | {"confidence": known.summary})

    def _face(self, clip: Clip, tracks: Sequence[BodyTrack], model: AvatarModel) -> tuple[FacePicture | None, str]:
        """The face's texture to draw, and whose map it is; None where there is none. ``tracks``: the clip's, then each photo's."""
        wanted = self.config.exavatar.face_texture
        face = None if wanted == "off" else clip_face(clip, tracks[0], self.body) if wanted == "clip" else tracks[0].face
        if face is None:
            return None, ""
        seen = np.concatenate([face_seen(self.body, track) for track in tracks])
        return FacePicture(face, model.mesh, list(seen), keep=1 if self.device.type == "cpu" else FACE_VISITS), face.source

    def _perceptual(self) -> Perceptual | None:
        whole = self.config.exavatar.official or self.device.type == "cuda"
        return Perceptual(self.lpips.distances, 0 if whole else self.config.exavatar.lpips_window) if self.lpips else None

    def _confidence(self, model: AvatarModel, track: BodyTrack, joints: torch.Tensor, photos: Sequence[Further]) -> Confidence:
        """Each Gaussian knows what the clothed surface's vertex beside its own knows."""
        surface = clothed_surface(self.body, track.betas, track.surface_offset)
        own = model.mesh.up(self.body.v_template).numpy()
        _, near = cKDTree(surface.template).query(own)
        shares = vertex_shares(self.body, surface, joints, photos)
        around = face_areas(surface.rest, surface.faces).repeat(3) / 3
        area = np.bincount(surface.faces.reshape(-1), around, minlength=len(surface.rest))
        share_of_area = (area / np.maximum(np.bincount(near, minlength=len(area)), 1))[near]
        return record(shares[:, near], surface.part[near], share_of_area, [one.photo.name for one in photos])

    def _prepare(self, clip: Clip, track: BodyTrack, photos: Sequence[Further]) -> _Prepared:
        c = self.config
        joints = person_joints(self.body, track)
        views = clip_views(self.body, joints, clip, track, plain=not c.exavatar.official)
        longest = max(clip.frames.shape[1:3])
        views += [photo_view(self.body, joints, one, longest=longest, weight=c.photo_weight) for one in photos]
        mesh = avatar_mesh(self.body, regions_of(self.body), levels=c.exavatar.levels)
        networks = fresh_networks(track, triplane=c.exavatar.triplane, seed=c.seed)
        face, worn = (None if x is None else torch.tensor(x, dtype=torch.float32) for x in (track.face_offset, track.vertex_offset))
        below = None if c.exavatar.official else inset(self.body, track, mesh)
        offset = total_offset(worn, below)
        model = AvatarModel(mesh.to(self.device), networks, face_offset=face, surface_offset=offset, precision=self.precision)
        if not c.exavatar.official:
            x = c.exavatar
            begin(model, mesh, self.body, track, views, looks=c.color_views, steps=x.prefit, rate=x.prefit_rate, seed=c.seed)
        started = networks.joint_offset.detach().clone()
        canonical = model.canonical().mesh.detach()
        closed = None if c.exavatar.official else closing(canonical.cpu().numpy(), mesh.faces)
        regularisers = Regularisers(mesh, canonical, started, closed=closed, device=self.device)
        tracks = (track, *(one.track for one in photos if one.track is not None))
        picture, texture = self._face(clip, tracks, model)
        return _Prepared(model, regularisers, picture, texture, views, tracks, joints, below)

    def _asset(self, ready: _Prepared, track: BodyTrack, losses: list[float]) -> Avatar:
        model, texture = ready.model, ready.texture
        tensors = {LEARNED + key: value.detach().cpu().numpy().copy() for key, value in model.networks.state_dict().items()}
        if track.vertex_offset is not None:
            tensors["surface_offset"] = np.asarray(track.vertex_offset, np.float32)
        if ready.inset is not None:
            tensors["inset"] = ready.inset
        tail = losses[-max(1, len(losses) // 10) :]
        facts = {
            "gaussians": len(model.mesh),
            "levels": self.config.exavatar.levels,
            "body": self.config.body,
            "face_texture": texture or "none (avatar.exavatar.face_texture)",
            "regions": "the body's own tables",
            "background": "scene Gaussians" if self.config.exavatar.official else "random plain colours",
            "iterations": len(losses),
            "device": self.device.type,
            "precision": "float32" if self.precision is None else "bfloat16",
            "loss_first": losses[0],
            "loss_last": float(np.mean(tail)),
        }
        return Avatar("exavatar", tensors, display_track(track, ready.rest_joints), facts)


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
