"""The avatar as a standard 3D Gaussian splatting PLY, which ordinary splat viewers open.

Attributes: ``x y z nx ny nz f_dc_0..2 [f_rest_*] opacity scale_0..2 rot_0..3``; opacity is a logit, scales are logarithms of metres,
rotations wxyz, colours spherical-harmonics constants. Splat viewers assume the y-down world of camera reconstructions, so the
person is turned half around x (x, y, z) -> (x, -y, -z) unless ``y_up`` is asked for; the header's comment says which it is.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from plyfile import PlyData, PlyElement, PlyParseError

from svad_ray.errors import InputError
from svad_ray.export.atomic import atomic_path
from svad_ray.subject import Avatar, BodyTrack

SH_C0 = 0.28209479177387814  # the constant spherical harmonic, 1 / (2 sqrt(pi))
OPACITY_RANGE = (1e-6, 1 - 1e-6)  # a logit of 0 or 1 would be infinite
SMALLEST_SCALE = 1e-9
_Y_DOWN = "world y down, z away from a viewer who faces the person, metres"
_Y_UP = "world y up, z towards a viewer who faces the person, metres"


def write_ply(avatar: Avatar, path: str | Path, *, pose: BodyTrack | None = None, frame: int = 0, y_up: bool = False, sh_degree: int = 0) -> None:
    """Write the avatar's Gaussians; the file appears whole or not at all.

    Args:
        avatar: Of kind "gaussian", or "exavatar", which is baked.
        pose: The avatar takes the pose (expression included) that this track has in ``frame``. None: the rest pose (arms out).
        y_up: Keep the body's own world instead of the viewers' y-down world.
        sh_degree: 0 writes colours only. 1 to 3 add zero ``f_rest_*`` for viewers that insist on view-dependent terms.

    Raises:
        InputError: Another kind of avatar, a frame that the track does not have, or a path that cannot be written.
    """
    if avatar.kind != "gaussian":
        from svad_ray.stages.avatar.bake import baked  # networks and body are needed by that kind alone

        avatar = baked(avatar)
    if not 0 <= sh_degree <= 3:
        raise InputError(f"sh_degree {sh_degree}", expected="0 to 3", remedy="use 0, or 3 for viewers that need f_rest_*")
    means, quats = placed(avatar, pose, frame, y_up=y_up)
    vertex = PlyElement.describe(_rows(avatar, means, quats, sh_degree), "vertex")
    comments = ["svad-ray avatar", _Y_UP if y_up else _Y_DOWN]
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        PlyData([vertex], text=False, byte_order="<", comments=comments).write(stream)


def _rows(avatar: Avatar, means: np.ndarray, quats: np.ndarray, sh_degree: int) -> np.ndarray:
    """Structured (N,) float32 rows in the order that viewers read."""
    tensors = avatar.tensors
    opacity = np.clip(tensors["opacities"].astype(np.float64), *OPACITY_RANGE)
    rest = [f"f_rest_{k}" for k in range(3 * ((sh_degree + 1) ** 2 - 1))]
    columns = {
        **dict(zip("xyz", means.T)),
        **dict.fromkeys(("nx", "ny", "nz"), 0.0),
        **{f"f_dc_{k}": (tensors["colors"][:, k].astype(np.float64) - 0.5) / SH_C0 for k in range(3)},
        **dict.fromkeys(rest, 0.0),
        "opacity": np.log(opacity / (1 - opacity)),
        **{f"scale_{k}": np.log(np.maximum(tensors["scales"][:, k].astype(np.float64), SMALLEST_SCALE)) for k in range(3)},
        **{f"rot_{k}": quats[:, k] for k in range(4)},
    }
    rows = np.empty(len(means), [(name, "<f4") for name in columns])
    for name, values in columns.items():
        rows[name] = values
    return rows


def read_ply(path: str | Path) -> dict[str, np.ndarray]:
    """Gaussians of a splat PLY, in the file's own world axes.

    Returns:
        float32 arrays: means (N, 3), quats (N, 4) wxyz unit length, scales (N, 3) metres, opacities (N,) in [0, 1], colors (N, 3) (the constant
        spherical harmonic only).

    Raises:
        InputError: Missing, damaged, or a PLY without Gaussian attributes.
    """
    try:
        rows = PlyData.read(str(path))["vertex"].data
    except (OSError, PlyParseError, KeyError, UnicodeDecodeError, ValueError) as error:
        raise InputError(
            f"{path} is no readable PLY ({error})", expected="a binary 3D Gaussian splatting PLY", remedy="check that the file is complete"
        ) from error
    needed = {*"xyz", "opacity", *(f"f_dc_{k}" for k in range(3)), *(f"scale_{k}" for k in range(3)), *(f"rot_{k}" for k in range(4))}
    missing = sorted(needed - set(rows.dtype.names or ()))
    if missing:
        raise InputError(
            f"{path} lacks {', '.join(missing)}", expected="a 3D Gaussian splatting PLY", remedy="export with svad-ray export --format ply"
        )
    quats = _stack(rows, "rot_", 4)
    return {
        "means": np.stack([rows[axis] for axis in "xyz"], 1).astype(np.float32),
        "quats": (quats / np.linalg.norm(quats, axis=1, keepdims=True)).astype(np.float32),
        "scales": np.exp(_stack(rows, "scale_", 3)).astype(np.float32),
        "opacities": (1 / (1 + np.exp(-rows["opacity"].astype(np.float64)))).astype(np.float32),
        "colors": (_stack(rows, "f_dc_", 3) * SH_C0 + 0.5).astype(np.float32),
    }


def _stack(rows: np.ndarray, prefix: str, count: int) -> np.ndarray:
    return np.stack([rows[f"{prefix}{k}"] for k in range(count)], 1).astype(np.float64)


def placed(avatar: Avatar, pose: BodyTrack | None, frame: int, *, y_up: bool) -> tuple[np.ndarray, np.ndarray]:
    """Means (N, 3) and quats (N, 4) at rest or in a frame of ``pose``, in the viewers' y-down world unless ``y_up``."""
    means, quats = (avatar.tensors["means"], avatar.tensors["quats"]) if pose is None else _posed(avatar, pose, frame)
    return (means, quats) if y_up else (means * [1.0, -1.0, -1.0], _half_turn_x(quats))


def _half_turn_x(quats: np.ndarray) -> np.ndarray:
    """wxyz quaternions followed by a half turn about x: (0, 1, 0, 0) times q."""
    w, x, y, z = quats.T
    return np.stack([-x, w, -z, y], 1)


def _posed(avatar: Avatar, pose: BodyTrack, frame: int) -> tuple[np.ndarray, np.ndarray]:
    """Means (N, 3) and quats (N, 4) of the avatar in one frame of ``pose``."""
    if not 0 <= frame < len(pose):
        raise InputError(f"frame {frame} of a track of {len(pose)}", expected=f"0 to {len(pose) - 1}", remedy="choose a frame that the track has")
    from svad_ray.stages.avatar.asset import PosableAvatar

    posed = PosableAvatar(avatar).posed(pose, frame)
    return posed.means.numpy(), posed.quats.numpy()
