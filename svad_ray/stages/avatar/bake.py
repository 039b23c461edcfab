"""An ExAvatar as ordinary Gaussians: what no pose changes is evaluated once, so that posing is skinning alone (the original's animation does the
same sums every frame)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from svad_ray.body import load_body
from svad_ray.body.model import Body
from svad_ray.body.tables import SMPLX_VERTEX_COUNT
from svad_ray.errors import InputError
from svad_ray.nets.exavatar.mesh import SMPLX_LIPS, AvatarMesh, Regions, avatar_mesh, open_regions
from svad_ray.nets.exavatar.model import AvatarModel
from svad_ray.nets.exavatar.snapshot import networks_from
from svad_ray.subject import Avatar

LEARNED = "learned."
OPAQUE = 1 - 1e-6  # a logit of one is infinite
_SMALL = 1e-5  # skinning weights below it move nothing that one could see


def regions_of(body: Body) -> Regions:
    """Regions of any body, with the mouth's cavity on SMPL-X itself."""
    regions = open_regions(body)
    if len(body.v_template) != SMPLX_VERTEX_COUNT:
        return regions
    everything = np.ones(SMPLX_VERTEX_COUNT, bool)
    return Regions(regions.right_hand, regions.left_hand, regions.face, regions.face_expression, SMPLX_LIPS, everything)


def body_of(avatar: Avatar, body: Body | None = None) -> Body:
    """The avatar's own body: ``body`` if it is that one; None = the file that the avatar names, or the open body. Raises as :func:`avatar_model`."""
    body = load_body(avatar.facts.get("body") or None) if body is None else body
    if body.id != avatar.track.body_id:
        raise InputError(
            f"body {body.name!r} has the id {body.id}",
            expected=f"body {avatar.track.body_id}, on which the avatar was made",
            remedy="set avatar.body",
        )
    return body


def avatar_model(avatar: Avatar, *, body: Body | None = None) -> AvatarModel:
    """The model of a stored avatar of kind "exavatar".

    Args:
        body: Its body; None = the file that the avatar names, or the open body.

    Raises:
        InputError: The body is another one, or tensors are missing or damaged. WeightsMissing: The body's file is not there.
    """
    body = body_of(avatar, body)
    learned = {key.removeprefix(LEARNED): torch.from_numpy(np.array(v)) for key, v in avatar.tensors.items() if key.startswith(LEARNED)}
    networks = networks_from(learned, name="the avatar").requires_grad_(False)
    offset = total_offset(avatar.tensors.get("surface_offset"), avatar.tensors.get("inset"))
    mesh = avatar_mesh(body, regions_of(body), levels=int(avatar.facts["levels"]))
    face = None if avatar.track.face_offset is None else torch.tensor(avatar.track.face_offset, dtype=torch.float32)
    return AvatarModel(mesh, networks, face_offset=face, surface_offset=offset)


def total_offset(worn: Any, inset: Any) -> torch.Tensor | None:
    """(V, 3) metres: clothing and hair less the depth at which Gaussians lie below the surface; None where there is neither."""
    parts = [torch.as_tensor(np.asarray(x, np.float32)) for x in (worn, inset) if x is not None]
    return sum(parts[1:], parts[0]) if parts else None


def baked(avatar: Avatar, *, body: Body | None = None) -> Avatar:
    """The same avatar of kind "gaussian"; one of that kind is returned as it is."""
    if avatar.kind == "gaussian":
        return avatar
    if avatar.kind != "exavatar":
        raise InputError(f"an avatar of kind '{avatar.kind}'", expected="gaussian or exavatar", remedy="use the version of svad-ray that made it")
    kept = {name: avatar.tensors[name] for name in ("confidence", "source") if name in avatar.tensors}
    tensors = gaussian_tensors(avatar_model(avatar, body=body)) | kept
    return Avatar("gaussian", tensors, avatar.track, {**avatar.facts, "baked_from": "exavatar"})


@torch.no_grad()
def gaussian_tensors(model: AvatarModel) -> dict[str, np.ndarray]:
    """The static Gaussians in the neutral star pose, with ``unpose`` (55, 4, 4) that leads from there to the joints' rest pose."""
    static, canonical, mesh = model.static(), model.canonical(), model.mesh
    means = canonical.mesh + static.mean
    weights, index = _bound(mesh, model.nearest(means, canonical))
    count = len(means)
    tensors = {
        "means": means,
        "quats": torch.tensor([1.0, 0, 0, 0]).expand(count, 4),
        "scales": static.log_scale.exp().expand(-1, 3),
        "opacities": torch.full((count,), OPAQUE),
        "colors": (torch.tanh(static.rgb) + 1) / 2,
        "lbs_joints": index.to(torch.uint8),
        "lbs_weights": weights,
        "rest_joints": canonical.rest_joints,
        "unpose": canonical.unpose,
        "hands_mean": torch.zeros(2, 45) if model.original_hands else mesh.body.hands_mean,
        "parents": torch.tensor(mesh.body.parents, dtype=torch.int32),
        "expr_index": mesh.expr_rows.to(torch.int32),
        "expr_dirs": mesh.exprdirs,
    }
    return {name: np.ascontiguousarray(value.numpy()) for name, value in tensors.items()}


def _bound(mesh: AvatarMesh, nearest: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, K) weights and joints, K as many as the busiest Gaussian has."""
    weights = mesh.lbs_weights[nearest]
    value, index = weights.topk(int((weights > _SMALL).sum(1).max()), dim=1)
    return value / value.sum(1, keepdim=True), index
