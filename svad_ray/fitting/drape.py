"""What hangs free below the hips of the person in the photo: a skirt or an open coat, its own surface, what moves it, and where it ends."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from svad_ray.body.model import Body
from svad_ray.fitting.coat import OpenCoat
from svad_ray.fitting.coat_shell import coat_shell
from svad_ray.fitting.loose import loose_weights, skirt_hem, skirt_shell
from svad_ray.fitting.silhouette import naked_in
from svad_ray.fitting.state import FitState


@dataclass(frozen=True)
class Drape:
    """Cloth below the hips.

    Attributes:
        offset: (V, 3) metres, from the naked rest surface to the cloth's.
        lbs_weights: (V, 55) that it moves with.
        stiff: (V,) in [0, 1], how far its shape is known already, so that thickness adds nothing to it.
        below: (V,) bool, what lies below the hem: neither thickness nor place go on from the cloth to it.
    """

    offset: np.ndarray
    lbs_weights: np.ndarray
    stiff: np.ndarray
    below: np.ndarray


def drape_of(body: Body, state: FitState, mask: np.ndarray, coat: OpenCoat | None) -> Drape | None:
    """The open coat, or the skirt that the mask (H, W) in [0, 1] shows, or None."""
    naked, posed = naked_in(body, state)
    rest = naked.numpy()
    if coat is not None:
        worn = coat_shell(body, rest, coat)
        shell, stiff, below = worn.offset, worn.known, worn.below
    else:
        end = skirt_hem(body, rest, posed, state.viewmats[0].numpy(), state.Ks[0].numpy(), mask)
        if end is None:
            return None
        shell, below = skirt_shell(body, rest, end), np.zeros(len(rest), bool)
        stiff = np.zeros(len(rest))
    shell = shell.astype(np.float32)
    return Drape(shell, loose_weights(body, rest, shell, "auto"), stiff, below)


def parted(lap: sp.csc_matrix, drape: Drape | None) -> sp.csc_matrix:
    """The mesh Laplacian (V, V) without the edges across a hem."""
    if drape is None or not drape.below.any():
        return lap
    edges = (sp.diags(lap.diagonal()) - lap).tocoo()
    kept = drape.below[edges.row] == drape.below[edges.col]
    near = sp.coo_matrix((edges.data[kept], (edges.row[kept], edges.col[kept])), lap.shape).tocsc()
    return (sp.diags(np.asarray(near.sum(1)).ravel()) - near).tocsc()
