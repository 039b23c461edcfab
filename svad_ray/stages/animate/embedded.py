"""The embedded animate backend: fit the body to the photo, clothe it, project the photo, complete the rest, render the motion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from svad_ray.backends import Backend
from svad_ray.body import load_body
from svad_ray.body.model import Body
from svad_ray.config import AnimateConfig
from svad_ray.conventions import to_float, to_uint8
from svad_ray.fitting.clothed import Surface, clothed_surface
from svad_ray.fitting.face_shape import head_rotation
from svad_ray.fitting.keypoints import KeypointLoss, KeypointTargets, KeypointWeights, fit_keypoints, initial_state
from svad_ray.fitting.landmarks import LandmarkModel
from svad_ray.fitting.silhouette import fit_silhouette, shaped, without_strays
from svad_ray.fitting.state import FitState, photo_camera, pose_body, state_of
from svad_ray.fitting.surface import clothe
from svad_ray.geometry.raster import rasterize_mesh, to_camera
from svad_ray.motion import load_motion, retarget
from svad_ray.stages.animate.appearance import Appearance, draw
from svad_ray.stages.animate.completion import complete
from svad_ray.stages.animate.projection import limbs_in_front, look_at_photo
from svad_ray.stages.perceive.wholebody import FACE_68_FROM_MESH
from svad_ray.subject import Animation, BodyTrack, Clip, Perception, Photo

STRAY_FROM_BODY = 0.12  # of the person's height: no hair or cloth stands so far off the body
SHAPES = 20  # betas that the fit's body has; the first ten move


def fit_photo(body: Body, perception: Perception, config: AnimateConfig) -> FitState:
    """Body, pose and place of the person in one photo: landmarks first, then the outline."""
    height, width = perception.mask.shape
    Ks, viewmats = photo_camera(height, width, focal_factor=config.focal_factor)
    model = LandmarkModel(body)
    weights = KeypointWeights()
    face = inner_face(perception)
    head = None if face is None else head_rotation(body, face, Ks[0].numpy())
    targets = KeypointTargets(model, [perception], leg_depth=weights.leg_depth, focal=float(Ks[0, 0, 0]), head=head)
    camera = FitState(torch.zeros(SHAPES), torch.zeros(1, 55, 3), torch.zeros(1, 3), Ks, viewmats, (height, width))
    state = initial_state(model, targets, camera.betas, camera)
    loss = KeypointLoss(model, targets, weights)
    state = fit_keypoints(loss, state, iterations=config.keypoint_iterations)
    return fit_silhouette(loss, state, perception.mask, iterations=config.silhouette_iterations, ignore_border=config.bust)


def inner_face(perception: Perception) -> np.ndarray | None:
    """(51, 3) the face mesh's points that the body knows too, or None without a face."""
    return None if perception.face_mesh is None else perception.face_mesh[FACE_68_FROM_MESH[17:]].astype(np.float64)


def clothe_photo(body: Body, state: FitState, perception: Perception, config: AnimateConfig) -> np.ndarray:
    """(V, 3) metres, what the person in the photo wears on the fitted body, the shape of their face included."""
    naked = clothed_surface(body, state.betas.numpy(), None)
    skin = pose_body(body, body.J_regressor @ shaped(body, state.betas), state.pose, state.transl).skin[0]
    drawn = rasterize_mesh(to_camera(naked.posed(skin), state.viewmats[0].numpy()), naked.faces, state.Ks[0].numpy(), *perception.mask.shape).mask
    return clothe(
        body,
        state,
        without_strays(perception.mask, drawn, reach=STRAY_FROM_BODY),
        iterations=config.clothe_iterations,
        ignore_border=config.bust,
        loose=config.loose,
        face=inner_face(perception),
    )


@dataclass(frozen=True)
class Reprojection:
    """A person ready to be drawn in any pose: the fit, the clothed surface and its colours."""

    photo_track: BodyTrack
    surface: Surface
    look: Appearance
    rest_joints: torch.Tensor


def reproject(body: Body, photo: Photo, perception: Perception, config: AnimateConfig, progress: Callable[[float], None]) -> Reprojection:
    """Everything up to the rendering of the clip."""
    state = fit_photo(body, perception, config)
    progress(0.2)
    mask = perception.mask > 0.5
    offset = clothe_photo(body, state, perception, config)
    progress(0.35)
    surface = clothed_surface(body, state.betas.numpy(), offset, loose=config.loose)
    rest_joints = body.J_regressor @ shaped(body, state.betas)
    skin = pose_body(body, rest_joints, state.pose, state.transl).skin[0]
    points = to_camera(surface.posed(skin), state.viewmats[0].numpy())
    rows = np.flatnonzero(mask.any(1))
    limbs = limbs_in_front(perception.landmarks, perception.visibility, perception.landmarks_world, mask.shape, float(np.ptp(rows) + 1))
    seen = look_at_photo(surface, points, state.Ks[0].numpy(), to_float(photo.image), mask, limbs=limbs)
    look = complete(surface, seen, perception.face_mesh, mask, seed=config.seed)
    progress(0.4)
    return Reprojection(state.to_track(body, vertex_offset=offset), surface, look, rest_joints)


def render_clip(body: Body, person: Reprojection, track: BodyTrack, config: AnimateConfig, progress: Callable[[float], None]) -> Clip:
    """Draw the person in every pose of ``track`` with its cameras."""
    state = state_of(track)
    posed = pose_body(body, person.rest_joints, state.pose, state.transl)
    height, width = track.image_size
    frames, masks = np.empty((len(track), height, width, 3), np.uint8), np.empty((len(track), height, width), np.uint8)
    for i in range(len(track)):
        points = to_camera(person.surface.posed(posed.skin[i]), track.viewmats[i])
        image, alpha, _ = draw(person.surface, person.look, points, track.Ks[i], height, width, supersample=config.supersample)
        frames[i], masks[i] = to_uint8(image), to_uint8(alpha)
        progress((i + 1) / len(track))
    return Clip(frames, masks, track, ("",) * len(track))


def spread(motion: BodyTrack, frames: int) -> BodyTrack:
    """``frames`` frames of the motion at equal distances, first and last kept; all of them when it has no more."""
    if frames >= len(motion):
        return motion
    return motion.frames(np.linspace(0, len(motion) - 1, frames).round().astype(int))


class ReprojectionAnimate:
    """The animate stage's embedded backend."""

    backend = Backend(
        name="reprojection",
        stage="animate",
        summary="Body fitted to the photo, moved to its outline, photo projected and completed, rendered in every pose",
        code_licence="Apache-2.0",
        weights_licence="open body built from CC0 data",
        commercial=True,
        commercial_reason="everything it uses is CC0 or Apache-2.0",
        models=("makehuman",),
        memory_gib=1.5,
    )
    version = 2  # 2: calibrated landmarks, stride depth, skirts and faces of their own

    def __init__(self, config: AnimateConfig | None = None) -> None:
        self.config = config or AnimateConfig()

    def setup(self) -> None:
        """Load the body."""
        self.body: Body = load_body(self.config.body or None)

    def __call__(self, photo: Photo, perception: Perception, *, progress: Callable[[float], None] = lambda _: None) -> Animation:
        """The turn-around clip of the photo's person and the body fitted to the photo."""
        person = reproject(self.body, photo, perception, self.config, progress)
        motion = spread(load_motion(self.config.motion, self.body), self.config.frames)
        track = retarget(motion, person=person.photo_track, body=self.body, size=self.config.size)
        clip = render_clip(self.body, person, track, self.config, lambda done: progress(0.4 + 0.6 * done))
        return Animation(clip, person.photo_track)
