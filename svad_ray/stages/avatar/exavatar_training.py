"""Training an ExAvatar on views of a person: our step, and the original's order of work beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from svad_ray.body.lbs import rotation_matrices
from svad_ray.geometry.rotations import matrices_of_rows, rows_of
from svad_ray.nets.exavatar.model import Assets, AvatarModel, Posed
from svad_ray.splat import rasterization
from svad_ray.stages.avatar.colors import View
from svad_ray.stages.avatar.losses import Crop, Distance, composite_terms, crop_of, on_background, plain_background_term, scene_terms
from svad_ray.stages.avatar.regularisers import WARM_UP, Regularisers, drawn
from svad_ray.stages.avatar.training import Run
from svad_ray.stages.base import NO_CHECKPOINT, Checkpoint, silent
from svad_ray.subject import BodyTrack

POSE_SHARE = 0.1  # of the networks' learning rate, for poses
GENTLE = {"shape_param": 0.02, "joint_offset": 0.01, "geo_net": 0.1, "geo_offset_net": 0.1, "mean_offset_net": 0.1, "mean_offset_offset_net": 0.1}
MARGIN = 0.1  # of the person's box, around it
SMALLEST = 48  # pixels a side of a crop
NEAR, FAR = 0.01, 100.0  # metres


class Poses(nn.Module):
    """The trained poses of T frames: rotations as 6D (55, 6), expression (E,), transl (3,), each a parameter of its own: only the frame that a
    step looks at moves."""

    def __init__(self, tracks: Sequence[BodyTrack], expressions: int) -> None:
        super().__init__()
        pose = torch.tensor(np.concatenate([t.full_pose for t in tracks]), dtype=torch.float32)
        expression = torch.tensor(np.concatenate([_padded(t.expression, expressions) for t in tracks]))
        transl = torch.tensor(np.concatenate([t.transl for t in tracks]), dtype=torch.float32)
        self.rotations = nn.ParameterList([nn.Parameter(x.clone()) for x in rows_of(rotation_matrices(pose))])
        self.expression = nn.ParameterList([nn.Parameter(x.clone()) for x in expression])
        self.transl = nn.ParameterList([nn.Parameter(x.clone()) for x in transl])

    def of(self, frame: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Rotations (55, 3, 3), expression and transl of one frame."""
        return matrices_of_rows(self.rotations[frame]), self.expression[frame], self.transl[frame]


def _padded(expression: np.ndarray, count: int) -> np.ndarray:
    out = np.zeros((len(expression), count), np.float32)
    kept = min(count, expression.shape[1])
    out[:, :kept] = expression[:, :kept]
    return out


def cropped(view: View) -> View:
    """The part of a view that holds the person, with its own camera: everything outside is plain background and teaches nothing."""
    ys, xs = torch.nonzero(view.alpha > 0.5, as_tuple=True)
    height, width = view.alpha.shape
    if not len(ys):
        return view
    spans = [_span(int(v.min()), int(v.max()) + 1, limit) for v, limit in ((ys, height), (xs, width))]
    (y0, y1), (x0, x1) = spans
    K = view.K - torch.tensor([[0, 0, float(x0)], [0, 0, float(y0)], [0, 0, 0]])
    return replace(view, image=view.image[y0:y1, x0:x1].contiguous(), alpha=view.alpha[y0:y1, x0:x1].contiguous(), K=K)


