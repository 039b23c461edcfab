"""Body files: the open body from the cache, or any npz in SMPL-X layout."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from svad_ray.body.model import JOINTS, Body
from svad_ray.body.names import PARENTS
from svad_ray.body.pickled import read_pickle
from svad_ray.body.tables import tables_of
from svad_ray.errors import InputError, WeightsMissing

_NEEDED = (
    "v_template", "f", "shapedirs", "J_regressor", "weights", "kintree_table", "hands_meanl", "hands_meanr", "lmk_faces_idx", "lmk_bary_coords",
    "dynamic_lmk_faces_idx", "dynamic_lmk_bary_coords",
)  # fmt: skip
_OPTIONAL = (
    "posedirs", "hands_componentsl", "hands_componentsr", "vt", "ft", "vertex_names", "vertex_numbers", "region_names", "region_masks",
    "mirror", "licence", "name", "expr_units", "arkit2expr",
)  # fmt: skip
_LICENSED = "Max Planck SMPL-X model licence (non-commercial), as accepted by whoever downloaded the file"
_SHAPE_SPACE = 300  # columns of shapedirs that are betas; the expression follows


def load_body(path: str | Path | None = None, *, progress: Callable[[float, str], None] | None = None) -> Body:
    """A body; each file is read once in a process.

    Args:
        path: npz or pkl in SMPL-X layout, of the latter nothing is run; None = the open body, built into the cache on first use (below two minutes).
        progress: Called with (share done, what is being done) while the open body is built.

    Raises:
        WeightsMissing: The file is not there.
        InputError: It is no body in SMPL-X layout.
    """
    if path is None:
        from svad_ray.body.builder import ensure_open_body

        path = ensure_open_body(progress=progress)
    path = Path(path).expanduser().resolve()
    if not path.is_file():
        raise WeightsMissing(
            f"there is no body file {path}",
            expected="a file in SMPL-X layout (SMPLX_NEUTRAL.npz or .pkl), from https://smpl-x.is.tue.mpg.de under its own licence",
            remedy="leave the path out to use the open body that svad-ray builds from CC0 data",
        )
    return _load(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=4)
def _load(path: Path, _changed: int) -> Body:
    return body_from_arrays(read_body(path), name=path.stem)


def read_body(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a body file that this project uses, from the npz or the pkl that SMPL-X's site gives.

    Raises:
        InputError: The file is damaged, or keys are missing.
    """
    if path.suffix != ".pkl":
        return read_npz(path)
    data = {key: np.asarray(value) for key, value in read_pickle(path).items() if key in (*_NEEDED, *_OPTIONAL)}
    return _complete(data, path)


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a body file that this project uses; pickled ones (joint2num, part2num of licensed files) are never opened.

    Raises:
        InputError: The file is no npz, or keys are missing.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            data = {key: file[key] for key in (*_NEEDED, *_OPTIONAL) if key in file.files}
    except (ValueError, OSError, zipfile.BadZipFile, EOFError) as error:
        raise InputError(f"{path.name} cannot be read as an npz ({error})", expected="a body in SMPL-X's npz layout") from error
    return _complete(data, path)


def _complete(data: dict[str, np.ndarray], path: Path) -> dict[str, np.ndarray]:
    if missing := [key for key in _NEEDED if key not in data]:
        raise InputError(f"{path.name} lacks {', '.join(missing)}", expected="a body in SMPL-X's layout", remedy="use the SMPL-X v1.1 files")
    return data


