"""How far the joints of one photo's person lie before or behind the pelvis: a small regression from what the detector says, learned on renders.

A frontal photo shows depth only through hints: the nearer foot stands lower and looks larger, an arm that swings to the camera is foreshortened, the
detector's world landmarks know the sign and half of the amount. A committee of small networks weighs them. It is trained by
``benchmarks/limb_depth.py`` on synthetic people whose seeds and poses no figure of ours uses; the same script measures, on people left out, the
covariance of its errors, which is how much the fit believes it. Source: ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from svad_ray.body.names import JOINT_INDEX as J
from svad_ray.fitting.stride import foot_ratio, lowest_rows, shank_ratio
from svad_ray.subject import Perception

TABLE = Path(__file__).parent / "data" / "limb_depth.npz"
_SIDED = ("hip", "knee", "ankle", "foot", "shoulder", "elbow", "wrist")
JOINTS = (*(J[f"{side}_{name}"] for name in _SIDED for side in ("left", "right")), J["neck"], J["head"])
MIRRORED = (*(i ^ 1 for i in range(2 * len(_SIDED))), 14, 15)  # of JOINTS: left and right exchanged
POINTS = (7, 8, 11, 12, 13, 14, 15, 16, 19, 20, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 0)  # landmarks that are looked at, in pairs but the last
POINTS_MIRRORED = (*(i ^ 1 for i in range(20)), 20)


def features(seen: Perception, size: float) -> np.ndarray | None:
    """(F,) what the regression looks at, free of the person's place and size; None where a point is missing.

    Args:
        size: Of the person in the picture, pixels.
    """
    xy, world = seen.landmarks[list(POINTS)], seen.landmarks_world[list(POINTS)]
    if seen.mask.size == 0 or not (np.isfinite(xy).all() and np.isfinite(world).all()):
        return None
    flat = (xy - xy[10:12].mean(0)) / size
    deep = (world - world[10:12].mean(0)) / max(float(np.linalg.norm(world[2:4].mean(0) - world[10:12].mean(0))), 0.1)
    rows = lowest_rows(seen, size)
    told = [shank_ratio(seen), foot_ratio(seen), None if rows is None else (rows[0] - rows[1]) / size]
    hints = [x for one in told for x in ((0.0, 0.0) if one is None else (one, 1.0))]
    return np.concatenate([flat.ravel(), deep.ravel(), hints])


def mirrored(x: np.ndarray) -> np.ndarray:
    """Features (N, F) of the pictures seen in a mirror."""
    count, points = len(x), len(POINTS)
    flat = x[:, : 2 * points].reshape(count, points, 2)[:, POINTS_MIRRORED] * [-1, 1]
    deep = x[:, 2 * points : 5 * points].reshape(count, points, 3)[:, POINTS_MIRRORED] * [-1, 1, 1]
    hints = x[:, 5 * points :] * [-1, 1, -1, 1, -1, 1]
    return np.concatenate([flat.reshape(count, -1), deep.reshape(count, -1), hints], 1)


def relative_depth(joints: torch.Tensor) -> torch.Tensor:
    """(..., len(JOINTS)) metres that ``JOINTS`` are nearer to a level camera than the pelvis; ``joints`` (..., 55, 3) world."""
    return joints[..., list(JOINTS), 2] - joints[..., :1, 2]


def unit_length(rest: torch.Tensor) -> torch.Tensor:
    """Metres from pelvis to head at rest (55, 3), in which depths are told."""
    return (rest[J["head"]] - rest[0]).norm()


@dataclass(frozen=True)
class LimbDepth:
    """What one photo says: ``depth`` (K,) of ``JOINTS`` before the pelvis in units of :func:`unit_length`, ``precision`` (K, K) the inverse
    covariance of its error, and ``trust`` in [0, 1], 0 for pictures unlike all those it was learned on."""

    depth: torch.Tensor
    precision: torch.Tensor
    trust: float


@dataclass(frozen=True)
class DepthTable:
    """The learned numbers.

    Attributes:
        mean, spread: (F,) of the features. layers: weights and biases of the committee, each with the committee's number first.
        target_mean, target_spread: (K,) of the depths.
        covariance: (2, K, K) of the errors on people left out, where the legs were not and were seen apart.
        basis: (F, D) directions in which the renders differ, scaled so that they vary by one. limit: distance that one render in a hundred exceeds.
    """

    mean: np.ndarray
    spread: np.ndarray
    layers: tuple[tuple[np.ndarray, np.ndarray], ...]
    target_mean: np.ndarray
    target_spread: np.ndarray
    covariance: np.ndarray
    basis: np.ndarray
    limit: float

    def predict(self, x: np.ndarray) -> np.ndarray:
        """(N, K) depths of features (N, F)."""
        h = np.broadcast_to((x - self.mean) / self.spread, (len(self.layers[0][0]), *x.shape))
        for i, (weight, bias) in enumerate(self.layers):
            h = h @ weight + bias[:, None]
            h = np.tanh(h) if i + 1 < len(self.layers) else h
        return h.mean(0) * self.target_spread + self.target_mean

    def strangeness(self, x: np.ndarray) -> np.ndarray:
        """(N,) how unlike the training pictures features (N, F) are; 1 = as one in a hundred of those."""
        return np.linalg.norm((x - self.mean) / self.spread @ self.basis, axis=1) / self.limit

    def __call__(self, seen: Perception, size: float) -> LimbDepth | None:
        """What a photo says; None without landmarks or where it is too unlike the training's."""
        x = features(seen, size)
        if x is None:
            return None
        both = np.stack([x, mirrored(x[None])[0]])
        trust = float(np.clip(2 - self.strangeness(both).mean(), 0, 1))
        if trust == 0:
            return None
        ahead, turned = self.predict(both)
        apart = int(x[-5] > 0)
        depth = (ahead + turned[list(MIRRORED)]) / 2
        precision = np.linalg.inv(self.covariance[apart])
        return LimbDepth(torch.tensor(depth, dtype=torch.float32), torch.tensor(precision, dtype=torch.float32), trust)

    def save(self, path: Path) -> None:
        """Half precision is enough."""
        layers = {f"{kind}{i}": a.astype(np.float16) for i, layer in enumerate(self.layers) for kind, a in zip(("weight", "bias"), layer)}
        rest = {name: np.float32(getattr(self, name)) for name in ("mean", "spread", "target_mean", "target_spread", "covariance", "limit")}
        arrays: dict[str, Any] = {"basis": self.basis.astype(np.float16), **layers, **rest}
        np.savez_compressed(path, **arrays)


@cache
def depth_table() -> DepthTable:
    """The table that comes with the package."""
    return load_table(TABLE)


def load_table(path: Path) -> DepthTable:
    """A table that :meth:`DepthTable.save` wrote."""
    with np.load(path) as z:
        n = {name: z[name].astype(np.float64) for name in z.files}
    depth = sum(name.startswith("weight") for name in n)
    layers = tuple((n[f"weight{i}"], n[f"bias{i}"]) for i in range(depth))
    rest = {name: n[name] for name in ("mean", "spread", "target_mean", "target_spread", "covariance", "basis")}
    return DepthTable(layers=layers, limit=float(n["limit"]), **rest)


def depth_error(joints: torch.Tensor, unit: torch.Tensor, told: LimbDepth) -> torch.Tensor:
    """Half the squared error in standard deviations, of one frame's joints (55, 3)."""
    r = relative_depth(joints) / unit - told.depth
    return 0.5 * told.trust * (r @ told.precision @ r)
