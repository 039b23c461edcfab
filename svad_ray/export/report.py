"""``report.html``: one self-contained page by which a person judges an avatar at a glance. No network, no server, prints well."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import cv2
import jinja2
import numpy as np

from svad_ray.export.atomic import atomic_path
from svad_ray.export.sheets import contact_sheet, draw_perception, evenly, fit_inside
from svad_ray.subject import Perception

SHEET_FRAMES = 12
TURN_VIEWS = 48
PHOTO_SIDE, TURN_SIDE, CELL, REGION_CELL = 900, 512, 224, 300


@dataclass(frozen=True)
class StageCost:
    """What one stage cost: seconds on the clock, seconds of all threads, highest memory in GiB, and a remark ("resumed")."""

    name: str
    wall_s: float
    cpu_s: float
    peak_gib: float
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A small table of text: column heads and rows; the first column names the row."""

    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""


@dataclass(frozen=True)
class Regions:
    """What the avatar's regions come from.

    Attributes:
        plain, coloured: (V, H, W, 3) uint8, the avatar as it is and with each region in the colour of its source. names: Of the V views.
        legend: (what it is, RGB) of each source, "generated" first. table: Shares by body part.
    """

    plain: np.ndarray
    coloured: np.ndarray
    names: Sequence[str]
    legend: Sequence[tuple[str, tuple[int, ...]]]
    table: Table


@dataclass(frozen=True)
class ReportInputs:
    """All that a report shows; what is None or empty is left out, with nothing in its place.

    Attributes:
        name: Of the person or photo.
        photo: (H, W, 3) uint8. perception: What was seen on it. further: The same of further photos.
        generated, identity, restored: (T, H, W, 3) uint8 frames of the clip after each stage, the same T.
        remarks: T strings, "" where there is nothing to say of a frame.
        fit_overlays: Frames with the fitted body drawn over them (``sheets.draw_fit``).
        turntable: (T, H, W, 3) uint8, one full turn of the finished avatar, front first.
        costs: One per stage.
        warnings: Quality remarks for a person.
        provenance: JSON values. Known: commercial_use (bool), commercial_reason, consent, stages, models, photo, body, seed; others are listed too.
        metrics: Tables of measured quality, against a known truth.
        regions: Which regions photos showed.
    """

    name: str
    photo: np.ndarray
    perception: Perception | None = None
    generated: np.ndarray | None = None
    identity: np.ndarray | None = None
    restored: np.ndarray | None = None
    remarks: Sequence[str] = ()
    fit_overlays: Sequence[np.ndarray] = ()
    turntable: np.ndarray | None = None
    costs: Sequence[StageCost] = ()
    warnings: Sequence[str] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    metrics: Sequence[Table] = ()
    further: Sequence[tuple[np.ndarray, Perception]] = ()
    regions: Regions | None = None


def write_report(inputs: ReportInputs, path: str | Path) -> None:
    """Write the page, pictures inside it; the file appears whole or not at all.

    Raises:
        InputError: The path cannot be written.
    """
    page = _template().render(
        name=inputs.name,
        photo=_jpeg(_photo(inputs.photo, inputs.perception), quality=88),
        further=[_jpeg(_photo(image, seen), quality=84) for image, seen in inputs.further],
        regions=_regions(inputs.regions),
        has_perception=inputs.perception is not None,
        turn=_turn(inputs.turntable),
        sheets=_sheets(inputs),
        fit=_jpeg(contact_sheet(inputs.fit_overlays, cell=CELL, columns=6)) if len(inputs.fit_overlays) else "",
        facts=_facts(inputs),
        remarks=_grouped_remarks(inputs.remarks),
        costs=inputs.costs,
        longest=max((cost.wall_s for cost in inputs.costs), default=0.0),
        total=(
            sum(cost.wall_s for cost in inputs.costs),
            sum(cost.cpu_s for cost in inputs.costs),
            max((cost.peak_gib for cost in inputs.costs), default=0.0),
        ),
        warnings=inputs.warnings,
        metrics=inputs.metrics,
        provenance=_provenance_rows(inputs.provenance),
        commercial=inputs.provenance.get("commercial_use"),
        commercial_reason=inputs.provenance.get("commercial_reason", ""),
        consent=inputs.provenance.get("consent", ""),
    )
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


@cache
def _template() -> jinja2.Template:
    source = (files("svad_ray.export") / "report.html.jinja").read_text(encoding="utf-8")
    return jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined).from_string(source)


