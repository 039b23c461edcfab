"""People drawn at random, and the principal components of their bodies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from svad_ray.body.building.parts import Parts
from svad_ray.body.makehuman import MakeHuman, Phenotype
from svad_ray.geometry.mesh import face_areas

STATURE_SPREAD = 0.065  # metres, standard deviation within a gender (adults of one population)
# Metres that the height parameter's full lower and upper half change, measured on the base shapes: 1.22 / 1.59 / 2.31 m at 0, 0.5, 1.
_METRES_BELOW, _METRES_ABOVE = 0.73, 1.45
_LOCAL_MOST, _LOCAL_STRENGTH = 24, 0.5
_LEFT_OUT = ("-trans-", "genital", "nipple")


@dataclass(frozen=True)
class Samples:
    """People in the zero pose, made mirror symmetric: vertices (N, V, 3) float32 and joints (N, 55, 3) float64, metres."""

    vertices: np.ndarray
    joints: np.ndarray


def draw_phenotype(rng: np.random.Generator) -> Phenotype:
    """An adult: either gender or between, statures of real spread, mostly average build."""
    metres = rng.normal(0, STATURE_SPREAD)
    height = 0.5 + metres / (_METRES_BELOW if metres < 0 else _METRES_ABOVE)
    gender = float(rng.integers(2)) if rng.random() < 0.7 else rng.random()
    race = rng.dirichlet([0.6] * 3)
    return Phenotype(
        gender=gender,
        age=rng.beta(1, 2.5),
        muscle=rng.beta(3, 3),
        weight=rng.beta(2.5, 3),
        height=float(np.clip(height, 0, 1)),
        proportions=rng.beta(4, 4),
        cup=rng.beta(3, 3),
        firmness=rng.beta(3, 3),
        race=(race[0], race[1], race[2]),
    )


def _draw_local(rng: np.random.Generator, pairs: list[tuple[str, ...]]) -> dict[str, float]:
    chosen = rng.choice(len(pairs), rng.integers(0, _LOCAL_MOST + 1), replace=False)
    return {stem: strength for i in chosen for strength in [rng.uniform(0, _LOCAL_STRENGTH)] for stem in pairs[i]}


def _local_pairs(data: MakeHuman) -> list[tuple[str, ...]]:
    """Local targets, left and right ones together."""
    stems = [stem for stem in data.local_targets if not any(word in stem for word in _LEFT_OUT)]
    return [(stem, "r-" + stem[2:]) if stem.startswith("l-") else (stem,) for stem in stems if not stem.startswith("r-")]


def draw_people(parts: Parts, count: int, *, seed: int, progress: Callable[[float], None]) -> Samples:
    """People drawn with a fixed seed.

    Args:
        parts: The kept mesh.
        count: How many.
        progress: Called with the share done.
    """
    rng, pairs = np.random.default_rng(seed), _local_pairs(parts.data)
    vertices = np.empty((count, len(parts.keep), 3), np.float32)
    joints = np.empty((count, 55, 3))
    for i in range(count):
        mesh, at = parts.data.unpose(parts.data.shape(draw_phenotype(rng), _draw_local(rng, pairs)))
        vertices[i], joints[i] = parts.symmetric(mesh[parts.keep]), parts.symmetric_joints(at)
        progress((i + 1) / count)
    return Samples(vertices, joints)


def vertex_areas(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(V,) a third of the area of each vertex's triangles, square metres."""
    return np.bincount(faces.ravel(), np.repeat(face_areas(vertices, faces) / 3, 3), minlength=len(vertices))


def principal_shapes(people: np.ndarray, areas: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and principal components, each scaled to one standard deviation (betas are then about N(0, 1), as SMPL-X's).

    Args:
        people: (N, V, 3) metres.
        areas: (V,) square metres; variance is counted per skin area, so that the finely meshed face and hands do not outweigh the body.
        count: Components wanted; at most N - 1 come back.

    Returns:
        (V, 3) mean and (V, 3, count) components, float64; the sign makes the tallest vertex rise.
    """
    mean = people.mean(0, dtype=np.float64)
    offset = (people - mean).reshape(len(people), -1)
    weighted = offset * np.repeat(areas, 3)
    variance, vectors = np.linalg.eigh(weighted @ offset.T / len(people))
    order = np.argsort(-variance)[: min(count, len(people) - 1)]
    scaled = offset.T @ (vectors[:, order] / np.sqrt(len(people)))  # column k is one standard deviation along component k
    components = scaled.reshape(*mean.shape, -1)
    sign = np.sign(components[mean[:, 1].argmax(), 1])
    return mean, components * np.where(sign == 0, 1, sign)
