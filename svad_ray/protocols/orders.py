"""Orders: one subject of one protocol as plain data; measured once, committed under a marker, found again by the next run."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from typing import Any, Protocol

import numpy as np

from svad_ray.backends import STAGES
from svad_ray.config import Settings, parse_settings
from svad_ray.deliver import described
from svad_ray.errors import QualityRejected, SvadError
from svad_ray.evaluate.rows import Row, plain, unplain, worst
from svad_ray.evaluate.scoring import Choice, Scorer
from svad_ray.local import model_hashes
from svad_ray.models.brought import fingerprint
from svad_ray.store import ArtefactStore, Key, content_key

VERSION = 1  # raised whenever the same order would give other figures
PICTURES = 3  # kept of each subject: its worst
RESULT = "result.json"
_ELSEWHERE = {"threads", "offline", "cache_dir", "shard"}  # settings that change no figure
_MAKERS = {
    "synthetic": "svad_ray.protocols.synthetic:measure",
    "thuman": "svad_ray.protocols.thuman:measure",
    "people-snapshot": "svad_ray.protocols.snapshot:measure",
    "folder": "svad_ray.protocols.folder:measure",
}


@dataclass(frozen=True)
class Order:
    """One subject to measure.

    Attributes:
        protocol: One of the makers. subject: Its name in tables.
        parameters: Of the protocol, plain values. inputs: Digests of the files that it reads.
        settings: Of the pipeline. choice: What to measure with.
        out: Root of everything: ``scores/`` holds results, ``work/`` what the pipeline makes.
    """

    protocol: str
    subject: str
    parameters: dict[str, Any]
    out: str
    settings: dict[str, Any] = field(default_factory=dict)
    choice: dict[str, Any] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()

    @property
    def key(self) -> Key:
        """Equal orders have an equal key, wherever and whenever they are measured."""
        settings = {name: value for name, value in self.settings.items() if name not in _ELSEWHERE}
        choice = Choice(**{**self.choice, "metrics": tuple(self.choice.get("metrics", ()))})
        where = {"clip": fingerprint(choice.clip), "backbones": choice.backbones}
        return content_key(
            "scores",
            version=VERSION,
            parameters={"protocol": self.protocol, "subject": self.subject, "of": self.parameters, "settings": settings, "metrics": choice.metrics},
            inputs=[*self.inputs, json.dumps(where, sort_keys=True), *_versions(self.parsed) * (self.protocol != "folder")],
            models=model_hashes(choice.needs),
        )

    @property
    def parsed(self) -> Settings:
        """The settings as such."""
        return parse_settings(self.settings)


def _versions(settings: Settings) -> list[str]:
    """Every stage's backend with the version of its code: figures of older code are not taken for new ones."""
    from svad_ray.backends import load

    return [f"{stage}:{settings.stage(stage).backend}:{load(stage, settings.stage(stage).backend).version}" for stage in STAGES]


@dataclass(frozen=True)
class Result:
    """What measuring one subject gave.

    Attributes:
        subject: Its name. rows: One a view. pictures: Row number -> PNG (render, truth, difference) of its worst rows.
        refused: Why the pipeline refused the subject; its rows are missing then, and the table says so.
        usage: What each step of the pipeline cost, by name. warnings: Of the pipeline.
    """

    subject: str
    rows: list[Row]
    pictures: dict[int, bytes] = field(default_factory=dict)
    refused: str = ""
    usage: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Failure:
    """An order that ended without a result."""

    subject: str
    reason: str


class Runner(Protocol):
    """Measures orders somewhere; gives each subject's failure, or None, as it is done."""

    def __call__(self, orders: Sequence[Order]) -> Iterable[Failure | None]: ...