def _span(start: int, stop: int, limit: int) -> tuple[int, int]:
    margin = max(round(MARGIN * (stop - start)), (SMALLEST - (stop - start)) // 2, 0)
    return max(0, start - margin), min(limit, stop + margin)


def draw(assets: Assets, view: View, background: torch.Tensor) -> torch.Tensor:
    """(1, 3, H, W) render of opaque isotropic Gaussians on a plain colour (3,)."""
    count, (height, width) = len(assets.means), view.alpha.shape
    quats = torch.tensor([1.0, 0, 0, 0]).expand(count, 4)
    image, _, _ = rasterization(
        assets.means,
        quats,
        assets.scales.expand(-1, 3),
        torch.ones(count),
        assets.colors,
        view.viewmat[None],
        view.K[None],
        width,
        height,
        near_plane=NEAR,
        far_plane=FAR,
        packed=False,
        backgrounds=background[None],
    )
    return image.permute(0, 3, 1, 2)


class Scene(nn.Module):
    """The original's background: Gaussians where the pixels around the person lie, at one depth behind it; they are not densified.

    Args:
        view: The first view. share: Of its background pixels that get a Gaussian. depth: Metres from the camera.
    """

    def __init__(self, view: View, *, share: float = 0.2, depth: float = 6.0, seed: int = 0) -> None:
        super().__init__()
        ys, xs = np.where(view.alpha.numpy() < 0.5)
        kept = np.random.default_rng(seed).permutation(len(ys))[: max(1, round(share * len(ys)))]
        ys, xs = ys[kept], xs[kept]
        K, V = view.K.numpy(), view.viewmat.numpy()
        ray = np.stack([(xs + 0.5 - K[0, 2]) / K[0, 0], (ys + 0.5 - K[1, 2]) / K[1, 1], np.ones(len(xs))], 1) * depth
        self.means = nn.Parameter(torch.tensor((ray - V[:3, 3]) @ V[:3, :3], dtype=torch.float32))
        self.log_scales = nn.Parameter(torch.full((len(xs), 1), float(np.log(depth / K[0, 0] / np.sqrt(share)))))
        self.colors = nn.Parameter(view.image[ys, xs].clone())

    def assets(self) -> Assets:
        """Its Gaussians."""
        return Assets(self.means, self.log_scales.exp(), self.colors.clamp(0, 1))


@dataclass
class Trainer:
    """What a step of training needs.

    Attributes:
        views: Training views, one for each frame of ``poses``; cropped to the person unless ``scene`` is given.
        lpips: Perceptual distance; None leaves its terms out.
        scene: The background's Gaussians: renders are made as the original makes them (five a step, whole frames). None: two a step.
        gentle: Let shape, joints and surface follow slower than colours (ours: with few, large steps they would leave the body they start on).
        warm_up: Draw small Gaussians in the first steps, as the original does, whose networks start from random scales.
    """

    model: AvatarModel
    regularisers: Regularisers
    poses: Poses
    views: Sequence[View]
    lpips: Distance | None = None
    scene: Scene | None = None
    warm_up: bool = False
    gentle: bool = False

    def groups(self, rate: float, *, poses_only: bool = False) -> list[dict[str, object]]:
        """Parameter groups for the optimiser with their learning rates."""
        if poses_only:
            return [{"params": [p], "rate": rate} for p in self.poses.parameters()]
        shares = {name: GENTLE.get(name.split(".")[0], 1.0) if self.gentle else 1.0 for name, _ in self.model.networks.named_parameters()}
        groups: list[dict[str, object]] = [{"params": [p], "rate": rate * shares[name]} for name, p in self.model.networks.named_parameters()]
        groups += [{"params": [p], "rate": rate * POSE_SHARE} for p in self.poses.parameters()]
        return groups + [{"params": [p], "rate": rate} for p in (self.scene.parameters() if self.scene else ())]

    def terms(self, frame: int, background: torch.Tensor, step: int, *, image_only: bool = False) -> dict[str, torch.Tensor]:
        """Every term of one frame's loss, a scalar each."""
        warm = self.warm_up and step < WARM_UP
        posed = self.model.posed(*self.poses.of(frame))
        make = self._person_terms if self.scene is None else self._official_terms
        terms = make(posed, self.views[frame], background, warm=warm)
        if not image_only:
            terms |= self.regularisers(posed, self.model.networks.joint_offset, warm_up=warm)
        return terms

    def _person_terms(self, posed: Posed, view: View, background: torch.Tensor, *, warm: bool) -> dict[str, torch.Tensor]:
        """Two renders on one random colour stand for the composites and for the person alone."""
        truth, mask = _picture(view)
        truth = on_background(truth, mask, background)
        crop = crop_of((0, 0, truth.shape[3], truth.shape[2]), *truth.shape[2:])
        terms: dict[str, torch.Tensor] = {}
        for name, assets in (("", posed.static), ("_refined", posed.refined)):
            image = draw(_drawn(assets, warm), view, background)
            found = composite_terms(image, truth, crop, lpips=self.lpips)
            found["rgb_human_rand_bg"] = (image - truth).abs().mean()
            terms |= {key + name: value * view.weight for key, value in found.items()}
        return terms

    def _official_terms(self, posed: Posed, view: View, background: torch.Tensor, *, warm: bool) -> dict[str, torch.Tensor]:
        """Scene, person and both together, whole frames; the scene does not learn from the composites."""
        if self.scene is None:
            return {}
        truth, mask = _picture(view)
        scene, white = self.scene.assets(), torch.ones(3)
        crop = _person_crop(view)
        terms = scene_terms(draw(scene, view, white), truth, mask)
        for name, assets in (("", posed.static), ("_refined", posed.refined)):
            person = _drawn(assets, warm)
            both = Assets(*(torch.cat([a.detach(), b]) for a, b in zip(scene, person)))
            found = composite_terms(draw(both, view, white), truth, crop, lpips=self.lpips)
            found["rgb_human_rand_bg"] = plain_background_term(draw(person, view, background), truth, mask, background, crop)
            terms |= {key + name: value for key, value in found.items()}
        return terms


def _picture(view: View) -> tuple[torch.Tensor, torch.Tensor]:
    return view.image.permute(2, 0, 1)[None], view.alpha[None, None]


def _drawn(assets: Assets, warm: bool) -> Assets:
    return assets._replace(scales=drawn(assets.scales, warm_up=warm))


def _person_crop(view: View) -> Crop:
    ys, xs = torch.nonzero(view.alpha > 0.5, as_tuple=True)
    height, width = view.alpha.shape
    (y0, y1), (x0, x1) = (_span(int(v.min()), int(v.max()) + 1, limit) for v, limit in ((ys, height), (xs, width)))
    return crop_of((x0, y0, x1 - x0, y1 - y0), height, width)


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
    groups = trainer.groups(rate, poses_only=poses_only)
    adam = torch.optim.Adam(groups, lr=rate, eps=1e-15)
    run = Run([p for group in adam.param_groups for p in group["params"]], adam, np.random.default_rng(seed))
    if kept := checkpoint.load():
        run.resume(kept)
    with _frozen(trainer.model.networks, frozen=poses_only):
        for step in range(len(run.losses), iterations):
            for group in adam.param_groups:
                group["lr"] = group["rate"] * rate_factor(step, iterations)
            frame = run.next_view(len(trainer.views))
            background = torch.tensor(run.rng.random(3), dtype=torch.float32)
            loss = torch.stack(list(trainer.terms(frame, background, step, image_only=poses_only).values())).sum()
            adam.zero_grad()
            loss.backward()
            adam.step()
            run.losses.append(float(loss.detach()))
            checkpoint.offer(run.state)
            progress((step + 1) / iterations)
    return run.losses
