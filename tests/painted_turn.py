"""A painted body that turns before a camera, drawn by the mesh rasteriser: what avatars are trained on where the truth must be known."""

from dataclasses import dataclass

import numpy as np
import torch

from svad_ray.body.model import Body
from svad_ray.fitting.clothed import Surface, clothed_surface
from svad_ray.fitting.state import pose_body, state_of
from svad_ray.geometry.raster import interpolate, rasterize_mesh, to_camera
from svad_ray.motion import retarget, turn
from svad_ray.stages.animate.embedded import spread
from svad_ray.stages.avatar.colors import View
from svad_ray.stages.avatar.gaussian import clip_views
from svad_ray.subject import BodyTrack, Clip, Perception, Photo


@dataclass(frozen=True)
class Painted:
    """A clip, and what is true of it.

    Attributes:
        surface: Of the body, without clothes. rest_joints: (55, 3).
    """

    body: Body
    surface: Surface
    rest_joints: torch.Tensor
    clip: Clip
    track: BodyTrack

    def views(self) -> list[View]:
        return clip_views(self.body, self.rest_joints, self.clip, self.track)

    def photo(self) -> tuple[Photo, Perception, BodyTrack]:
        """The first frame as the photo, with nothing perceived but its mask."""
        nothing = np.zeros(0, np.float32)
        seen = Perception(nothing, nothing, self.clip.masks[0] / np.float32(255), nothing, nothing, nothing, None, nothing, 1.0, 1)
        return Photo("frame", self.clip.frames[0], ""), seen, self.track.frames(slice(0, 1))


def paint(rest: np.ndarray) -> np.ndarray:
    """(N, 3) colours in [0, 1] of places in the rest pose (N, 3) metres: smooth, and different everywhere."""
    return 0.5 + 0.4 * np.sin(rest * [9.0, 7.0, 11.0])


def painted_turn(body: Body, *, size: int, frames: int) -> Painted:
    """``frames`` of a turn, ``size`` pixels a side, on white."""
    nobody = BodyTrack(**{**vars(turn(2)), "betas": np.zeros(20, np.float32), "body_id": body.id})
    track = retarget(spread(turn(), frames), person=nobody, body=body, size=size)
    surface, joints, state = clothed_surface(body, track.betas, None), body.J_regressor @ body.v_template, state_of(track)
    skin = pose_body(body, joints, state.pose, state.transl).skin
    pictures, masks = np.full((frames, size, size, 3), 255, np.uint8), np.zeros((frames, size, size), np.uint8)
    for i in range(frames):
        buffers = rasterize_mesh(to_camera(surface.posed(skin[i]), track.viewmats[i]), surface.faces, track.Ks[i], size, size)
        pictures[i][buffers.mask] = interpolate(buffers, surface.faces, paint(surface.rest)) * 255
        masks[i][buffers.mask] = 255
    return Painted(body, surface, joints, Clip(pictures, masks, track, ("",) * frames), track)
