"""Tables that tie SMPL-X to FLAME: which vertices are the head, and which vertex mirrors which."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from svad_ray.body.flame import Flame
from svad_ray.body.model import Body
from svad_ray.errors import InputError, WeightsMissing

HEAD_FILE, MIRROR_FILE = "SMPL-X__FLAME_vertex_ids.npy", "smplx_flip_correspondences.npz"
EARS = (160, 1167)  # FLAME's vertices at the left and right ear


@dataclass(frozen=True)
class Companions:
    """What the fit knows of a body beside its file.

    Attributes:
        head: (F,) SMPL-X vertex of each of FLAME's vertices.
        mirror: (V, 3) vertices of the triangle that mirrors each vertex, and ``mirror_bary`` (V, 3) where on it.
        ears: FLAME's vertices at the left and the right ear.
    """

    head: np.ndarray
    mirror: np.ndarray
    mirror_bary: np.ndarray
    ears: tuple[int, int] = EARS

    def checked(self, body: Body, flame: Flame) -> Companions:
        """These tables, if they belong to both bodies.

        Raises:
            InputError: They name vertices that a body does not have.
        """
        vertices, of_head = len(body.v_template), len(flame.v_template)
        if len(self.head) != of_head or self.head.max() >= vertices:
            raise InputError(
                f"{HEAD_FILE} names {len(self.head)} vertices up to {int(self.head.max())}",
                expected=f"one for each of FLAME's {of_head}, below {vertices}",
                remedy="use the SMPL-X v1.1 and FLAME 2020 files together",
            )
        if len(self.mirror) != vertices or self.mirror.max() >= vertices or max(self.ears) >= of_head:
            raise InputError(f"{MIRROR_FILE} has {len(self.mirror)} rows", expected=f"one for each of the body's {vertices} vertices")
        return self


def load_companions(folder: str | Path) -> Companions:
    """The tables from the user's folder, under their original names.

    Raises:
        WeightsMissing: A file is not there. InputError: It is damaged.
    """
    folder = Path(folder).expanduser()
    for name in (HEAD_FILE, MIRROR_FILE):
        if not (folder / name).is_file():
            raise WeightsMissing(
                f"there is no {folder / name}", expected=f"{name} from the SMPL-X site's downloads", remedy="put it beside the bodies"
            )
    try:
        head = np.load(folder / HEAD_FILE, allow_pickle=False).astype(np.int64)
        with np.load(folder / MIRROR_FILE, allow_pickle=False) as file:
            mirror, bary = file["closest_faces"].astype(np.int64), file["bc"].astype(np.float32)
    except (ValueError, OSError, EOFError, KeyError) as error:
        raise InputError(f"the tables in {folder} cannot be read ({error})", remedy="download them again") from error
    return Companions(head, mirror, bary)
