"""What the fitted body says of a frame: where the 133 points are, which of them are seen, and how deep every pixel is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from svad_ray.body.model import Body, BodyOutput
from svad_ray.body.names import JOINT_NAMES, WHOLEBODY_TO_OUTPUT
from svad_ray.fitting.clothed import PARTS, parts_of
from svad_ray.geometry.raster import NEAR, project, rasterize_mesh, to_camera
from svad_ray.subject import OFFSETS, BodyTrack

SEEN, HIDDEN, OUTSIDE = 2, 1, 0
SCORES = np.array([0.0, 0.5, 1.0], np.float32)  # of OUTSIDE, HIDDEN, SEEN
SURFACE_SLACK = 0.02  # metres that a point of the surface may lie behind what its pixel shows
FACE_SLACK = 0.005  # metres, of a triangle's centre
JOINT_SLACK = 0.01  # metres, added to how deep a joint lies in its limb
_OWN_WEIGHT, _SLAB, _SLAB_LIMITS = 0.2, 0.25, (0.01, 0.03)
_MM, _MM_LIMIT = 1000.0, 65535.0


@dataclass(frozen=True)
class FrameLabels:
    """Labels of T frames.

    Attributes:
        keypoints: (T, 133, 2) float32 pixels. visible: (T, 133) uint8: ``SEEN``, ``HIDDEN`` or ``OUTSIDE``.
        depth_mm: (T, H, W) uint16 millimetres, 0 where no body is.
        part_seen: (T, 10) float32, of ``fitting.clothed.PARTS``: which share of the part's surface the camera sees, at most about a half.
    """

    keypoints: np.ndarray
    visible: np.ndarray
    depth_mm: np.ndarray
    part_seen: np.ndarray

    @property
    def scores(self) -> np.ndarray:
        """(T, 133) float32: 1 seen, 0.5 hidden, 0 outside."""
        return SCORES[self.visible]


class Labeller:
    """Labels frames of one track.

    Args:
        body: The track's body.
        track: All frames.
    """

    def __init__(self, body: Body, track: BodyTrack) -> None:
        self.body, self.track = body, track
        inner = body.tables.regions["inner_mouth"]
        self.faces = np.ascontiguousarray(body.faces[~inner[body.faces].any(1)], np.int32)
        corners = parts_of(body.lbs_weights.numpy())[self.faces]
        self.part = np.where(corners[:, 1] == corners[:, 2], corners[:, 1], corners[:, 0])
        reach = joint_reach(body, posed(body, track.frames(slice(0, 1))))
        numbers = np.array(WHOLEBODY_TO_OUTPUT)
        joint = numbers < len(JOINT_NAMES)
        self.slack = np.where(joint, reach[np.minimum(numbers, len(JOINT_NAMES) - 1)] + JOINT_SLACK, SURFACE_SLACK)

    def __call__(self, index: slice | np.ndarray) -> FrameLabels:
        """Labels of some frames of the track."""
        track = self.track.frames(index)
        output = posed(self.body, track)
        vertices, points = output.vertices.numpy(), output.joints.numpy()[:, list(WHOLEBODY_TO_OUTPUT)]
        height, width = track.image_size
        keypoints = np.empty((len(track), len(WHOLEBODY_TO_OUTPUT), 2), np.float32)
        visible, depth = np.empty(keypoints.shape[:2], np.uint8), np.empty((len(track), height, width), np.uint16)
        part_seen = np.empty((len(track), len(PARTS)), np.float32)
        for t in range(len(track)):
            K, viewmat = track.Ks[t], track.viewmats[t]
            surface = to_camera(vertices[t], viewmat)
            drawn = rasterize_mesh(surface, self.faces, K, height, width, threads=1).depth
            part_seen[t] = seen_shares(surface[self.faces], self.part, K, drawn)
            here = to_camera(points[t], viewmat)
            with np.errstate(divide="ignore", invalid="ignore"):
                keypoints[t] = np.nan_to_num(project(here, K), nan=0.0, posinf=0.0, neginf=0.0)
            visible[t] = visibility(keypoints[t], here[:, 2], drawn, self.slack)
            depth[t] = np.where(np.isfinite(drawn), np.clip(np.rint(drawn * _MM), 1, _MM_LIMIT), 0)
        return FrameLabels(keypoints, visible, depth, part_seen)


def seen_shares(triangles: np.ndarray, part: np.ndarray, K: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """(10,) share of each part's area that is seen: turned to the camera, inside the picture, and before everything else there.

    Args:
        triangles: (F, 3, 3) metres, camera axes, outer side counter-clockwise. part: (F,) of ``fitting.clothed.PARTS``. depth: (H, W) metres.
    """
    centre = triangles.mean(1)
    across = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    area = np.linalg.norm(across, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        pixels = np.nan_to_num(project(centre, K), nan=-1.0, posinf=-1.0, neginf=-1.0)
    here = visibility(pixels, centre[:, 2], depth, np.full(len(centre), FACE_SLACK)) == SEEN
    seen = here & ((across * centre).sum(1) < 0)
    whole = np.bincount(part, area, len(PARTS))
    return (np.bincount(part, area * seen, len(PARTS)) / np.maximum(whole, 1e-12)).astype(np.float32)


def posed(body: Body, track: BodyTrack) -> BodyOutput:
    """The body in every frame, clothing offset included."""
    frames = ("expression", "global_orient", "body_pose", "left_hand_pose", "right_hand_pose", "jaw_pose", "leye_pose", "reye_pose", "transl")
    given = {name: getattr(track, name) for name in (*frames, *OFFSETS)}
    values: dict[str, Any] = {
        name: None if value is None else torch.as_tensor(np.ascontiguousarray(value, np.float32)) for name, value in given.items()
    }
    betas = torch.as_tensor(np.ascontiguousarray(track.betas, np.float32)).expand(len(track), -1)
    with torch.no_grad():
        return body.forward(betas=betas, **values)


def joint_reach(body: Body, output: BodyOutput) -> np.ndarray:
    """How deep each joint lies in its limb: the largest distance from the joint to the surface round it.

    Returns:
        (55,) metres, in the rest pose: over the vertices that the joint moves, in a slab across the bone through the joint.

    Source: ours. A joint is called seen when the surface before it is that of its own limb; a hip seen from the other side is not.
    """
    rest, joints, weights = output.rest_vertices[0].numpy(), output.rest_joints[0].numpy(), body.lbs_weights.numpy()
    reach = np.zeros(len(JOINT_NAMES), np.float32)
    for j, parent in enumerate(body.parents):
        children = [c for c, p in enumerate(body.parents) if p == j]
        bone = joints[children].mean(0) - joints[j] if children else joints[j] - joints[max(parent, 0)]
        length = float(np.linalg.norm(bone))
        off = rest[weights[:, j] > _OWN_WEIGHT] - joints[j]
        along = off @ (bone / max(length, 1e-6))
        ring = off[np.abs(along) < np.clip(_SLAB * length, *_SLAB_LIMITS)]
        reach[j] = np.linalg.norm(ring, axis=1).max(initial=0.0)
    return reach


def visibility(keypoints: np.ndarray, z: np.ndarray, depth: np.ndarray, slack: np.ndarray) -> np.ndarray:
    """Which points are seen.

    Args:
        keypoints: (N, 2) pixels. z: (N,) metres along the camera's axis.
        depth: (H, W) metres of the body's surface, inf where none is.
        slack: (N,) metres that a point may lie behind the surface before it.

    Returns:
        (N,) uint8. A point is compared with the farthest surface in its pixel and the eight around it, so that points on the outline count as seen.
    """
    height, width = depth.shape
    column, row = np.floor(keypoints[:, 0]).astype(np.int64), np.floor(keypoints[:, 1]).astype(np.int64)
    inside = (z > NEAR) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    around = np.pad(depth, 1, mode="edge")
    column, row = np.where(inside, column, 0), np.where(inside, row, 0)
    surface = np.max([around[row + dy, column + dx] for dy in range(3) for dx in range(3)], axis=0)
    return np.where(inside, np.where(z <= surface + slack, SEEN, HIDDEN), OUTSIDE).astype(np.uint8)