def _jpeg(image: np.ndarray, *, quality: int = 84) -> str:
    """A data URI of (H, W, 3) uint8 RGB."""
    encoded = cv2.imencode(".jpg", cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return "data:image/jpeg;base64," + b64encode(encoded.tobytes()).decode("ascii")


def _photo(image: np.ndarray, seen: Perception | None) -> np.ndarray:
    """A photo at page size with what was seen on it; points are scaled first so that strokes stay fine."""
    small = fit_inside(image, PHOTO_SIDE)
    if seen is None:
        return small
    scale = np.array([small.shape[1] / image.shape[1], small.shape[0] / image.shape[0]])
    mask = cv2.resize(seen.mask.astype(np.float32), small.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return draw_perception(small, seen.keypoints * scale, seen.scores, mask)


def _regions(regions: Regions | None) -> dict[str, Any] | None:
    """The avatar above itself coloured by source, side by side."""
    if regions is None:
        return None
    frames = [*regions.plain, *regions.coloured]
    picture = contact_sheet(frames, labels=[*regions.names, *regions.names], cell=REGION_CELL, columns=len(regions.names))
    return {"picture": _jpeg(picture), "legend": [(name, "#{:02x}{:02x}{:02x}".format(*rgb)) for name, rgb in regions.legend], "table": regions.table}


def _turn(frames: np.ndarray | None) -> dict[str, Any] | None:
    """The views that the slider shows, and a strip of eight for paper."""
    if frames is None or not len(frames):
        return None
    shown = frames[evenly(len(frames), TURN_VIEWS)]
    views = [_jpeg(fit_inside(frame, min(TURN_SIDE, max(frame.shape[:2]))), quality=86) for frame in shown]
    degrees = evenly(len(frames), 9)[:-1] if len(frames) > 8 else np.arange(len(frames))
    labels = [f"{round(360 * k / max(1, len(frames) - 1))}°" for k in degrees]
    return {"views": views, "strip": _jpeg(contact_sheet(list(frames[degrees]), labels=labels, cell=CELL, columns=8))}


def _sheets(inputs: ReportInputs) -> list[dict[str, str]]:
    """One contact sheet per clip, the same frames in each."""
    clips = [
        ("Generated", "The person turned, as the animate stage made it.", inputs.generated),
        ("Identity", "The photo's own face fused into every frame that shows it.", inputs.identity),
        ("Restored", "Detail restored; these frames train the avatar.", inputs.restored),
    ]
    sheets = []
    for title, says, frames in clips:
        if frames is None or not len(frames):
            continue
        chosen = evenly(len(frames), SHEET_FRAMES)
        picture = contact_sheet([frames[k] for k in chosen], labels=[f"{k}" for k in chosen], cell=CELL, columns=6)
        sheets.append({"title": title, "says": says, "picture": _jpeg(picture), "alt": f"{len(chosen)} of {len(frames)} frames"})
    return sheets


def _grouped_remarks(remarks: Sequence[str]) -> list[tuple[str, str]]:
    """Equal remarks once, with the frames they were made on: [("0-3, 9", "fusion refused: ...")]."""
    frames: dict[str, list[int]] = {}
    for number, remark in enumerate(remarks):
        if remark:
            frames.setdefault(remark, []).append(number)
    return [(_ranges(numbers), remark) for remark, numbers in frames.items()]


def _ranges(numbers: Sequence[int]) -> str:
    """Rising numbers as ranges: 0, 1, 2, 5 -> "0-2, 5"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(f"{first}" if first == last else f"{first}–{last}" for first, last in runs)


def _facts(inputs: ReportInputs) -> list[tuple[str, str]]:
    """The few figures of the page's head."""
    height, width = inputs.photo.shape[:2]
    facts = [("Photo", f"{width} × {height}")]
    clip = next((c for c in (inputs.restored, inputs.identity, inputs.generated) if c is not None), None)
    if clip is not None:
        facts.append(("Clip", f"{len(clip)} frames"))
    if inputs.costs:
        facts.append(("Time", _duration(sum(cost.wall_s for cost in inputs.costs))))
        facts.append(("Memory", f"{max(cost.peak_gib for cost in inputs.costs):.1f} GiB"))
    return facts


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def _provenance_rows(provenance: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Nested JSON as flat rows with dotted names; what the page shows elsewhere is left out."""
    elsewhere = {"commercial_use", "commercial_reason", "consent", "warnings"}
    return [row for key, value in provenance.items() if key not in elsewhere for row in _flat(str(key), value)]


def _flat(name: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, Mapping):
        if value and all(not isinstance(inner, (Mapping, list, tuple)) for inner in value.values()) and len(value) <= 5:
            return [(name, " · ".join(f"{key}: {inner}" for key, inner in value.items()))]
        return [row for key, inner in value.items() for row in _flat(f"{name} / {key}", inner)]
    if isinstance(value, (list, tuple)):
        return [(name, ", ".join(str(inner) for inner in value))] if value else []
    return [(name, str(value))]