def measured(order: Order, *, tell: Callable[[str, float], None] = lambda name, done: None, scorer: Scorer | None = None) -> Result:
    """The order's result, from its marker or made now.

    Raises:
        SvadError: It could not be measured. A subject that the pipeline refuses is a result.
    """
    store = ArtefactStore(f"{order.out}/scores")
    if (found := found_result(order, store)) is not None:
        return found
    module, name = _MAKERS[order.protocol].split(":")
    choice = Choice(**{**order.choice, "metrics": tuple(order.choice.get("metrics", ()))})
    start = time.perf_counter()
    try:
        result: Result = getattr(import_module(module), name)(order, scorer or Scorer(choice), tell)
    except QualityRejected as error:
        result = Result(order.subject, [], refused=str(error))
    files = {f"{number}.png": png for number, png in result.pictures.items()}
    content = asdict(result) | {"pictures": sorted(result.pictures), "rows": [plain(row) for row in result.rows]}
    store.put_files(order.key, {RESULT: json.dumps(content).encode(), **files}, facts={"seconds": round(time.perf_counter() - start, 1)})
    return result


def found_result(order: Order, store: ArtefactStore | None = None) -> Result | None:
    """The committed result; None without one."""
    store = store or ArtefactStore(f"{order.out}/scores")
    if store.committed(order.key) is None:
        return None
    with store.open(order.key, RESULT) as stream:
        content = json.load(stream)
    pictures = {}
    for number in content["pictures"]:
        with store.open(order.key, f"{number}.png") as stream:
            pictures[int(number)] = stream.read()
    rows = [unplain(row) for row in content["rows"]]
    return Result(**{**content, "rows": rows, "pictures": pictures, "warnings": tuple(content["warnings"])})


def run_here(orders: Sequence[Order], *, tell: Callable[[str, float], None] = lambda name, done: None) -> Iterator[Failure | None]:
    """A plain loop; networks are loaded once for all that are still to do."""
    scorer: Scorer | None = None
    for number, order in enumerate(orders):
        tell("subjects", number / len(orders))
        try:
            if found_result(order) is None:
                if scorer is None:
                    scorer = Scorer(Choice(**{**order.choice, "metrics": tuple(order.choice.get("metrics", ()))}))
                measured(order, tell=tell, scorer=scorer)
            yield None
        except SvadError as error:
            yield Failure(order.subject, str(error).replace("\n", " "))
        tell("subjects", (number + 1) / len(orders))


def strip(image: np.ndarray, truth: np.ndarray) -> bytes:
    """PNG: the render, the truth, and four times their difference, side by side."""
    import cv2

    from svad_ray.conventions import to_float, to_uint8

    a, b = (to_float(x) if x.dtype == np.uint8 else x for x in (image, truth))
    whole = np.concatenate([a, b, np.clip(4 * np.abs(a - b), 0, 1)], axis=1)
    return cv2.imencode(".png", np.ascontiguousarray(to_uint8(whole)[..., ::-1]))[1].tobytes()


def worst_strips(rows: Sequence[Row], pictures: Callable[[int], tuple[np.ndarray, np.ndarray]]) -> dict[int, bytes]:
    """Strips of the subject's worst rows. ``pictures(number)`` gives a row's render and truth."""
    figure = primary(rows)
    numbers = {id(row): number for number, row in enumerate(rows)}
    return {numbers[id(row)]: strip(*pictures(numbers[id(row)])) for row in worst(rows, figure, PICTURES)} if figure else {}


def primary(rows: Sequence[Row]) -> str:
    """By which figure rows are called bad: LPIPS where it was measured, else PSNR, else the first that there is."""
    for name in ("lpips_alex", "lpips_vgg", "psnr", "ssim", "semantic_cosine", "clip", "iou", "identity"):
        if any(row.get(name) is not None and np.isfinite(row[name]) for row in rows):
            return name
    return ""


def checked(settings: Settings) -> None:
    """Before the first subject: are the files there that the pipeline needs? Raises as ``deliver.require_files``."""
    from svad_ray.deliver import require_files

    require_files(settings, tuple(described(settings, stage) for stage in STAGES))
