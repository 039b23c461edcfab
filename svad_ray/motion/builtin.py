"""The motions that come with the project. Each is a BodyTrack of no particular person; ``retarget`` puts it on one.

Shoulders turn about z: the zero pose is a T, and -1 rad about +z lowers the left arm (the right arm takes the other sign).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.spatial.transform import Rotation

from svad_ray.body.names import JOINT_INDEX, JOINT_NAMES
from svad_ray.motion.keyframes import MIRROR, read_keyframes
from svad_ray.subject import BodyTrack

TURN_FRAMES = 189  # of the paper's driving clip, which shows one full turn with the arms held out at 25 frames per second
TURN_FPS = 25.0
_PLACEHOLDER_SIZE = 512


def blank_track(pose: np.ndarray, *, transl: np.ndarray | None = None, fps: float) -> BodyTrack:
    """A track of nobody: (T, 55, 3) axis-angle poses, average shape, and a level camera that sees a person of 1.7 m.

    ``body_id`` is empty: the poses fit every body in SMPL-X layout, and ``retarget`` sets person and cameras.
    """
    frames, size = len(pose), _PLACEHOLDER_SIZE
    viewmat = np.diag([1.0, -1.0, -1.0, 1.0])
    viewmat[:3, 3] = [0.0, 0.0, 3.4]
    K = np.array([[1.6 * size, 0, size / 2], [0, 1.6 * size, size / 2], [0, 0, 1]])
    zeros = np.zeros((frames, 3), np.float32)
    track = BodyTrack(
        betas=np.zeros(10, np.float32),
        global_orient=zeros,
        body_pose=np.zeros((frames, 21, 3), np.float32),
        left_hand_pose=np.zeros((frames, 15, 3), np.float32),
        right_hand_pose=np.zeros((frames, 15, 3), np.float32),
        jaw_pose=zeros,
        leye_pose=zeros,
        reye_pose=zeros,
        expression=np.zeros((frames, 10), np.float32),
        transl=zeros if transl is None else transl.astype(np.float32),
        viewmats=np.repeat(viewmat[None].astype(np.float32), frames, 0),
        Ks=np.repeat(K[None].astype(np.float32), frames, 0),
        image_size=(size, size),
        fps=float(fps),
        body_id="",
    )
    return track.with_full_pose(pose.astype(np.float32))


def arms_out_pose(lowered_deg: float) -> np.ndarray:
    """(55, 3) axis-angle: upright, legs straight and a little apart, arms ``lowered_deg`` below horizontal, fingers relaxed."""
    pose = np.zeros((len(JOINT_NAMES), 3))
    side: dict[str, list[float]] = {
        "collar": [0, 0, -0.12 * lowered_deg],
        "shoulder": [0, 0, -0.88 * lowered_deg],
        "elbow": [0, -8, 0],
        "hip": [0, 0, 4],
        "ankle": [0, 0, -4],
    }
    side |= {f"{finger}{k}": [0.0, 0.0, -9.0] for finger in ("index", "middle", "ring", "pinky") for k in (1, 2, 3)}
    for name, degrees in side.items():
        pose[JOINT_INDEX[f"left_{name}"]] = np.radians(degrees)
        pose[JOINT_INDEX[f"right_{name}"]] = np.radians(degrees) * MIRROR
    return pose


def turn(frames: int = TURN_FRAMES, *, lowered_deg: float = 15.0, fps: float = TURN_FPS) -> BodyTrack:
    """One full turn on the spot at constant speed with the arms held out; the first and the last frame face the camera.

    Args:
        frames: Number of frames, at least 1.
        lowered_deg: Degrees of the arms below horizontal.
        fps: Frames per second.

    Source: the driving clip of SVAD section 3.1 (arms out, 189 frames); the exact pose is ours.
    """
    yaw = np.linspace(0.0, 2 * np.pi, frames) if frames > 1 else np.zeros(1)
    pose = np.repeat(arms_out_pose(lowered_deg)[None], frames, 0)
    wrapped = (yaw + np.pi) % (2 * np.pi) - np.pi
    pose[:, 0] = wrapped[:, None] * [0.0, 1.0, 0.0]
    return blank_track(pose, fps=fps)


def a_pose_turn(frames: int = TURN_FRAMES, *, fps: float = TURN_FPS) -> BodyTrack:
    """The same turn with the arms in a relaxed A, 50 degrees below horizontal."""
    return turn(frames, lowered_deg=50.0, fps=fps)


def walk(frames: int = 112, fps: float = 25.0, *, heading_deg: float = 0.0) -> BodyTrack:
    """Walking on the spot, as on a treadmill: one stride takes 1.12 s, so 112 frames at 25 per second are four strides and loop.

    Args:
        heading_deg: Which way the walker faces; 0 towards the camera, 90 towards its right of the picture.
    """
    keys = read_keyframes("walk")
    pose, sway = keys.sample(np.arange(frames) / fps / keys.duration_s)
    heading = Rotation.from_rotvec([0.0, np.radians(heading_deg), 0.0])
    pose[:, 0] = (heading * Rotation.from_rotvec(pose[:, 0])).as_rotvec()
    return blank_track(pose, transl=heading.apply(sway), fps=fps)


def arms(frames: int = 150, fps: float = 25.0) -> BodyTrack:
    """Both arms rise overhead and come down, then the right hand waves: 6 seconds, fitted to ``frames`` when fewer or more."""
    keys = read_keyframes("arms")
    phase = np.linspace(0.0, 1.0, frames) if frames > 1 else np.zeros(1)
    pose, sway = keys.sample(phase)
    still = arms_out_pose(0.0)
    legs_and_fingers = ~pose.any(axis=(0, 2))
    pose[:, legs_and_fingers] = still[legs_and_fingers]
    return blank_track(pose, transl=sway, fps=fps)


MOTIONS: dict[str, Callable[..., BodyTrack]] = {"turn": turn, "a-pose-turn": a_pose_turn, "walk": walk, "arms": arms}
