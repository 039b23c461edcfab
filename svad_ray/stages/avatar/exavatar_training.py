"""Training an ExAvatar on views of a person: our step, and the original's scene branch beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from svad_ray.body.lbs import rotation_matrices
from svad_ray.geometry.rotations import matrices_of_rows, rows_of
from svad_ray.nets.exavatar.model import Assets, AvatarModel, Posed
from svad_ray.splat import rasterization
from svad_ray.stages.avatar.colors import View
from svad_ray.stages.avatar.face import FacePicture
from svad_ray.stages.avatar.losses import (
    ALPHA,
    HUMAN,
    LPIPS,
    RGB,
    SSIM,
    Crop,
    Distances,
    away_on,
    composite_terms,
    crop_of,
    face_term,
    over,
    plain_background_term,
    scene_terms,
)
from svad_ray.stages.avatar.regularisers import WARM_UP, Regularisers, drawn
from svad_ray.stages.avatar.ssim import dissimilarity
from svad_ray.stages.avatar.training import FrameRows, Run, optimise
from svad_ray.stages.base import NO_CHECKPOINT, Checkpoint, silent
from svad_ray.subject import BodyTrack

POSE_SHARE = 0.1  # of the networks' learning rate, for poses
GENTLE = {"shape_param": 0.02, "joint_offset": 0.01, "geo_net": 0.3, "geo_offset_net": 0.3, "mean_offset_net": 0.03, "mean_offset_offset_net": 0.03}
GENTLE |= {"scale_net": 0.03, "scale_offset_net": 0.03}  # else the start is forgotten in tens of steps
MARGIN = 0.1  # of the person's box, around it
SMALLEST = 48  # pixels a side of a crop
NEAR, FAR = 0.01, 100.0  # metres
EPS = 1e-15  # Adam's, as in the original
ROTATIONS = 55 * 6


class Poses:
    """The trained poses of T frames: rotations as 6D (55, 6), expression (E,), transl (3,), a row each: only the frame that a step looks at moves."""

    def __init__(self, tracks: Sequence[BodyTrack], expressions: int, *, device: torch.device | str = "cpu") -> None:
        pose = torch.tensor(np.concatenate([t.full_pose for t in tracks]), dtype=torch.float32)
        expression = torch.tensor(np.concatenate([_padded(t.expression, expressions) for t in tracks]))
        transl = torch.tensor(np.concatenate([t.transl for t in tracks]), dtype=torch.float32)
        self.rows = FrameRows(torch.cat([rows_of(rotation_matrices(pose)).flatten(1), expression, transl], 1).to(device), eps=EPS)

    def of(self, frame: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Rotations (55, 3, 3), expression and transl of one frame."""
        return self.parts(self.rows.values[frame])

    @staticmethod
    def parts(row: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The same of a frame's row."""
        return matrices_of_rows(row[:ROTATIONS].view(55, 6)), row[ROTATIONS:-3], row[-3:]


def _padded(expression: np.ndarray, count: int) -> np.ndarray:
    out = np.zeros((len(expression), count), np.float32)
    kept = min(count, expression.shape[1])
    out[:, :kept] = expression[:, :kept]
    return out


def cropped(views: Sequence[View], *, alike: bool = False) -> list[View]:
    """The part of each view that holds the person, with its own camera: everything outside is plain background and teaches nothing.

    Args:
        alike: All of one size where their pictures are large enough, which a GPU likes.
    """
    boxes = [_person_box(view.alpha) for view in views]
    least = tuple(max(box[k][1] - box[k][0] for box in boxes) for k in (0, 1)) if alike else (0, 0)
    return [_cut(view, [_at_least(span, size, limit) for span, size, limit in zip(box, least, view.alpha.shape)]) for view, box in zip(views, boxes)]


def _cut(view: View, spans: Sequence[tuple[int, int]]) -> View:
    (y0, y1), (x0, x1) = spans
    K = view.K - torch.tensor([[0, 0, float(x0)], [0, 0, float(y0)], [0, 0, 0]])
    return replace(view, image=view.image[y0:y1, x0:x1].contiguous(), alpha=view.alpha[y0:y1, x0:x1].contiguous(), K=K)


def _person_box(alpha: torch.Tensor) -> tuple[tuple[int, int], tuple[int, int]]:
    """Rows and columns of the person and a margin; the whole picture where there is nobody."""
    ys, xs = torch.nonzero(alpha > 0.5, as_tuple=True)
    height, width = alpha.shape
    if not len(ys):
        return (0, height), (0, width)
    rows, columns = (_span(int(v.min()), int(v.max()) + 1, limit) for v, limit in ((ys, height), (xs, width)))
    return rows, columns


def _span(start: int, stop: int, limit: int) -> tuple[int, int]:
    margin = max(round(MARGIN * (stop - start)), (SMALLEST - (stop - start)) // 2, 0)
    return max(0, start - margin), min(limit, stop + margin)


def _at_least(span: tuple[int, int], size: int, limit: int) -> tuple[int, int]:
    """The span widened to both sides to ``size``, within [0, limit)."""
    start, stop = span
    size = max(min(size, limit), stop - start)
    start = min(max(0, start - (size - (stop - start)) // 2), limit - size)
    return start, start + size


def draw(assets: Assets, view: View) -> tuple[torch.Tensor, torch.Tensor]:
    """Opaque isotropic Gaussians on white (1, 3, H, W), and their alpha (1, 1, H, W), by which ``over`` puts them on any other colour."""
    count, (height, width) = len(assets.means), view.alpha.shape
    quats = assets.means.new_zeros(count, 4)
    quats[:, 0] = 1
    image, alpha, _ = rasterization(
        assets.means,
        quats,
        assets.scales.expand(-1, 3),
        assets.means.new_ones(count),
        assets.colors,
        view.viewmat[None],
        view.K[None],
        width,
        height,
        near_plane=NEAR,
        far_plane=FAR,
        packed=False,
        backgrounds=assets.means.new_ones(1, 3),
    )
    return image.permute(0, 3, 1, 2), alpha.permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Perceptual:
    """The perceptual term's network, and the window of the person that a step shows to it.

    Attributes:
        distances: Of images to the truth. side: Pixels of a window, at another place every step; 0 = the whole crop.
    """

    distances: Distances
    side: int = 0

    def __call__(self, images: torch.Tensor, truth: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """(B,) distances of images (B, 3, H, W) to the truth (1, 3, H, W)."""
        height, width = truth.shape[2:]
        side = self.side
        if side and (side < height or side < width):
            y, x = (int(rng.integers(0, max(size - side, 0) + 1)) for size in (height, width))
            window = Crop(y, min(y + side, height), x, min(x + side, width))
            images, truth = window.of(images), window.of(truth)
        return self.distances(images, truth)


class Scene(nn.Module):
    """The original's background: Gaussians where the pixels around the person lie, at one depth behind it; they are not densified.

    Args:
        view: The first view. share: Of its background pixels that get a Gaussian. depth: Metres from the camera.
    """

    def __init__(self, view: View, *, share: float = 0.2, depth: float = 6.0, seed: int = 0) -> None:
        super().__init__()
        ys, xs = np.where(view.alpha.cpu().numpy() < 0.5)
        kept = np.random.default_rng(seed).permutation(len(ys))[: max(1, round(share * len(ys)))]
        ys, xs = ys[kept], xs[kept]
        K, V = view.K.cpu().numpy(), view.viewmat.cpu().numpy()
        ray = np.stack([(xs + 0.5 - K[0, 2]) / K[0, 0], (ys + 0.5 - K[1, 2]) / K[1, 1], np.ones(len(xs))], 1) * depth
        self.means = nn.Parameter(torch.tensor((ray - V[:3, 3]) @ V[:3, :3], dtype=torch.float32))
        self.log_scales = nn.Parameter(torch.full((len(xs), 1), float(np.log(depth / K[0, 0] / np.sqrt(share)))))
        self.colors = nn.Parameter(view.image.cpu()[ys, xs].clone())

    def assets(self) -> Assets:
        """Its Gaussians."""
        return Assets(self.means, self.log_scales.exp(), self.colors.clamp(0, 1))


@dataclass
class Trainer:
    """What a step of training needs.

    Attributes:
        views: Training views, one for each frame of ``poses``; cropped to the person unless ``scene`` is given.
        lpips: Perceptual distance; None leaves its terms out.
        seed: Decides backgrounds and windows, step by step.
        every: Steps from one look at the regularisers to the next, which then weigh that much more.
        refresh: Steps from one search for the nearest vertices to the next.
        scene: The background's Gaussians: renders are made as the original makes them (five a step, whole frames). None: two a step.
        gentle: Let shape, joints and surface follow slower than colours (ours: with few, large steps they would leave the body they start on).
        face: The face's texture; None leaves its terms out.
        warm_up: Draw small Gaussians in the first steps, as the original does, whose networks start from random scales.
    """

    model: AvatarModel
    regularisers: Regularisers
    poses: Poses
    views: Sequence[View]
    lpips: Perceptual | None = None
    scene: Scene | None = None
    face: FacePicture | None = None
    warm_up: bool = False
    gentle: bool = False
    seed: int = 0
    every: int = 1
    refresh: int = 1

    def __post_init__(self) -> None:
        self._nearest: torch.Tensor | None = None

    def groups(self, rate: float) -> list[dict[str, Any]]:
        """Parameter groups for the optimiser, one for each learning rate."""
        by_rate: dict[float, list[nn.Parameter]] = {}
        for name, p in self.model.networks.named_parameters():
            share = GENTLE.get(name.split(".")[0], 1.0) if self.gentle else 1.0
            by_rate.setdefault(rate * share, []).append(p)
        by_rate.setdefault(rate, []).extend(self.scene.parameters() if self.scene else ())
        return [{"params": held, "rate": of} for of, held in by_rate.items()]

    def terms(self, frame: int, step: int, *, row: torch.Tensor | None = None, image_only: bool = False) -> dict[str, torch.Tensor]:
        """Every term of one frame's loss in a step, a scalar each.

        Args:
            row: The frame's pose, to be differentiated by; None = as it stands.
        """
        warm, rng = self.warm_up and step < WARM_UP, np.random.default_rng((self.seed, step))
        background = _on(torch.from_numpy(rng.random(3, np.float32)), self.model.positions.device)
        kept = None if step % self.refresh == 0 else self._nearest
        posed = self.model.posed(*self.poses.parts(self.poses.rows.values[frame] if row is None else row), nearest=kept)
        self._nearest = posed.nearest
        make = self._person_terms if self.scene is None else self._official_terms
        terms = make(posed, frame, background, rng, warm=warm)
        if not image_only and step % self.every == 0:
            found = self.regularisers(posed, self.model.networks.joint_offset, warm_up=warm)
            terms |= {name: value * self.every for name, value in found.items()} if self.every > 1 else found
        return terms

    def nearest(self) -> np.ndarray:
        """What the last search for the nearest vertices found, for a checkpoint."""
        return np.zeros(0, np.int64) if self._nearest is None else self._nearest.cpu().numpy().copy()

    def resume(self, nearest: np.ndarray) -> None:
        """Go on from ``nearest``."""
        self._nearest = torch.from_numpy(np.array(nearest)).to(self.model.positions.device) if len(nearest) else None

    def _person_terms(self, posed: Posed, frame: int, background: torch.Tensor, rng: np.random.Generator, *, warm: bool) -> dict[str, torch.Tensor]:
        """Two renders, each on white, which stands for the composite, and by its alpha on a random colour, which stands for the person alone."""
        view = self.views[frame]
        truth, mask = _picture(view)
        color = background[:, None, None]
        images, alphas = zip(*(draw(_drawn(assets, warm), view) for assets in (posed.static, posed.refined)))
        terms: dict[str, torch.Tensor] = {}
        for name, image, alpha, assets in zip(NAMES, images, alphas, (posed.static, posed.refined)):
            terms |= {
                "rgb_human" + name: nn.functional.l1_loss(image, truth) * RGB,
                "rgb_human_rand_bg" + name: away_on(color, image, alpha, truth, mask) * HUMAN,
                "alpha" + name: (alpha - mask).square().mean() * ALPHA,
                "ssim_human" + name: dissimilarity(image, truth) * SSIM,
            }
            if self.face and (textured := self.face.draw(assets.means, view, frame)) is not None:
                terms["rgb_face" + name] = face_term(image, truth, textured, crop_of((0, 0, image.shape[3], image.shape[2]), *image.shape[2:]))
        if self.lpips:
            terms |= {"lpips_human" + name: value * LPIPS for name, value in zip(NAMES, self.lpips(torch.cat(images), truth, rng).unbind())}
        return terms if view.weight == 1 else {name: value * view.weight for name, value in terms.items()}

    def _official_terms(self, posed: Posed, frame: int, background: torch.Tensor, rng: np.random.Generator, *, warm: bool) -> dict[str, torch.Tensor]:
        """Scene, person and both together, whole frames; the scene does not learn from the composites."""
        view = self.views[frame]
        if self.scene is None:
            return {}
        truth, mask = _picture(view)
        scene, crop = self.scene.assets(), _person_crop(view)
        terms = scene_terms(draw(scene, view)[0], truth, mask)
        for name, assets in zip(NAMES, (posed.static, posed.refined)):
            person = _drawn(assets, warm)
            both = Assets(*(torch.cat([a.detach(), b]) for a, b in zip(scene, person)))
            composite, _ = draw(both, view)
            found = composite_terms(composite, truth, crop)
            if self.lpips:
                found["lpips_human"] = self.lpips(crop.of(composite), crop.of(truth), rng).sum() * LPIPS
            if self.face and (textured := self.face.draw(assets.means, view, frame)) is not None:
                found["rgb_face"] = face_term(composite, truth, textured, crop)
            alone = over(*draw(person, view), background[:, None, None])
            found["rgb_human_rand_bg"] = plain_background_term(alone, truth, mask, background, crop)
            terms |= {key + name: value for key, value in found.items()}
        return terms


NAMES = ("", "_refined")  # of the terms of the two renders


def _picture(view: View) -> tuple[torch.Tensor, torch.Tensor]:
    return view.image.permute(2, 0, 1)[None], view.alpha[None, None]


def _drawn(assets: Assets, warm: bool) -> Assets:
    return assets._replace(scales=drawn(assets.scales, warm_up=warm))


def _person_crop(view: View) -> Crop:
    (y0, y1), (x0, x1) = _person_box(view.alpha)
    return crop_of((x0, y0, x1 - x0, y1 - y0), *view.alpha.shape)


def _on(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Small values on a device, without waiting for it."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values


def rate_factor(step: int, total: int) -> float:
    """The learning rate's share: a tenth after three quarters of the steps, a hundredth after 95 %."""
    return 0.01 if step > 0.95 * total else 0.1 if step > 0.75 * total else 1.0


@contextmanager
def _frozen(module: nn.Module, *, frozen: bool) -> Iterator[None]:
    wanted = [p.requires_grad for p in module.parameters()]
    if frozen:
        module.requires_grad_(False)
    try:
        yield
    finally:
        for p, was in zip(module.parameters(), wanted):
            p.requires_grad_(was)


def train_exavatar(
    trainer: Trainer,
    *,
    iterations: int,
    rate: float,
    seed: int,
    poses_only: bool = False,
    progress: Callable[[float], None] = silent,
    checkpoint: Checkpoint = NO_CHECKPOINT,
) -> list[float]:
    """Adam over the views, every view once per round; returns the loss of each step.

    Continued from a checkpoint it takes the same steps to the same numbers as without a break.

    Args:
        rate: Learning rate of networks, triplanes, shape and joint offsets; poses have a tenth.
        poses_only: Refine the poses alone by the image terms, as the original does before it is tested on other frames (avatar 4.6).
    """
    rows, shares = trainer.poses.rows, 1.0 if poses_only else POSE_SHARE
    groups = [] if poses_only else trainer.groups(rate)
    run = Run(groups, steps=iterations, seed=seed, eps=EPS, device=trainer.model.positions.device)
    trainer.seed = seed
    if kept := checkpoint.load():
        run.resume(kept)
        rows.resume(kept["rows"])
        trainer.resume(kept["nearest"])
    looked: list[torch.Tensor] = []

    def loss_of(step: int, frame: int) -> torch.Tensor:
        looked[:] = [rows.leaf(frame)]
        return torch.stack(list(trainer.terms(frame, step, row=looked[0], image_only=poses_only).values())).sum()

    def after(frame: int, share: float) -> None:
        if looked[0].grad is not None:
            rows.step(frame, looked[0].grad, rate * shares * share)

    with _frozen(trainer.model.networks, frozen=poses_only):
        return optimise(
            run,
            loss_of,
            views=len(trainer.views),
            factor=lambda step: rate_factor(step, iterations),
            after=after,
            state=lambda: {**run.state(), "rows": rows.state(), "nearest": trainer.nearest()},
            progress=progress,
            checkpoint=checkpoint,
        )
