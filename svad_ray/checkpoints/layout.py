"""Found checkpoints put under one root, each whole or not at all; done again, it does what is left."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

from svad_ray.backends import STAGES
from svad_ray.checkpoints.find import Found
from svad_ray.errors import InputError
from svad_ray.export.atomic import atomic_path
from svad_ray.models.brought import edges
from svad_ray.models.cache import cache_root, file_sha256
from svad_ray.stages.picture.recipes import RECIPES

RECORD, SETTINGS = "imported.json", "settings.yaml"
_CHUNK = 1 << 24  # bytes
_NAMED_HASH = re.compile(r"-([0-9a-f]{8})(?:_\d+)?\.pth$")  # how OpenMMLab's files are named: the first digits of their sha256


@dataclass(frozen=True)
class Laid:
    """One file's fate. ``state``: "copied", "linked", "there" (it was before), "kept" (another file lies at its place and stays) or "damaged"."""

    source: Path
    place: str
    state: str
    note: str = ""


def default_root() -> Path:
    """Where checkpoints are laid out when nothing else is said: below the project's cache folder."""
    return cache_root() / "checkpoints"


def lay_out(
    found: list[Found], root: str | Path, *, link: bool = False, progress: Callable[[str, float], None] = lambda name, done: None
) -> list[Laid]:
    """Copy, or link, every recognised file to its place below ``root``, and write ``settings.yaml`` that names the stages' folders.

    A file appears whole or not at all, and what is there already is not made again. Nothing that lies at a place is overwritten.

    Raises:
        InputError: The root cannot be written, or the disk is full.
    """
    root = Path(root).expanduser()
    if not link:
        _require_space(found, root)
    record, out = _read_record(root), []
    for one in found:
        for source, place in one.targets:
            laid = _lay(source, root / place, place, link=link, progress=progress)
            out.append(laid)
            if laid.state in ("copied", "linked") or (laid.state == "there" and place not in record):
                record[place] = {"what": one.what, "source": one.source, "licence": one.licence, "edges": edges(root / place)}
                _write(root / RECORD, json.dumps(record, indent=1, sort_keys=True))
    if out:
        _write(root / SETTINGS, settings_text(root.absolute()))
    return out


def _lay(source: Path, target: Path, place: str, *, link: bool, progress: Callable[[str, float], None]) -> Laid:
    if target.exists():
        same = target.stat().st_size == source.stat().st_size and edges(target) == edges(source)
        return Laid(source, place, "there") if same else Laid(source, place, "kept", f"another file lies at {target}; remove it to take this one")
    if fault := misnamed(source):
        return Laid(source, place, "damaged", fault)
    if link:
        _link(source, target)
        return Laid(source, place, "linked")
    _copy(source, target, lambda done: progress(target.name, done))
    return Laid(source, place, "copied")


def misnamed(path: Path) -> str:
    """Why a file whose name carries the beginning of its sha256 is not what its name says; "" when it is, or has no such name."""
    named = _NAMED_HASH.search(path.name)
    if named is None:
        return ""
    has = file_sha256(path)
    return "" if has.startswith(named[1]) else f"its name says sha256 {named[1]}..., it has {has[:8]}...: download it again"


def _link(source: Path, target: Path) -> None:
    with atomic_path(target) as temporary:
        temporary.unlink()
        temporary.symlink_to(source.resolve())


def _copy(source: Path, target: Path, tell: Callable[[float], None]) -> None:
    """A copy that is as long as its source was, and has the bytes that were read from it."""
    size, done, hashed = source.stat().st_size, 0, hashlib.sha256()
    with atomic_path(target) as temporary:
        with source.open("rb") as reading, temporary.open("wb") as writing:
            while part := reading.read(_CHUNK):
                writing.write(part)
                hashed.update(part)
                done += len(part)
                tell(done / max(size, 1))
        if done != size or file_sha256(temporary) != hashed.hexdigest():
            raise InputError(f"{source} changed while it was copied, or its copy is damaged", remedy="try again")
    tell(1.0)


def _read_record(root: Path) -> dict[str, dict[str, str]]:
    path = root / RECORD
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}", remedy="remove it, and import again") from error


def changed_since_import(path: Path) -> bool:
    """Has a file below a models root other contents than when it was imported? Files that were not imported have not."""
    for root in path.parents:
        if (root / RECORD).is_file():
            entry = _read_record(root).get(path.relative_to(root).as_posix())
            return entry is not None and path.is_file() and entry["edges"] != edges(path)
    return False


def settings_text(root: Path) -> str:
    """YAML for ``--config``: the folder of every stage for which something is there, of what draws pictures, and the licensed body where it is."""
    values: dict[str, dict[str, str]] = {stage: {"weights": str(root / stage)} for stage in STAGES if (root / stage).is_dir()}
    if "animate" not in values and (root / "wan-animate").is_dir():
        values["animate"] = {"backend": "wan-animate", "weights": str(root / "wan-animate")}
    picture = next((folder for name in RECIPES if (folder := root / "pictures" / name).is_dir()), None)
    if picture is not None:
        values["picture"] = {"weights": str(picture)}
    body = next((path for suffix in ("npz", "pkl") if (path := root / f"body/SMPLX_NEUTRAL.{suffix}").exists()), None)
    if body is not None:
        for stage in STAGES:
            values.setdefault(stage, {})["body"] = str(body)
    return "# Written by `svad-ray models import`; use it by --config.\n" + yaml.safe_dump(values, sort_keys=False)


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _require_space(found: list[Found], root: Path) -> None:
    """Raises InputError where the disk is too small for what is to be copied."""
    needed = sum(source.stat().st_size for one in found for source, place in one.targets if not (root / place).exists())
    there = next(folder for folder in (root.absolute(), *root.absolute().parents) if folder.exists())
    if needed > (free := shutil.disk_usage(there).free):
        raise InputError(
            f"{needed / 1e9:.1f} GB are to be copied to {root}, and {free / 1e9:.1f} GB are free there",
            expected="space for all of them",
            remedy="import with --link, or name another disk by --to",
        )
