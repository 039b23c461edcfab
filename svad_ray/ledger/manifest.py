"""Reading a list of subjects: parquet, CSV, JSONL, or a folder of photos; local or at any fsspec address."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import fsspec

from svad_ray.config import PROFILES, Settings, load_settings, override
from svad_ray.errors import ConfigError, InputError
from svad_ray.ledger.requests import SubjectRequest
from svad_ray.photo import MAX_PHOTOS

_PHOTOS = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")
_KINDS = (".parquet", ".csv", ".jsonl", ".ndjson")
_OWN = ("subject_id", "uri", "uris", "sha256", "profile", "consent", "options")


@dataclass(frozen=True)
class Manifest:
    """The subjects of a bulk run, in the order of the list. ``notes`` say what was taken together or left out."""

    requests: tuple[SubjectRequest, ...]
    notes: tuple[str, ...] = ()


def read_manifest(address: str, settings: Settings, *, profile_given: bool = False, consent: str = "") -> Manifest:
    """Every subject of a list.

    Columns: ``subject_id`` and ``uri`` (relative ones are looked for beside the list), or ``uris``, a list of several photos of the subject (in
    CSV as JSON); and if wanted ``sha256`` (a list beside ``uris``), ``profile``, ``consent``, ``options`` (a JSON object of dotted settings) or any
    dotted setting as a column of its own (``animate.frames``). Others are noted, not used.

    Args:
        address: The list, or a folder of photos, whose subjects are named after the files.
        settings: For subjects that say nothing else.
        profile_given: ``settings`` come with a profile that a row's ``profile`` replaces only when it differs.
        consent: For subjects that state none themselves.

    Raises:
        InputError: The list cannot be read, has no subjects, lacks a column, or names one subject twice with different contents.
        ConfigError: An option of a row does not exist or is out of range.
    """
    filesystem, path = _open(address)
    if filesystem.isdir(path):
        rows, base = _photos(filesystem, path), ""
    else:
        rows, base = _rows(filesystem, path, address), _parent(filesystem, path)
    requests: dict[str, SubjectRequest] = {}
    lines: dict[str, int] = {}
    notes: dict[str, None] = {}
    cache: dict[str, Settings] = {}
    for number, row in enumerate(rows, 1):
        request = _request(row, number, address, base, settings, consent, cache, notes)
        known = requests.get(request.subject_id)
        if known is not None and known.key != request.key:
            found = f"{address}: rows {lines[request.subject_id]} and {number} both name the subject '{request.subject_id}', with different contents"
            raise InputError(found, expected="one row a subject", remedy="give one of them another subject_id")
        if known is not None:
            notes[f"rows {lines[request.subject_id]} and {number} are the same subject '{request.subject_id}': done once"] = None
            continue
        requests[request.subject_id], lines[request.subject_id] = request, number
    if not requests:
        raise InputError(f"{address} names no subject", expected="at least one row, or one photo in the folder", remedy="check the address")
    return Manifest(tuple(requests.values()), tuple(notes))


def _open(address: str) -> tuple[Any, str]:
    try:
        filesystem, path = fsspec.core.url_to_fs(address)
        if filesystem.exists(path):
            return filesystem, path.rstrip("/")
    except (ValueError, ImportError, OSError) as error:
        raise InputError(f"the manifest '{address}' cannot be opened ({error})", expected="a path or fsspec address") from error
    raise InputError(f"there is no manifest '{address}'", expected="a parquet, CSV or JSONL file, or a folder of photos", remedy="check the spelling")


def _parent(filesystem: Any, path: str) -> str:
    return filesystem.unstrip_protocol(path).rsplit("/", 1)[0]


def _photos(filesystem: Any, path: str) -> Iterator[Mapping[str, Any]]:
    files = sorted(p for p in filesystem.ls(path, detail=False) if PurePosixPath(p).suffix.lower() in _PHOTOS)
    stems = [PurePosixPath(p).stem for p in files]
    for file, stem in zip(files, stems):
        name = PurePosixPath(file).name if stems.count(stem) > 1 else stem
        yield {"subject_id": name, "uri": file if "file" in filesystem.protocol else filesystem.unstrip_protocol(file)}


def _rows(filesystem: Any, path: str, address: str) -> Iterator[Mapping[str, Any]]:
    kind = PurePosixPath(path).suffix.lower()
    if kind not in _KINDS:
        raise InputError(f"'{address}' is no manifest", expected=f"a folder, or a file ending in {', '.join(_KINDS)}", remedy="rename or convert it")
    try:
        content = filesystem.cat_file(path)
        if kind == ".parquet":
            import pyarrow.parquet

            return iter(pyarrow.parquet.read_table(io.BytesIO(content)).to_pylist())
        text = content.decode("utf-8-sig")
        if kind == ".csv":
            return iter(list(csv.DictReader(io.StringIO(text), strict=True)))
        return iter([json.loads(line) for line in text.splitlines() if line.strip()])
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"the manifest '{address}' cannot be read: {error}", expected=f"a whole {kind} file", remedy="write it again") from error


def _request(
    row: Any, number: int, address: str, base: str, settings: Settings, consent: str, cache: dict[str, Settings], notes: dict[str, None]
) -> SubjectRequest:
    if not isinstance(row, Mapping):
        raise InputError(f"{address}: row {number} is no object", expected='{"subject_id": ..., "uri": ...}')
    values = {str(name): value for name, value in row.items() if value not in (None, "")}
    if "subject_id" not in values:
        raise InputError(f"{address}: row {number} has no subject_id", expected="the columns subject_id and uri", remedy="fill in subject_id")
    uris, hashes = _photos_of(values, number, address)
    for name in values:
        if name not in _OWN and "." not in name:
            notes[f"the column '{name}' is not used"] = None
    options = _options(values, number, address)
    name = json.dumps([values.get("profile"), options], sort_keys=True, default=str)
    if name not in cache:
        cache[name] = _settings(settings, values.get("profile"), options, number, address)
    return SubjectRequest(
        subject_id=str(values["subject_id"]),
        uri=_absolute(uris[0], base),
        settings=cache[name],
        sha256=hashes[0],
        consent=str(values.get("consent", consent)),
        also=tuple(_absolute(uri, base) for uri in uris[1:]),
        also_sha256=tuple(hashes[1:]),
    )


def _photos_of(values: Mapping[str, Any], number: int, address: str) -> tuple[list[str], list[str]]:
    """Addresses of a row's photos and their hashes, "" where none is stated."""
    if ("uri" in values) == ("uris" in values):
        found = "both uri and uris" if "uri" in values else "no uri"
        raise InputError(f"{address}: row {number} has {found}", expected="the columns subject_id and uri, or uris", remedy="fill in one of them")
    if "uri" in values:
        return [str(values["uri"])], [str(values.get("sha256", "")).lower()]
    uris = _listed(values["uris"], "uris", number, address)
    hashes = _listed(values["sha256"], "sha256", number, address) if "sha256" in values else [""] * len(uris)
    if not 1 <= len(uris) <= MAX_PHOTOS or len(hashes) != len(uris) or len(set(uris)) != len(uris):
        found = f"{address}: row {number} names {len(uris)} photos ({len(set(uris))} different ones) and {len(hashes)} hashes"
        raise InputError(found, expected=f"1 to {MAX_PHOTOS} different photos, and as many hashes or none", remedy="correct the row")
    return uris, [one.lower() for one in hashes]


