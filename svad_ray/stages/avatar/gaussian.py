"""The embedded avatar: flat Gaussians scattered by area on the clothed surface, bound by skinning weights, trained on the clip."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import cv2
import numpy as np
import torch
from scipy.spatial import cKDTree

from svad_ray.backends import Backend
from svad_ray.body import load_body
from svad_ray.body.model import Body
from svad_ray.body.names import JOINT_INDEX
from svad_ray.body.person import check_person, person_joints
from svad_ray.config import AvatarConfig
from svad_ray.conventions import to_float
from svad_ray.fitting.clothed import Surface, clothed_surface
from svad_ray.fitting.silhouette import without_strays
from svad_ray.fitting.state import pose_body, relaxed_pose, state_of
from svad_ray.geometry.evenly import scatter_evenly
from svad_ray.geometry.mesh import normals_np, subdivide
from svad_ray.geometry.raster import rasterize_mesh, to_camera
from svad_ray.geometry.rotations import frames_from_normals, orthonormal, quats_from_matrices
from svad_ray.nets.device import training_device
from svad_ray.nets.exavatar.mesh import SparseMap
from svad_ray.splat import rasterization
from svad_ray.stages.animate.projection import extend_person
from svad_ray.stages.avatar import confidence
from svad_ray.stages.avatar.asset import INFLUENCES
from svad_ray.stages.avatar.colors import SurfacePoints, View, colors_from_views
from svad_ray.stages.avatar.losses import away_on
from svad_ray.stages.avatar.regularisers import laplacian_map
from svad_ray.stages.avatar.training import Run, optimise
from svad_ray.stages.base import NO_CHECKPOINT, Checkpoint, silent
from svad_ray.subject import Avatar, BodyTrack, Clip, Further, Perception, Photo

FLATNESS = 0.25  # thickness of a disk over its width
COVER = 0.62  # sigma over spacing: neighbours overlap
WIDTHS = (0.0008, 0.0125)  # metres, least and greatest first sigma
CLOSED = 1.3  # sigma over the way to the farthest place that has no nearer Gaussian
OPACITY = 0.99
OFFSET_UNIT = 0.01  # metres per unit of the offset parameter along the normal
SLIDE = 0.1  # of that along the surface: sliding neighbours part and leave cracks between them
NEIGHBOURS = 6  # of a Gaussian, with which it moves
EVENNESS = 0.1  # weight of squared differences of a Gaussian's offset and stretch from its neighbours' mean
EXPRESSIONS = 10
STRAY_FROM_CLOTHES = 0.03  # of the person's height, beyond which a piece of the photo's mask belongs to somebody else


def surface_points(surface: Surface, count: int, *, head_density: float, seed: int) -> SurfacePoints:
    """``count`` points spread by area, the head (and half as much the hands) denser."""
    dense = np.ones(len(surface.faces))
    dense[(surface.part == 0)[surface.faces].mean(1) > 0.5] = head_density
    dense[np.isin(surface.part, (6, 7))[surface.faces].mean(1) > 0.5] = max(1.0, head_density / 2)
    face, bary, spacing, reach = scatter_evenly(surface.rest, surface.faces, count, density=dense, seed=seed)

    def at(values: np.ndarray) -> np.ndarray:
        return np.einsum("nk,nkc->nc", bary, values[surface.faces[face]]).astype(np.float32)

    normal = at(normals_np(surface.rest, surface.faces))
    normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-9
    return SurfacePoints(face, bary, at(surface.rest), normal, spacing, at(surface.lbs_weights.numpy()), reach)


class GaussianModel:
    """The trainable Gaussians: offset, three log scales and colour of each; orientation follows the surface.

    Source: SVAD 3.4 for the binding; flat disks instead of isotropic Gaussians are ours (+2.8 dB at equal number).
    """

    def __init__(self, points: SurfacePoints, colors: np.ndarray, *, stiff: np.ndarray) -> None:
        self.rest, self.weights = torch.from_numpy(points.rest), _strongest(torch.from_numpy(points.lbs_weights))
        self.frames = frames_from_normals(torch.from_numpy(points.normal))
        width = np.maximum(points.spacing * COVER, points.reach * CLOSED)
        self.log_scale = torch.log(torch.from_numpy(np.clip(width, *WIDTHS)))[:, None]
        self.opacities, self.stiff = torch.full((len(colors),), OPACITY), torch.from_numpy(stiff.astype(np.float32))[:, None]
        self.offset = torch.zeros_like(self.rest).requires_grad_(True)
        self.stretch = torch.zeros_like(self.rest).requires_grad_(True)
        self.logit_color = torch.logit(torch.from_numpy(colors).clamp(0.01, 0.99)).requires_grad_(True)
        self._uneven = _unevenness(points)
        self._slide = torch.tensor([SLIDE, SLIDE, 1.0])
        self._flat = torch.tensor([1.0, 1.0, FLATNESS])

    def to(self, device: torch.device | str) -> GaussianModel:
        """Move to a device, before training or after it; neighbours follow by themselves."""
        for name, value in vars(self).items():
            if isinstance(value, torch.Tensor):
                setattr(self, name, value.detach().to(device).requires_grad_(value.requires_grad))
        return self

    def parameters(self) -> list[torch.Tensor]:
        """Offset, stretch and colour, in the order of the learning rates."""
        return [self.offset, self.stretch, self.logit_color]

    def local(self) -> torch.Tensor:
        """(N, 3) metres, centres in the rest pose."""
        return self.rest + (self.frames @ (self.offset * self._slide)[..., None])[..., 0] * OFFSET_UNIT

    def scales(self) -> torch.Tensor:
        """(N, 3) metres."""
        return (self.log_scale + self.stretch).exp() * self._flat

    def render(self, view: View) -> tuple[torch.Tensor, torch.Tensor]:
        """Image (H, W, 3) on white and alpha (H, W) of one view."""
        blended = (self.weights @ view.skin.reshape(len(view.skin), 12)).reshape(-1, 3, 4)
        local = self.local()
        means = (blended[..., :3] @ local[..., None])[..., 0] + blended[..., 3]
        quats = quats_from_matrices(orthonormal(blended[..., :3] @ self.frames))
        height, width = view.alpha.shape
        image, alpha, _ = rasterization(
            means,
            quats,
            self.scales(),
            self.opacities,
            torch.sigmoid(self.logit_color),
            view.viewmat[None],
            view.K[None],
            width,
            height,
            packed=False,
            backgrounds=self.rest.new_ones(1, 3),
        )
        return image[0], alpha[0, ..., 0]

    def loss(self, view: View, color: torch.Tensor) -> torch.Tensor:
        """L1 x 5 on white and on a plain colour (3,), squared alpha error x 2, small L2 on offsets (hands stiffer), stretches, and what neighbours
        differ by."""
        image, alpha = self.render(view)
        elsewhere = away_on(color, image, alpha[..., None], view.image, view.alpha[..., None])
        picture = 5 * ((image - view.image).abs().mean() + elsewhere) + 2 * (alpha - view.alpha).pow(2).mean()
        uneven = self._uneven(torch.cat([self.offset, self.stretch], 1)).pow(2).mean()
        return view.weight * picture + EVENNESS * uneven + 0.01 * (self.stiff * self.offset.pow(2)).mean() + 0.02 * self.stretch.pow(2).mean()


def _unevenness(points: SurfacePoints) -> SparseMap:
    """What a value of a Gaussian differs by from the mean of its neighbours', (N, N)."""
    place = np.concatenate([points.rest, 0.5 * points.spacing[:, None] * points.normal], 1)
    _, near = cKDTree(place).query(place, NEIGHBOURS + 1)
    near = torch.from_numpy(near[:, 1:].astype(np.int64))
    return laplacian_map(near, torch.full(near.shape, -1.0 / NEIGHBOURS))