def body_from_arrays(data: Mapping[str, np.ndarray], *, name: str = "body", vertex_ids: Mapping[str, int] | None = None) -> Body:
    """A body from the arrays of its file.

    Args:
        data: SMPL-X layout; ``vt``, ``ft``, named vertices and regions where the file has them.
        name: Used when the file names itself not.
        vertex_ids: Named vertices that replace the file's.

    Raises:
        InputError: The skeleton is not SMPL-X's, or arrays do not fit together.
    """
    parents = np.asarray(data["kintree_table"])[0].astype(np.int64)
    parents[0] = -1
    if tuple(parents.tolist()) != PARENTS:
        raise InputError(f"a skeleton of {len(parents)} joints", expected=f"SMPL-X's {JOINTS} joints (the locked-head and SMPL-H files differ)")
    _check_shapes(data)
    shapedirs = torch.tensor(np.asarray(data["shapedirs"], np.float32))
    # Files of the first release hold 10 + 10 columns, later ones 300 + 100.
    betas = _SHAPE_SPACE if shapedirs.shape[-1] > _SHAPE_SPACE else shapedirs.shape[-1] // 2
    units = tuple(str(unit) for unit in data.get("expr_units", ()))
    return Body(
        id=content_id(data),
        name=str(data.get("name", name)),
        licence=str(data.get("licence", _LICENSED)),
        v_template=_real(data["v_template"]),
        faces=np.asarray(data["f"]).astype(np.int64),
        shapedirs=_used(shapedirs[..., :betas]),
        exprdirs=_used(shapedirs[..., betas:]),
        posedirs=_real(data["posedirs"]) if "posedirs" in data and np.any(data["posedirs"]) else None,
        J_regressor=_real(data["J_regressor"]),
        lbs_weights=_real(data["weights"]),
        parents=PARENTS,
        hands_mean=torch.stack([_real(data["hands_meanl"]), _real(data["hands_meanr"])]).reshape(2, 45),
        hands_components=torch.stack([_real(data.get(f"hands_components{side}", np.eye(45))) for side in "lr"]),
        tables=tables_of(data, vertex_ids=vertex_ids),
        expression_units=units,
        unit_to_expression=np.asarray(data["arkit2expr"], np.float32) if units else None,
    )


def _check_shapes(data: Mapping[str, np.ndarray]) -> None:
    """Every array is of the same vertices and joints, and holds numbers."""
    count = len(data["v_template"])
    wanted = {"v_template": (count, 3), "J_regressor": (JOINTS, count), "weights": (count, JOINTS)}
    found = {name: np.shape(data[name]) for name in wanted} | {"shapedirs": np.shape(data["shapedirs"])[:2]}
    wrong = [f"{name} of {found[name]}" for name, shape in (wanted | {"shapedirs": (count, 3)}).items() if found[name] != shape]
    if "posedirs" in data and np.any(data["posedirs"]) and np.shape(data["posedirs"]) != (count, 3, 9 * (JOINTS - 1)):
        wrong.append(f"posedirs of {np.shape(data['posedirs'])}")
    if np.ndim(data["f"]) != 2 or np.shape(data["f"])[1] != 3 or np.max(data["f"], initial=0) >= count:
        wrong.append("faces of vertices that are not there")
    if wrong:
        raise InputError(f"a body of {count} vertices with {', '.join(wrong)}", expected="arrays of one body", remedy="download the file again")
    if broken := [name for name in (*wanted, "shapedirs") if not np.isfinite(data[name]).all()]:
        raise InputError(f"{broken[0]} holds values that are no numbers", expected="finite values", remedy="download the file again")


def content_id(data: Mapping[str, np.ndarray]) -> str:
    """Twelve hexadecimal digits of the arrays that betas and poses depend on."""
    digest = hashlib.sha256()
    for key in ("v_template", "shapedirs", "J_regressor", "weights", "hands_meanl", "hands_meanr"):
        digest.update(np.ascontiguousarray(data[key], np.float32).tobytes())
    return digest.hexdigest()[:12]


def _real(array: np.ndarray) -> torch.Tensor:
    return torch.tensor(np.asarray(array, np.float32))


def _used(directions: torch.Tensor) -> torch.Tensor:
    """Directions without the empty columns at their end (unused slots of the layout), contiguous."""
    filled = torch.nonzero(directions.abs().amax((0, 1)))
    return directions[..., : int(filled[-1]) + 1 if len(filled) else 1].contiguous()
