"""What lies below a folder: every file that could hold weights, and what it is."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from svad_ray.checkpoints.known import KNOWN, PIPELINES, Known
from svad_ray.errors import InputError
from svad_ray.models.brought import RULE_MADE, is_rule_made
from svad_ray.nets.headers import SUFFIXES, Shapes, read_shapes

INDEX = "model_index.json"
_NEAR = 3  # folders above a file that may say what its weights are
_SHOWN = 3  # names of tensors that are told of an unknown file


@dataclass(frozen=True)
class Found:
    """One file or folder of a pipeline.

    Attributes:
        path: Where it lies. what: Its name for people; "" when it is unknown.
        targets: Where its files belong: (file, place below the models root).
        licence: On which terms; "" when they are unknown. commercial: Do they allow commercial use? source: Who offers it.
        reason: Why it is unknown, or not laid out.
    """

    path: Path
    what: str = ""
    targets: tuple[tuple[Path, str], ...] = ()
    licence: str = ""
    commercial: bool = False
    source: str = ""
    reason: str = ""


def find(root: str | Path, *, progress: Callable[[float], None] = lambda done: None) -> list[Found]:
    """Everything below ``root`` (or ``root`` itself, a file) that could be a checkpoint, sorted by path; of equal ones the first counts.

    Raises:
        InputError: There is no such file or folder, or it cannot be listed.
    """
    root = Path(root).expanduser()
    if not root.exists():
        raise InputError(f"there is no {root}", expected="a folder of checkpoints, or one of them", remedy="check the path")
    paths = [root] if root.is_file() else list(_candidates(root))
    found = []
    for number, path in enumerate(paths):
        found.append(_pipeline(path) if path.name == INDEX else recognise(path))
        progress((number + 1) / len(paths))
    return _first_of_each(found)


def _candidates(root: Path) -> Iterator[Path]:
    """Files, and the index of a folder that is one pipeline instead of the files in it. Folders that cannot be read are an error."""

    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename} cannot be listed: {error.strerror}", remedy="give yourself the right to read it, or name another folder")

    for folder, below, names in os.walk(root, onerror=refuse):
        below[:] = sorted(name for name in below if not name.startswith("."))
        if INDEX in names and _place(Path(folder) / INDEX) != "":
            below.clear()
            yield Path(folder) / INDEX
            continue
        paths = [Path(folder) / name for name in sorted(names) if name.endswith(SUFFIXES) and not name.startswith(".")]
        yield from (path for path in paths if path.is_file())


def _place(index: Path) -> str | None:
    """Where a pipeline belongs; "" when its parts are wanted, None when it is unknown."""
    known = PIPELINES.get(_class_of(index))
    return known.place if known else None


def _class_of(index: Path) -> str:
    try:
        return str(json.loads(index.read_text(encoding="utf-8"))["_class_name"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _pipeline(index: Path) -> Found:
    name, folder = _class_of(index), index.parent
    if name not in PIPELINES:
        reason = f"the pipeline {name}, which no stage uses" if name else f"its {INDEX} names no pipeline"
        return Found(folder, reason=reason)
    known = PIPELINES[name]
    files = sorted((path for path in folder.rglob("*") if path.is_file() and path.suffix != ".py"), key=lambda path: path.name == INDEX)  # last
    targets = tuple((path, f"{known.place}/{path.relative_to(folder).as_posix()}") for path in files)
    return Found(folder, known.what, targets, known.licence, "NC" not in known.licence and "non-commercial" not in known.licence, name)


def recognise(path: Path) -> Found:
    """What one file is."""
    try:
        shapes = read_shapes(path)
    except InputError as error:
        return Found(path, reason=error.found)
    fitting = [known for known in KNOWN if known.fits(shapes)]
    for known in fitting:
        if known.named(path.as_posix()):
            return _found(path, known)
    return Found(path, reason=_unclear(fitting) if fitting else _unlike(shapes))


def _found(path: Path, known: Known) -> Found:
    missing = [name for name in known.beside if not (path.parent / name).is_file()]
    if missing:
        return Found(path, known.what, (), known.licence, known.commercial, known.source, f"{', '.join(missing)} is not beside it")
    targets = [(path, _suffixed(place, path.suffix)) for place in known.places]
    targets += [(path.parent / name, f"{place.rpartition('/')[0]}/{name}") for place in known.places for name in known.beside]
    for folder in path.parents[:_NEAR]:
        if is_rule_made(folder):  # wherever they go, it stays known that they are not real
            targets += [(folder / RULE_MADE, f"{place.partition('/')[0]}/{RULE_MADE}") for place in known.places]
    reason = "" if known.places else f"not needed: {known.note}"
    return Found(path, known.what, tuple(targets), known.licence, known.commercial, known.source, reason)


def _suffixed(place: str, suffix: str) -> str:
    """The published name with the suffix of what is really there, by which it is read; transformers has its own name for safetensors."""
    stem, _, usual = place.rpartition(".")
    if suffix == ".safetensors":
        return f"{stem.removesuffix('pytorch_model')}model.safetensors" if stem.endswith("/pytorch_model") else f"{stem}.safetensors"
    interchangeable = {"npz", "pkl"}
    return f"{stem}{suffix}" if usual in interchangeable and suffix[1:] in interchangeable else place


def _unclear(fitting: list[Known]) -> str:
    told = "; ".join(f"{known.what}: '{' or '.join(known.words)}'" for known in fitting)
    return f"its tensors are those of several published files, which only their names tell apart. Put into its path: {told}"


def _unlike(shapes: Shapes) -> str:
    names = ", ".join(f"{name} {shape}" for name, shape in list(shapes.items())[:_SHOWN])
    return f"{len(shapes)} tensors of nothing known here ({names}{', ...' if len(shapes) > _SHOWN else ''})" if shapes else "it holds no tensors"


def _first_of_each(found: list[Found]) -> list[Found]:
    """Later files for a place that is taken become duplicates; a file under its published name goes first."""
    order = sorted(found, key=lambda one: not any(place.endswith(f"/{path.name}") for path, place in one.targets))
    taken: dict[str, Path] = {}
    out = {}
    for one in order:
        rivals = [taken[place] for path, place in one.targets if path == one.path and place in taken]
        out[id(one)] = replace(one, targets=(), reason=f"a second one; {rivals[0]} is taken") if rivals else one
        if not rivals:
            taken |= {place: path for path, place in one.targets}
    return [out[id(one)] for one in found]