def _strongest(weights: torch.Tensor) -> torch.Tensor:
    """Skinning weights with only the strongest ``INFLUENCES`` joints kept, rows summing to one."""
    value, index = weights.topk(INFLUENCES, dim=1)
    return torch.zeros_like(weights).scatter_(1, index, value / value.sum(1, keepdim=True))


def train(
    model: GaussianModel,
    views: list[View],
    *,
    iterations: int,
    rates: tuple[float, float, float],
    seed: int,
    progress: Callable[[float], None] = silent,
    checkpoint: Checkpoint = NO_CHECKPOINT,
) -> list[float]:
    """Adam with exponential decay to a tenth; every view once per round in random order. Returns the loss of each step.

    Continued from a checkpoint it takes the same steps to the same numbers as without a break.
    """
    groups = [{"params": [p], "rate": r} for p, r in zip(model.parameters(), rates)]
    run = Run(groups, steps=iterations, seed=seed, eps=1e-8, device=model.rest.device)
    if kept := checkpoint.load():
        run.resume(kept)
    return optimise(
        run,
        lambda step, view: model.loss(views[view], torch.from_numpy(np.random.default_rng((seed, step)).random(3, np.float32)).to(model.rest.device)),
        views=len(views),
        factor=lambda step: 0.1 ** (step / iterations),
        progress=progress,
        checkpoint=checkpoint,
    )


