"""Scans of real people: the front view is the photo, and four views are scored.

SVAD's own list of 100 scans, its resolution, cameras and networks are unpublished: ours is drawn by a seed and stands in the manifest.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from svad_ray.config import Settings
from svad_ray.demo import true_views
from svad_ray.evaluate.rows import Row
from svad_ray.evaluate.scans import drawn_names, read_scan, render_scan, scan_names
from svad_ray.evaluate.scoring import Choice, Protocol, Scorer
from svad_ray.evaluate.synthetic.protocol import VIEWS
from svad_ray.protocols.orders import Order, Result, worst_strips
from svad_ray.protocols.pipeline_run import made_of
from svad_ray.store import digest
from svad_ray.subject import Photo

PHOTO_SIZE = 1024
NOTES = (
    "Scans are scaled to 1.8 m, unlit, and turned about the vertical axis; the avatar stands in the pose that was fitted to the photo.",
    "The scan is not re-posed, as SVAD says that it does with SMPL-X fits.",
)


def orders(root: Path, out: str, settings: Settings, choice: Choice, *, count: int, seed: int, size: int, fits: Path | None = None) -> list[Order]:
    """One order a scan. Raises InputError for a folder of another layout."""
    made = []
    for name in drawn_names(scan_names(root), count, seed):
        folder = root / name
        parameters = {"root": str(root), "name": name, "fits": str(fits or ""), "size": size}
        files = [path for path in sorted(folder.iterdir()) if path.is_file()]
        inputs = (digest(*(part for path in files for part in (path.name, path.read_bytes()))),)
        made.append(Order("thuman", name, parameters, out, settings.model_dump(mode="json"), asdict(choice), inputs))
    return made


def measure(order: Order, scorer: Scorer, tell: Callable[[str, float], None]) -> Result:
    """Make the avatar from the front view and score four views."""
    p = order.parameters
    scan = read_scan(Path(p["root"]), p["name"], fits=Path(p["fits"]) if p["fits"] else None)
    front = render_scan(scan, 0.0, size=PHOTO_SIZE)
    photo = Photo(f"scan{p['name']}", front.image, hashlib.sha256(front.image.tobytes()).hexdigest(), ("rendered from a scan",))
    made = made_of(photo, order, tell)
    truths = [render_scan(scan, yaw, size=p["size"]) for yaw in VIEWS.values()]
    pictures = true_views(made.avatar, made.photo_track, front, truths)
    depth = "the scan's fit" if p["fits"] else "the middle of the scan's box"
    protocol = Protocol(
        "thuman",
        placement=f"the fit's pelvis on its pixel and its size in pixels; depth from {depth}, focal length from the truth",
        photo=f"front render, {PHOTO_SIZE} px; angles {', '.join(f'{math.degrees(v):g}' for v in VIEWS.values())} degrees",
        poses="as fitted to the photo, not refined",
    )
    protocol = scorer.described(protocol, truths[0].image)
    rows: list[Row] = []
    for view, (image, mask), truth in zip(VIEWS, pictures, truths):
        figures = scorer(image, truth.image, protocol, mask=mask, true_mask=truth.mask)
        rows.append({"subject": order.subject, "view": view, **figures, **protocol.columns()})
    strips = worst_strips(rows, lambda number: (pictures[number][0], truths[number].image))
    return Result(order.subject, rows, strips, usage=made.usage, warnings=made.warnings)
