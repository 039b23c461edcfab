"""Triangle surfaces that garments are cut from: split along a smooth line, clip, drape, measure cloth coordinates, fold a hem."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import splu

from svad_ray.geometry.mesh import laplacian, subdivide

SNAP = 0.02  # a cut nearer than this share of an edge to its end is moved inwards, so that no sliver has zero area


@dataclass(frozen=True)
class Surface:
    """A mesh whose every per-vertex quantity survives cutting.

    Attributes:
        vertices: (V, 3) metres, rest pose.
        faces: (F, 3) vertex numbers.
        attributes: Named (V, k) or (V,) arrays, interpolated linearly along cut edges.
        labels: (F,) int, carried by the parts of a cut face.
    """

    vertices: np.ndarray
    faces: np.ndarray
    attributes: dict[str, np.ndarray]
    labels: np.ndarray

    @classmethod
    def of(cls, vertices: np.ndarray, faces: np.ndarray, **attributes: np.ndarray) -> Surface:
        """A surface of the given faces alone: vertices that no face uses are dropped."""
        return cls(vertices, faces, attributes, np.zeros(len(faces), np.int64)).keep(np.ones(len(faces), bool))

    def keep(self, which: np.ndarray) -> Surface:
        """The faces ``which`` (F,) bool, renumbered."""
        used, inverse = np.unique(self.faces[which], return_inverse=True)
        attributes = {name: value[used] for name, value in self.attributes.items()}
        return Surface(self.vertices[used], inverse.reshape(-1, 3), attributes, self.labels[which])

    def refined(self, times: int) -> Surface:
        """Midpoint subdivision, ``times`` over."""
        out = self
        for _ in range(times):
            matrix, faces = subdivide(out.faces, len(out.vertices))
            attributes = {name: matrix @ value for name, value in out.attributes.items()}
            out = Surface(matrix @ out.vertices, faces, attributes, np.repeat(out.labels, 1)[_parents(len(out.faces))])
        return out

    def moved(self, vertices: np.ndarray) -> Surface:
        """The same mesh with other positions."""
        return replace(self, vertices=vertices)


def _parents(count: int) -> np.ndarray:
    """Which face each of the 4 * count faces of ``geometry.mesh.subdivide`` came from."""
    return np.tile(np.arange(count), 4)


def split(surface: Surface, field: np.ndarray) -> tuple[Surface, np.ndarray]:
    """Cut the faces along the zero line of a field (marching triangles); nothing is thrown away.

    Args:
        field: (V,) any smooth scalar; its zero line becomes a chain of edges.

    Returns:
        The cut surface and (F',) bool, the faces on the positive side. Vertices on the line are shared by both sides.
    """
    positive = field > 0
    inside = positive[surface.faces]
    mixed = inside.any(1) & ~inside.all(1)
    lone = np.argmax(inside[mixed] == (inside[mixed].sum(1) == 1)[:, None], axis=1)  # the corner that stands alone
    corner = np.take_along_axis(surface.faces[mixed], (lone[:, None] + np.arange(3)) % 3, axis=1)
    pairs = np.concatenate([corner[:, [0, 1]], corner[:, [0, 2]]])
    edges, index = np.unique(np.sort(pairs, axis=1), axis=0, return_inverse=True)
    ab, ac = index.reshape(2, -1) + len(field)
    a, b, c = corner.T
    cut = np.concatenate([np.stack(t, 1) for t in ((a, ab, ac), (ab, b, c), (ab, c, ac))])
    tip = positive[a]
    labels = surface.labels[mixed]
    faces = np.concatenate([surface.faces[~mixed], cut])
    side = np.concatenate([inside[~mixed].all(1), tip, ~tip, ~tip])
    weight = field[edges[:, 0]] / (field[edges[:, 0]] - field[edges[:, 1]] + 1e-30)
    grown = _Grow(edges, np.clip(weight, SNAP, 1 - SNAP))
    attributes = {name: grown(value) for name, value in surface.attributes.items()}
    return Surface(grown(surface.vertices), faces, attributes, np.concatenate([surface.labels[~mixed], labels, labels, labels])), side


@dataclass(frozen=True)
class _Grow:
    """Appends a value per cut edge: the blend of its two ends."""

    edges: np.ndarray
    weight: np.ndarray

    def __call__(self, value: np.ndarray) -> np.ndarray:
        w = self.weight.reshape(-1, *[1] * (value.ndim - 1))
        return np.concatenate([value, (1 - w) * value[self.edges[:, 0]] + w * value[self.edges[:, 1]]])


def clip(surface: Surface, field: np.ndarray) -> Surface:
    """The part of a surface where ``field`` (V,) is positive, with a smooth border."""
    cut, side = split(surface, field)
    return cut.keep(side)


def smoother(faces: np.ndarray, count: int, strength: float):
    """A function x -> (I + strength L)^-1 x on per-vertex values; ``strength`` is about (width / edge length) squared."""
    factor = splu((sp.eye(count) + strength * laplacian(faces, count)).tocsc())
    return factor.solve


def drape(surface: Surface, normals: np.ndarray, ease: np.ndarray, *, strength: float, least: float, rounds: int = 2) -> np.ndarray:
    """Positions of a cloth that hangs off a body: a height above the surface that bridges hollows and never dips below ``least``.

    Args:
        surface: The body's side; its vertices are where the height is zero.
        normals: (V, 3) unit.
        ease: (V,) metres the cloth stands off by itself.
        strength: Of the smoothing (see :func:`smoother`).
        least: Smallest height, metres.
    """
    solve = smoother(surface.faces, len(surface.vertices), strength)
    height = np.maximum(ease, least)
    for _ in range(rounds):
        smooth = solve(surface.vertices + normals * height[:, None])
        rise = ((smooth - surface.vertices) * normals).sum(1)
        height = np.maximum(np.minimum(rise, height + 0.03), np.maximum(least, 0.6 * ease))
    return surface.vertices + normals * solve_light(surface, height)[:, None]


def solve_light(surface: Surface, height: np.ndarray) -> np.ndarray:
    """Take the kinks out of a height field that was clamped."""
    return smoother(surface.faces, len(surface.vertices), 3.0)(height)


def flow_coordinate(vertices: np.ndarray, faces: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """A coordinate in metres that runs along ``direction`` on the surface at unit speed (least squares; a Poisson equation).

    Args:
        direction: (F, 3), any length; its tangential part counts.

    Returns:
        (V,) metres, zero mean.
    """
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    normal = np.cross(b - a, c - a)
    double = np.linalg.norm(normal, axis=1, keepdims=True) + 1e-15
    normal = normal / double
    goal = direction - (direction * normal).sum(1, keepdims=True) * normal
    goal /= np.linalg.norm(goal, axis=1, keepdims=True) + 1e-9
    hats = np.stack([np.cross(normal, e) / double for e in (c - b, a - c, b - a)], axis=1)  # (F, 3 corners, 3) hat gradients
    area = double[:, 0] / 2
    stiff = np.einsum("fik,fjk,f->fij", hats, hats, area)
    rows, cols = np.repeat(faces, 3, axis=1).ravel(), np.tile(faces, (1, 3)).ravel()
    matrix = sp.coo_matrix((stiff.ravel(), (rows, cols)), (len(vertices),) * 2).tocsc()
    right = np.zeros(len(vertices))
    np.add.at(right, faces.ravel(), np.einsum("fik,fk,f->fi", hats, goal, area).ravel())
    u = splu(matrix + 1e-9 * sp.eye(len(vertices)).tocsc()).solve(right)
    return u - u.mean()


def face_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(F, 3) unit normals."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    n = np.cross(b - a, c - a)
    return n / (np.linalg.norm(n, axis=1, keepdims=True) + 1e-15)


def border_edges(faces: np.ndarray) -> np.ndarray:
    """(E, 2) directed edges that belong to one face only."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    _, inverse, count = np.unique(np.sort(edges, axis=1), axis=0, return_inverse=True, return_counts=True)
    return edges[count[inverse] == 1]


def smooth_border(vertices: np.ndarray, faces: np.ndarray, *, rounds: int) -> np.ndarray:
    """Positions whose border runs smoothly: every border vertex moves half way to the middle of its two neighbours, ``rounds`` over."""
    a, b = border_edges(faces).T
    count = np.bincount(np.concatenate([a, b]), minlength=len(vertices))
    on = count > 0
    out = vertices.copy()
    for _ in range(rounds):
        total = np.zeros_like(out)
        np.add.at(total, a, out[b])
        np.add.at(total, b, out[a])
        out[on] += 0.5 * (total[on] / count[on, None] - out[on])
    return out


def fold_hem(surface: Surface, normals: np.ndarray, depth: float) -> Surface:
    """A strip that turns every border inwards by ``depth`` metres, so that cloth seems to have a thickness and no gap shows under it."""
    edges = border_edges(surface.faces)
    rim, index = np.unique(edges, return_inverse=True)
    i, j = index.reshape(-1, 2).T + len(surface.vertices)
    a, b = edges.T
    faces = np.concatenate([surface.faces, np.stack([b, a, i], 1), np.stack([b, i, j], 1)])
    vertices = np.concatenate([surface.vertices, surface.vertices[rim] - normals[rim] * depth])
    attributes = {name: np.concatenate([value, value[rim]]) for name, value in surface.attributes.items()}
    owner = _border_owner(surface.faces, edges)
    return Surface(vertices, faces, attributes, np.concatenate([surface.labels, surface.labels[owner], surface.labels[owner]]))


def _border_owner(faces: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The face that each directed border edge belongs to."""
    all_edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    base = int(faces.max()) + 1
    keys, wanted = all_edges[:, 0] * base + all_edges[:, 1], edges[:, 0] * base + edges[:, 1]
    order = np.argsort(keys)
    return order[np.searchsorted(keys[order], wanted)] % len(faces)
