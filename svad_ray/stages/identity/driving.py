"""Head tracks of driving clips: landmarks in every frame, FLAME on them, the tracker, smoothing over time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch

from svad_ray.body.flame import Flame
from svad_ray.fitting.heads import HeadTargets, start_from_landmarks, track_heads
from svad_ray.motion.heads import HeadTrack, running_average, smoothed
from svad_ray.stages.identity.gagavatar import head_box, map_to_crop
from svad_ray.stages.perceive.embedded import MediaPipePerceive
from svad_ray.stages.perceive.wholebody import face_68

KEEP_BOX = 0.03  # share of the new frame in the running average of the crop
FAST_FPS = 50.0  # of clips above, every second frame is tracked


def track_clip(
    frames: np.ndarray,
    flame: Flame,
    perceive: MediaPipePerceive,
    *,
    fps: float,
    smooth: Literal["ema", "savgol", "none"] = "ema",
    progress: Callable[[float], None] = lambda _: None,
) -> HeadTrack:
    """The head in every frame of a clip, as GAGAvatar's tracker would record it.

    Args:
        frames: (T, H, W, 3) uint8 RGB, one person.
        perceive: Set up; finds the face's landmarks, which stand in for the tracker's own networks.

    Raises:
        InputError: No frame shows a face.
    """
    if fps > FAST_FPS:
        frames, fps = frames[::2], fps / 2
    meshes = [seen.face_mesh for seen in perceive.track(frames, face=True)]
    progress(0.4)
    seen = torch.tensor([mesh is not None for mesh in meshes])
    found = [mesh for mesh in meshes if mesh is not None]
    points = np.zeros((len(frames), 68, 2), np.float32)
    if found:
        boxes = iter(running_average(np.stack([head_box(mesh) for mesh in found]), KEEP_BOX))
        for i, mesh in enumerate(meshes):
            if mesh is not None:
                to_crop = map_to_crop(next(boxes))
                points[i] = face_68(mesh)[:, :2] @ to_crop[:, :2].T + to_crop[:, 2]
    targets = HeadTargets(torch.tensor(points), seen)
    start = start_from_landmarks(flame, targets, fps=fps, source="landmarks of the face mesh")
    progress(0.7)
    return smoothed(track_heads(flame, start, targets, progress=lambda done: progress(0.7 + 0.3 * done)), smooth)
