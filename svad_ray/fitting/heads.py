"""FLAME put on the faces of a photo or a clip, all frames at once: a start from landmarks, then GAGAvatar's tracker on it.

The tracker moves eyes and cameras only; shape, expression and jaw come from networks (EMICA) in the original. Their files being absent, they are
fitted to the landmarks here (``start_from_landmarks``, ours).

Source: GAGAvatar's tracker (SVAD section 3.2): losses, weights, rates and steps of its released code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import torch
from scipy.spatial.transform import Rotation

from svad_ray.body.flame import CONTOUR, Embedding, Flame
from svad_ray.geometry.rotations import matrices_of_rows
from svad_ray.motion.heads import SCALE, HeadTrack, between
from svad_ray.nets.gagavatar.geometry import intrinsics, view_matrices

SIDE = 512  # pixels of the crop that is tracked
STEPS = 300
RATES = {"eyes": 1e-3, "rotation": 5e-4, "translation": 0.1}
DECAY_AFTER, DECAY = 300, 0.1
WEIGHTS = {"vertices": 25.0, "inner": 10.0, "mesh": 80.0, "eyes": 25.0}
TRUSTED_PX = 8.96  # landmarks that lie further from the head mesh's count for nothing
START_STEPS = 250
START_SHAPES, START_EXPRESSIONS = 50, 30
_SHAPE_PRIOR, _EXPRESSION_PRIOR, _JAW_PRIOR = 2e-3, 2e-3, 0.05  # per squared unit, against squared pixels / 512
_LANDMARKS = 68


@dataclass(frozen=True)
class HeadTargets:
    """What is seen of a head in T crops of 512 pixels; continuous pixels, the middle of the first = 0.5.

    Attributes:
        landmarks: (T, 68 or 70, 2) of the landmark detector, the pupils last; rows of frames without a face are not read.
        seen: (T,) bool.
        mesh_landmarks: (T, 68, 2) of a head mesh network. None: the landmarks themselves.
        vertices: (T, V, 2) of a head mesh network; None without one.
    """

    landmarks: torch.Tensor
    seen: torch.Tensor
    mesh_landmarks: torch.Tensor | None = None
    vertices: torch.Tensor | None = None

    @property
    def mesh(self) -> torch.Tensor:
        """(T, 68, 2)."""
        return self.landmarks[:, :_LANDMARKS] if self.mesh_landmarks is None else self.mesh_landmarks


def project(points: torch.Tensor, transforms: torch.Tensor) -> torch.Tensor:
    """(T, N, 3) points of the head's space -> (T, N, 2) pixels of the crop."""
    views = view_matrices(transforms)
    camera = points @ views[:, :3, :3].transpose(1, 2) + views[:, None, :3, 3]
    K = intrinsics(SIDE).to(points)
    return camera[..., :2] / camera[..., 2:] * K[0, 0] + K[:2, 2]


def tracking_losses(flame: Flame, vertices: torch.Tensor, transforms: torch.Tensor, targets: HeadTargets) -> dict[str, torch.Tensor]:
    """The tracker's terms, weighted: mean squared pixels over 512; a term without a target is absent.

    Args:
        vertices: (T, V, 3) posed, in the head's space. transforms: (T, 3, 4).
    """
    seen, mesh = targets.seen, targets.mesh
    points = landmarks_of(flame, vertices)
    flat = project(points, transforms)
    inner = slice(CONTOUR, _LANDMARKS)
    apart = (targets.landmarks[:, inner] - mesh[:, inner]).norm(dim=-1).mean(-1)
    trusted = seen & (apart < TRUSTED_PX)
    terms = {"inner": _squared(flat[:, inner], targets.landmarks[:, inner], trusted), "mesh": _squared(flat[:, :_LANDMARKS], mesh, seen)}
    if targets.vertices is not None:
        terms["vertices"] = _squared(project(vertices, transforms), targets.vertices, seen)
    if targets.landmarks.shape[1] > _LANDMARKS and points.shape[1] > _LANDMARKS:
        terms["eyes"] = _squared(flat[:, _LANDMARKS:], targets.landmarks[:, _LANDMARKS:], trusted)
    return {name: WEIGHTS[name] * term for name, term in terms.items()}


