"""What is likely of a person who was not seen well enough: joint ranges, a balanced stance, feet on one ground."""

from __future__ import annotations

import torch

from svad_ray.body.names import JOINT_INDEX, JOINT_NAMES
from svad_ray.fitting.state import BODY_JOINTS, relaxed_pose

J = JOINT_INDEX
_PER_JOINT = {"spine1": 4, "spine2": 4, "spine3": 4, "neck": 2, "head": 1.5, "collar": 4, "wrist": 1.5, "foot": 6, "ankle": 1.5}
_PER_JOINT |= {"hip": 0.4, "knee": 25.0, "shoulder": 0.3, "elbow": 0.3}


def pose_weights() -> torch.Tensor:
    """(22, 3) weight of the squared deviation (rad^2) from the relaxed pose; twist about a limb is dear, its swing is cheap."""
    w = torch.full((BODY_JOINTS, 3), 0.5)
    for i, name in enumerate(JOINT_NAMES[:BODY_JOINTS]):
        for end, value in _PER_JOINT.items():
            if name.endswith(end):
                w[i] = value
    w[0] = 0
    for side in ("left", "right"):
        w[J[f"{side}_shoulder"], 0] = 0.6
        w[J[f"{side}_elbow"], 0] = w[J[f"{side}_elbow"], 2] = 0.6
        w[J[f"{side}_hip"], 1] = 0.6
        w[J[f"{side}_knee"], 1:] = 3.0
    return w


# What goes with a stride of one radian between the thighs (walking at the moment both feet are down: hips 25 degrees forward and 11 back, knees 5
# and 17 degrees bent, the rear ankle 6 degrees drawn up; arms swing half as far as the legs, against them). Source: usual gait-analysis curves.
STRIDE_FRONT_KNEE, STRIDE_REAR_KNEE, STRIDE_REAR_ANKLE, ARM_SWING = 0.14, 0.48, -0.16, 0.4
# The rear foot stands on its ball, 8 cm before where a flat foot does, in a stride of 40 cm between the ankles: half of it in the feet's middle.
STRIDE_BALL = 0.1


def stride_pose(pose: torch.Tensor) -> torch.Tensor:
    """(T, 22, 3) how a walking person's joints differ from the relaxed pose, given the angle between the thighs of ``pose`` (T, 22, 3)."""
    stride = pose[:, J["right_hip"], 0] - pose[:, J["left_hip"], 0]  # positive: the left leg is in front
    left, right = torch.relu(stride), torch.relu(-stride)
    out = torch.zeros_like(pose)
    out[:, J["left_knee"], 0] = STRIDE_FRONT_KNEE * left + STRIDE_REAR_KNEE * right
    out[:, J["right_knee"], 0] = STRIDE_FRONT_KNEE * right + STRIDE_REAR_KNEE * left
    out[:, J["left_ankle"], 0], out[:, J["right_ankle"], 0] = STRIDE_REAR_ANKLE * right, STRIDE_REAR_ANKLE * left
    return out


class PosePrior:
    """Squared deviation from the relaxed pose plus limits of knees and elbows, mean over frames."""

    def __init__(self) -> None:
        self.weights, self.centre = pose_weights(), relaxed_pose()[:BODY_JOINTS]

    def __call__(self, pose: torch.Tensor) -> torch.Tensor:
        """``pose`` (T, 22, 3) axis-angle."""
        deviation = (self.weights * (pose - self.centre - stride_pose(pose)) ** 2).sum((1, 2))
        over = torch.relu(-pose[:, J["left_knee"], 0]) + torch.relu(-pose[:, J["right_knee"], 0])
        over = over + torch.relu(pose[:, J["left_elbow"], 1]) + torch.relu(-pose[:, J["right_elbow"], 1])
        return (deviation + 20 * over).mean()


def balance(joints: torch.Tensor, rest: torch.Tensor, ahead: torch.Tensor | float = 0.0) -> torch.Tensor:
    """A standing person's head and pelvis are above the feet as in the zero pose: squared decimetres of depth, mean over frames.

    Args:
        joints: (T, 55, 3) metres, world with y up and z towards a level camera.
        rest: (55, 3) the same body's joints in the zero pose, which stands upright.
        ahead: Metres (or (T,) of them) by which what the feet stand on lies nearer to the camera, against their ankles, than in the zero pose.
    """
    foot, head, pelvis = _depths(joints)
    foot0, head0, pelvis0 = _depths(rest[None])
    foot = foot + ahead
    lean, hip, bow = (head - foot) - (head0 - foot0), (pelvis - foot) - (pelvis0 - foot0), (head - pelvis) - (head0 - pelvis0)
    return 100 * (lean**2 + hip**2 + 0.5 * bow**2).mean()


def _depths(joints: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(T,) z of the feet's middle, of the neck and head, of the pelvis."""
    foot = (joints[:, J["left_ankle"], 2] + joints[:, J["right_ankle"], 2]) / 2
    return foot, (joints[:, J["neck"], 2] + joints[:, J["head"], 2]) / 2, joints[:, 0, 2]


def one_ground(heels: torch.Tensor, toes: torch.Tensor) -> torch.Tensor:
    """Both feet stand on one level ground: squared decimetres between their lowest points, mean over frames.

    With a level camera this ties a foot's height in the picture to its depth, which nothing else in one photo tells.

    Args:
        heels, toes: (T, 2, 3) world points, left and right.
    """
    low = -torch.logsumexp(-torch.stack([heels[..., 1], toes[..., 1]], -1) / 0.01, -1) * 0.01
    return 100 * ((low[:, 0] - low[:, 1]) ** 2).mean()


def swing(joints: torch.Tensor) -> torch.Tensor:
    """Who walks swings the arms against the legs: squared decimetres of depth, mean over frames; nothing for people who stand.

    Args:
        joints: (T, 55, 3) metres, world with z towards a level camera.
    """
    legs = (joints[:, J["left_ankle"], 2] - joints[:, J["right_ankle"], 2]).detach()
    arms = [joints[:, J[f"{s}_wrist"], 2] - joints[:, J[f"{s}_shoulder"], 2] for s in ("left", "right")]
    walks = ((legs.abs() - 0.1) / 0.15).clamp(0, 1)
    return 100 * (walks * (arms[0] - arms[1] + ARM_SWING * legs) ** 2).mean()


def standing(landmarks_world: torch.Tensor) -> bool:
    """Whether knees look straight enough in 3D for the standing priors: False for sitting, lying or running people.

    Args:
        landmarks_world: (33, 3) metres, body axes.
    """
    w = landmarks_world
    bends = []
    for hip, knee, ankle in ((23, 25, 27), (24, 26, 28)):
        a, b = w[knee] - w[hip], w[ankle] - w[knee]
        bends.append(torch.rad2deg(torch.arccos((a @ b / (a.norm() * b.norm() + 1e-6)).clamp(-1, 1))))
    torso = (w[11] + w[12] - w[23] - w[24]) / 2
    return bool(min(bends) < 50 and torso[1] / (torso.norm() + 1e-6) > 0.8)
