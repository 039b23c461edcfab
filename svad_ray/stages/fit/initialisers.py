"""First poses of the paper's fit from the frames themselves: Hand4Whole for the body and the hands, DECA for FLAME's shape, expression and jaw.

Boxes come from the key points of the perceive stage, so that both look at the person who is fitted. Frames in which nobody, or no face, was seen
take what lies between their neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.transform import Rotation, Slerp

from svad_ray.conventions import WHOLEBODY_FACE
from svad_ray.fitting.paper.targets import SEEN, boxes
from svad_ray.nets.deca import crop_faces, load_deca, split_code
from svad_ray.nets.hand4whole import crop_people, load_hand4whole, person_box
from svad_ray.subject import BodyTrack

_BATCH, _FEWEST = 8, 20  # frames at a time; face points that make a face


@dataclass(frozen=True)
class FirstHead:
    """FLAME's first shape (100,), the mean of all faces, expression (T, 50) and jaw (T, 3); found (T,) bool, where a face was seen."""

    shape: np.ndarray
    expression: np.ndarray
    jaw: np.ndarray
    found: np.ndarray


class Initialiser:
    """Both networks, loaded once.

    Args:
        folder: Holds ``snapshot_6.pth.tar`` and, where ``head`` is wanted, ``deca_model.tar``.

    Raises:
        WeightsMissing: One is not there. InputError: One is damaged, partial, or another network.
    """

    def __init__(self, folder: str | Path, *, head: bool) -> None:
        self.people = load_hand4whole(folder)
        self.faces = load_deca(folder) if head else None

    def body(self, track: BodyTrack, frames: np.ndarray, keypoints: np.ndarray, scores: np.ndarray) -> BodyTrack:
        """``track`` with the turns of body and hands that are seen in its frames (T, H, W, 3); as it was where nobody is seen in any."""
        valid = (scores > SEEN) & np.isfinite(keypoints).all(2)
        tight, _ = boxes(np.where(valid[..., None], keypoints, 0), valid)
        there = [person_box(box, *frames.shape[1:3]) if any_seen else None for box, any_seen in zip(tight, valid.any(1))]
        found = np.array([box is not None for box in there])
        if not found.any():
            return track
        pose = np.zeros((len(frames), 52, 3), np.float32)
        for some in _batches(np.flatnonzero(found)):
            said = self.people(crop_people(frames[some], [box for i in some if (box := there[i]) is not None]))
            parts = (said.global_orient[:, None], said.body_pose, said.left_hand_pose, said.right_hand_pose)
            pose[some] = torch.cat(parts, 1).numpy()
        pose = between(pose, found)
        world = (Rotation.from_matrix(track.viewmats[:, :3, :3]).inv() * Rotation.from_rotvec(pose[:, 0])).as_rotvec().astype(np.float32)
        return replace(track, global_orient=world, body_pose=pose[:, 1:22], left_hand_pose=pose[:, 22:37], right_hand_pose=pose[:, 37:])

    def head(self, frames: np.ndarray, keypoints: np.ndarray, scores: np.ndarray) -> FirstHead | None:
        """Shape, expression and jaw of the faces in (T, H, W, 3) frames; zeros where none is seen in any; None without DECA, which says nothing."""
        if self.faces is None:
            return None
        faces, scores = keypoints[:, WHOLEBODY_FACE], scores[:, WHOLEBODY_FACE]
        valid = (scores > SEEN) & np.isfinite(faces).all(2)
        found, count = valid.sum(1) >= _FEWEST, len(frames)
        shape, expression, jaw = np.zeros((count, 100), np.float32), np.zeros((count, 50), np.float32), np.zeros((count, 3), np.float32)
        if not found.any():
            return FirstHead(shape.mean(0), expression, jaw, np.zeros(count, bool))
        extents = [np.concatenate([points[seen].min(0), points[seen].max(0)]) for points, seen in zip(faces[found], valid[found])]
        at = np.flatnonzero(found)
        for some in _batches(np.arange(len(at))):
            with torch.inference_mode():
                code = split_code(self.faces(crop_faces(frames[at[some]], np.array([extents[i] for i in some]))))
            shape[at[some]], expression[at[some]], jaw[at[some]] = code.shape, code.expression, code.jaw_pose
        times = np.arange(count)
        smooth = np.stack([np.interp(times, at, column) for column in expression[found].T], 1).astype(np.float32)
        return FirstHead(shape[found].mean(0), smooth, between(jaw[:, None], found)[:, 0], found)


def between(pose: np.ndarray, found: np.ndarray) -> np.ndarray:
    """(T, J, 3) axis-angle, of which those frames that are not ``found`` are turned evenly from one neighbour to the next; ends are held."""
    at = np.flatnonzero(found)
    if len(at) == len(pose):
        return pose
    if len(at) == 1:
        return np.repeat(pose[at], len(pose), 0)
    times = np.clip(np.arange(len(pose)), at[0], at[-1])
    joints = [Slerp(at, Rotation.from_rotvec(pose[at, joint]))(times).as_rotvec() for joint in range(pose.shape[1])]
    return np.stack(joints, 1).astype(np.float32)


def _batches(index: np.ndarray) -> list[np.ndarray]:
    return [index[i : i + _BATCH] for i in range(0, len(index), _BATCH)]
