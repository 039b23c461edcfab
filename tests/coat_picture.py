"""The open body in painted clothes: an open coat, and what is none."""

from dataclasses import dataclass

import numpy as np
import torch

from svad_ray.body.lbs import skin_points
from svad_ray.body.model import Body
from svad_ray.body.names import JOINT_INDEX as J
from svad_ray.fitting.clothed import clothed_surface
from svad_ray.fitting.loose import crotch_height, legs
from svad_ray.fitting.silhouette import shaped
from svad_ray.fitting.state import FitState, photo_camera, pose_body, relaxed_pose
from svad_ray.geometry.raster import project, rasterize_mesh, to_camera

COAT, SHIRT, TROUSERS, SKIN = (0.3, 0.27, 0.2), (0.7, 0.75, 0.2), (0.55, 0.6, 0.8), (0.8, 0.6, 0.5)
HEM, OPENING, STANDS_OFF = -0.5, 0.08, 0.03  # metres: the hem's height, half of the opening, how far the coat stands beside the legs
WAIST = 0.1  # height where a shirt ends


@dataclass(frozen=True)
class Picture:
    rest: np.ndarray
    posed: np.ndarray
    viewmat: np.ndarray
    K: np.ndarray
    image: np.ndarray
    mask: np.ndarray

    def arguments(self) -> tuple:
        return self.rest, self.posed, self.viewmat, self.K, self.image, self.mask


def picture(body: Body, state: FitState, *, shirt=SHIRT, legs_=TROUSERS, shins=None, coat=COAT, hem=HEM, opening=OPENING) -> Picture:
    """A person in shirt and trousers, with other ``shins`` below the knees if given, and a coat over both down to ``hem`` unless it is None."""
    rest = shaped(body, state.betas)
    skin = pose_body(body, body.J_regressor @ rest, state.pose, state.transl).skin
    posed, rest = skin_points(rest, body.lbs_weights, skin)[0].numpy(), rest.numpy()
    viewmat, K = state.viewmats[0].numpy(), state.Ks[0].numpy()
    surface = clothed_surface(body, state.betas.numpy(), None)
    camera = to_camera(surface.posed(skin[0]), viewmat)
    drawn = rasterize_mesh(camera, surface.faces, K, *state.image_size)
    place = np.full((*state.image_size, 3), np.nan)
    place[drawn.mask] = np.einsum("mk,mkc->mc", drawn.bary[drawn.mask], surface.rest[surface.faces[drawn.face_id[drawn.mask]]])
    x, y = np.abs(place[..., 0]), place[..., 1]
    image, mask = np.full((*state.image_size, 3), 0.95), drawn.mask.copy()
    arms = np.isin(surface.part, (2, 3, 6, 7))[surface.faces[np.maximum(drawn.face_id, 0)]].all(-1) & mask
    image[mask], image[mask & (y < WAIST)] = shirt, legs_
    if shins is not None:
        image[mask & (y < -0.35)] = shins
    if coat is not None:
        image[mask & (y >= hem) & (x > opening) & (y < 0.45)] = coat
        mask |= _beside(body, rest, project(to_camera(posed, viewmat), K), hem, image, coat)
    image[arms] = shirt if coat is None else coat
    image[mask & (y > 0.5)] = SKIN
    noise = 0.015 * np.random.default_rng(0).standard_normal(image.shape)
    return Picture(rest, posed, viewmat, K, np.clip(image + noise, 0, 1), mask)


def _beside(body: Body, rest: np.ndarray, uv: np.ndarray, hem: float, image: np.ndarray, coat) -> np.ndarray:
    """(H, W) bool, painted into the image: cloth that stands off the legs' outer sides."""
    out = np.zeros(image.shape[:2], bool)
    for side, sign in zip(legs(body), (1, -1)):
        for y in np.arange(hem, crotch_height(body, rest) + 0.1, 0.002):
            ring = np.flatnonzero(side & (np.abs(rest[:, 1] - y) < 0.012))
            if not len(ring):
                continue
            u, v = uv[ring[np.argmax(sign * rest[ring, 0])]]
            wide = STANDS_OFF * (uv[:, 1].max() - uv[:, 1].min()) / np.ptp(rest[:, 1])
            a, b = sorted((round(u - sign * 2), round(u + sign * wide)))
            out[round(v), a:b] = True
    image[out] = coat
    return out


def front(body: Body) -> FitState:
    """A person who faces the camera, 3 m away, the arms off the body."""
    Ks, viewmats = photo_camera(640, 640, focal_factor=1.4)
    pose = relaxed_pose()[None].clone()
    pose[0, J["left_shoulder"]], pose[0, J["right_shoulder"]] = torch.tensor([0, 0, -0.8]), torch.tensor([0, 0, 0.8])
    return FitState(torch.zeros(20), pose, torch.tensor([[0.0, 0.1, -3.0]]), Ks, viewmats, (640, 640))
