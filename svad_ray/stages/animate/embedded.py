"""The embedded animate backend: fit the body to the photo, clothe it, project the photo, complete the rest, render the motion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from svad_ray.backends import Backend
from svad_ray.body import load_body
from svad_ray.body.model import Body
from svad_ray.config import AnimateConfig
from svad_ray.conventions import to_float, to_uint8
from svad_ray.fitting.clothed import Surface, clothed_surface
from svad_ray.fitting.coat import OpenCoat, open_coat
from svad_ray.fitting.coat_shell import coat_shell
from svad_ray.fitting.drape import drape_of
from svad_ray.fitting.face_shape import head_rotation
from svad_ray.fitting.hair import FallingHair, falling_hair, hair_pixels
from svad_ray.fitting.keypoints import KeypointLoss, KeypointTargets, KeypointWeights, fit_keypoints, initial_state
from svad_ray.fitting.landmarks import LandmarkModel
from svad_ray.fitting.loose import loose_weights
from svad_ray.fitting.rim import fit_rim
from svad_ray.fitting.several import fit_further
from svad_ray.fitting.silhouette import fit_silhouette, naked_in, shaped, without_strays
from svad_ray.fitting.state import FitState, photo_camera, pose_body, state_of
from svad_ray.fitting.surface import clothe
from svad_ray.geometry.raster import rasterize_mesh, to_camera
from svad_ray.motion import load_motion, retarget
from svad_ray.stages.animate.appearance import Appearance, draw
from svad_ray.stages.animate.completion import complete
from svad_ray.stages.animate.projection import join_views, painted, visible_in
from svad_ray.stages.base import silent
from svad_ray.stages.perceive.wholebody import FACE_68_FROM_MESH
from svad_ray.subject import Animation, BodyTrack, Clip, Further, Perception, Photo

STRAY_FROM_BODY = 0.12  # of the person's height: no hair or cloth stands so far off the body
SHAPES = 20  # betas that the fit's body has; the first ten move


def fit_photo(body: Body, perception: Perception, config: AnimateConfig) -> FitState:
    """Body, pose and place of the person in one photo: landmarks first, then the outline."""
    model, weights = LandmarkModel(body), KeypointWeights()
    camera = _camera(perception, torch.zeros(SHAPES), config)
    face = inner_face(perception)
    head = None if face is None else head_rotation(body, face, camera.Ks[0].numpy())
    targets = KeypointTargets(model, [perception], leg_depth=weights.leg_depth, camera=camera.Ks[0].numpy(), head=head)
    loss = KeypointLoss(model, targets, weights)
    state = fit_keypoints(loss, initial_state(model, targets, camera.betas, camera), iterations=config.keypoint_iterations)
    return fit_silhouette(loss, state, perception.mask, iterations=config.silhouette_iterations, ignore_border=config.bust)


def _camera(perception: Perception, betas: torch.Tensor, config: AnimateConfig) -> FitState:
    """A state with a photo's camera, and nothing else known but the shape."""
    height, width = perception.mask.shape
    Ks, viewmats = photo_camera(height, width, focal_factor=config.focal_factor)
    return FitState(betas, torch.zeros(1, 55, 3), torch.zeros(1, 3), Ks, viewmats, (height, width))


def inner_face(perception: Perception) -> np.ndarray | None:
    """(51, 3) the face mesh's points that the body knows too, or None without a face."""
    return None if perception.face_mesh is None else perception.face_mesh[FACE_68_FROM_MESH[17:]].astype(np.float64)


def falling(body: Body, state: FitState, seen: np.ndarray | None) -> FallingHair | None:
    """What hangs from the head on the fitted body; ``seen`` (H, W) bool: the photo's hair. None for a short haircut, or where it cannot be told."""
    if seen is None:
        return None
    rest, posed = naked_in(body, state)
    return falling_hair(body, rest.numpy(), posed, state.viewmats[0].numpy(), state.Ks[0].numpy(), seen)


def worn_coat(body: Body, state: FitState, image: np.ndarray, mask: np.ndarray, config: AnimateConfig) -> OpenCoat | None:
    """The open coat that the fitted person wears; ``image`` (H, W, 3) uint8, ``mask`` (H, W) in [0, 1]. None where loose clothes are switched off."""
    if config.loose == "off" or config.bust:
        return None
    rest, posed = naked_in(body, state)
    return open_coat(body, rest.numpy(), posed, state.viewmats[0].numpy(), state.Ks[0].numpy(), to_float(image), mask > 0.5)


def clothe_photo(
    body: Body,
    state: FitState,
    perception: Perception,
    config: AnimateConfig,
    *,
    hair: FallingHair | None = None,
    coat: OpenCoat | None = None,
) -> np.ndarray:
    """(V, 3) metres, what the person in the photo wears on the fitted body, the shape of their face included."""
    naked = clothed_surface(body, state.betas.numpy(), None)
    skin = pose_body(body, body.J_regressor @ shaped(body, state.betas), state.pose, state.transl).skin[0]
    drawn = rasterize_mesh(to_camera(naked.posed(skin), state.viewmats[0].numpy()), naked.faces, state.Ks[0].numpy(), *perception.mask.shape).mask
    mask = without_strays(perception.mask, drawn, reach=STRAY_FROM_BODY)
    if coat is not None:
        mask = np.maximum(mask, coat.between)
    drape = None if config.loose == "off" else drape_of(body, state, mask, coat)
    offset = clothe(
        body,
        state,
        mask,
        iterations=config.clothe_iterations,
        ignore_border=config.bust,
        drape=drape,
        face=inner_face(perception),
        hair=hair,
    )
    if not config.clothe_iterations:
        return offset
    skinning = loose_weights(body, shaped(body, state.betas).numpy(), offset, config.loose)
    return fit_rim(body, state, offset, mask, lbs_weights=skinning, drape=drape, ignore_border=config.bust)


