"""Pose sequences: built-in motions, motions from files, and putting a motion on a person.

In: a name, a file, or a ``BodyTrack``. Out: a ``BodyTrack`` (SVAD section 3.1's driving pose sequence; here a body motion instead of 2D poses).
"""

from svad_ray.motion.builtin import MOTIONS, TURN_FPS, TURN_FRAMES, a_pose_turn, arms, blank_track, turn, walk
from svad_ray.motion.files import load_motion, load_track, resample, save_track
from svad_ray.motion.placing import frame_camera, level_camera, outline_points, retarget

__all__ = [
    "MOTIONS",
    "TURN_FPS",
    "TURN_FRAMES",
    "a_pose_turn",
    "arms",
    "blank_track",
    "frame_camera",
    "level_camera",
    "load_motion",
    "load_track",
    "outline_points",
    "resample",
    "retarget",
    "save_track",
    "turn",
    "walk",
]
