"""What runs cost, stage by stage, beside the paper's: the layout of its Table 5."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from svad_ray.deliver import USAGE
from svad_ray.errors import InputError
from svad_ray.evaluate.published import Published
from svad_ray.evaluate.tables import Grid, Page
from svad_ray.ledger.status import read_status
from svad_ray.protocols.results import MANIFEST, own_command
from svad_ray.store.files import Files

GROUPS: Mapping[str, tuple[str, ...]] = {
    "generate": ("perceive", "animate"),
    "identity": ("identity-reference", "identity", "identity-drift"),
    "restore": ("restore-plan", "restore"),
    "fit": ("fit",),
    "avatar": ("avatar",),
}
HEADS = {"generate": "video generation", "identity": "identity", "restore": "restoration", "fit": "fitting", "avatar": "training", "total": "total"}
UNREADABLE = "not readable"


@dataclass(frozen=True)
class Cost:
    """What one subject cost: seconds, memory and joules of every group of steps; a figure that is not known is None.

    Attributes:
        seconds: Group -> seconds on the clock. peak_gib, gpu_gib: The highest. joules: Of all groups together.
        hardware: Which machine, in words; "" where the run did not say.
    """

    seconds: dict[str, float]
    peak_gib: float
    gpu_gib: float
    joules: float | None
    hardware: str = ""
    backends: tuple[str, ...] = field(default_factory=tuple)


def costs_of(out: str) -> dict[str, Cost]:
    """Subject -> what it cost, from the output of ``create`` or ``demo``, ``batch``, or ``evaluate``.

    Raises:
        InputError: None of these.
    """
    files = Files(out)
    if (content := files.read(USAGE)) is not None:
        record = json.loads(content)
        return {files.root.rsplit("/", 1)[-1]: _cost(record["stages"], record["hardware"])}
    if (content := files.read(MANIFEST)) is not None:
        usage = json.loads(content).get("usage", {})
        if usage:
            return {name: _cost(record["stages"], record["hardware"]) for name, record in usage.items()}
    rows = [row for row in read_status(out) if row.get("seconds")]
    if not rows:
        raise InputError(f"{out} says nothing of its costs", expected=f"a folder with {USAGE}, {MANIFEST} or status.parquet, of this version")
    return {row["subject_id"]: _cost(_stages(row), {}) for row in rows}


def _stages(row: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The stages of a row of ``status.parquet``."""
    names = [column.removeprefix("seconds.") for column, value in row.items() if column.startswith("seconds.") and value is not None]
    figures = {"wall_s": "seconds", "peak_gib": "peak_gib", "gpu_gib": "gpu_gib", "energy_j": "energy_j"}
    return {name: {ours: row.get(f"{theirs}.{name}") for ours, theirs in figures.items()} for name in names}


def _cost(stages: Mapping[str, Mapping[str, Any]], hardware: Mapping[str, str]) -> Cost:
    seconds = {group: sum(float(stages[step]["wall_s"]) for step in steps if step in stages) for group, steps in GROUPS.items()}
    known = [stage for name, stage in stages.items() if any(name in steps for steps in GROUPS.values())]
    joules = [stage.get("energy_j") for stage in known if stage["wall_s"]]
    said = f"{hardware['processor']}, {hardware['cores']} cores, {hardware['memory']}, GPU: {hardware['gpu']}" if hardware else ""
    return Cost(
        seconds | {"total": sum(seconds.values())},
        max((float(stage.get("peak_gib") or 0) for stage in known), default=0.0),
        max((float(stage.get("gpu_gib") or 0) for stage in known), default=0.0),
        sum(joules) if joules and None not in joules else None,  # type: ignore[arg-type]
        said,
        tuple(
            f"{name}: {stages[step]['backend']}"
            for name, step in (("generate", "animate"), ("avatar", "avatar"))
            if stages.get(step, {}).get("backend")
        ),
    )


def page_of(costs: Mapping[str, Cost], others: Sequence[Published]) -> Page:
    """Minutes a stage for every subject, their mean, and the published rows."""
    body = [(name, *_minutes(cost.seconds), *_rest(cost)) for name, cost in costs.items()]
    if len(costs) > 1:
        mean = {group: sum(cost.seconds[group] for cost in costs.values()) / len(costs) for group in HEADS}
        body.append(("svad-ray, mean", *_minutes(mean), "", "", ""))
    body += [
        (other.method, *(f"{other.figures[group]:.2f}" if group in other.figures else "–" for group in HEADS), "–", "–", "–") for other in others
    ]
    machines = sorted({cost.hardware or "a machine that its run did not name" for cost in costs.values()})
    notes = [f"svad-ray on: {'; '.join(machines)}", *(f"{other.method}: {other.source}" for other in others)]
    notes.append("Minutes on the clock; a step that was found done counts as it cost when it was done. A busy machine takes longer.")
    notes.append(
        "The rows are different methods on different machines: what generates and trains here is not what the paper ran, unless the backends say so."
    )
    backends = sorted({text for cost in costs.values() for text in cost.backends})
    notes += [f"backends: {', '.join(backends)}"] if backends else []
    return Page(
        "Speed", [Grid(("run", *(f"{head} min" for head in HEADS.values()), "memory GiB", "GPU GiB", "energy kJ"), tuple(body))], notes, own_command()
    )


def _minutes(seconds: Mapping[str, float]) -> tuple[str, ...]:
    return tuple(f"{seconds[group] / 60:.2f}" for group in HEADS)


def _rest(cost: Cost) -> tuple[str, str, str]:
    energy = UNREADABLE if cost.joules is None else f"{cost.joules / 1000:.1f}"
    return f"{cost.peak_gib:.1f}", f"{cost.gpu_gib:.1f}" if cost.gpu_gib else "none", energy
