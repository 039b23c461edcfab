"""The recorded human model: body, mesh, networks by the rule, and poses, read from the recording alone."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from rules import avatar_rule

from svad_ray.body.flame import flame_from_arrays, with_flame_expressions
from svad_ray.body.lbs import rotation_matrices
from svad_ray.body.load import body_from_arrays, read_npz
from svad_ray.nets.exavatar.mesh import AvatarMesh, Regions, avatar_mesh, licensed_regions
from svad_ray.nets.exavatar.model import AvatarModel, Posed
from svad_ray.nets.exavatar.networks import AvatarNetworks
from svad_ray.nets.exavatar.snapshot import POSE_PARTS

HUMAN = "human_gaussian."
SHRUNK = {"mean_offset_net": 0.05, "mean_offset_offset_net": 0.02, "scale_net": 0.1, "scale_offset_net": 0.1}


@dataclass(frozen=True)
class Recorded:
    data: dict[str, np.ndarray]
    companions: dict[str, np.ndarray]
    regions: Regions
    mesh: AvatarMesh
    model: AvatarModel

    def tensor(self, name: str) -> torch.Tensor:
        return torch.tensor(self.data[name])

    def pose(self, frame: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Rotations, expression and translation of a recorded frame."""
        parts = [self.tensor(f"pose{frame}_param_after6d_{part}").reshape(-1, 3) for part in POSE_PARTS]
        return rotation_matrices(torch.cat(parts)), self.tensor(f"pose{frame}_param_after6d_expr"), self.tensor(f"pose{frame}_param_after6d_trans")

    def posed(self, frame: str) -> Posed:
        return self.model.posed(*self.pose(frame), camera=(self.tensor(f"in_cam{frame}_R"), self.tensor(f"in_cam{frame}_t")))


def read(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        pytest.skip(f"{path.name} is not among the recorded files kept here; set SVAD_GOLDEN to a folder that has it")
    with np.load(path) as file:
        return {key: file[key] for key in file.files}


def rule_networks(data: dict[str, np.ndarray]) -> AvatarNetworks:
    """Networks filled by the rule under the recorded names and shapes, all of which must be ours."""
    shapes = {key.removeprefix(HUMAN): shape for key, shape in json.loads(str(data["weight_keys_json"])).items() if key.startswith(HUMAN)}
    networks = AvatarNetworks(len(data["in_shape_param"]), triplane=shapes["triplane"][-1])
    state = {"shape_param": torch.tensor(data["in_shape_param"]), "joint_offset": torch.tensor(data["in_joint_offset"])}
    for key, shape in shapes.items():
        value = avatar_rule(HUMAN + key, shape) * np.float32(SHRUNK.get(key.split(".")[0], 1))
        state[key] = torch.from_numpy((value - 6 if key == "scale_net.0.bias" else value).astype(np.float32))
    networks.load_state_dict(state)
    return networks


def load(folder: Path) -> Recorded:
    data, companions = read(folder / "item2_human_gaussian.npz"), read(folder / "body_companions.npz")
    body = body_from_arrays(read_npz(folder / "body_smplx.npz"), vertex_ids=json.loads(str(companions["vertex_ids_json"])))
    flame = flame_from_arrays(read(folder / "body_flame.npz"))
    regions = licensed_regions(body, flame, companions)
    mesh = avatar_mesh(with_flame_expressions(body, flame, companions["face_vertex_idx"]), regions)
    model = AvatarModel(mesh, rule_networks(data), face_offset=torch.tensor(data["in_face_offset"]), original_hands=True)
    return Recorded(data, companions, regions, mesh, model)