def landmarks_only(flame: Flame) -> Flame:
    """The head's corners of its fixed landmarks and nothing else: all that a fit to landmarks needs, posed some twenty times faster."""
    full = flame.fixed_landmarks
    corners = flame.faces[full.faces]
    vertices, numbers = np.unique(corners, return_inverse=True)
    triples = numbers.reshape(corners.shape)
    return replace(flame.part(vertices), faces=triples, full=Embedding(np.arange(len(triples)), full.bary))


def landmarks_of(flame: Flame, vertices: torch.Tensor) -> torch.Tensor:
    """(T, 68 or 70, 3): the fixed landmarks, pupils last where the head's file knows them."""
    return flame.on_surface(vertices, flame.fixed_landmarks)


def _squared(a: torch.Tensor, b: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    return (a[rows] - b[rows]).pow(2).mean() / SIDE if rows.any() else a.sum() * 0


def posed_vertices(flame: Flame, track: HeadTrack) -> torch.Tensor:
    """(T, V, 3) of the track's codes in the head's space."""
    return _posed(flame, *(torch.tensor(np.asarray(value, np.float32)) for value in (track.shape[None], track.expression, track.pose, track.eyes)))


def _posed(flame: Flame, shape: torch.Tensor, expression: torch.Tensor, pose: torch.Tensor, eyes: torch.Tensor) -> torch.Tensor:
    shape, expression = shape[:, : flame.shapedirs.shape[-1]], expression[:, : flame.exprdirs.shape[-1]]
    posed = flame.forward(
        betas=shape, expression=expression, global_orient=pose[:, :3], jaw_pose=pose[:, 3:], leye_pose=eyes[:, :3], reye_pose=eyes[:, 3:]
    )
    return SCALE * posed.vertices


def track_heads(
    flame: Flame, start: HeadTrack, targets: HeadTargets, *, steps: int = STEPS, progress: Callable[[float], None] = lambda _: None
) -> HeadTrack:
    """Eyes and cameras of all frames, by Adam on ``tracking_losses``; the other codes stay. Frames without a face lie between their neighbours."""
    flame = landmarks_only(flame) if targets.vertices is None else flame
    shape, expression, pose = (torch.tensor(np.asarray(x, np.float32)) for x in (start.shape[None], start.expression, start.pose))
    eyes = torch.tensor(start.eyes, dtype=torch.float32, requires_grad=True)
    rows = torch.tensor(start.transforms[:, :2, :3].reshape(len(start), 6), dtype=torch.float32, requires_grad=True)
    shift = torch.tensor(start.transforms[:, :, 3], dtype=torch.float32, requires_grad=True)
    groups = [{"params": [p], "lr": RATES[name]} for name, p in (("eyes", eyes), ("rotation", rows), ("translation", shift))]
    adam = torch.optim.Adam(groups)
    schedule = torch.optim.lr_scheduler.StepLR(adam, DECAY_AFTER, DECAY)
    for step in range(steps):
        vertices = _posed(flame, shape, expression, pose, eyes)
        transforms = torch.cat([matrices_of_rows(rows), shift[..., None]], 2)
        loss = sum(tracking_losses(flame, vertices, transforms, targets).values(), torch.zeros(()))
        adam.zero_grad()
        loss.backward()
        adam.step()
        schedule.step()
        progress((step + 1) / steps)
    found = torch.cat([matrices_of_rows(rows), shift[..., None]], 2).detach().numpy()
    return between(replace(start, eyes=eyes.detach().numpy(), transforms=found, seen=targets.seen.numpy()))


class _Codes:
    """What ``start_from_landmarks`` moves, and the codes that they make."""

    def __init__(self, flame: Flame, targets: HeadTargets, shape: np.ndarray | None) -> None:
        self.frames, seen = len(targets.landmarks), targets.seen
        cameras = [_pose_of(flame, targets.mesh[t]) if seen[t] else np.eye(3, 4) for t in range(self.frames)]
        transforms = torch.tensor(np.stack(cameras), dtype=torch.float32)
        self.betas = torch.zeros(1, flame.shapedirs.shape[-1]) if shape is None else torch.tensor(np.asarray(shape, np.float32))[None]
        self.moving = torch.zeros(1, min(START_SHAPES, self.betas.shape[1]), requires_grad=shape is None)
        self.expression = torch.zeros(self.frames, min(START_EXPRESSIONS, flame.exprdirs.shape[-1]), requires_grad=True)
        self.jaw = torch.zeros(self.frames, 3, requires_grad=True)
        self.rows = transforms[:, :2, :3].reshape(self.frames, 6).clone().requires_grad_(True)
        self.shift = transforms[:, :, 3].clone().requires_grad_(True)

    def groups(self) -> list[dict[str, Any]]:
        """Parameters with their learning rates."""
        rated = ((self.moving, 0.05), (self.expression, 0.05), (self.jaw, 0.01), (self.rows, 0.005), (self.shift, 0.02))
        return [{"params": [p], "lr": rate} for p, rate in rated if p.requires_grad]

    def __call__(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(1, S) shape, (T, 6) pose and (T, 3, 4) cameras."""
        count = self.moving.shape[1]
        shape = torch.cat([self.betas[:, :count] + self.moving, self.betas[:, count:]], 1)
        pose = torch.cat([torch.zeros(self.frames, 3), self.jaw], 1)
        return shape, pose, torch.cat([matrices_of_rows(self.rows), self.shift[..., None]], 2)

    def prior(self, seen: torch.Tensor) -> torch.Tensor:
        """How unlikely they are."""
        squares = [(_EXPRESSION_PRIOR, self.expression), (_JAW_PRIOR, self.jaw)]
        rest = sum((weight * x[seen].pow(2).sum(1).mean() for weight, x in squares), torch.zeros(()))
        return _SHAPE_PRIOR * self.moving.pow(2).sum() + rest


def start_from_landmarks(
    flame: Flame, targets: HeadTargets, *, fps: float = 25.0, source: str = "", steps: int = START_STEPS, shape: np.ndarray | None = None
) -> HeadTrack:
    """Shape (one for all frames), expression, jaw and camera that explain the landmarks; ours, in place of the original's networks.

    Args:
        shape: (S,) betas to keep; None: they are fitted too.

    Raises:
        InputError: No frame shows a face.
    """
    flame = landmarks_only(flame)
    codes, still = _Codes(flame, targets, shape), torch.zeros(len(targets.landmarks), 6)
    groups = codes.groups()
    rates, adam = [group["lr"] for group in groups], torch.optim.Adam(groups)
    for step in range(steps if targets.seen.any() else 0):
        betas, pose, cameras = codes()
        losses = tracking_losses(flame, _posed(flame, betas, codes.expression, pose, still), cameras, targets)
        for group, rate in zip(adam.param_groups, rates):
            group["lr"] = rate * (1.0 if step < 0.6 * steps else 0.2)
        adam.zero_grad()
        (losses["mesh"] + codes.prior(targets.seen)).backward()
        adam.step()
    betas, pose, cameras = (value.detach() for value in codes())
    expression = torch.zeros(len(still), flame.exprdirs.shape[-1])
    expression[:, : codes.expression.shape[1]] = codes.expression.detach()
    arrays = (value.numpy() for value in (betas[0], expression, pose, still, cameras, targets.seen))
    found: dict[str, Any] = dict(zip(("shape", "expression", "pose", "eyes", "transforms", "seen"), arrays))
    return between(HeadTrack(**found, fps=fps, source=source))


def _pose_of(flame: Flame, points: torch.Tensor) -> np.ndarray:
    """(3, 4) camera that brings the template's 68 landmarks nearest to (68, 2) pixels."""
    model = SCALE * landmarks_of(flame, flame.v_template[None])[0, :_LANDMARKS].double().numpy()
    K = intrinsics(SIDE).double().numpy()
    pixels = points[:_LANDMARKS].double().numpy()
    _, turn, shift = cv2.solvePnP(model, pixels, K, None, flags=cv2.SOLVEPNP_SQPNP)
    turn, shift = cv2.solvePnPRefineLM(model, pixels, K, None, turn, shift)
    flip = np.array([-1.0, -1.0, 1.0])
    rotation = Rotation.from_rotvec(turn.ravel()).as_matrix()
    return np.concatenate([(flip[:, None] * rotation).T, (flip * shift.ravel())[:, None]], 1)