@dataclass(frozen=True)
class Reprojection:
    """A person ready to be drawn in any pose: the fits to the photos, the clothed surface and its colours."""

    photo_track: BodyTrack
    surface: Surface
    look: Appearance
    rest_joints: torch.Tensor
    also_tracks: tuple[BodyTrack, ...] = ()


@dataclass(frozen=True)
class FittedPerson:
    """The body in every photo of a person.

    Attributes:
        tracks: The first photo's first.
        hair: (H, W) bool, the first photo's pixels that show hair, or None where it cannot be told. falling: What hangs from the head.
        coat: The open coat that they wear.
    """

    tracks: tuple[BodyTrack, ...]
    hair: np.ndarray | None
    falling: FallingHair | None
    coat: OpenCoat | None = None


def fit_person(
    body: Body, photo: Photo, perception: Perception, also: Sequence[Further], config: AnimateConfig, progress: Callable[[float], None] = silent
) -> FittedPerson:
    """The body in every photo. Shape and clothes are those of the first; pose and camera of each photo are its own.

    Outlines of further photos shape nothing: how far a limb points to the camera is not known well enough in any of them, and two outlines that
    contradict each other swell the surface (measured, docs/photos.md).
    """
    state = fit_photo(body, perception, config)
    progress(0.5)
    hair = None
    if perception.face_mesh is not None:
        hair = hair_pixels(to_float(photo.image), perception.mask > 0.5, perception.face_mesh)
    hangs = falling(body, state, hair)
    coat = worn_coat(body, state, photo.image, perception.mask, config)
    offset = clothe_photo(body, state, perception, config, hair=hangs, coat=coat)
    fits = [state]
    for one in also:
        camera = _camera(one.perception, state.betas, config)
        iterations = (config.keypoint_iterations, config.silhouette_iterations)
        fits.append(fit_further(body, (state, perception), one.perception, camera, offset, iterations=iterations, ignore_border=config.bust))
    return FittedPerson(tuple(one.to_track(body, vertex_offset=offset) for one in fits), hair, hangs, coat)


def reproject(
    body: Body,
    photo: Photo,
    perception: Perception,
    config: AnimateConfig,
    progress: Callable[[float], None],
    *,
    also: Sequence[Further] = (),
) -> Reprojection:
    """Everything up to the rendering of the clip."""
    fitted = fit_person(body, photo, perception, also, config, lambda done: progress(0.35 * done))
    progress(0.35)
    tracks, hangs, coat = fitted.tracks, fitted.falling, fitted.coat
    naked = shaped(body, torch.tensor(tracks[0].betas))
    surface = clothed_surface(
        body,
        tracks[0].betas,
        tracks[0].vertex_offset,
        loose=config.loose,
        hair=None if hangs is None else hangs.share,
        coat=None if coat is None else coat_shell(body, naked.numpy(), coat),
    )
    rest_joints = body.J_regressor @ naked
    views = []
    for one, track in zip((Further(photo, perception), *also), tracks):
        seen = visible_in(body, surface, rest_joints, one.perception, track)
        views.append(painted(seen, to_float(one.photo.image), one.perception.mask > 0.5))
    look = complete(
        surface,
        join_views(surface, views),
        perception.face_mesh,
        perception.mask > 0.5,
        hair=fitted.hair,
        coat=None if coat is None else coat.pixels,
        seed=config.seed,
    )
    progress(0.4)
    return Reprojection(tracks[0], surface, look, rest_joints, tracks[1:])


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
    # 2: calibrated landmarks, stride depth, skirts and faces of their own, relit fill; several photos
    # 3: the rim on the mask's border; hair that falls; necklines, open coats and prints
    version = 4  # 4: open coats have a surface of their own; strides from paired shanks and soles

    def __init__(self, config: AnimateConfig | None = None) -> None:
        self.config = config or AnimateConfig()

    def setup(self) -> None:
        """Load the body."""
        self.body: Body = load_body(self.config.body or None)

    def __call__(
        self, photo: Photo, perception: Perception, *, also: Sequence[Further] = (), progress: Callable[[float], None] = lambda _: None
    ) -> Animation:
        """The turn-around clip of the photo's person and the body fitted to the photo, and to further ones."""
        person = reproject(self.body, photo, perception, self.config, progress, also=also)
        motion = spread(load_motion(self.config.motion, self.body), self.config.frames)
        track = retarget(motion, person=person.photo_track, body=self.body, size=self.config.size)
        clip = render_clip(self.body, person, track, self.config, lambda done: progress(0.4 + 0.6 * done))
        return Animation(clip, person.photo_track, person.also_tracks)
