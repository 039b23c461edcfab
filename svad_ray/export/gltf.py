"""The avatar as binary glTF: skinned Gaussians (KHR_gaussian_splatting) or a skinned mesh with vertex colours, with skeleton and clips.

glTF's world is the body's: y up, z forward, metres. Joints are nodes at their rest places; the inverse bind matrices lead from where the avatar's
points lie to the joints, so that a reader's linear blend skinning gives our posed points. Expressions are no part of the file.

Source: glTF 2.0 sections 3.7 and 3.11; KHR_gaussian_splatting (review draft of 2025): linear scales and opacities, xyzw rotations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

import svad_ray
from svad_ray.body.model import Body
from svad_ray.body.names import JOINT_NAMES
from svad_ray.errors import InputError
from svad_ray.export.glb import INDICES, VERTICES, Glb
from svad_ray.export.ply import SH_C0
from svad_ray.fitting.clothed import clothed_surface
from svad_ray.geometry.mesh import normals_np
from svad_ray.geometry.rotations import continuous_quats
from svad_ray.stages.avatar.bake import avatar_model, baked, body_of, gaussian_tensors
from svad_ray.subject import Avatar, BodyTrack

SPLATS = "KHR_gaussian_splatting"
UNLIT = "KHR_materials_unlit"
INFLUENCES = 4  # joints of a point in one set of JOINTS_0 and WEIGHTS_0, which every reader knows
_POINTS = 0  # mode of a primitive
_NEAREST = 4  # Gaussians that colour a vertex
_STILL = 1e-7  # radians


@dataclass(frozen=True)
class Skinned:
    """A surface bound to the skeleton.

    Attributes:
        positions: (N, 3) metres. faces: (F, 3). colors: (N, 3) display values in [0, 1]. joints, weights: (N, 4).
        tensors: The avatar's, for its skeleton.
    """

    positions: np.ndarray
    faces: np.ndarray
    colors: np.ndarray
    joints: np.ndarray
    weights: np.ndarray
    tensors: Mapping[str, np.ndarray]


def write_splats(avatar: Avatar, path: str | Path, *, clips: Mapping[str, BodyTrack] | None = None) -> None:
    """Write the avatar's Gaussians; readers without the extension show coloured points.

    Args:
        clips: Name -> motion, already on this person (``motion.retarget``).

    Raises:
        InputError: An avatar of an unknown kind or with values that are not finite, a clip of another body or with such values, or a path that
            cannot be written.
    """
    avatar = baked(avatar)
    t = avatar.tensors
    joints, weights = strongest(t["lbs_joints"], t["lbs_weights"])
    glb = _document(avatar, [SPLATS])
    opacity, colors = t["opacities"].clip(0, 1), t["colors"]
    attributes = {
        "POSITION": glb.accessor(_float(t["means"]), target=VERTICES, bounds=True),
        "COLOR_0": glb.accessor(_float(np.column_stack([linear(colors), opacity])), target=VERTICES),
        f"{SPLATS}:ROTATION": glb.accessor(_float(_unit(t["quats"])[:, [1, 2, 3, 0]]), target=VERTICES),
        f"{SPLATS}:SCALE": glb.accessor(_float(t["scales"]), target=VERTICES),
        f"{SPLATS}:OPACITY": glb.accessor(_float(opacity), target=VERTICES),
        f"{SPLATS}:SH_DEGREE_0_COEF_0": glb.accessor(_float((colors.astype(np.float64) - 0.5) / SH_C0), target=VERTICES),
        **_binding(glb, joints, weights),
        **{f"_{name.upper()}": glb.accessor(_float(t[name]), target=VERTICES) for name in ("confidence", "source") if name in t},
    }
    kernel = {"kernel": "ellipse", "colorSpace": "srgb_rec709_display"}
    primitive = {"mode": _POINTS, "attributes": attributes, "extensions": {SPLATS: kernel}}
    _finish(glb, primitive, t, clips or {}, avatar).write(path)


def write_mesh(avatar: Avatar, path: str | Path, *, body: Body | None = None, clips: Mapping[str, BodyTrack] | None = None) -> None:
    """Write the avatar's clothed surface as an ordinary skinned mesh with vertex colours.

    Args:
        body: The avatar's body; None = the open body, or the file that the avatar names.
        clips: As for :func:`write_splats`.

    Raises:
        InputError: As :func:`write_splats`; or another body, or an avatar of a version that kept no surface.
    """
    surface = surface_of(avatar, body)
    glb = _document(avatar, [UNLIT])
    colour = {"metallicFactor": 0.0, "roughnessFactor": 1.0}
    glb.document["materials"] = [{"name": "avatar", "pbrMetallicRoughness": colour, "doubleSided": True, "extensions": {UNLIT: {}}}]
    normals = _unit(normals_np(surface.positions, surface.faces), fallback=(0.0, 1.0, 0.0))
    primitive = {
        "material": 0,
        "indices": glb.accessor(surface.faces.astype(np.uint32).reshape(-1), target=INDICES),
        "attributes": {
            "POSITION": glb.accessor(_float(surface.positions), target=VERTICES, bounds=True),
            "NORMAL": glb.accessor(_float(normals), target=VERTICES),
            "COLOR_0": glb.accessor(_float(linear(surface.colors)), target=VERTICES),
            **_binding(glb, surface.joints, surface.weights),
        },
    }
    _finish(glb, primitive, surface.tensors, clips or {}, avatar).write(path)


def surface_of(avatar: Avatar, body: Body | None = None) -> Skinned:
    """The surface that a mesh file holds: of "exavatar" the Gaussians' own mesh, of "gaussian" the clothed body coloured by the nearest Gaussians."""
    if avatar.kind == "exavatar":
        model = avatar_model(avatar, body=body)
        t = gaussian_tensors(model)
        return Skinned(t["means"], model.mesh.faces, t["colors"], *strongest(t["lbs_joints"], t["lbs_weights"]), t)
    t = baked(avatar).tensors
    if "surface_offset" not in t:
        raise InputError(
            "the avatar holds no clothed surface: an older version made it",
            expected="surface_offset",
            remedy="run create again; it keeps what is done",
        )
    surface = clothed_surface(body_of(avatar, body), avatar.track.betas, t["surface_offset"], loose=avatar.facts.get("loose", "off"))
    weights = surface.lbs_weights.numpy()
    distance, index = cKDTree(t["means"]).query(surface.rest, k=min(_NEAREST, len(t["means"])))
    share = 1 / (distance.reshape(len(surface.rest), -1) ** 2 + 1e-8)
    share /= share.sum(1, keepdims=True)
    colors = np.einsum("nk,nkc->nc", share, t["colors"][index.reshape(share.shape)])
    return Skinned(surface.rest, surface.faces, colors, *strongest(np.broadcast_to(np.arange(weights.shape[1]), weights.shape), weights), t)


