"""``svad-ray evaluate``: the paper's protocols, our own people, anybody's pictures, ablations, speed, and the page of all results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from svad_ray.commands.batch import INCOMPLETE, absolute
from svad_ray.commands.progress import bars, interruptible
from svad_ray.config import Settings, load_settings, override
from svad_ray.errors import InputError

if TYPE_CHECKING:
    from svad_ray.evaluate.scoring import Choice
    from svad_ray.evaluate.tables import Page
    from svad_ray.protocols.orders import Order

app = typer.Typer(no_args_is_help=True, help="Measure what we claim: the paper's protocols, ablations and times (docs/evaluate.md).")
_out = Console()

Out = Annotated[str, typer.Option(help="Where rows, tables and pictures go; run again after an interruption: it goes on.")]
Profile = Annotated[str | None, typer.Option(help="embedded (CPU, nothing to bring) or paper.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="YAML with any part of the settings.")]
Sets = Annotated[list[str] | None, typer.Option("--set", metavar="STAGE.KEY=VALUE", help="Override one value; repeatable.")]
Metrics = Annotated[
    list[str] | None,
    typer.Option("--metrics", help="psnr, ssim, lpips-alex, lpips-vgg, clip, semantic-cosine, identity, iou, or all (but clip); commas or repeated."),
]
Clip = Annotated[str, typer.Option("--clip", help="Folder of a CLIP checkpoint of yours (transformers or open_clip), for the metric clip.")]
Backbone = Annotated[
    list[str] | None,
    typer.Option("--backbone", metavar="alex=FILE", help="torchvision's weights for LPIPS instead of the embedded copy; repeatable."),
]
Seed = Annotated[int, typer.Option(help="Of everything drawn: which scans, and the bootstrap.")]
More = Annotated[str, typer.Option("--published", help="YAML of published figures to stand beside ours (svad_ray/evaluate/published.yaml).")]
Cluster = Annotated[bool, typer.Option("--cluster", help="Subjects as tasks of a Ray cluster (the job's own, --address, or one on this machine).")]
Address = Annotated[str | None, typer.Option(help="A Ray cluster (auto, host:port), with --cluster.")]
Cpus = Annotated[float, typer.Option("--cpus", help="Cores a subject gets, with --cluster.")]
Gpus = Annotated[float, typer.Option("--gpus", help="GPUs a subject gets, with --cluster.")]
MaskMode = Annotated[str, typer.Option("--mask-mode", help="none, truth (forgives a wrong outline), own or union: what cuts the person out first.")]
Crop = Annotated[str, typer.Option(help="none, or person: the true person's box and a tenth round it.")]
Background = Annotated[str, typer.Option(help="white or black: behind the person; 'as given' for pictures without masks.")]


@app.command()
def synthetic(
    out: Out,
    people: Annotated[str, typer.Option(help="cast (simple), or varied: coats, flared dresses, big hair, a lamp that stands still.")] = "cast",
    count: Annotated[int, typer.Option(help="How many people.")] = 3,
    first: Annotated[int, typer.Option(help="Number of the first.")] = 0,
    views: Annotated[int, typer.Option(help="Views evenly round the person; 4 are front, left, back, right.")] = 4,
    size: Annotated[int, typer.Option(help="Pixels.")] = 512,
    pitch: Annotated[float, typer.Option(help="Degrees that the cameras stand above.")] = 0.0,
    profile: Profile = None,
    config: ConfigFile = None,
    sets: Sets = None,
    metrics: Metrics = None,
    clip: Clip = "",
    backbone: Backbone = None,
    seed: Seed = 0,
    published: More = "",
    cluster: Cluster = False,
    address: Address = None,
    cpus: Cpus = 1.0,
    gpus: Gpus = 0.0,
) -> None:
    """People made by svad-ray: front photo, avatar, every view against the truth. Always runnable."""
    from svad_ray.evaluate.synthetic.limits import LIMITS
    from svad_ray.protocols.synthetic import orders

    settings, choice = _settings(profile, config, sets), _choice(metrics, clip, backbone)
    _one_of("people", people, ("cast", "varied"))
    made = orders(absolute(out), settings, choice, people=people, seeds=range(first, first + count), views=views, size=size, pitch=pitch)
    _run(
        made, title=f"Synthetic people ({people})", table="synthetic", published=published, seed=seed, on=(cluster, address, cpus, gpus), notes=LIMITS
    )


@app.command()
def folder(
    renders: Annotated[Path, typer.Argument(help="Pictures, directly or one folder a subject.")],
    truth: Annotated[Path, typer.Argument(help="The same names.")],
    out: Out,
    masks: Annotated[Path | None, typer.Option(help="Masks of the truth, same names; pictures with an alpha channel need none.")] = None,
    own_masks: Annotated[Path | None, typer.Option(help="Masks of the renders.")] = None,
    mask_mode: MaskMode = "none",
    crop: Crop = "none",
    background: Background = "as given",
    sequence: Annotated[bool, typer.Option("--sequence", help="Names in order are a sequence: measure its flicker too.")] = False,
    poses: Annotated[str, typer.Option(help="How the test poses came about; kept with every figure.")] = "not said",
    metrics: Metrics = None,
    clip: Clip = "",
    backbone: Backbone = None,
    seed: Seed = 0,
    published: More = "",
    cluster: Cluster = False,
    address: Address = None,
    cpus: Cpus = 1.0,
    gpus: Gpus = 0.0,
) -> None:
    """Score any renders against any truth."""
    from svad_ray.evaluate.scoring import Protocol
    from svad_ray.protocols.folder import orders

    _one_of("crop", crop, ("none", "person"))
    protocol = Protocol("folder", background=background, mask_mode=mask_mode, crop=crop, poses=poses)
    made = orders(
        renders.absolute(),
        truth.absolute(),
        absolute(out),
        _choice(metrics, clip, backbone),
        protocol,
        masks=masks and masks.absolute(),
        own_masks=own_masks and own_masks.absolute(),
        sequence=sequence,
    )
    _run(made, title=f"Renders against {truth.name}", table="folder", published=published, seed=seed, on=(cluster, address, cpus, gpus))


@app.command("people-snapshot")
def people_snapshot(
    data: Annotated[Path, typer.Argument(help="Folder of the subjects: People-Snapshot as published, or InstantAvatar's preparation of it.")],
    out: Out,
    refine_poses: Annotated[
        bool, typer.Option("--refine-poses", help="Refine test poses on the test pictures first; kept with every figure.")
    ] = False,
    background: Background = "white",
    mask_mode: MaskMode = "none",
    every: Annotated[int, typer.Option(help="Score each n-th of the split's test frames.", min=1)] = 1,
    profile: Profile = None,
    config: ConfigFile = None,
    sets: Sets = None,
    metrics: Metrics = None,
    clip: Clip = "",
    backbone: Backbone = None,
    seed: Seed = 0,
    published: More = "",
    cluster: Cluster = False,
    address: Address = None,
    cpus: Cpus = 1.0,
    gpus: Gpus = 0.0,
) -> None:
    """People-Snapshot: one frame in, the test frames of the usual splits at 540 px against it."""
    from svad_ray.protocols.refine import Refinement
    from svad_ray.protocols.snapshot import NOTES, orders

    _one_of("background", background, ("white", "black"))
    settings, choice = _settings(profile, config, sets), _choice(metrics, clip, backbone)
    refine = Refinement() if refine_poses else None
    made = orders(data.absolute(), absolute(out), settings, choice, background=background, mask_mode=mask_mode, refine=refine, every=every)
    on = (cluster, address, cpus, gpus)
    _run(made, title="People-Snapshot", table="people-snapshot", published=published, seed=seed, on=on, notes=NOTES)


@app.command()
def thuman(
    data: Annotated[Path, typer.Argument(help="Folder of the scans: 0000/0000.obj with its texture, ...")],
    out: Out,
    count: Annotated[int, typer.Option(help="How many scans, drawn by --seed.")] = 100,
    size: Annotated[int, typer.Option(help="Pixels.")] = 512,
    fits: Annotated[Path | None, typer.Option(help="Folder of SMPL-X fits (0000/smplx_param.pkl): where the pelvis is.")] = None,
    profile: Profile = None,
    config: ConfigFile = None,
    sets: Sets = None,
    metrics: Metrics = None,
    clip: Clip = "",
    backbone: Backbone = None,
    seed: Seed = 0,
    published: More = "",
    cluster: Cluster = False,
    address: Address = None,
    cpus: Cpus = 1.0,
    gpus: Gpus = 0.0,
) -> None:
    """THuman scans rendered by us: the front view in, front, left, right and back against the scan."""
    from svad_ray.protocols.thuman import NOTES, orders

    usual = ["psnr,ssim,lpips-alex,lpips-vgg,iou", *(["clip"] if clip else [])]
    settings, choice = _settings(profile, config, sets), _choice(metrics or usual, clip, backbone)
    made = orders(data.absolute(), absolute(out), settings, choice, count=count, seed=seed, size=size, fits=fits and fits.absolute())
    _run(made, title="THuman", table="thuman", published=published, seed=seed, on=(cluster, address, cpus, gpus), notes=NOTES)


@app.command()
def ablations(
    out: Out,
    people: Annotated[str, typer.Option(help="cast or varied.")] = "cast",
    count: Annotated[int, typer.Option(help="How many people.")] = 3,
    first: Annotated[int, typer.Option(help="Number of the first.")] = 0,
    frames: Annotated[list[int] | None, typer.Option(help="Clip lengths to compare; repeatable.")] = None,
    resolution: Annotated[list[int] | None, typer.Option(help="Clip sizes in pixels to compare; repeatable.")] = None,
    size: Annotated[int, typer.Option(help="Pixels that are scored.")] = 512,
    profile: Profile = None,
    config: ConfigFile = None,
    sets: Sets = None,
    metrics: Metrics = None,
    clip: Clip = "",
    backbone: Backbone = None,
    seed: Seed = 0,
    cluster: Cluster = False,
    address: Address = None,
    cpus: Cpus = 1.0,
    gpus: Gpus = 0.0,
) -> None:
    """The paper's ablations on synthetic people: no identity, no restoration, no silhouette, fewer frames, lower resolution."""
    from svad_ray.protocols import ablations as work
    from svad_ray.protocols.orders import checked

    _one_of("people", people, ("cast", "varied"))
    settings, choice = _settings(profile, config, sets), _choice(metrics, clip, backbone)
    checked(settings)
    chosen = work.variants(settings, frames=frames or work.FRAMES, sizes=resolution or work.SIZES)
    seeds = range(first, first + count)
    with _runner((cluster, address, cpus, gpus)) as run:
        outcome = work.carry_out(absolute(out), settings, choice, run, chosen, people=people, seeds=seeds, size=size, seed=seed)
    show(outcome.page, absolute(out))
    if outcome.failures:
        raise typer.Exit(INCOMPLETE)


