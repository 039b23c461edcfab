"""Pictures of a character: z-buffer, per-pixel materials, three soft studio lights, supersampled. No OpenGL.

The camera and the lights stand still and the person turns, as on a turntable: shading is fixed to the camera, not to the person, unless
``Lights`` say so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from svad_ray.conventions import BODY_TO_CAMERA, to_uint8
from svad_ray.evaluate.synthetic.character import Character, Mesh
from svad_ray.evaluate.synthetic.poses import Pose
from svad_ray.geometry.raster import MeshBuffers, project, rasterize_mesh, to_camera

DISTANCE = 3.4  # metres from the camera to the axis of the turntable
FOCAL_PER_HEIGHT = 1.56  # a 1.8 m person then fills 85 % of the picture's height
KEY, FILL = np.array([0.3, -0.5, -0.8]), np.array([-0.8, -0.1, -0.4])  # directions to the lights, camera axes
AMBIENT, KEY_POWER, FILL_POWER = 0.45, 0.45, 0.15


@dataclass(frozen=True)
class Lights:
    """Soft light from everywhere and some lamps.

    Attributes:
        ambient: Brightness without any lamp. lamps: Of each the direction towards it, camera axes, and its power.
        with_person: The lamps turn with the person, as the sun does for a photographer who walks round somebody.
    """

    ambient: float
    lamps: tuple[tuple[tuple[float, float, float], float], ...]
    with_person: bool = False


STUDIO = Lights(AMBIENT, ((tuple(KEY.tolist()), KEY_POWER), (tuple(FILL.tolist()), FILL_POWER)))
SIDE_SUN = Lights(0.4, (((-1.0, -0.35, -0.25), 0.6),), with_person=True)  # from the picture's left, where the person's right side is


@dataclass(frozen=True)
class View:
    """One picture and everything that is true about it.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        mask: (H, W) float32, the share of each pixel that the person covers.
        depth: (H, W) float32 metres along the camera's axis, inf where nothing is.
        K: (3, 3) pinhole intrinsics, pixels. viewmat: (4, 4) body world (y up, unturned) to camera; the turn is in it.
        joints3d: (55, 3) metres, body world. keypoints2d: (55, 2) pixels, the joints projected.
        yaw: Radians the person is turned about the vertical axis, positive towards their own left.
    """

    image: np.ndarray
    mask: np.ndarray
    depth: np.ndarray
    K: np.ndarray
    viewmat: np.ndarray
    joints3d: np.ndarray
    keypoints2d: np.ndarray
    yaw: float


def turntable(yaw: float, height: float, *, distance: float = DISTANCE) -> np.ndarray:
    """(4, 4) world to camera of a level camera that sees a person turned by ``yaw`` radians about the world's vertical axis.

    Args:
        height: World y that lies on the camera's axis, metres.
    """
    c, s = np.cos(yaw), np.sin(yaw)
    turn = np.array([[c, 0, s, 0], [0, 1, 0, -height], [-s, 0, c, -distance], [0, 0, 0, 1]])
    return BODY_TO_CAMERA.astype(np.float64) @ turn


def intrinsics(width: int, height: int, focal: float) -> np.ndarray:
    """(3, 3) pinhole intrinsics with the principal point in the middle."""
    return np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])


def render(
    character: Character,
    pose: Pose,
    *,
    yaw: float = 0.0,
    size: tuple[int, int] = (512, 512),
    background: tuple[float, float, float] | np.ndarray = (1.0, 1.0, 1.0),
    focal: float | None = None,
    distance: float = DISTANCE,
    look_at: float | None = None,
    supersample: int = 3,
    lights: Lights = STUDIO,
) -> View:
    """Draw a posed character on a turntable.

    Args:
        yaw: Radians the person turns; at +pi/2 their face points to the picture's right.
        size: (height, width) pixels.
        background: RGB in [0, 1], or a float (H, W, 3) picture.
        focal: Pixels; None = ``FOCAL_PER_HEIGHT`` x height.
        look_at: World height on the camera's axis; None = the middle of the posed person.
        supersample: Samples per pixel along each side.
        lights: What lights the person.
    """
    height, width = size
    posed = character.posed(pose)
    if look_at is None:
        look_at = float(posed[:, 1].min() + posed[:, 1].max()) / 2
    viewmat, K = turntable(yaw, look_at, distance=distance), intrinsics(width, height, focal or FOCAL_PER_HEIGHT * height)
    fine = K.copy()
    fine[:2] *= supersample
    camera = to_camera(posed, viewmat)
    buffers = rasterize_mesh(camera, character.faces, fine, height * supersample, width * supersample)
    color = np.zeros((*buffers.face_id.shape, 3), np.float32)
    color[buffers.mask] = _shade(character, camera, buffers, lights, yaw)
    blocks = (height, supersample, width, supersample)
    covered = buffers.mask.reshape(blocks).mean((1, 3), dtype=np.float32)
    image = color.reshape(*blocks, 3).mean((1, 3)) + (1 - covered[..., None]) * np.asarray(background, np.float32)
    joints = character.posed_joints(pose)
    depth = buffers.depth.reshape(blocks).min((1, 3))
    return View(to_uint8(image), covered, depth, K, viewmat, joints, project(to_camera(joints, viewmat), K), yaw)


def _shade(character: Character, camera: np.ndarray, buffers: MeshBuffers, lights: Lights, yaw: float) -> np.ndarray:
    """(M, 3) lit colours of the samples that see the character, in row order."""
    face, bary = buffers.face_id[buffers.mask], buffers.bary[buffers.mask]
    normal = _blend(character.normals(camera).astype(np.float32), character.faces[face], bary)
    albedo = np.empty((len(face), 3), np.float32)
    for mesh, first, last in character.spans:
        here = (face >= first) & (face < last)
        albedo[here] = _albedo(mesh, face[here] - first, bary[here])
    return albedo * _light(normal, lights, yaw)[:, None]


def _albedo(mesh: Mesh, face: np.ndarray, bary: np.ndarray) -> np.ndarray:
    if not len(face):
        return np.zeros((0, 3), np.float32)
    return mesh.material(_blend(mesh.coords, mesh.coord_faces[face], bary))


def _blend(values: np.ndarray, corners: np.ndarray, bary: np.ndarray) -> np.ndarray:
    """Per-sample values: (V, C) at the corners (M, 3) with weights (M, 3)."""
    out = values[corners[:, 0]] * bary[:, :1]
    for k in (1, 2):
        out += values[corners[:, k]] * bary[:, k : k + 1]
    return out


def _light(normal: np.ndarray, lights: Lights = STUDIO, yaw: float = 0.0) -> np.ndarray:
    """(M,) brightness of camera-space normals; a surface seen from behind is lit as if it faced the viewer."""
    n = normal / (np.linalg.norm(normal, axis=1, keepdims=True) + 1e-9)
    n = np.where(n[:, 2:] > 0, -n, n)
    turn = (turntable(yaw, 0.0) @ np.linalg.inv(turntable(0.0, 0.0)))[:3, :3] if lights.with_person else np.eye(3)
    brightness = np.full(len(n), lights.ambient, np.float32)
    for towards, power in lights.lamps:
        direction = turn @ (np.array(towards) / np.linalg.norm(towards))
        brightness += power * np.maximum(n @ direction.astype(np.float32), 0)
    return brightness