def strongest(joints: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Joints (N, 4) uint8 and weights (N, 4) float32 of each point's strongest joints; rows sum to one, a weight of zero names joint 0."""
    order = np.argsort(-weights, axis=1, kind="stable")[:, :INFLUENCES]
    kept = np.take_along_axis(weights, order, 1).astype(np.float64).clip(0)
    out = np.zeros((len(weights), INFLUENCES), np.float32)
    out[:, : kept.shape[1]] = kept / kept.sum(1, keepdims=True)
    index = np.zeros(out.shape, np.uint8)
    index[:, : kept.shape[1]] = np.take_along_axis(joints, order, 1)
    return np.where(out > 0, index, 0).astype(np.uint8), out


def linear(colors: np.ndarray) -> np.ndarray:
    """Display values (sRGB) to the linear ones that glTF's COLOR_0 holds; IEC 61966-2-1."""
    c = np.asarray(colors, np.float64).clip(0, 1)
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def whole_pose(tensors: Mapping[str, np.ndarray], track: BodyTrack) -> np.ndarray:
    """(T, 55, 3) axis-angle with the mean hand added, as the joints turn."""
    pose = track.full_pose.astype(np.float64)
    pose[:, 25:] += np.asarray(tensors["hands_mean"], np.float64).reshape(30, 3)
    return pose


def check_clip(name: str, track: BodyTrack, avatar: Avatar) -> None:
    """Refuse a motion that is empty, of another body, of unequal lengths, or holds values that are not finite."""
    found = ""
    if not len(track):
        found = "has no frames"
    elif len({len(track.transl), len(track.global_orient), len(track.body_pose), len(track.left_hand_pose), len(track.right_hand_pose)}) > 1:
        found = "has arrays of different lengths"
    elif not (np.isfinite(track.full_pose).all() and np.isfinite(track.transl).all() and track.fps > 0):
        found = "holds values that are not finite, or no frame rate"
    elif avatar.track.body_id and track.body_id != avatar.track.body_id:
        found = f"belongs to body '{track.body_id}', the avatar to '{avatar.track.body_id}'"
    if found:
        raise InputError(
            f"the motion '{name}' {found}", expected="finite poses of the avatar's own body, one row a frame", remedy="choose another motion"
        )


def _document(avatar: Avatar, extensions: list[str]) -> Glb:
    """A document with its provenance."""
    provenance = avatar.facts.get("provenance", {})
    asset: dict[str, Any] = {"version": "2.0", "generator": f"svad-ray {svad_ray.__version__}", "extras": {"provenance": provenance}}
    if provenance:
        allowed = "allowed" if provenance.get("commercial_use") else "not allowed"
        asset["copyright"] = (
            f"Consent of the person: {provenance.get('consent')}. Commercial use {allowed}: {provenance.get('commercial_reason')}. "
            f"Body: {provenance.get('body')}"
        )
    return Glb(asset=asset, extensionsUsed=extensions)


def _finish(glb: Glb, primitive: dict[str, Any], tensors: Mapping[str, np.ndarray], clips: Mapping[str, BodyTrack], avatar: Avatar) -> Glb:
    """Scene, skeleton and clips around one primitive; the skeleton's joints are the first nodes, in SMPL-X order."""
    rest, parents = np.asarray(tensors["rest_joints"], np.float64), [int(p) for p in tensors["parents"]]
    nodes = _joint_nodes(rest, parents)
    bind = np.tile(np.eye(4), (len(rest), 1, 1))
    bind[:, :3, 3] = -rest
    if "unpose" in tensors:
        bind = bind @ np.asarray(tensors["unpose"], np.float64)
        bind[:, 3] = [0.0, 0.0, 0.0, 1.0]  # exactly, as readers check
    skin = {"name": "skeleton", "joints": list(range(len(rest))), "skeleton": 0, "inverseBindMatrices": glb.accessor(_float(bind))}
    animations = [_animation(glb, name, track, tensors, avatar) for name, track in clips.items()]
    glb.document |= {
        "scene": 0,
        "scenes": [{"nodes": [0, len(nodes)]}],
        "nodes": [*nodes, {"name": "avatar", "mesh": 0, "skin": 0}],
        "meshes": [{"name": "avatar", "primitives": [primitive]}],
        "skins": [skin],
        **({"animations": animations} if animations else {}),
    }
    return glb


def _joint_nodes(rest: np.ndarray, parents: list[int]) -> list[dict[str, Any]]:
    nodes: list[dict[str, Any]] = []
    for joint, parent in enumerate(parents):
        nodes.append({"name": JOINT_NAMES[joint], "translation": (rest[joint] - (rest[parent] if parent >= 0 else 0)).tolist()})
        if parent >= 0:
            nodes[parent].setdefault("children", []).append(joint)
    return nodes


def _animation(glb: Glb, name: str, track: BodyTrack, tensors: Mapping[str, np.ndarray], avatar: Avatar) -> dict[str, Any]:
    """A clip: the root's path, and the rotation of every joint that turns at all."""
    check_clip(name, track, avatar)
    pose = whole_pose(tensors, track)
    times = glb.accessor((np.arange(len(track)) / track.fps).astype(np.float32), bounds=True)
    path = np.asarray(tensors["rest_joints"][0], np.float64) + track.transl
    moved = [("translation", 0, _float(path))]
    quats = continuous_quats(pose)
    moved += [("rotation", joint, _float(quats[:, joint])) for joint in np.flatnonzero(np.abs(pose).max((0, 2)) > _STILL).tolist()]
    return {
        "name": name,
        "samplers": [{"input": times, "output": glb.accessor(values), "interpolation": "LINEAR"} for _, _, values in moved],
        "channels": [{"sampler": k, "target": {"node": node, "path": what}} for k, (what, node, _) in enumerate(moved)],
    }


def _binding(glb: Glb, joints: np.ndarray, weights: np.ndarray) -> dict[str, int]:
    return {"JOINTS_0": glb.accessor(joints, target=VERTICES), "WEIGHTS_0": glb.accessor(_float(weights), target=VERTICES)}


def _unit(rows: np.ndarray, *, fallback: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0)) -> np.ndarray:
    """Rows of length one; a row of zeros becomes ``fallback``."""
    rows = np.asarray(rows, np.float64)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.where(length > 1e-12, rows / np.maximum(length, 1e-12), fallback)


def _float(values: np.ndarray) -> np.ndarray:
    if not np.isfinite(values).all():
        raise InputError("the avatar holds values that are not finite", expected="finite numbers", remedy="make the avatar again")
    return np.asarray(values, np.float32)