@app.command()
def speed(
    runs: Annotated[list[str], typer.Argument(help="Output folders of create, demo, batch or evaluate.")],
    out: Annotated[str, typer.Option(help="Write the table here as well, for `page`.")] = "",
    published: More = "",
) -> None:
    """Minutes a stage, memory and energy of runs, beside the paper's."""
    from svad_ray.evaluate.published import published as known
    from svad_ray.protocols.results import write_page
    from svad_ray.protocols.speed import costs_of, page_of

    costs = {name: cost for run in runs for name, cost in costs_of(absolute(run)).items()}
    page = page_of(costs, known("speed", published))
    if out:
        write_page(absolute(out), page)
    show(page, out or "not written; --out DIR does")


@app.command()
def page(
    runs: Annotated[list[str], typer.Argument(help="Output folders of evaluate, in the order of the page.")],
    out: Annotated[Path, typer.Option(help="The page.")] = Path("docs/results.md"),
) -> None:
    """One page of all tables, each with the command that made it."""
    from svad_ray.protocols.page import write_results_page
    from svad_ray.protocols.results import own_command

    write_results_page([absolute(run) for run in runs], out, own_command())
    _out.print(str(out))


def _settings(profile: str | None, config: Path | None, sets: list[str] | None) -> Settings:
    """Of several people the largest is taken unless the settings say otherwise: a ghost beside the person is no fault of the avatar."""
    return override(load_settings(profile=profile, path=config, sets=["perceive.largest=true", *(sets or ())]), {})


