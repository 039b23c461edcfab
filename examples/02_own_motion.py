"""A motion of one's own, keyed in Python, danced by an avatar: a bow.

python examples/02_own_motion.py out/example/avatar bow.mp4
"""

import sys

import numpy as np

from svad_ray.body import load_body
from svad_ray.body.names import JOINT_INDEX
from svad_ray.deliver import rendered
from svad_ray.export.video import write_mp4
from svad_ray.motion import blank_track, retarget
from svad_ray.motion.builtin import arms_out_pose
from svad_ray.store import load_avatar

FRAMES, FPS = 50, 25.0
avatar, body = load_avatar(sys.argv[1]), load_body()
pose = np.repeat(arms_out_pose(65.0)[None], FRAMES, 0)  # (T, 55, 3) axis-angle, arms hanging
bow = 0.5 - 0.5 * np.cos(np.linspace(0, 2 * np.pi, FRAMES))  # down and up again
for joint in ("spine1", "spine2", "spine3", "neck"):
    pose[:, JOINT_INDEX[joint], 0] = np.radians(14) * bow
track = retarget(blank_track(pose, fps=FPS), person=avatar.track, body=body, size=384)
write_mp4(rendered(avatar, track), sys.argv[2], FPS)
print(f"wrote {sys.argv[2]}")