def _listed(given: Any, name: str, number: int, address: str) -> list[str]:
    try:
        listed = json.loads(given) if isinstance(given, str) else list(given)
        if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
            raise ValueError("not a list of texts")
    except (ValueError, TypeError) as error:
        found = f"{address}: {name} of row {number} is no list ({error})"
        raise InputError(found, expected='["front.jpg", "back.jpg"]', remedy="write a JSON list") from error
    return listed


def _options(values: Mapping[str, Any], number: int, address: str) -> dict[str, Any]:
    given = values.get("options") or {}
    try:
        options = json.loads(given) if isinstance(given, str) else dict(given)
        if not isinstance(options, dict):
            raise ValueError("not an object")
    except (ValueError, TypeError) as error:
        raise InputError(f"{address}: the options of row {number} are no JSON object ({error})", expected='{"animate.frames": 96}') from error
    return {**options, **{name: value for name, value in values.items() if "." in name}}


def _settings(settings: Settings, profile: Any, options: dict[str, Any], number: int, address: str) -> Settings:
    try:
        if profile and profile != settings.profile:
            if profile not in PROFILES:
                raise ConfigError(f"there is no profile '{profile}'", expected=" or ".join(PROFILES))
            settings = load_settings(profile=str(profile))
        return override(settings, options) if options else settings
    except ConfigError as error:
        raise ConfigError(f"{address}: row {number}: {error.found}", expected=error.expected, remedy=error.remedy) from error


def _absolute(uri: str, base: str) -> str:
    """Relative names lie beside the list."""
    if "://" in uri or "::" in uri or uri.startswith("/") or not base:
        return uri
    return f"{base.removeprefix('file://')}/{uri}"
