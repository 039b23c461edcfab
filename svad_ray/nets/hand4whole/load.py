"""Hand4Whole's published checkpoint."""

from __future__ import annotations

from pathlib import Path

import torch

from svad_ray.nets.checkpoint import fill, read_state
from svad_ray.nets.hand4whole.network import Hand4Whole
from svad_ray.nets.initialiser_files import missing

FILE, SOURCE = "snapshot_6.pth.tar", "the Hand4Whole project"
LICENCE = "code MIT; weights trained on non-commercial data"
_BODY = "smplx_layer."


def load_hand4whole(folder: str | Path) -> Hand4Whole:
    """The networks of the published file in ``folder``, every tensor by name and shape.

    The file also holds a copy of the SMPL-X layer and the optimiser's state, which are not read: the body comes from the user's own file.

    Raises:
        WeightsMissing: It is not there. InputError: It is damaged, partial, or another network.
    """
    path = Path(folder) / FILE
    state = read_state(path, missing=lambda: missing(path, SOURCE, LICENCE), inside=("network",), beside=True)
    plain = {key.removeprefix("module."): value for key, value in state.items()}
    with torch.device("meta"):
        net = Hand4Whole()
    networks = {key: value for key, value in plain.items() if not key.startswith(_BODY)}
    return fill(net, networks, path, what="Hand4Whole of whole bodies").eval().requires_grad_(False)
