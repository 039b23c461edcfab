"""The embedded restore backend: Real-ESRGAN on every head, the large network where it is worth its time. Source: ours."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from svad_ray.backends import Backend
from svad_ray.body import load_body
from svad_ray.body.model import Body
from svad_ray.config import AnimateConfig, RestoreConfig
from svad_ray.stages.identity.head import facing_deg, head_boxes, head_transforms
from svad_ray.stages.restore.detail import keep_low_frequencies, paste, pixel_box, resize, scaled_clip
from svad_ray.stages.restore.networks import LARGE_S, Networks
from svad_ray.subject import BodyTrack, Clip

KEEP_SIGMA = 1.0  # frame pixels; coarser structure stays the frame's
FACE_AWAY_DEG = 100.0  # beyond, no part of the face is seen and the networks have nothing to add


class RealEsrganRestore:
    """The restore stage's embedded backend."""

    version: ClassVar[int] = 1
    backend: ClassVar[Backend] = Backend(
        name="realesrgan",
        stage="restore",
        summary="Real-ESRGAN on the head: x4plus on the most frontal frames within a budget, the compact network or Lanczos on the rest",
        code_licence="Apache-2.0",
        weights_licence="BSD-3-Clause",
        commercial=True,
        commercial_reason="the weights' licence allows it",
        models=("realesrgan", "makehuman"),
        memory_gib=1.5,
        batch=16,
    )

    def __init__(self, config: RestoreConfig | None = None, *, clip_frames: int | None = None) -> None:
        """Args: config; clip_frames: length of the whole clip that the budget is for, None = the animate stage's default."""
        self.config = config or RestoreConfig()
        self.clip_frames = clip_frames or AnimateConfig().frames

    def setup(self) -> None:
        """Load the body and both networks."""
        self.body: Body = load_body(self.config.body or None)
        self.networks = Networks.load()

    def plan(self, track: BodyTrack, *, first: int = 0) -> tuple[int, ...]:
        """Numbers of the frames that get the large network: the most frontal ones, as many as the budget pays for.

        Args:
            track: Of the whole clip.
            first: Number of its first frame.
        """
        heads = head_transforms(self.body, track)
        angle, cost = facing_deg(heads), _cost_s(head_boxes(heads, track.Ks), track.image_size)
        order = np.argsort(angle, kind="stable")
        paid = order[np.cumsum(cost[order]) <= self.config.budget_s]
        return tuple(sorted(int(first + i) for i in paid if angle[i] <= FACE_AWAY_DEG))

    def __call__(self, shard: Clip, plan: tuple[int, ...] | None = None) -> Clip:
        """The frames with restored heads, in the same order and number.

        Args:
            shard: Frames of a clip.
            plan: From :meth:`plan` of the whole clip. None = by each frame's own angle, as wide round the full face as the budget
                pays for on a clip of ``clip_frames`` that turns evenly once round.
        """
        heads = head_transforms(self.body, shard.track)
        boxes, angles = head_boxes(heads, shard.track.Ks), facing_deg(heads)
        costs = _cost_s(boxes, shard.frames.shape[1:3])
        frames, remarks = [], []
        for i, frame in enumerate(shard.frames):
            large = shard.first + i in plan if plan is not None else angles[i] <= self._angle_deg(costs[i])
            plain = self.config.plain if angles[i] <= FACE_AWAY_DEG else "lanczos"
            image, remark = self._frame(frame, boxes[i], "x4plus" if large else plain)
            frames.append(image)
            remarks.append("; ".join(part for part in (shard.remarks[i], remark) if part))
        return scaled_clip(shard, np.stack(frames), tuple(remarks), self.config.scale)

    def _angle_deg(self, cost_s: float) -> float:
        """Half the arc whose frames the budget pays for, when every frame costs ``cost_s`` and the clip turns evenly."""
        return min(180 * self.config.budget_s / (cost_s * self.clip_frames), FACE_AWAY_DEG) if cost_s > 0 else -1.0

    def _frame(self, frame: np.ndarray, box: np.ndarray, method: str) -> tuple[np.ndarray, str]:
        """One frame at the output's size and what was done to it."""
        scale = self.config.scale
        out = resize(frame, (frame.shape[0] * scale, frame.shape[1] * scale))
        inside = pixel_box(box, frame.shape[:2])
        if inside is None:
            return out, "head not in the frame: not restored"
        if method == "lanczos":
            return out, "head lanczos" if scale > 1 else "head kept"
        x0, y0, x1, y1 = inside
        large = self.networks.enlarge(method, np.ascontiguousarray(frame[y0:y1, x0:x1]))
        restored = resize(large, ((y1 - y0) * scale, (x1 - x0) * scale))
        original = out[y0 * scale : y1 * scale, x0 * scale : x1 * scale]
        crop = keep_low_frequencies(restored, original, sigma=KEEP_SIGMA * scale)
        return paste(out, crop, (x0 * scale, y0 * scale)), f"head {method}"


def _cost_s(boxes: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """(T,) recorded seconds of the large network on each head; 0 for a head outside the image."""
    inside = [pixel_box(box, (size[0], size[1])) for box in boxes]
    return np.array([0.0 if b is None else (b[2] - b[0]) * (b[3] - b[1]) * LARGE_S for b in inside])
