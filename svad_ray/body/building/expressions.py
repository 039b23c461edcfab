"""The expression space: principal components of the face units that no joint drives."""

from __future__ import annotations

import numpy as np

from svad_ray.body.building.parts import Parts

_BY_JOINTS = ("eyeLook", "jaw", "tongue")
TYPICAL_STRENGTH = 0.3  # standard deviation of a unit's strength in talk: it sets the scale of one coefficient


def face_units(parts: Parts) -> tuple[tuple[str, ...], np.ndarray]:
    """Names of the kept units, and (U, V, 3) metres, each unit's displacement at full strength (the head is upright in both poses)."""
    names = tuple(name for name in parts.data.face_units if not name.startswith(_BY_JOINTS))
    return names, np.stack([parts.data.face_unit(name)[parts.keep] for name in names])


def expression_space(units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Orthogonal expression directions, and how each unit is made of them.

    Args:
        units: (U, V, 3) metres.

    Returns:
        (V, 3, U) directions, each one standard deviation of :data:`TYPICAL_STRENGTH` units; (U, U) coefficients of unit u at full strength (rows).
    """
    flat = units.reshape(len(units), -1).astype(np.float64)
    variance, vectors = np.linalg.eigh(flat @ flat.T)
    order = np.argsort(-variance)
    vectors = vectors[:, order]
    vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(0), np.arange(len(units))])
    directions = (flat.T @ vectors) * TYPICAL_STRENGTH
    return directions.reshape(*units.shape[1:], -1), vectors / TYPICAL_STRENGTH
