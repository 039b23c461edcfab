"""The embedded fit backend: the detector's landmarks in every frame, all frames in one optimisation, then smoothing over time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from svad_ray.backends import Backend
from svad_ray.body import load_body
from svad_ray.body.model import Body
from svad_ray.config import FitConfig
from svad_ray.errors import QualityRejected
from svad_ray.fitting.clip_landmarks import LEG_DEPTH, ClipPrior, follow, track
from svad_ray.fitting.keypoints import KeypointTargets
from svad_ray.fitting.landmarks import LandmarkModel
from svad_ray.fitting.paper.tracks import smoothed
from svad_ray.fitting.state import FitState, photo_camera, pose_body, project_points, state_of
from svad_ray.stages.perceive.embedded import MediaPipePerceive
from svad_ray.subject import BodyTrack, Clip, Perception, Photo

SHAPES = 20


class BodyFit:
    """The fit stage's embedded backend."""

    backend = Backend(
        name="body-fit",
        stage="fit",
        summary="Landmarks of every frame, all frames in one Gauss-Newton, smoothed over time",
        code_licence="Apache-2.0",
        weights_licence="MediaPipe Apache-2.0; open body built from CC0 data",
        commercial=True,
        commercial_reason="everything it uses is CC0 or Apache-2.0",
        models=("mediapipe", "makehuman"),
        memory_gib=1.0,
    )
    version = 2  # 2: Gauss-Newton, the paper's fit's own

    def __init__(self, config: FitConfig | None = None) -> None:
        self.config = config or FitConfig()

    def setup(self) -> None:
        """Load the body and the landmark networks."""
        self.body: Body = load_body(self.config.body or None)
        self.perceive = MediaPipePerceive()
        self.perceive.setup()
        self.model = LandmarkModel(self.body)

    def __call__(
        self, clip: Clip, photo: Photo, perception: Perception, photo_track: BodyTrack, *, progress: Callable[[float], None] = lambda _: None
    ) -> BodyTrack:
        """Fit all frames of a clip, starting from the motion that drove it.

        Raises:
            QualityRejected: The frames do not show the body that drove them.
        """
        start = state_of(clip.track)
        seen = self.perceive.track(clip.frames, rois=self._rois(start))
        progress(0.5)
        targets = KeypointTargets(self.model, seen, leg_depth=1.0)
        prior = ClipPrior(still=self.config.smooth_weight, hold=self.config.initial_weight)
        state = follow(self.model, targets, start, prior, steps=self.config.iterations, progress=lambda done: progress(0.5 + 0.5 * done))
        residual = self._residual(state, targets)
        self._gate(residual, targets)
        found = smoothed(state.to_track(self.body, fps=clip.track.fps, vertex_offset=clip.track.vertex_offset))
        keep = {name: getattr(clip.track, name) for name in ("expression", "face_offset", "joint_offset", "locator_offset")}
        return replace(found, residual_px=residual, **keep)

    def track_video(
        self, frames: np.ndarray, *, fps: float, focal_factor: float = 1.4, progress: Callable[[float], None] = lambda _: None
    ) -> BodyTrack:
        """Fit the body to any clip of one person: shape shared, poses per frame, static level camera.

        Args:
            frames: (T, H, W, 3) uint8 RGB.
        """
        height, width = frames.shape[1:3]
        seen = self.perceive.track(frames)
        progress(0.4)
        found = np.array([p.person_score > 0.5 for p in seen])
        if not found.any():
            raise QualityRejected("no person was found in any frame", expected="one person, mostly visible", remedy="use another clip")
        Ks, viewmats = photo_camera(height, width, focal_factor=focal_factor)
        count = len(frames)
        camera = FitState(
            torch.zeros(SHAPES),
            torch.zeros(count, 55, 3),
            torch.zeros(count, 3),
            Ks.repeat(count, 1, 1),
            viewmats.repeat(count, 1, 1),
            (height, width),
        )
        targets = KeypointTargets(self.model, spread_gaps(seen, found), leg_depth=LEG_DEPTH)
        prior = ClipPrior(still=self.config.smooth_weight)
        state = track(self.model, targets, camera, prior, steps=self.config.iterations, progress=lambda done: progress(0.4 + 0.6 * done))
        return replace(smoothed(state.to_track(self.body, fps=fps)), residual_px=self._residual(state, targets))

    def _rois(self, start: FitState) -> np.ndarray:
        """(T, 2, 2) pixels: hip centre and a point as far from it as the person reaches, which the detector's crop is built on."""
        posed = pose_body(self.body, self.model.rest_joints(start.betas), start.pose, start.transl)
        hips = (posed.joints[:, 1] + posed.joints[:, 2]) / 2
        top = posed.joints[:, 15] + torch.tensor([0.0, 0.2, 0.0])
        return project_points(torch.stack([hips, top], 1), start.Ks, start.viewmats).numpy()

    def _residual(self, state: FitState, targets: KeypointTargets) -> np.ndarray:
        posed = pose_body(self.body, self.model.rest_joints(state.betas), state.pose, state.transl)
        points = self.model.positions(state.betas, posed.joints, posed.skin)
        return targets.pixel_error(project_points(points, state.Ks, state.viewmats)).numpy()

    def _gate(self, residual: np.ndarray, targets: KeypointTargets) -> None:
        share = float(np.median(residual / targets.size.numpy()))
        if share > self.config.max_residual:
            raise QualityRejected(
                f"the fitted body misses the clip's landmarks by {100 * share:.1f} % of the person's size",
                expected=f"at most {100 * self.config.max_residual:.0f} %",
                remedy="use a photo of one upright, fully visible person, or raise fit.max_residual",
            )


def spread_gaps(seen: list[Perception], found: np.ndarray) -> list[Perception]:
    """Frames without a person take the nearest frame's landmarks with no weight: the smoothness term carries them."""
    good = np.where(found)[0]
    out = []
    for i, p in enumerate(seen):
        near = seen[good[np.abs(good - i).argmin()]]
        out.append(p if found[i] else replace(near, visibility=np.zeros_like(near.visibility)))
    return out