class GaussianAvatar:
    """The avatar stage's embedded backend."""

    backend = Backend(
        name="gaussian",
        stage="avatar",
        summary="Flat Gaussians scattered by area on the clothed surface, bound by skinning weights, trained on the clip",
        code_licence="Apache-2.0",
        weights_licence="open body built from CC0 data",
        commercial=True,
        commercial_reason="everything it uses is CC0 or Apache-2.0",
        models=("makehuman",),
        memory_gib=2.0,
    )
    # 2: surface_offset is kept; 3: loose clothes, several photos, confidence; 4: no cracks in a face seen from near; 5: no white in the rim;
    # 6: every step on white and on a colour
    version = 6

    def __init__(self, config: AvatarConfig | None = None) -> None:
        self.config = config or AvatarConfig()

    def setup(self) -> None:
        """Load the body."""
        self.body: Body = load_body(self.config.body or None)

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
        """Train the avatar of one person.

        Args:
            clip: Restored frames with masks. track: The fitted body of those frames, with its ``vertex_offset``.
            photo, perception, photo_track: The photo, its mask and its own fit: the one frame that is not generated.
            also: Further photos with their own fits.
        """
        c = self.config
        check_person(self.body, track)
        surface = clothed_surface(self.body, track.betas, track.surface_offset, loose=c.loose)
        points = surface_points(surface, c.gaussians, head_density=c.head_density, seed=c.seed)
        rest_joints = person_joints(self.body, track)
        views = clip_views(self.body, rest_joints, clip, track)
        few = [views[i] for i in np.linspace(0, len(views) - 1, min(c.color_views, len(views))).astype(int)]
        photos = (Further(photo, perception, photo_track), *also)
        near = [self._without_strays(surface, rest_joints, one) for one in photos]
        real = [photo_view(self.body, rest_joints, one, longest=max(clip.frames.shape[1:3]), weight=c.photo_weight) for one in near]
        views, few = [*views, *real], [*few, *real]
        part = surface.part[surface.faces[points.face, 0]]
        model = GaussianModel(points, colors_from_views(surface, points, few), stiff=np.where(np.isin(part, (6, 7)), 10.0, 1.0))
        device, _ = training_device(c.device)
        on_device = [view.to(device) for view in views]
        losses = train(model.to(device), on_device, iterations=c.iterations, rates=c.rates, seed=c.seed, progress=progress, checkpoint=checkpoint)
        known = confidence.measure(self.body, surface, points, rest_joints, photos)
        made = self._asset(model.to("cpu"), surface, points, track, rest_joints, losses)
        return replace(made, tensors=made.tensors | known.tensors, facts=made.facts | {"confidence": known.summary})

    def _without_strays(self, surface: Surface, rest_joints: torch.Tensor, one: Further) -> Further:
        """A photo whose mask lacks what the clothed surface does not reach: no Gaussian shall leave the body to explain it."""
        if one.track is None:
            raise ValueError(f"no body was fitted to the photo '{one.photo.name}'")
        state, mask = state_of(one.track), one.perception.mask
        skin = pose_body(self.body, rest_joints, state.pose, state.transl).skin[0]
        points = to_camera(surface.posed(skin), one.track.viewmats[0])
        drawn = rasterize_mesh(points, surface.faces, one.track.Ks[0], *mask.shape).mask
        return replace(one, perception=replace(one.perception, mask=without_strays(mask, drawn, reach=STRAY_FROM_CLOTHES)))

    def _asset(
        self, model: GaussianModel, surface: Surface, points: SurfacePoints, track: BodyTrack, rest_joints: torch.Tensor, losses: list[float]
    ) -> Avatar:
        with torch.no_grad():
            value, index = model.weights.topk(INFLUENCES, dim=1)
            expr_index, expr_dirs = _expression(self.body, surface, points)
            tensors = {
                "means": model.local().numpy(),
                "quats": quats_from_matrices(model.frames).numpy(),
                "scales": model.scales().numpy(),
                "opacities": model.opacities.numpy(),
                "colors": torch.sigmoid(model.logit_color).numpy(),
                "lbs_joints": index.numpy().astype(np.uint8),
                "lbs_weights": value.numpy(),
                "rest_joints": rest_joints.numpy(),
                "hands_mean": self.body.hands_mean.numpy(),
                "parents": np.asarray(self.body.parents, np.int32),
                "expr_index": expr_index.astype(np.int32),
                "expr_dirs": expr_dirs.astype(np.float32),
                "surface_offset": _surface_offset(self.body, track),
            }
        tail = losses[-max(1, len(losses) // 10) :]
        facts = {"gaussians": len(points.face), "iterations": len(losses), "loss_first": losses[0], "loss_last": float(np.mean(tail))}
        return Avatar("gaussian", tensors, display_track(track, rest_joints), {**facts, "loose": self.config.loose})


def _surface_offset(body: Body, track: BodyTrack) -> np.ndarray:
    """(V, 3) metres: face, clothing and hair on the body, which exports of the surface need."""
    worn = track.surface_offset
    return np.zeros(tuple(body.v_template.shape), np.float32) if worn is None else np.asarray(worn, np.float32)


def _expression(body: Body, surface: Surface, points: SurfacePoints) -> tuple[np.ndarray, np.ndarray]:
    """Gaussians that the first expressions move by more than 0.1 mm, and their directions (M, 3, E) metres."""
    matrix_rows = len(body.v_template)
    inner = body.tables.regions["inner_mouth"]
    matrix, _ = subdivide(body.faces[~inner[body.faces].any(1)], matrix_rows)
    dirs = body.exprdirs[..., :EXPRESSIONS].numpy()
    fine = (matrix @ dirs.reshape(matrix_rows, -1)).reshape(-1, 3, dirs.shape[-1])
    at = np.einsum("nk,nkce->nce", points.bary, fine[surface.faces[points.face]])
    moved = np.where(np.abs(at).max((1, 2)) > 1e-4)[0]
    return moved, at[moved]


def on_white(image: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """(H, W, 3) the person of ``alpha`` (H, W) on white, instead of before the plain colour that most of the picture's background has."""
    behind = image[alpha == 0]
    ground = np.median(behind, axis=0) if len(behind) else np.ones(3, np.float32)
    changed = np.clip(image + (1 - alpha[..., None]) * (1 - ground), 0, 1).astype(np.float32)
    return np.where(alpha[..., None] > 0, changed, np.float32(1))


def clip_views(body: Body, rest_joints: torch.Tensor, clip: Clip, track: BodyTrack, *, plain: bool = True) -> list[View]:
    """One view per frame, at the clip's own size.

    Args:
        plain: The person on white. False: the frames as they are.
    """
    state = state_of(track)
    posed = pose_body(body, rest_joints, state.pose, state.transl)
    views = []
    for i in range(len(clip)):
        alpha = clip.masks[i].astype(np.float32) / 255
        image = clip.frames[i].astype(np.float32) / 255
        image, alpha = torch.from_numpy(on_white(image, alpha) if plain else image), torch.from_numpy(alpha)
        views.append(View(image, alpha, posed.skin[i], state.viewmats[i], state.Ks[i]))
    return views


def photo_view(body: Body, rest_joints: torch.Tensor, one: Further, *, longest: int, weight: float) -> View:
    """A photo as a training view: person on white, without the background that the pixels of the rim hold, cropped and scaled to ``longest``."""
    photo, perception, track = one.photo, one.perception, one.track
    if track is None:
        raise ValueError(f"no body was fitted to the photo '{photo.name}'")
    ys, xs = np.where(perception.mask > 0.5)
    height, width = perception.mask.shape
    margin = round(0.05 * max(np.ptp(ys), np.ptp(xs)))
    y0, y1, x0, x1 = max(0, ys.min() - margin), min(height, ys.max() + margin), max(0, xs.min() - margin), min(width, xs.max() + margin)
    scale = min(1.0, longest / max(y1 - y0, x1 - x0))
    size = (max(8, round((x1 - x0) * scale)), max(8, round((y1 - y0) * scale)))
    alpha = cv2.resize(perception.mask[y0:y1, x0:x1].astype(np.float32), size, interpolation=cv2.INTER_AREA)
    clean = extend_person(to_float(photo.image[y0:y1, x0:x1]), perception.mask[y0:y1, x0:x1] > 0.5, float(np.ptp(ys) + 1))
    image = cv2.resize(clean, size, interpolation=cv2.INTER_AREA)
    image = image * alpha[..., None] + 1 - alpha[..., None]
    state = state_of(track)
    K = state.Ks[0] - torch.tensor([[0, 0, float(x0)], [0, 0, float(y0)], [0, 0, 0]])
    K = K * torch.tensor([[size[0] / (x1 - x0)], [size[1] / (y1 - y0)], [1.0]], dtype=torch.float32)
    skin = pose_body(body, rest_joints, state.pose, state.transl).skin[0]
    return View(torch.from_numpy(image.astype(np.float32)), torch.from_numpy(alpha), skin, state.viewmats[0], K, weight)


def display_track(track: BodyTrack, rest_joints: torch.Tensor) -> BodyTrack:
    """One frame of the person in a relaxed A-pose before the clip's first camera."""
    one = track.frames(slice(0, 1))
    pose = relaxed_pose()
    for side, sign in (("left", -1.0), ("right", 1.0)):
        pose[JOINT_INDEX[f"{side}_shoulder"], 2] = sign * 0.85
    return replace(one.with_full_pose(pose[None].numpy()), transl=one.transl, vertex_offset=None, face=None)
