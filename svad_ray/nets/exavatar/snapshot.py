"""Snapshots of the original (``snapshot_4.pth``: epoch, network, optimizer), and the learned part alone, which is all that must be kept.

Of a snapshot's gigabyte only the triplanes, networks, shape, joint offsets and poses are learned; the rest follows from the body and is neither
read nor, by default, written.
"""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from svad_ray.errors import InputError, WeightsMissing
from svad_ray.nets.exavatar.mesh import FLAGS, AvatarMesh
from svad_ray.nets.exavatar.networks import AvatarNetworks

FORMAT = 1
HUMAN, POSE = "human_gaussian.", "smplx_param_dict.smplx_params."
DERIVED = ("pos_enc_mesh", "skinning_weight", "pose_dirs", "expr_dirs", *FLAGS)
POSE_PARTS = {"root_pose": (0, 1), "body_pose": (1, 22), "jaw_pose": (22, 23), "leye_pose": (23, 24), "reye_pose": (24, 25), "lhand_pose": (25, 40),
              "rhand_pose": (40, 55)}  # fmt: skip


@dataclass(frozen=True)
class FramePose:
    """A trained pose: rotations (55, 6) in 6D, expression (E,), transl (3,)."""

    rotations: torch.Tensor
    expression: torch.Tensor
    transl: torch.Tensor


@dataclass(frozen=True)
class Snapshot:
    """What a snapshot teaches: the networks, and the poses by frame number."""

    epoch: int
    networks: AvatarNetworks
    poses: dict[int, FramePose]


