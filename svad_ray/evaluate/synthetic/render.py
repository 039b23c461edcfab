"""Pictures of a character: z-buffer, per-pixel materials, three soft studio lights, supersampled. No OpenGL.

By default the camera and the lights stand still and the person turns, as on a turntable: shading is fixed to the camera, not to the person. A
:class:`Light` of its own may stand in the person's world instead: then the photo's shading is wrong for every other view, as it is outdoors.
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
class Light:
    """One distant lamp and light from everywhere.

    Attributes:
        towards: (x, y, z) direction to the lamp: in the person's world (x to their left, y up, z forward) when ``fixed``, else in camera axes.
        power, ambient: Brightness of a white surface that faces the lamp, and of one that does not.
        color: RGB of the lamp; the rest of the light is white.
        fixed: The lamp stands still in the person's world, and moves over the picture as the camera goes round.
    """

    towards: tuple[float, float, float] = (0.3, 0.6, 0.7)
    power: float = 0.55
    ambient: float = 0.5
    color: tuple[float, float, float] = (1.0, 1.0, 1.0)
    fixed: bool = True


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


def turntable(yaw: float, height: float, *, distance: float = DISTANCE, pitch: float = 0.0) -> np.ndarray:
    """(4, 4) world to camera of a camera that sees a person turned by ``yaw`` radians about the world's vertical axis.

    Args:
        height: World y that lies on the camera's axis, metres.
        pitch: Radians that the camera stands above that point's level, and looks down; 0 = a level camera.
    """
    c, s = np.cos(yaw), np.sin(yaw)
    turn = np.array([[c, 0, s, 0], [0, 1, 0, -height], [-s, 0, c, -distance], [0, 0, 0, 1]])
    if pitch:
        up, down = np.cos(pitch), np.sin(pitch)
        turn[2, 3] = 0.0
        turn = np.array([[1, 0, 0, 0], [0, up, -down, 0], [0, down, up, -distance], [0, 0, 0, 1]]) @ turn
    return BODY_TO_CAMERA.astype(np.float64) @ turn


def intrinsics(width: int, height: int, focal: float) -> np.ndarray:
    """(3, 3) pinhole intrinsics with the principal point in the middle."""
    return np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])


def render(
    character: Character,
    pose: Pose,
    *,
    yaw: float = 0.0,
    pitch: float = 0.0,
    size: tuple[int, int] = (512, 512),
    background: tuple[float, float, float] | np.ndarray = (1.0, 1.0, 1.0),
    focal: float | None = None,
    distance: float = DISTANCE,
    look_at: float | None = None,
    supersample: int = 3,
    light: Light | None = None,
) -> View:
    """Draw a posed character on a turntable.

    Args:
        yaw: Radians the person turns; at +pi/2 their face points to the picture's right.
        pitch: Radians that the camera stands above the person's middle.
        size: (height, width) pixels.
        background: RGB in [0, 1], or a float (H, W, 3) picture.
        focal: Pixels; None = ``FOCAL_PER_HEIGHT`` x height.
        look_at: World height on the camera's axis; None = the middle of the posed person.
        supersample: Samples per pixel along each side.
        light: None = the studio's three lights, which stand with the camera.
    """
    height, width = size
    posed = character.posed(pose)
    if look_at is None:
        look_at = float(posed[:, 1].min() + posed[:, 1].max()) / 2
    viewmat, K = turntable(yaw, look_at, distance=distance, pitch=pitch), intrinsics(width, height, focal or FOCAL_PER_HEIGHT * height)
    fine = K.copy()
    fine[:2] *= supersample
    camera = to_camera(posed, viewmat)
    buffers = rasterize_mesh(camera, character.faces, fine, height * supersample, width * supersample)
    color = np.zeros((*buffers.face_id.shape, 3), np.float32)
    color[buffers.mask] = _shade(character, camera, buffers, light, viewmat)
    blocks = (height, supersample, width, supersample)
    covered = buffers.mask.reshape(blocks).mean((1, 3), dtype=np.float32)
    image = color.reshape(*blocks, 3).mean((1, 3)) + (1 - covered[..., None]) * np.asarray(background, np.float32)
    joints = character.posed_joints(pose)
    depth = buffers.depth.reshape(blocks).min((1, 3))
    return View(to_uint8(image), covered, depth, K, viewmat, joints, project(to_camera(joints, viewmat), K), yaw)


def _shade(character: Character, camera: np.ndarray, buffers: MeshBuffers, light: Light | None, viewmat: np.ndarray) -> np.ndarray:
    """(M, 3) lit colours of the samples that see the character, in row order."""
    face, bary = buffers.face_id[buffers.mask], buffers.bary[buffers.mask]
    normal = _blend(character.normals(camera).astype(np.float32), character.faces[face], bary)
    albedo = np.empty((len(face), 3), np.float32)
    for mesh, first, last in character.spans:
        here = (face >= first) & (face < last)
        albedo[here] = _albedo(mesh, face[here] - first, bary[here])
    return albedo * (_light(normal)[:, None] if light is None else _lamp(normal, light, viewmat))


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


def _light(normal: np.ndarray) -> np.ndarray:
    """(M,) brightness of camera-space normals; a surface seen from behind is lit as if it faced the viewer."""
    n = normal / (np.linalg.norm(normal, axis=1, keepdims=True) + 1e-9)
    n = np.where(n[:, 2:] > 0, -n, n)
    lights = [(KEY / np.linalg.norm(KEY), KEY_POWER), (FILL / np.linalg.norm(FILL), FILL_POWER)]
    return AMBIENT + sum(power * np.maximum(n @ light.astype(np.float32), 0) for light, power in lights)


def _lamp(normal: np.ndarray, light: Light, viewmat: np.ndarray) -> np.ndarray:
    """(M, 3) brightness of camera-space normals under one lamp, as :func:`_light` for what is seen from behind."""
    n = normal / (np.linalg.norm(normal, axis=1, keepdims=True) + 1e-9)
    n = np.where(n[:, 2:] > 0, -n, n)
    towards = np.asarray(light.towards, np.float64) / np.linalg.norm(light.towards)
    seen = (viewmat[:3, :3] @ towards if light.fixed else towards).astype(np.float32)
    return light.ambient + light.power * np.maximum(n @ seen, 0)[:, None] * np.asarray(light.color, np.float32)
