"""One request from its address to its delivery in a store: what a bulk worker and an endpoint do for one subject."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from svad_ray import pipeline
from svad_ray.config import PictureConfig, Settings, StageConfig
from svad_ray.errors import ConfigError, InputError
from svad_ray.ledger import SubjectRequest
from svad_ray.local import FrameHost, LocalRunner, StepProgress
from svad_ray.photo import load_photo, together
from svad_ray.pictures import made_photo
from svad_ray.provenance.photos import hashes_of
from svad_ray.stages.base import make
from svad_ray.stages.picture.draw import Draw
from svad_ray.store import ArtefactStore, Committed
from svad_ray.subject import Photo


def _silent(name: str, done: float) -> None:
    return None


@lru_cache(maxsize=2)
def _body(path: str) -> Any:
    from svad_ray.body import load_body

    return load_body(path or None)


def body_id(settings: Settings) -> str:
    """Id of the body that the settings choose; built or loaded once."""
    return _body(settings.animate.body).id


def delivered_files(created: pipeline.Created, request: SubjectRequest, run: LocalRunner, exports: Iterable[str]) -> dict[str, bytes]:
    """The files that ``svad-ray create`` writes, as name -> content."""
    from svad_ray.deliver import write_delivery

    with tempfile.TemporaryDirectory(prefix="svad-ray-") as folder:
        target = Path(folder)
        write_delivery(created, request.settings, _body(request.settings.animate.body), run, target, consent=request.consent, exports=tuple(exports))
        return {path.relative_to(target).as_posix(): path.read_bytes() for path in sorted(target.rglob("*")) if path.is_file()}


@dataclass(frozen=True)
class Kit:
    """What subjects are made with; a project with backends of its own brings another one by "module:attribute".

    Attributes:
        make: (stage name, its configuration) -> the stage, not set up.
        body_id: Which body the stages use, part of every key.
        files: (what was created, request, exports) -> name -> content of everything the subject takes home.
        load: Reads the photo.
        draw: (its configuration) -> what draws the photo of a prompt, not set up.
    """

    make: Callable[[str, StageConfig], Any] = make
    body_id: Callable[[Settings], str] = body_id
    files: Callable[[pipeline.Created, SubjectRequest, LocalRunner, Iterable[str]], Mapping[str, bytes]] = delivered_files
    load: Callable[[str], Photo] = load_photo
    draw: Callable[[PictureConfig], Any] = Draw

    def stages(self, settings: Settings) -> pipeline.Stages:
        """Every stage, made but not set up."""
        return pipeline.Stages.of(settings, make=self.make)


def find_kit(path: str) -> Kit:
    """The kit at "module:attribute"; the product's own for "".

    Raises:
        ConfigError: There is none.
    """
    if not path:
        return Kit()
    module, _, name = path.partition(":")
    try:
        kit = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"there is no kit '{path}' ({error})", expected="module:attribute of a svad_ray.fulfil.Kit") from error
    if not isinstance(kit, Kit):
        raise ConfigError(f"'{path}' is a {type(kit).__name__}", expected="a svad_ray.fulfil.Kit")
    return kit


def fulfil(
    request: SubjectRequest,
    out: str,
    *,
    kit: Kit | None = None,
    frames: FrameHost | None = None,
    tell: StepProgress = _silent,
    exports: Iterable[str] = ("ply",),
    facts: Mapping[str, Any] | None = None,
    checkpoint_s: float = 30.0,
) -> Committed:
    """Make one subject's avatar and commit what it takes home; steps that are committed are not done again.

    Args:
        out: Root of everything: ``work/`` holds the artefacts of the stages, ``subjects/`` the deliveries.
        kit: What it is made with; None = the product's own.
        frames: Where frame blocks are done; None = in this process.
        tell: Told each step's finished share.
        exports: Of ``config.Export``, besides the avatar folder.
        facts: Kept in the marker besides those of the run.

    Returns:
        The subject's marker; ``facts`` holds subject_id, artefact keys, seconds, peak memory, quality and warnings.

    Raises:
        SvadError: As ``pipeline.create``; InputError for a photo with another sha256 than stated.
    """
    kit = kit or Kit()
    store = ArtefactStore(f"{out}/subjects")
    if marker := store.committed(request.key):
        return marker
    run = LocalRunner(
        ArtefactStore(f"{out}/work"),
        request.settings,
        body_id=kit.body_id(request.settings),
        progress=tell,
        host=frames,
        checkpoint_s=checkpoint_s,
    )
    stages = kit.stages(request.settings)
    created = pipeline.create(photo_of(request, kit, run, stages), request.settings, run, stages=stages)
    files = kit.files(created, request, run, exports)
    return store.put_files(request.key, files, facts={**subject_facts(created, request, run), **(facts or {})})


def photo_of(request: SubjectRequest, kit: Kit, run: LocalRunner, stages: pipeline.Stages) -> Photo:
    """The photo that the avatar is made of: the request's, or what a model made of its prompt. Raises as ``read_photo`` and ``made_photo``."""
    if not request.prompt:
        return read_photo(request, kit)
    photo = read_photo(request, kit) if request.uri else None
    return made_photo(request.prompt, photo, request.settings, run, perceive=stages.perceive, draw=kit.draw)


def read_photo(request: SubjectRequest, kit: Kit) -> Photo:
    """The request's photo, further ones in its ``also``. Raises ``InputError`` when bytes are not the stated ones, and as ``photo.together``."""
    photos = []
    for uri, sha256 in request.photos:
        photo = kit.load(uri)
        if sha256 and photo.sha256 != sha256.lower():
            found = f"the photo '{photo.name}' of '{request.subject_id}' has sha256 {photo.sha256}"
            raise InputError(found, expected=sha256, remedy="correct the manifest, or copy the photo again")
        photos.append(photo)
    return together(photos)


def subject_facts(created: pipeline.Created, request: SubjectRequest, run: LocalRunner) -> dict[str, Any]:
    """What the marker of a finished subject says, JSON values only."""
    restored = created.restored
    return {
        "subject_id": request.subject_id,
        "uri": request.uri,
        "photo_sha256": created.photo.sha256,
        "photos_sha256": hashes_of(created.photo),
        **({"also": list(request.also), "also_sha256": [one.sha256 for one in created.photo.also]} if request.also else {}),
        "keys": run.keys | {"clip": restored.key},
        "stages": {name: {**asdict(record.usage), "backend": record.backend, "blocks": record.blocks} for name, record in run.records.items()},
        "quality": quality(created),
        "warnings": list(created.warnings),
        "consent": request.consent,
    }


def quality(created: pipeline.Created) -> dict[str, float]:
    """Figures by which a bad subject is found in a large table."""
    track, avatar, clip = created.track.value, created.avatar.value, created.restored.value
    refused = sum("refused" in remark for remark in clip.remarks)
    figures = {"frames": float(len(clip)), "frames_refused_fusion": float(refused), "warnings": float(len(created.warnings))}
    if track.residual_px is not None and len(track.residual_px):
        figures["fit_residual_px"] = float(np.median(track.residual_px))
    if "loss_last" in avatar.facts:
        figures["avatar_loss"] = float(avatar.facts["loss_last"])
    return figures