def read_snapshot(path: str | Path) -> Snapshot:
    """The learned part of an original snapshot; its size is read from its tensors.

    Raises:
        WeightsMissing: No such file. InputError: It is damaged, or no snapshot of ExAvatar.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise WeightsMissing(f"there is no snapshot {path}", expected="snapshot_4.pth, as ExAvatar's training writes it")
    try:
        data = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, EOFError, OSError, ValueError, pickle.UnpicklingError) as error:
        raise _damaged(path, error) from error
    if not isinstance(data, dict) or not isinstance(data.get("network"), dict):
        raise InputError(f"{path.name} is no snapshot of ExAvatar", expected="epoch, network and optimizer", remedy="choose a snapshot_*.pth")
    network = {key.removeprefix("module."): value for key, value in data["network"].items()}
    human = {key.removeprefix(HUMAN): value for key, value in network.items() if key.startswith(HUMAN)}
    return Snapshot(int(data.get("epoch", 0)), networks_from(human, name=path.name), _poses(network, path.name))


def networks_from(state: Mapping[str, torch.Tensor], *, name: str) -> AvatarNetworks:
    """Networks from their tensors, strictly by name and shape; tensors that follow from the body are passed over.

    Raises:
        InputError: Tensors are missing, unknown, of another shape or not finite.
    """
    known = {key: value for key, value in state.items() if key not in DERIVED and not key.startswith("smplx_layer.")}
    if missing := [key for key in ("shape_param", "triplane") if key not in known]:
        raise InputError(f"{name} lacks {', '.join(missing)}", expected="a human model of ExAvatar")
    networks = AvatarNetworks(len(known["shape_param"]), triplane=known["triplane"].shape[-1])
    wanted = networks.state_dict()
    wrong = sorted(set(wanted) ^ set(known)) or [key for key, value in wanted.items() if known[key].shape != value.shape]
    if wrong:
        raise InputError(f"{name}: {', '.join(wrong[:5])} is missing, unknown or of another shape", expected="the tensors of ExAvatar's human model")
    if bad := [key for key, value in known.items() if not torch.isfinite(value).all()]:
        raise InputError(f"{name}: {', '.join(bad[:5])} holds values that are no numbers", remedy="use an earlier snapshot")
    networks.load_state_dict({key: value.float() for key, value in known.items()})
    return networks


def _poses(network: Mapping[str, torch.Tensor], name: str) -> dict[int, FramePose]:
    frames = sorted({int(key.removeprefix(POSE).split(".")[0]) for key in network if key.startswith(POSE)})
    try:
        return {frame: _pose(network, frame) for frame in frames}
    except (KeyError, RuntimeError) as error:
        raise InputError(f"{name}: the pose of a frame is incomplete ({error})", expected=", ".join((*POSE_PARTS, "expr", "trans"))) from error


def _pose(network: Mapping[str, torch.Tensor], frame: int) -> FramePose:
    parts = [network[f"{POSE}{frame}.{part}"].reshape(stop - start, 6) for part, (start, stop) in POSE_PARTS.items()]
    return FramePose(torch.cat(parts), network[f"{POSE}{frame}.expr"], network[f"{POSE}{frame}.trans"])


def write_snapshot(
    path: str | Path,
    networks: AvatarNetworks,
    poses: Mapping[int, FramePose],
    *,
    mesh: AvatarMesh | None = None,
    positions: torch.Tensor | None = None,
    epoch: int = 4,
) -> None:
    """A file in the original's layout.

    Args:
        mesh, positions: Write the derived tensors too (a gigabyte at full size), which the original's own loader wants.
    """
    network = {HUMAN + key: value.detach().clone() for key, value in networks.state_dict().items()}
    if mesh is not None and positions is not None:
        network |= {HUMAN + key: value for key, value in derived(mesh, positions).items()}
    for frame, pose in poses.items():
        for part, (start, stop) in POSE_PARTS.items():
            rows = pose.rotations[start:stop].detach().clone()
            network[f"{POSE}{frame}.{part}"] = rows[0] if stop - start == 1 else rows
        network |= {f"{POSE}{frame}.expr": pose.expression.detach().clone(), f"{POSE}{frame}.trans": pose.transl.detach().clone()}
    torch.save({"epoch": epoch, "network": network, "optimizer": {}}, path)


def derived(mesh: AvatarMesh, positions: torch.Tensor) -> dict[str, torch.Tensor]:
    """The tensors of a snapshot that follow from the body, with the original's names and shapes."""
    body = mesh.body
    directions = mesh.up(body.exprdirs.flatten(1)).reshape(len(mesh), 3, -1)
    correctives = torch.zeros(486, 3 * len(mesh))
    if body.posedirs is not None:
        correctives = mesh.up(body.posedirs.flatten(1)).reshape(len(mesh) * 3, 486).T.contiguous()
    arrays = (positions, mesh.lbs_weights, correctives, directions, *(mesh.flags[name] for name in FLAGS))
    return dict(zip(DERIVED, arrays))


def save_learned(path: str | Path, networks: AvatarNetworks, *, facts: Mapping[str, Any] | None = None) -> None:
    """The learned part as safetensors (13.5 MB at full size), with ``facts`` (JSON values) in its header."""
    header = {"format": str(FORMAT), "facts": json.dumps(dict(facts or {}))}
    save_file({key: value.detach().contiguous() for key, value in networks.state_dict().items()}, path, metadata=header)


def load_learned(path: str | Path) -> tuple[AvatarNetworks, dict[str, Any]]:
    """Networks and facts from ``save_learned``'s file.

    Raises:
        WeightsMissing: No such file. InputError: It is damaged, of a newer version or another model's.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise WeightsMissing(f"there is no avatar file {path}", expected="the learned part of an ExAvatar as safetensors")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in list(file.keys())}
    except (SafetensorError, OSError, ValueError, struct.error) as error:
        raise _damaged(path, error) from error
    if header.get("format") != str(FORMAT):
        raise InputError(
            f"{path.name} has format {header.get('format')}", expected=f"format {FORMAT}", remedy="use the version of svad-ray that wrote it"
        )
    return networks_from(tensors, name=path.name), json.loads(header["facts"])


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(
        f"{path.name} cannot be read ({path.stat().st_size} bytes): {str(error).splitlines()[0] if str(error) else type(error).__name__}",
        expected="a whole file",
        remedy="copy it again and compare its size",
    )