def _choice(metrics: list[str] | None, clip: str, backbone: list[str] | None) -> Choice:
    from svad_ray.evaluate.scoring import DEFAULT, Choice, chosen

    files = {}
    for text in backbone or ():
        kind, sign, path = text.partition("=")
        if not sign or kind not in ("alex", "vgg"):
            raise InputError(f"--backbone {text} is none", expected="alex=FILE or vgg=FILE")
        files[kind] = str(Path(path).absolute())
    names = chosen(metrics) if metrics else (*DEFAULT, "clip") if clip else DEFAULT
    return Choice(names, absolute(clip) if clip else "", files)


def _one_of(name: str, value: str, valid: Sequence[str]) -> None:
    if value not in valid:
        raise InputError(f"--{name} {value} is unknown", expected=" or ".join(valid))


@contextmanager
def _runner(on: tuple[bool, str | None, float, float]) -> Iterator[Any]:
    """Measures orders in this process, or as tasks of a cluster."""
    from functools import partial

    cluster, address, cpus, gpus = on
    if not cluster:
        from svad_ray.protocols.orders import run_here

        with bars() as tell, interruptible():
            yield partial(run_here, tell=tell)
        return
    from svad_ray.cluster.evaluate_job import measure_orders
    from svad_ray.cluster.session import session

    with session(address), interruptible():
        yield partial(measure_orders, num_cpus=cpus, num_gpus=gpus)


def _run(
    orders: Sequence[Order],
    *,
    title: str,
    table: str,
    published: str,
    seed: int,
    on: tuple[bool, str | None, float, float],
    notes: Sequence[str] = (),
) -> None:
    """Measure, write, print; exit code 9 when subjects are missing."""
    from svad_ray.evaluate.published import published as known
    from svad_ray.protocols.orders import checked
    from svad_ray.protocols.results import carry_out

    others = known(table, published)
    if orders and orders[0].settings:
        checked(orders[0].parsed)
    with _runner(on) as run:
        outcome = carry_out(orders, run, title=title, others=others, seed=seed, notes=notes)
    show(outcome.page, orders[0].out)
    if outcome.failures:
        raise typer.Exit(INCOMPLETE)


def show(page: Page, out: str) -> None:
    """The page on the terminal."""
    for grid in page.grids:
        table = Table(*grid.heads, title=grid.caption or page.title, box=None)
        for row in grid.rows:
            table.add_row(*(escape(text) for text in row))
        _out.print(table)
    for note in page.notes:
        _out.print(f"- {escape(note)}", soft_wrap=True)
    _out.print(f"rows, tables and worst cases: [bold]{escape(out)}[/] (table.html)", soft_wrap=True)
