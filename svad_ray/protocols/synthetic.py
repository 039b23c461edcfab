"""Our own people: a front photo, the avatar of it, and every asked view against the truth.

Placing, poses and the worth of such figures: ``svad_ray.evaluate.synthetic``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from svad_ray.config import Settings
from svad_ray.demo import fitted_joints, true_views
from svad_ray.evaluate.rows import Row
from svad_ray.evaluate.scoring import Choice, Protocol, Scorer
from svad_ray.evaluate.synthetic.demo import DemoPerson, demo_person
from svad_ray.evaluate.synthetic.protocol import VIEWS, evaluation_cameras, joint_error
from svad_ray.evaluate.synthetic.varied import varied
from svad_ray.geometry.raster import to_camera
from svad_ray.protocols.orders import Order, Result, worst_strips
from svad_ray.protocols.pipeline_run import Made, made_of

PLACEMENT = "the fit's pelvis on its pixel and its size in pixels; depth and focal length from the truth"
PEOPLE_KINDS = ("cast", "varied")
_NAMES = {"cast": "person", "varied": "varied"}
__all__ = ["evaluation_cameras", "measure", "orders", "view_name"]


def orders(
    out: str, settings: Settings, choice: Choice, *, people: str, seeds: Sequence[int], views: Sequence[float] | int, size: int, pitch: float = 0.0
) -> list[Order]:
    """One order a person.

    Args:
        people: "cast" (the simple ones of the demo, random ones beyond it) or "varied" (the harder ones).
        views: Degrees the person turns; a number = as many, evenly round. size: Pixels. pitch: Degrees that the camera stands above.
    """
    turns = [360.0 * k / views for k in range(views)] if isinstance(views, int) else [float(v) for v in views]
    return [
        Order(
            "synthetic",
            f"{_NAMES[people]}{seed}",
            {"people": people, "seed": int(seed), "views": turns, "size": int(size), "pitch": float(pitch)},
            out,
            settings.model_dump(mode="json"),
            asdict(choice),
        )
        for seed in seeds
    ]


def view_name(degrees: float) -> str:
    """The four views by name, others by their turn."""
    for name, turn in VIEWS.items():
        if abs((math.degrees(turn) - degrees + 180) % 360 - 180) < 1e-6:
            return name
    return f"{degrees:g}°"


def person_of(parameters: dict[str, Any]) -> DemoPerson:
    """Whom an order asks for."""
    return {"cast": demo_person, "varied": varied}[parameters["people"]](parameters["seed"])


def measure(order: Order, scorer: Scorer, tell: Callable[[str, float], None]) -> Result:
    """Make the avatar from the front photo and score its views."""
    p = order.parameters
    person = person_of(p)
    made = made_of(person.photo, order, tell)
    truths = person.truth([math.radians(v) for v in p["views"]], size=p["size"], pitch=math.radians(p["pitch"]))
    pictures = true_views(made.avatar, made.photo_track, person.view, truths)
    about = f"front photo, {person.photo.image.shape[1]} x {person.photo.image.shape[0]} px; people: {p['people']}"
    protocol = scorer.described(Protocol("synthetic", placement=PLACEMENT, photo=about, poses="as fitted to the photo, not refined"), truths[0].image)
    rows: list[Row] = []
    for degrees, (image, mask), truth in zip(p["views"], pictures, truths):
        figures = scorer(image, truth.image, protocol, mask=mask, true_mask=truth.mask)
        rows.append({"subject": order.subject, "view": view_name(degrees), **figures, **protocol.columns()})
    rows[0]["joints_mm"] = _joints(made, person)
    strips = worst_strips(rows, lambda number: (pictures[number][0], truths[number].image))
    return Result(order.subject, rows, strips, usage=made.usage, warnings=made.warnings)


def _joints(made: Made, person: DemoPerson) -> float:
    """Mean error of the fit's 22 body joints, millimetres."""
    return joint_error(fitted_joints(made.photo_track, made.body), to_camera(person.view.joints3d, person.view.viewmat)).mean_mm
