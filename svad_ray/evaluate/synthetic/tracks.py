"""People whose motion is known, seen as the noisy key points of a clip: what a fit is measured with.

Noise is drawn anew for every point and frame, points are missing at random, faces are not seen from behind; key points lie where the body model has
them. Detectors are wrong in ways that last (a knee two centimetres beside the joint, sides swapped), which is not in here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from svad_ray.body.model import Body
from svad_ray.body.names import WHOLEBODY_TO_OUTPUT
from svad_ray.conventions import WHOLEBODY_FACE
from svad_ray.fitting.state import BODY_JOINTS, project_points
from svad_ray.motion import arms, retarget, turn, walk
from svad_ray.motion.labels import posed
from svad_ray.subject import BodyTrack

FINGERS, EYES_AND_NOSE = slice(25, 55), slice(0, 3)
MISSING, SCORE = 0.1, 0.9
_SHAPES, _SHAPE_SPREAD, _FINGER_SPREAD = 8, 0.7, 0.1
_BEHIND = -0.2  # cosine between the person's front and the camera below which the face is hidden
_SLOW = 12  # frames over which a drift lasts


class SeenClip(NamedTuple):
    """Key points (T, 133, 2) pixels and scores (T, 133) as a detector would give them, and the key points (T, 133, 2) as they are."""

    keypoints: np.ndarray
    scores: np.ndarray
    clean: np.ndarray


def turning_person(body: Body, seed: int, frames: int, *, size: int = 512) -> BodyTrack:
    """A person of some shape who turns once round while walking (odd seeds) or moving the arms (even ones)."""
    rng = np.random.default_rng(seed)
    moves = (walk() if seed % 2 else arms()).full_pose
    there_and_back = np.concatenate([np.arange(len(moves)), np.arange(len(moves) - 2, 0, -1)])
    pose = moves[there_and_back[np.arange(frames) % len(there_and_back)]].copy()
    pose[:, 0] = np.outer(np.linspace(0, 2 * np.pi, frames), [0, 1, 0])
    pose[:, FINGERS] = rng.normal(0, _FINGER_SPREAD, (1, 30, 3))
    betas = np.zeros(body.shapedirs.shape[-1], np.float32)
    betas[:_SHAPES] = rng.normal(0, _SHAPE_SPREAD, _SHAPES)
    motion = turn(frames).with_full_pose(pose.astype(np.float32))
    return retarget(motion, person=replace(motion.frames(slice(0, 1)), betas=betas), body=body, size=size)


def true_keypoints(body: Body, track: BodyTrack) -> np.ndarray:
    """(T, 133, 2) pixels, COCO-WholeBody order."""
    points = posed(body, track).joints[:, list(WHOLEBODY_TO_OUTPUT)]
    return project_points(points, torch.tensor(track.Ks), torch.tensor(track.viewmats)).numpy()


def seen_clip(body: Body, track: BodyTrack, *, seed: int = 0, noise_px: float = 1.5, missing: float = MISSING) -> SeenClip:
    """What a detector makes of a clip."""
    rng = np.random.default_rng(seed)
    clean = true_keypoints(body, track)
    scores = np.where(rng.random(clean.shape[:2]) < missing, 0.0, SCORE)
    front = Rotation.from_rotvec(track.global_orient).as_matrix()[:, :, 2]
    camera = -np.einsum("tji,tj->ti", track.viewmats[:, :3, :3], track.viewmats[:, :3, 3]) - track.transl
    towards = (front * camera).sum(1) / np.linalg.norm(camera, axis=1)
    for part in (WHOLEBODY_FACE, EYES_AND_NOSE):
        scores[towards < _BEHIND, part] = 0
    return SeenClip(clean + rng.normal(0, noise_px, clean.shape), scores, clean)


def drifted(track: BodyTrack, *, seed: int = 0, degrees: float = 5.0, jitter: float = 3.0, metres: float = 0.03) -> BodyTrack:
    """A first guess of a track: every body joint turned away by ``degrees`` (root mean square, most of it for the whole clip) and by ``jitter``
    anew in each frame, everybody moved, fingers straight, the shape unknown."""
    rng = np.random.default_rng(seed + 100)
    frames = len(track)
    slow = gaussian_filter1d(rng.normal(0, 1, (frames, BODY_JOINTS, 3)), _SLOW, axis=0, mode="nearest")
    slow *= 0.5 / (slow.std() + 1e-9)
    always = 0.87 * rng.normal(0, 1, (1, BODY_JOINTS, 3))
    off = np.radians(degrees) * (slow + always) + np.radians(jitter) * rng.normal(0, 1, (frames, BODY_JOINTS, 3))
    pose = track.full_pose.copy()
    there = Rotation.from_rotvec(pose[:, :BODY_JOINTS].reshape(-1, 3)) * Rotation.from_rotvec(off.reshape(-1, 3) / np.sqrt(3))
    pose[:, :BODY_JOINTS] = there.as_rotvec().reshape(frames, BODY_JOINTS, 3)
    pose[:, FINGERS] = 0
    moved = track.transl + rng.normal(0, metres, (1, 3)) + rng.normal(0, metres / 3, track.transl.shape)
    return replace(track.with_full_pose(pose.astype(np.float32)), transl=moved.astype(np.float32), betas=np.zeros_like(track.betas))


def joint_error_mm(body: Body, found: BodyTrack, truth: BodyTrack) -> float:
    """Mean distance of the 22 body joints over all frames, pelvis on pelvis and with one scale for the clip, millimetres."""
    a, b = (joints[:, :BODY_JOINTS] - joints[:, :1] for joints in (posed(body, track).joints.double() for track in (found, truth)))
    scale = (a * b).sum() / (a * a).sum()
    return float((scale * a - b).norm(dim=-1).mean() * 1000)


def reprojection_px(body: Body, found: BodyTrack, clean: np.ndarray) -> float:
    """Mean distance of the 133 key points from where they are, pixels."""
    return float(np.linalg.norm(true_keypoints(body, found) - clean, axis=-1).mean())


def largest_turn_deg(found: BodyTrack, truth: BodyTrack) -> float:
    """The most that a body joint is turned away from the truth; a flipped limb is near half a turn."""
    a, b = (Rotation.from_rotvec(track.full_pose[:, :BODY_JOINTS].reshape(-1, 3)) for track in (found, truth))
    return float(np.degrees((a * b.inv()).magnitude().max()))
