"""The same person in another photo: shape and clothes are known, and most people keep their pose when they turn round for the next photo.

A photo does not tell how far a limb points to the camera. Two photos fitted apart guess it apart, and what they show then lands on different places
of the surface; so the pose of the first photo is kept where the other one does not clearly show another. Source: ours.
"""

from __future__ import annotations

import numpy as np
import torch

from svad_ray.body.lbs import rotation_matrices
from svad_ray.body.model import Body
from svad_ray.fitting.keypoints import KeypointLoss, KeypointTargets, KeypointWeights, fit_keypoints, initial_state
from svad_ray.fitting.landmarks import LandmarkModel
from svad_ray.fitting.silhouette import fit_silhouette
from svad_ray.fitting.state import BODY_JOINTS, FitState, Posed, pose_body
from svad_ray.geometry.rotations import axis_angle_of
from svad_ray.subject import Perception

KEPT = 300.0  # weight of a squared radian of deviation from the first photo's pose, as the terms of ``KeypointWeights``
MOVED = 0.35  # radians of deviation that count half: a joint that moved between the photos
UPRIGHT, TILTED = 2000.0, 0.15  # the same of the lean of the whole body, which two level cameras see alike whichever way the person faces


class SamePose(KeypointLoss):
    """The terms of the landmarks, and the pose of the first photo for what they do not tell; place and turn about the vertical are free."""

    def __init__(self, model: LandmarkModel, targets: KeypointTargets, weights: KeypointWeights, pose: torch.Tensor) -> None:
        super().__init__(model, targets, weights)
        self.known, self.up = pose[:, 1:BODY_JOINTS], rotation_matrices(pose[:, 0])[:, 1]

    def __call__(self, state: FitState, betas: torch.Tensor, pose: torch.Tensor, posed: Posed) -> torch.Tensor:
        """As ``KeypointLoss``."""
        square = (pose[:, 1:BODY_JOINTS] - self.known).pow(2).sum(-1)
        lean = (posed.rotations[:, 0, 1] - self.up).pow(2).sum(-1)
        kept = KEPT * (square / (1 + square / MOVED**2)).sum(1).mean() + UPRIGHT * (lean / (1 + lean / TILTED**2)).mean()
        return super().__call__(state, betas, pose, posed) + kept


def fit_further(
    body: Body,
    first: tuple[FitState, Perception],
    perception: Perception,
    camera: FitState,
    worn: np.ndarray,
    *,
    iterations: tuple[int, int] = (150, 60),
    ignore_border: bool = False,
) -> FitState:
    """Pose and place in another photo.

    Args:
        first: The fit to the first photo, and what that shows. perception: What the other photo shows. camera: Of that.
        worn: (V, 3) metres, clothes.
        iterations: Steps with the landmarks, and with the outline.
    """
    model, weights = LandmarkModel(body), KeypointWeights(prior=0.2)
    known, seen = first
    there = KeypointTargets(model, [seen], leg_depth=weights.leg_depth)
    targets = KeypointTargets(model, [perception], leg_depth=weights.leg_depth)
    pose = known.pose.clone()
    pose[:, 0] = _turned(pose[:, 0], _yaw(targets) - _yaw(there))
    loss = SamePose(model, targets, weights, known.pose)
    state = fit_keypoints(loss, _placed(model, targets, camera, pose), iterations=iterations[0], fixed_shape=True)
    return fit_silhouette(loss, state, perception.mask, iterations=iterations[1], missing=1.0, shape_count=0, ignore_border=ignore_border, worn=worn)


def _yaw(targets: KeypointTargets) -> torch.Tensor:
    """Which way the hips and shoulders face, as ``initial_state`` takes it."""
    axis = targets.bones[0, 10] + targets.bones[0, 11]
    return torch.atan2(-axis[2], axis[0])


def _turned(orient: torch.Tensor, yaw: torch.Tensor) -> torch.Tensor:
    """(1, 3) axis-angle turned about the vertical axis."""
    turn = rotation_matrices(torch.stack([torch.zeros(()), yaw, torch.zeros(())])[None])
    return axis_angle_of(turn @ rotation_matrices(orient))


def _placed(model: LandmarkModel, targets: KeypointTargets, camera: FitState, pose: torch.Tensor) -> FitState:
    """``pose`` where the relaxed pose would be put by size and centre of the landmarks."""
    start = initial_state(model, targets, camera.betas, camera)
    rest = model.rest_joints(camera.betas)
    before = pose_body(model.body, rest, start.pose, start.transl).joints[:, :BODY_JOINTS].mean(1)
    after = pose_body(model.body, rest, pose, torch.zeros_like(start.transl)).joints[:, :BODY_JOINTS].mean(1)
    return camera.with_parameters(camera.betas, pose, before - after)
