"""Builds the open body: MakeHuman's CC0 data to one npz in SMPL-X layout, once, into the cache.

The file loads with this project's loader and with ``smplx.create(..., model_type="smplx", ext="npz")``; it holds no pickled object.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from svad_ray.body.building.expressions import expression_space, face_units
from svad_ray.body.building.face import find_face_points
from svad_ray.body.building.joints import fit_regressor
from svad_ray.body.building.parts import Parts
from svad_ray.body.building.shapes import draw_people, principal_shapes, vertex_areas
from svad_ray.body.makehuman import LICENCE, MakeHuman
from svad_ray.body.names import JOINT_NAMES, PARENTS
from svad_ray.body.tables import tables_of

BUILDER_VERSION = 7  # raise with any change of what the file holds: it is part of the cache's key
OPEN_BODY = "svad-open-body"
_SHAPE_SLOTS, _EXPRESSION_SLOTS = 300, 100  # the layout's columns
_NO_PARENT = 2**32 - 1  # how SMPL-X files write the root's parent

Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class BuildConfig:
    """How the body is built.

    Attributes:
        people: Sampled bodies that span the shape space.
        betas: Components kept.
        seed: Of the sampling.
    """

    people: int = 400
    betas: int = 100
    seed: int = 0


def ensure_open_body(*, progress: Progress | None = None) -> Path:
    """The open body's file in the cache (SVAD_CACHE or the user's cache folder), built when it is not there.

    Raises:
        WeightsMissing: MakeHuman's data is neither in the cache nor obtainable.
    """
    from svad_ray.models import ensure
    from svad_ray.models.cache import cache_root
    from svad_ray.models.catalogue import lookup

    data = lookup("makehuman")
    path = cache_root() / "bodies" / f"{OPEN_BODY}-{BUILDER_VERSION}-{data.version}.npz"
    if not path.is_file():
        arrays = build_open_body(MakeHuman.load(ensure("makehuman")), progress=progress)
        _write_whole(path, arrays)
    return path


def build_open_body(data: MakeHuman, config: BuildConfig | None = None, *, progress: Progress | None = None) -> dict[str, np.ndarray]:
    """All arrays of the open body's file.

    Args:
        data: MakeHuman's data.
        config: Sample count, betas, seed.
        progress: Called with (share done, what is being done).

    Returns:
        SMPL-X's keys, and vt, ft, vertex_names, vertex_numbers, region_names, region_masks, mirror, expr_units, arkit2expr, name, licence.
    """
    config, tell = config or BuildConfig(), progress or (lambda share, what: None)
    parts = Parts.of(data)
    people = draw_people(parts, config.people, seed=config.seed, progress=lambda share: tell(0.7 * share, "sampling people"))
    tell(0.7, "shape space")
    areas = vertex_areas(people.vertices.mean(0), parts.faces)
    template, shapes = principal_shapes(people.vertices, areas, config.betas)
    names, units = face_units(parts)
    directions, coefficients = expression_space(units)
    tell(0.75, "joints")
    regions = parts.regions()
    skin = parts.in_groups("body") & ~regions["inner_mouth"]
    regressor = fit_regressor(people.vertices, people.joints, skin, parts.mirror, still=units)
    tell(0.85, "face points")
    face = find_face_points(parts, template, regressor @ template, dict(zip(names, units)))
    arrays = _layout(parts, template, shapes, directions, regressor)
    arrays |= {"lmk_faces_idx": face.faces, "lmk_bary_coords": face.bary.astype(np.float32)}
    arrays |= {"dynamic_lmk_faces_idx": face.contour_faces, "dynamic_lmk_bary_coords": face.contour_bary.astype(np.float32)}
    arrays |= {"expr_units": np.array(names), "arkit2expr": coefficients.astype(np.float32)}
    arrays |= {"name": np.array(OPEN_BODY), "licence": np.array(LICENCE)}
    tell(0.97, "tables")
    return arrays | _tables(arrays, regions)


def _layout(parts: Parts, template: np.ndarray, shapes: np.ndarray, directions: np.ndarray, regressor: np.ndarray) -> dict[str, np.ndarray]:
    """SMPL-X's own keys; no pose correctives (zero), hands flat at rest, hand components plain joint angles."""
    count = len(parts.keep)
    shapedirs = np.zeros((count, 3, _SHAPE_SLOTS + _EXPRESSION_SLOTS), np.float32)
    shapedirs[..., : shapes.shape[-1]] = shapes
    shapedirs[..., _SHAPE_SLOTS : _SHAPE_SLOTS + directions.shape[-1]] = directions
    parents = [_NO_PARENT if p < 0 else p for p in PARENTS]
    hands = {f"hands_mean{side}": np.zeros(45, np.float32) for side in "lr"} | {
        f"hands_components{side}": np.eye(45, dtype=np.float32) for side in "lr"
    }
    return {
        "v_template": template.astype(np.float32),
        "f": parts.faces.astype(np.uint32),
        "shapedirs": shapedirs,
        "posedirs": np.zeros((count, 3, 9 * (len(JOINT_NAMES) - 1)), np.float32),
        "J_regressor": regressor.astype(np.float32),
        "weights": parts.lbs_weights.astype(np.float32),
        "kintree_table": np.array([parents, range(len(JOINT_NAMES))], np.uint32),
        "vt": parts.uv.astype(np.float32),
        "ft": parts.uv_faces.astype(np.uint32),
        "mirror": parts.mirror.astype(np.int64),
        **hands,
    }


def _tables(arrays: dict[str, np.ndarray], regions: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Named vertices and region masks as plain arrays: the mesh's own masks first, the others derived from them."""
    # The painted face leaves lids, eye sockets and nostrils out: the geometric one fills them in.
    painted = {name: mask for name, mask in regions.items() if name != "face"}
    filled = tables_of(arrays | _masks(painted)).regions["face"] & ~painted["inner_mouth"] & ~painted["eyes"]
    height = arrays["v_template"][:, 1]
    filled &= height >= height[regions["face"]].min()  # the throat is no face
    tables = tables_of(arrays | _masks(painted | {"face": regions["face"] | filled}))
    vertices = {"vertex_names": np.array(list(tables.vertex)), "vertex_numbers": np.array(list(tables.vertex.values()), np.int64)}
    return vertices | _masks(tables.regions)


def _masks(regions: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {"region_names": np.array(list(regions)), "region_masks": np.stack(list(regions.values()))}


def _write_whole(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write the npz next to its place and rename it, so that no reader meets half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.stem}-{os.getpid()}.part")
    try:
        with part.open("wb") as stream:
            np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
