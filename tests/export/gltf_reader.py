"""A small reader of binary glTF, by the specification alone: arrays, and points moved by skin and animation in float64."""

import json
import struct
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

KINDS = {5126: "<f4", 5121: "u1", 5123: "<u2", 5125: "<u4"}
WIDTHS = {"SCALAR": (), "VEC3": (3,), "VEC4": (4,), "MAT4": (4, 4)}


class Gltf:
    def __init__(self, path: Path) -> None:
        data = path.read_bytes()
        magic, version, length = struct.unpack_from("<4sII", data)
        assert (magic, version, length) == (b"glTF", 2, len(data))
        size, kind = struct.unpack_from("<I4s", data, 12)
        assert kind == b"JSON" and size % 4 == 0
        self.json = json.loads(data[20 : 20 + size])
        rest, kind = struct.unpack_from("<I4s", data, 20 + size)
        assert kind == b"BIN\0" and 28 + size + rest == len(data)
        self.buffer = data[28 + size :]
        (self.primitive,) = self.json["meshes"][0]["primitives"]

    def array(self, number: int) -> np.ndarray:
        entry = self.json["accessors"][number]
        view = self.json["bufferViews"][entry["bufferView"]]
        shape = (entry["count"], *WIDTHS[entry["type"]])
        values = np.frombuffer(self.buffer, KINDS[entry["componentType"]], int(np.prod(shape)), view["byteOffset"]).reshape(shape)
        return values.transpose(0, 2, 1) if len(shape) == 3 else values  # matrices are stored by columns

    def attribute(self, name: str) -> np.ndarray:
        return self.array(self.primitive["attributes"][name])

    def posed(self, clip: str | None = None, time: float = 0.0) -> np.ndarray:
        """(N, 3) points at a moment of a clip, or with every node as the file has it."""
        nodes = self.json["nodes"]
        place = [np.array(node.get("translation", [0, 0, 0]), float) for node in nodes]
        turn = [np.eye(3)] * len(nodes)
        for animation in self.json.get("animations", []):
            if animation["name"] == clip:
                self._play(animation, time, place, turn)
        world = [np.eye(4)] * len(nodes)

        def walk(number: int, above: np.ndarray) -> None:
            own = np.eye(4)
            own[:3, :3], own[:3, 3] = turn[number], place[number]
            world[number] = above @ own
            for child in nodes[number].get("children", []):
                walk(child, world[number])

        for root in self.json["scenes"][self.json["scene"]]["nodes"]:
            walk(root, np.eye(4))
        skin = self.json["skins"][nodes[-1]["skin"]]
        bind = self.array(skin["inverseBindMatrices"]).astype(float)
        moves = np.stack([world[joint] @ bind[k] for k, joint in enumerate(skin["joints"])])
        blended = np.einsum("nk,nkij->nij", self.attribute("WEIGHTS_0").astype(float), moves[self.attribute("JOINTS_0")])
        points = np.column_stack([self.attribute("POSITION").astype(float), np.ones(len(blended))])
        return np.einsum("nij,nj->ni", blended, points)[:, :3]

    def _play(self, animation: dict, time: float, place: list, turn: list) -> None:
        for channel in animation["channels"]:
            sampler, target = animation["samplers"][channel["sampler"]], channel["target"]
            times, values = self.array(sampler["input"]).astype(float), self.array(sampler["output"]).astype(float)
            if target["path"] == "translation":
                place[target["node"]] = np.array([np.interp(time, times, column) for column in values.T])
            elif len(times) == 1:
                turn[target["node"]] = Rotation.from_quat(values[0]).as_matrix()
            else:
                turn[target["node"]] = Slerp(times, Rotation.from_quat(values))(np.clip(time, times[0], times[-1])).as_matrix()
