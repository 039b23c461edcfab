"""``svad-ray export``: the avatar in the formats of other programs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from svad_ray.config import MarkConfig, Settings
from svad_ray.errors import InputError

if TYPE_CHECKING:
    from svad_ray.subject import Avatar, BodyTrack

AvatarFolder = Annotated[Path, typer.Argument(help="Output folder of create, or its avatar folder.")]
Body = Annotated[Path | None, typer.Option(help="A licensed SMPLX_*.npz or .pkl instead of the open body.")]
Label = Annotated[str, typer.Option(help="Videos: words in the lower left corner.")]
HiddenMark = Annotated[bool, typer.Option("--mark", help="Videos: the avatar's code in the brightness, which re-encoding leaves.")]
_out = Console()


class ExportFormat(StrEnum):
    """What ``export`` writes."""

    ply = "ply"
    splat = "splat"
    spz = "spz"
    gltf = "gltf"
    mesh = "mesh"
    smplx = "smplx"
    fit = "fit"
    exavatar = "exavatar"
    svad = "svad"
    mp4 = "mp4"
    frames = "frames"
    report = "report"


_NAMES = {
    ExportFormat.ply: "avatar.ply",
    ExportFormat.splat: "avatar.splat",
    ExportFormat.spz: "avatar.spz",
    ExportFormat.gltf: "avatar.glb",
    ExportFormat.mesh: "mesh.glb",
    ExportFormat.smplx: "motion.npz",
    ExportFormat.fit: "fit.npz",
    ExportFormat.exavatar: "exavatar",
    ExportFormat.svad: "svad",
    ExportFormat.mp4: "turntable.mp4",
    ExportFormat.frames: "frames",
    ExportFormat.report: "report.html",
}
_OF_RUN = (ExportFormat.fit, ExportFormat.exavatar, ExportFormat.svad, ExportFormat.frames)  # of what create kept, not of the avatar
_UNMOVED = (ExportFormat.mp4, ExportFormat.report, *_OF_RUN)
_CLIPS = (ExportFormat.gltf, ExportFormat.mesh)
_FORMATS = (
    "ply, splat, spz: Gaussians. gltf: skinned Gaussians with clips. mesh: skinned coloured mesh with clips (Blender, three.js). "
    "smplx: a motion as SMPL-X npz. fit: the body fitted to the whole clip. exavatar, svad: the fitted subject as their folder. "
    "mp4: turntable. frames: labelled frames as a dataset. report."
)
_CONTAINERS = "frames: parquet or webdataset shards. For options and many subjects: jobs/export_frames.py."
_MOTIONS = "As animate's. gltf, mesh: the clips, repeatable; default: all built-in ones. ply, splat, spz: the pose. smplx: what is written."


def export(
    avatar: AvatarFolder,
    format: Annotated[ExportFormat, typer.Option("--format", help=_FORMATS)] = ExportFormat.ply,
    out: Annotated[Path | None, typer.Option(help="The file; default: beside the avatar.")] = None,
    motion: Annotated[list[str] | None, typer.Option(help=_MOTIONS)] = None,
    frame: Annotated[int, typer.Option(help="ply, splat, spz: which frame of the motion.")] = 0,
    container: Annotated[str, typer.Option(help=_CONTAINERS)] = "parquet",
    label: Label = "",
    mark: HiddenMark = False,
    body: Body = None,
) -> None:
    """The avatar in another format, with a signed record of its origin (docs/provenance.md)."""
    motions = motion or []
    if motions and format in _UNMOVED:
        raise InputError(
            f"--motion with --format {format}", expected="ply, splat, spz, gltf, mesh or smplx", remedy="svad-ray animate films a motion"
        )
    if len(motions) > 1 and format not in _CLIPS:
        raise InputError(f"{len(motions)} motions with --format {format}", expected="one", remedy="give --motion once, or use gltf or mesh")
    if (label or mark) and format is not ExportFormat.mp4:
        raise InputError(f"--label or --mark with --format {format}", expected="mp4", remedy="only videos are marked; every export is signed")
    target = out or avatar / _NAMES[format]
    from svad_ray.store import load_avatar

    run = avatar.parent if avatar.name == "avatar" else avatar
    if format is ExportFormat.report:
        _copy_report(avatar, target)
        facts = _origin(load_avatar(avatar))
    elif format is ExportFormat.frames:
        facts = _write_frames(avatar, run, target, container, body)
    elif format in _OF_RUN:
        _write_fitted(run, format, target, body)
        facts = _origin(load_avatar(avatar)) if _has_avatar(run) else {}
    else:
        loaded = load_avatar(avatar)
        facts = _origin(loaded)
        from svad_ray.local import prepare

        prepare(Settings())
        _write(loaded, format, target, motions, frame, body, MarkConfig(label=label, hidden=mark))
    from svad_ray.deliver import sign

    sign(target, format.value, facts)
    _out.print(str(target))


def _origin(avatar: Avatar) -> dict[str, Any]:
    """What is known of where the avatar comes from."""
    return dict(avatar.facts.get("provenance", {}))


def _has_avatar(run: Path) -> bool:
    return (run / "avatar" / "avatar.json").exists() or (run / "avatar.json").exists()


def _write_frames(avatar: Path, run: Path, target: Path, container: str, body: Path | None) -> dict[str, Any]:
    """The labelled frames of a finished run as a dataset of one subject; what is there already stays."""
    from svad_ray.export.frames import FrameOptions, export_frames
    from svad_ray.store import load_avatar
    from svad_ray.store.verify import WORK

    if not (run / WORK).is_dir():
        raise InputError(
            f"{run} has no {WORK}/, which holds the frames",
            expected="an output folder of create",
            remedy="run create again, or give its output folder",
        )
    loaded = load_avatar(avatar)
    summary = export_frames(str(run.resolve()), str(target.resolve()), FrameOptions(container), body=str(body or ""))
    for entry in summary.left_out:
        raise InputError(f"the frames cannot be exported: {entry.reason}", remedy="run create again; it makes what is missing")
    _out.print(f"{summary.frames} frames in {summary.shards} shards, {summary.bytes / 1e6:.1f} MB")
    return _origin(loaded)


def _write(avatar: Avatar, format: ExportFormat, target: Path, motions: list[str], frame: int, body: Path | None, mark: MarkConfig) -> None:
    match format:
        case ExportFormat.ply | ExportFormat.splat | ExportFormat.spz:
            from svad_ray.deliver import danced
            from svad_ray.export.ply import write_ply
            from svad_ray.export.splat import write_splat
            from svad_ray.export.spz import write_spz

            pose = danced(avatar, motions[0], _load_body(body)) if motions else None
            writers = {ExportFormat.ply: write_ply, ExportFormat.splat: write_splat, ExportFormat.spz: write_spz}
            writers[format](avatar, target, pose=pose, frame=frame)
        case ExportFormat.gltf | ExportFormat.mesh:
            from svad_ray.deliver import clips
            from svad_ray.export.gltf import write_mesh, write_splats

            own = _load_body(body)
            if format is ExportFormat.gltf:
                write_splats(avatar, target, clips=clips(avatar, own, motions))
            else:
                write_mesh(avatar, target, body=own, clips=clips(avatar, own, motions))
        case ExportFormat.smplx:
            from svad_ray.deliver import danced
            from svad_ray.export.smplx_motion import write_smplx

            name, own = (motions or ["walk"])[0], _load_body(body)
            write_smplx(avatar, danced(avatar, name, own), target, body=own, name=name)
        case _:
            from svad_ray.deliver import TURNTABLE_FPS, drawn, marked_frames, turntable_track
            from svad_ray.export.video import write_mp4

            frames = drawn(avatar, turntable_track(avatar, _load_body(body)))
            write_mp4(marked_frames(frames, _origin(avatar), mark), target, TURNTABLE_FPS)


def _write_fitted(run: Path, format: ExportFormat, target: Path, body: Path | None) -> None:
    """The fit of a finished run."""
    from svad_ray.export.exavatar import fitted_clip, write_subject
    from svad_ray.motion import save_track

    clip = fitted_clip(run)
    if format is ExportFormat.fit:
        save_track(clip.track, target)
    else:
        write_subject(clip, target, body=_load_body(body), padded=format is ExportFormat.svad)


def in_motion(avatar: Path, motion: str, body: Path | None, size: int) -> tuple[Avatar, BodyTrack]:
    """The stored avatar, and a motion on its person with a camera of ``size`` pixels."""
    from svad_ray.store import load_avatar

    loaded = load_avatar(avatar)
    from svad_ray.deliver import danced  # with everything that it imports: not before the avatar is there
    from svad_ray.local import prepare

    prepare(Settings())
    return loaded, danced(loaded, motion, _load_body(body), size=size)


def _load_body(path: Path | None) -> Any:
    from svad_ray.body import load_body

    return load_body(path)


def _copy_report(avatar: Path, target: Path) -> None:
    """The report is one file with everything in it; exporting it is copying it."""
    source = (avatar.parent if avatar.name == "avatar" else avatar) / "report.html"
    if not source.is_file():
        raise InputError(
            f"there is no report in {source.parent}", expected="an output folder of create", remedy="run create again; it keeps what is done"
        )
    if target.resolve() != source.resolve():
        from svad_ray.export.atomic import atomic_path

        with atomic_path(target) as temporary:
            temporary.write_bytes(source.read_bytes())
