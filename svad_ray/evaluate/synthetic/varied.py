"""Harder people: coats and flared dresses that hang free, voluminous hair, a lamp that stands in the world, poses of their own.

They are made so that scores do not flatter: none of this can be said by offsets of the fitted body's surface, and the photo's shading is wrong for
every other view. The cast and ``random_person`` stay as they are.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from svad_ray.evaluate.synthetic.demo import DemoPerson, photographed
from svad_ray.evaluate.synthetic.fabrics import Solid, Trimmed
from svad_ray.evaluate.synthetic.people import Bottom, Person, Top, random_person
from svad_ray.evaluate.synthetic.poses import A_POSE, WALK, Pose
from svad_ray.evaluate.synthetic.render import Light

FIRST_SEED = 10_000  # of ``random_person``: apart from those that others draw
KINDS = ("coat", "dress", "hair")


def varied_person(seed: int) -> Person:
    """Person number ``seed`` of the harder ones: by turns in a coat, in a flared dress, and with voluminous hair."""
    rng = np.random.default_rng([FIRST_SEED, seed])
    kind = KINDS[seed % len(KINDS)]
    base = random_person(FIRST_SEED + seed)
    hair = replace(base.hair, volume=float(rng.uniform(1.2, 1.8)))
    changes: dict[str, Any] = {"name": f"{kind} {seed}", "hair": hair}
    if kind == "coat":
        changes |= _coat(base, rng)
    elif kind == "dress":
        changes |= _dress(base, rng)
    else:
        changes["hair"] = replace(base.hair, kind="short", volume=float(rng.uniform(2.5, 4.0)))
    return replace(base, **changes)


def varied_light(seed: int) -> Light:
    """A lamp somewhere before and beside the person, warm or cold, that does not follow the camera."""
    rng = np.random.default_rng([FIRST_SEED, seed, 1])
    side, warm = float(rng.uniform(-1, 1)), float(rng.uniform(-0.12, 0.12))
    color = (1 + warm, 1.0, 1 - warm)
    return Light((side, float(rng.uniform(0.3, 0.9)), float(rng.uniform(0.4, 1.0))), float(rng.uniform(0.45, 0.6)), 0.45, color)


def varied_pose(seed: int) -> Pose:
    """Between the A-pose and a step, with the head and the arms a little their own way."""
    rng = np.random.default_rng([FIRST_SEED, seed, 2])
    share = float(rng.uniform(0, 0.8))
    names = sorted(A_POSE.keys() | WALK.keys())
    pose = {n: (1 - share) * np.array(A_POSE.get(n, (0, 0, 0))) + share * np.array(WALK.get(n, (0, 0, 0))) for n in names}
    for name, spread in (
        ("head", 0.12),
        ("spine2", 0.05),
        ("left_shoulder", 0.08),
        ("right_shoulder", 0.08),
        ("left_elbow", 0.1),
        ("right_elbow", 0.1),
    ):
        pose[name] = pose.get(name, np.zeros(3)) + rng.normal(0, spread, 3)
    return {name: (float(x), float(y), float(z)) for name, (x, y, z) in pose.items()}


def varied(seed: int) -> DemoPerson:
    """The photo of harder person number ``seed`` with its truth."""
    return photographed(varied_person(seed), f"varied{seed}", pose=varied_pose(seed), light=varied_light(seed))


def _coat(base: Person, rng: np.random.Generator) -> dict[str, Any]:
    shade = float(rng.uniform(0.12, 0.5))
    color = (shade * float(rng.uniform(0.8, 1.2)), shade, shade * float(rng.uniform(0.7, 1.3)))
    cloth = Trimmed(Solid(color), (shade * 0.6,) * 3, 0.02)
    outer = Top(cloth, sleeve=0.97, hem=-0.05, ease=0.024, open_front=0.075, collar=True, neckline=0.088)
    tail = Bottom(cloth, "skirt", float(rng.uniform(0.55, 0.85)), 0.06, flare=float(rng.uniform(0.03, 0.07)), folds=float(rng.uniform(0.005, 0.015)))
    return {
        "outer": outer,
        "coat": tail,
        "bottom": base.bottom if base.bottom.kind == "trousers" else Bottom(Solid((0.2, 0.2, 0.24))),
        "tucked": False,
    }


def _dress(base: Person, rng: np.random.Generator) -> dict[str, Any]:
    cloth = base.top.cloth
    skirt = Bottom(cloth, "skirt", float(rng.uniform(0.55, 0.85)), 0.125, flare=float(rng.uniform(0.06, 0.16)), folds=float(rng.uniform(0.01, 0.03)))
    return {"top": replace(base.top, hem=0.09, ease=0.008), "bottom": skirt, "tucked": True}
