"""The paper's fit backend: SMPL-X, and FLAME where its files are, on 133 key points of all frames at once (SVAD section 3.3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from svad_ray.backends import Backend, ModelFile
from svad_ray.body import load_body
from svad_ray.body.model import Body
from svad_ray.config import FitConfig
from svad_ray.conventions import WHOLEBODY_FACE
from svad_ray.errors import QualityRejected
from svad_ray.fitting.paper.losses import Losses, Start, project
from svad_ray.fitting.paper.model import FitBodies, State
from svad_ray.fitting.paper.solve import PRESETS, fit
from svad_ray.fitting.paper.staged import AFTER, SHARES, staged
from svad_ray.fitting.paper.targets import SEEN, SPACE, Targets, boxes, make_targets
from svad_ray.fitting.paper.tracks import EXPRESSIONS, begin, smoothed, to_track
from svad_ray.fitting.textured_face import MAP_FILE, MOVING_FILE, FaceLayout, Seen, fill, flame_layout
from svad_ray.nets import deca, hand4whole
from svad_ray.stages.fit.initialisers import FirstHead, Initialiser
from svad_ray.stages.perceive.embedded import MediaPipePerceive
from svad_ray.subject import BodyTrack, Clip, Perception, Photo, TexturedFace

HAND4WHOLE = ModelFile(hand4whole.FILE, hand4whole.SOURCE, hand4whole.LICENCE)
DECA = ModelFile(deca.FILE, deca.SOURCE, deca.LICENCE)
MESH_ROWS = 400  # vertices on which the mesh term is taken when not all are
_BOX_OVER_PERSON = 1.5
_SETTLED = 0.3  # of the work, after Gauss-Newton


@dataclass(frozen=True)
class Found:
    """A finished fit before it becomes a track: what was fitted, to what, the (T, 4) squares of its crops, and the (T,) residual in pixels."""

    losses: Losses
    state: State
    start: Start
    targets: Targets
    square: np.ndarray
    residual: np.ndarray


class PaperFit:
    """``setup``, then whole clips."""

    version: ClassVar[int] = 4  # 3: face_offset is kept; 4: the face's texture
    backend: ClassVar[Backend] = Backend(
        name="smplx-exavatar",
        stage="fit",
        summary="SMPL-X and FLAME fitted to 133 key points of all frames, on ExAvatar's terms and schedule",
        code_licence="Apache-2.0",
        weights_licence="FLAME: non-commercial research; MediaPipe Apache-2.0",
        commercial=False,
        commercial_reason="FLAME is licensed for non-commercial research",
        models=("mediapipe", "makehuman"),
        files=(
            ModelFile("FLAME_NEUTRAL.pkl", "flame.is.tue.mpg.de, after registration", "FLAME licence, non-commercial research", optional=True),
            ModelFile("SMPL-X__FLAME_vertex_ids.npy", "the SMPL-X site", "SMPL-X licence, non-commercial research", optional=True),
            ModelFile("smplx_flip_correspondences.npz", "the SMPL-X site", "SMPL-X licence, non-commercial research", optional=True),
            ModelFile(MAP_FILE, "flame.is.tue.mpg.de, after registration", "FLAME licence, non-commercial research", optional=True),
            ModelFile(MOVING_FILE, "flame.is.tue.mpg.de, after registration", "FLAME licence, non-commercial research", optional=True),
        ),
        memory_gib=6,
    )

    @classmethod
    def described(cls, config: FitConfig) -> Backend:
        """Without FLAME the body's own licence alone decides; where FLAME is required, so are its files; Hand4Whole and DECA bring their own."""
        if config.initialiser == "hand4whole":
            files = (HAND4WHOLE, replace(DECA, optional=config.flame != "require"), *cls._of_flame(config))
            licence = "Hand4Whole and DECA: trained on non-commercial data; FLAME: non-commercial research; MediaPipe Apache-2.0"
            reason = "Hand4Whole's and DECA's weights are for research only"
            return replace(cls.backend, weights_licence=licence, files=files, commercial=False, commercial_reason=reason)
        if cls._of_flame(config):
            return replace(cls.backend, files=cls._of_flame(config))
        reason = "Apache-2.0 weights; the body has its own licence"
        return replace(cls.backend, weights_licence="MediaPipe Apache-2.0", files=(), commercial=True, commercial_reason=reason)

    @classmethod
    def _of_flame(cls, config: FitConfig) -> tuple[ModelFile, ...]:
        if config.flame == "require":
            return tuple(replace(file, optional=file.name in (MAP_FILE, MOVING_FILE)) for file in cls.backend.files)
        return cls.backend.files if config.weights and config.flame == "auto" else ()

    def __init__(self, config: FitConfig | None = None) -> None:
        self.config = config or FitConfig()

    def setup(self) -> None:
        """Load the bodies and the landmark networks.

        Raises:
            WeightsMissing: FLAME is required and its files are not there. InputError: A file is damaged, or bodies do not fit together.
        """
        folder = Path(self.config.weights).expanduser() if self.config.weights else None
        self.bodies = self._bodies(load_body(self.config.body or None), folder)
        self.layout = self._layout(folder)
        self.first = None
        if self.config.initialiser == "hand4whole":
            self.first = Initialiser(folder or Path("fit.weights"), head=self.bodies.flame is not None)
        self.perceive = MediaPipePerceive()
        self.perceive.setup()

    def _bodies(self, body: Body, folder: Path | None) -> FitBodies:
        """Both bodies; the body alone where FLAME is off, or not there and not required."""
        from svad_ray.body.flame import load_flame, with_flame_expressions
        from svad_ray.errors import WeightsMissing
        from svad_ray.fitting.paper.companions import load_companions

        rows = None if self.config.exact else _spread(body, MESH_ROWS)
        if self.config.flame == "off":
            return FitBodies(body, mesh_rows=rows)
        try:
            flame, companions = load_flame(folder or Path("fit.weights")), load_companions(folder or Path("fit.weights"))
        except WeightsMissing:
            if self.config.flame == "require":
                raise
            return FitBodies(body, mesh_rows=rows)
        companions.checked(body, flame)
        return FitBodies(with_flame_expressions(body, flame, companions.head, count=EXPRESSIONS), flame, companions, mesh_rows=rows)

    def _layout(self, folder: Path | None) -> FaceLayout | None:
        """FLAME's map of the face's texture, where FLAME is fitted and its map is there."""
        if self.bodies.flame is None:
            return None
        return flame_layout(folder or Path("fit.weights"), self.bodies.body, self.bodies.flame, self.bodies.head)

    def __call__(
        self, clip: Clip, photo: Photo, perception: Perception, photo_track: BodyTrack, *, progress: Callable[[float], None] = lambda _: None
    ) -> BodyTrack:
        """Fit all frames of a clip, starting from the motion that drove it; with FLAME's map, its face is unwrapped as well.

        Raises:
            QualityRejected: The frames do not show the body that drove them.
        """
        seen = self.perceive.track(clip.frames, hands=True, face=True)
        progress(0.3)
        keypoints, scores = np.stack([one.keypoints for one in seen]), np.stack([one.scores for one in seen])
        track, head = clip.track, None
        if self.first is not None:
            track, head = self.first.body(track, clip.frames, keypoints, scores), self.first.head(clip.frames, keypoints, scores)
        found = self._find(track, keypoints, scores, head, lambda done: progress(0.3 + 0.6 * done))
        face = None if self.layout is None else self._face(self.layout, clip.frames, found, track, keypoints, scores)
        progress(1.0)
        return replace(self._track(found, track), face=face)

    def fit_track(
        self,
        track: BodyTrack,
        keypoints: np.ndarray,
        scores: np.ndarray,
        *,
        head: FirstHead | None = None,
        progress: Callable[[float], None] = lambda _: None,
    ) -> BodyTrack:
        """The body of ``track`` brought to (T, 133, 2) key points with (T, 133) scores, smoothed over time."""
        return self._track(self._find(track, keypoints, scores, head, progress), track)

    def _find(self, track: BodyTrack, keypoints: np.ndarray, scores: np.ndarray, head: FirstHead | None, progress: Callable[[float], None]) -> Found:
        cameras = np.stack([track.Ks[:, 0, 0], track.Ks[:, 1, 1], track.Ks[:, 0, 2], track.Ks[:, 1, 2]], 1)
        faces = np.nan_to_num(scores[:, WHOLEBODY_FACE]).max(1) > 0 if head is None else head.found
        targets, square = make_targets(keypoints, scores, cameras, faces)
        same = track.body_id == self.bodies.body.id
        state, start = begin(self.bodies, track, keep_shape=same, **self._first_values(head))
        losses = Losses(self.bodies, smooth=self.config.temporal_weight)
        schedule, share, settled = PRESETS[self.config.schedule], self.config.share or SHARES[self.config.solver], 0.0
        if self.config.solver == "staged":
            seen, settled = losses.face_seen(state, targets, start), _SETTLED
            state, start = staged(self.bodies, state, start, targets, seen, fps=track.fps, progress=lambda done: progress(settled * done))
            schedule = replace(schedule, warm_up=0, rates=AFTER)
        schedule = schedule.scaled(share)
        schedule = schedule if self.config.exact else replace(schedule, first_every=20)
        found = fit(losses, state, targets, start, schedule, progress=lambda done: progress(settled + (1 - settled) * done))
        residual = residual_px(self.bodies, found, targets, square)
        self._gate(residual, square)
        return Found(losses, found, start, targets, square, residual)

    def _track(self, found: Found, like: BodyTrack) -> BodyTrack:
        return replace(smoothed(to_track(self.bodies, found.state, like)), residual_px=found.residual)

    @torch.no_grad()
    def _face(
        self, layout: FaceLayout, frames: np.ndarray, found: Found, track: BodyTrack, keypoints: np.ndarray, scores: np.ndarray
    ) -> TexturedFace | None:
        """The face's texture, from the fitted FLAME before smoothing, on the frames in which the fitted face looks at the camera."""
        points, marks = keypoints[:, WHOLEBODY_FACE], scores[:, WHOLEBODY_FACE]
        valid = (marks > SEEN) & np.isfinite(points).all(2) & np.isfinite(marks)
        visible = found.losses.face_seen(found.state, found.targets, replace(found.start, rotations=found.state.rotations())).numpy() & valid.any(1)
        _, crops = boxes(np.where(valid[..., None], points, 0), valid)
        vertices = self.bodies.pose_flame(found.state)[0].numpy()
        return fill(layout, Seen(frames, vertices, track.Ks, visible), crops=crops if self.config.exact else None)

    def _first_values(self, head: FirstHead | None) -> dict[str, np.ndarray]:
        """What ``begin`` takes of a head, in the dimensions of FLAME and of the body."""
        flame = self.bodies.flame
        if head is None or flame is None:
            return {}
        shapes, expressions = flame.shapedirs.shape[-1], min(EXPRESSIONS, self.bodies.body.exprdirs.shape[-1])
        return {"head_shape": head.shape[:shapes], "head_expression": head.expression[:, :expressions], "head_jaw": head.jaw}

    def _gate(self, residual: np.ndarray, square: np.ndarray) -> None:
        share = float(np.nanmedian(residual / (square[:, 2] / _BOX_OVER_PERSON)))
        if share > self.config.max_residual:
            raise QualityRejected(
                f"the fitted body misses the clip's key points by {100 * share:.1f} % of the person's size",
                expected=f"at most {100 * self.config.max_residual:.0f} %",
                remedy="use a photo of one upright, fully visible person, or raise fit.max_residual",
            )


@torch.no_grad()
def residual_px(bodies: FitBodies, state: Any, targets: Targets, square: np.ndarray) -> np.ndarray:
    """(T,) mean distance of the seen key points, pixels; NaN where nobody was seen."""
    flat = project(bodies.pose(state, state.rotations()).points, targets)
    apart = ((flat - targets.points).norm(dim=-1) * targets.valid[..., 0]).sum(1) / targets.valid[..., 0].sum(1)
    return (apart.numpy() * square[:, 2] / SPACE).astype(np.float32)


def _spread(body: Body, count: int) -> np.ndarray:
    """About ``count`` vertices, spread evenly over the numbering."""
    return np.unique(np.linspace(0, len(body.v_template) - 1, count).round().astype(int))
