"""What the page is given: the avatar's Gaussians and surface bound to the skeleton, the clips, the sliders, and where the avatar comes from.

Arrays travel as safetensors, which a browser reads in a few lines; everything else as one JSON document.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

import svad_ray
from svad_ray.body.model import Body
from svad_ray.body.names import JOINT_NAMES
from svad_ray.body.person import check_person, rest_surface
from svad_ray.deliver import danced
from svad_ray.export.gltf import check_clip, whole_pose
from svad_ray.geometry.rotations import continuous_quats
from svad_ray.motion import MOTIONS, retarget
from svad_ray.motion.builtin import arms_out_pose, blank_track
from svad_ray.stages.avatar.asset import PosableAvatar
from svad_ray.subject import Avatar, BodyTrack
from svad_ray.viewer.controls import groups

INFLUENCES = 8  # joints that move one point on the page; the open body's Gaussians have 6
STAND, FIRST = "stand", "walk"  # the still clip, and the one that plays when none is asked for
_A_POSE_DEG = 62.0  # arms below horizontal: as people stand


class Scene:
    """An avatar, the clips that it can play, and its surface; clips are put on the person when first asked for.

    Args:
        avatar: Of kind "gaussian", or "exavatar", which is baked.
        body: The avatar's own.
        motions: Names or files besides the built-in ones; the first one plays at first.
        name: Shown as the page's title.

    Raises:
        InputError: Another body, arrays that do not fit together, or a motion that cannot be read.
    """

    def __init__(self, avatar: Avatar, body: Body, *, motions: Sequence[str] = (), name: str = "avatar") -> None:
        check_person(body, avatar.track)
        self.avatar, self.body, self.name = avatar, body, name
        self.posable = PosableAvatar(avatar)
        self._tracks: dict[str, BodyTrack] = {STAND: self._standing()}
        files = {Path(motion).stem if motion not in MOTIONS else motion: motion for motion in motions}
        for label, motion in files.items():
            self._tracks[label] = danced(avatar, motion, body)
        self._first = next(iter(files), FIRST)
        self.clips = tuple(dict.fromkeys((STAND, *files, *MOTIONS)))

    def document(self) -> dict[str, Any]:
        """Everything but arrays, JSON values only."""
        provenance = self.avatar.facts.get("provenance", {})
        t = self.posable.avatar.tensors
        return {
            "version": svad_ray.__version__,
            "name": self.name,
            "gaussians": self.posable.count,
            "clips": list(self.clips),
            "first": self._first,
            "joints": list(JOINT_NAMES),
            "parents": self.posable.parents,
            "expressions": int(t["expr_dirs"].shape[2]) if len(t.get("expr_index", ())) else 0,
            "groups": {label: [slider.as_json() for slider in sliders] for label, sliders in self._groups().items()},
            "regions": self._legend(),
            "provenance": {key: provenance[key] for key in ("consent", "commercial_use", "commercial_reason", "body") if key in provenance},
        }

    def arrays(self) -> bytes:
        """The avatar as safetensors: points of the Gaussians and of the surface, skeleton, and what no pose changes."""
        p, t = self.posable, self.posable.avatar.tensors
        joints, weights = _bound(t["lbs_joints"], t["lbs_weights"])
        arrays = {
            "means": t["means"],
            "quats": t["quats"],
            "scales": t["scales"],
            "rgba": np.rint(np.column_stack([t["colors"], t["opacities"]]).clip(0, 1) * 255).astype(np.uint8),
            "joints": joints,
            "weights": weights,
            "rest_joints": p.rest_joints.numpy(),
            "unpose": np.tile(np.eye(3, 4), (len(JOINT_NAMES), 1, 1)) if p.unpose is None else p.unpose.numpy()[:, :3],
            **_expressive(t.get("expr_index", np.zeros(0)), t.get("expr_dirs", np.zeros((0, 3, 0))), ""),
            **self._surface(),
        }
        if (regions := self._regions()) is not None:
            arrays["regions"] = np.rint(regions.clip(0, 1) * 255).astype(np.uint8)
        return save({name: np.ascontiguousarray(_plain(value)) for name, value in arrays.items()})

    def clip(self, name: str) -> bytes:
        """A clip as safetensors: quats (T, 55, 4) xyzw with the mean hand included, transl (T, 3), expression (T, E), fps (1,).

        Raises:
            InputError: A motion with values that are not finite. KeyError: No such clip.
        """
        if name not in self.clips:
            raise KeyError(name)
        if name not in self._tracks:
            self._tracks[name] = danced(self.avatar, name, self.body)
        track = self._tracks[name]
        check_clip(name, track, self.avatar)
        pose = continuous_quats(whole_pose(self.posable.avatar.tensors, track))
        arrays = {"quats": pose, "transl": track.transl, "expression": track.expression, "fps": np.array([track.fps])}
        return save({key: np.ascontiguousarray(value, np.float32) for key, value in arrays.items()})

    def _standing(self) -> BodyTrack:
        pose = arms_out_pose(_A_POSE_DEG)[None]
        return retarget(blank_track(pose, fps=1.0), person=self.avatar.track, body=self.body)

    def _groups(self) -> dict[str, Any]:
        return groups(self.body, self.avatar.track.expression.shape[1])

    def _surface(self) -> dict[str, np.ndarray]:
        """The clothed body without teeth and tongue, not subdivided: what a wireframe shows clearly."""
        worn = self.avatar.tensors.get("surface_offset", self.avatar.track.vertex_offset)
        rest = rest_surface(self.body, replace(self.avatar.track, vertex_offset=worn)).numpy()
        inner = self.body.tables.regions["inner_mouth"]
        faces = self.body.faces[~inner[self.body.faces].any(1)]
        edges = np.unique(np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), 1), axis=0)
        weights = self.body.lbs_weights.numpy()
        joints, weights = _bound(np.broadcast_to(np.arange(weights.shape[1]), weights.shape), weights)
        moves = self.body.exprdirs[..., : self.avatar.track.expression.shape[1]].numpy()
        moved = np.flatnonzero(np.abs(moves).max((1, 2)) > 1e-5)
        bound = {"surface.points": rest, "surface.joints": joints, "surface.weights": weights}
        return {
            **bound,
            "surface.faces": faces.astype(np.uint32),
            "surface.edges": edges.astype(np.uint32),
            **_expressive(moved, moves[moved], "surface."),
        }

    def _regions(self) -> np.ndarray | None:
        """(N, 3) colours in [0, 1] that tell what the photos showed; None where the avatar does not know."""
        if not {"confidence", "source"} <= self.posable.avatar.tensors.keys():
            return None
        from svad_ray.stages.avatar.confidence import region_colors  # avatars with the arrays come from a version that has it

        return region_colors(self.posable.avatar)

    def _legend(self) -> dict[str, Any] | None:
        """What the regions' colours mean, and the share of the surface that was seen; None where the avatar does not know."""
        if self._regions() is None:
            return None
        from svad_ray.stages.avatar.confidence import PALETTE

        recorded = self.avatar.facts.get("confidence", {})
        photos = recorded.get("photos", ["the photo"])
        colors = [PALETTE[0], *(PALETTE[1:][k % (len(PALETTE) - 1)] for k in range(len(photos)))]
        names = ["generated", *(f"seen in {name}" for name in photos)]
        return {"seen": recorded.get("seen"), "colors": [{"name": name, "rgb": list(color)} for name, color in zip(names, colors)]}


def _bound(joints: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Joints (N, 8) uint8 and weights (N, 8) float32, the strongest ones first; rows sum to one."""
    order = np.argsort(-weights, axis=1, kind="stable")[:, :INFLUENCES]
    kept = np.take_along_axis(weights, order, 1).clip(0)
    index, out = np.zeros((len(weights), INFLUENCES), np.uint8), np.zeros((len(weights), INFLUENCES), np.float32)
    out[:, : kept.shape[1]] = kept / kept.sum(1, keepdims=True)
    index[:, : kept.shape[1]] = np.take_along_axis(joints, order, 1)
    return index, out


def _expressive(index: np.ndarray, directions: np.ndarray, prefix: str) -> dict[str, np.ndarray]:
    return {f"{prefix}expr_index": index.astype(np.uint32), f"{prefix}expr_dirs": directions}


def _plain(values: np.ndarray) -> np.ndarray:
    """float32, or the whole numbers as they are."""
    return values if values.dtype in (np.uint8, np.uint32) else values.astype(np.float32)
