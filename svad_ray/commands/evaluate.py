"""``svad-ray evaluate``: the paper's protocols, our own people, anybody's pictures, ablations, speed, and the page of all results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from svad_ray.commands.batch import INCOMPLETE, absolute
from svad_ray.commands.options import grouped
from svad_ray.commands.progress import bars, interruptible
from svad_ray.config import Settings, load_settings, override
from svad_ray.errors import InputError

if TYPE_CHECKING:
    from svad_ray.evaluate.scoring import Choice
    from svad_ray.evaluate.tables import Page
    from svad_ray.protocols.orders import Order

app = typer.Typer(no_args_is_help=True, help="Measure what we claim: the paper's protocols, ablations and times (docs/evaluate.md).")
_out = Console()
_MEASURES_GIB = 2.0  # networks of the measures and the pictures of one subject

Out = Annotated[str, typer.Option(help="Where rows, tables and pictures go; run again after an interruption: it goes on.")]
Published = Annotated[str, typer.Option("--published", help="YAML of published figures to stand beside ours (svad_ray/evaluate/published.yaml).")]
Seed = Annotated[int, typer.Option(help="Of everything drawn: which scans, and the bootstrap.")]
MaskMode = Annotated[str, typer.Option("--mask-mode", help="none, truth (forgives a wrong outline), own or union: what cuts the person out first.")]
Crop = Annotated[str, typer.Option(help="none, or person: the true person's box and a tenth round it.")]
Background = Annotated[str, typer.Option(help="white or black: behind the person; 'as given' for pictures without masks.")]


@dataclass(frozen=True)
class Pipeline:
    """How avatars are made."""

    profile: Annotated[str | None, typer.Option(help="embedded (CPU, nothing to bring) or paper.")] = None
    config: Annotated[Path | None, typer.Option("--config", help="YAML with any part of the settings.")] = None
    sets: Annotated[list[str] | None, typer.Option("--set", metavar="STAGE.KEY=VALUE", help="Override one value; repeatable.")] = None

    def settings(self) -> Settings:
        """Of several people the largest is taken unless the settings say otherwise: a ghost beside the person is no fault of the avatar."""
        return override(load_settings(profile=self.profile, path=self.config, sets=["perceive.largest=true", *(self.sets or ())]), {})


@dataclass(frozen=True)
class Measures:
    """What is measured."""

    metrics: Annotated[
        list[str] | None,
        typer.Option(help="psnr, ssim, lpips-alex, lpips-vgg, clip, semantic-cosine, identity, iou, or all (but clip); commas or repeated."),
    ] = None
    clip: Annotated[str, typer.Option(help="Folder of a CLIP checkpoint of yours (transformers or open_clip), for the metric clip.")] = ""
    backbone: Annotated[
        list[str] | None,
        typer.Option(metavar="alex=FILE", help="torchvision's weights for LPIPS instead of the embedded copy; repeatable."),
    ] = None

    def choice(self, *, usual: Sequence[str] = ()) -> Choice:
        """The measures asked for, else ``usual``, else the default ones; with ``--clip`` also clip."""
        from svad_ray.evaluate.scoring import DEFAULT, Choice, chosen

        files = {}
        for text in self.backbone or ():
            kind, sign, path = text.partition("=")
            if not sign or kind not in ("alex", "vgg"):
                raise InputError(f"--backbone {text} is none", expected="alex=FILE or vgg=FILE")
            files[kind] = str(Path(path).absolute())
        names = chosen(self.metrics) if self.metrics else (*(chosen(usual) if usual else DEFAULT), *(("clip",) if self.clip else ()))
        return Choice(names, absolute(self.clip) if self.clip else "", files)


@dataclass(frozen=True)
class Where:
    """Where subjects are measured."""

    cluster: Annotated[bool, typer.Option("--cluster", help="Subjects as tasks of a Ray cluster (the job's, --address, or one of this machine).")] = (
        False
    )
    address: Annotated[str | None, typer.Option(help="A Ray cluster (auto, host:port), with --cluster.")] = None
    cpus: Annotated[float, typer.Option(help="Cores a subject gets, with --cluster.")] = 1.0
    gpus: Annotated[float, typer.Option(help="GPUs a subject gets, with --cluster.")] = 0.0

    @contextmanager
    def runner(self, memory_gib: float) -> Iterator[Any]:
        """Measures orders in this process, or as tasks of a cluster that get ``memory_gib`` each."""
        from functools import partial

        if not self.cluster:
            from svad_ray.protocols.orders import run_here

            with bars() as tell, interruptible():
                yield partial(run_here, tell=tell)
            return
        from svad_ray.cluster.evaluate_job import measure_orders
        from svad_ray.cluster.session import session

        with session(self.address), interruptible():
            yield partial(measure_orders, num_cpus=self.cpus, num_gpus=self.gpus, memory_gib=memory_gib)


@dataclass(frozen=True)
class People:
    """Which synthetic people."""

    people: Annotated[str, typer.Option(help="cast (simple), or varied: coats, flared dresses, big hair, a lamp that stands still.")] = "cast"
    count: Annotated[int, typer.Option(help="How many people.")] = 3
    first: Annotated[int, typer.Option(help="Number of the first.")] = 0

    def seeds(self) -> range:
        """Their numbers. Raises InputError for an unknown kind."""
        _one_of("people", self.people, ("cast", "varied"))
        return range(self.first, self.first + self.count)


@app.command()
@grouped
def synthetic(
    out: Out,
    *,
    who: People,
    views: Annotated[int, typer.Option(help="Views evenly round the person; 4 are front, left, back, right.")] = 4,
    size: Annotated[int, typer.Option(help="Pixels.")] = 512,
    pitch: Annotated[float, typer.Option(help="Degrees that the cameras stand above.")] = 0.0,
    pipeline: Pipeline,
    measures: Measures,
    seed: Seed = 0,
    published: Published = "",
    where: Where,
) -> None:
    """People made by svad-ray: front photo, avatar, every view against the truth. Always runnable."""
    from svad_ray.evaluate.synthetic.limits import LIMITS
    from svad_ray.protocols.synthetic import orders

    settings, choice = pipeline.settings(), measures.choice()
    made = orders(absolute(out), settings, choice, people=who.people, seeds=who.seeds(), views=views, size=size, pitch=pitch)
    _run(made, title=f"Synthetic people ({who.people})", table="synthetic", published=published, seed=seed, where=where, notes=LIMITS)


@app.command()
@grouped
def folder(
    renders: Annotated[Path, typer.Argument(help="Pictures, directly or one folder a subject.")],
    truth: Annotated[Path, typer.Argument(help="The same names.")],
    out: Out,
    *,
    masks: Annotated[Path | None, typer.Option(help="Masks of the truth, same names; pictures with an alpha channel need none.")] = None,
    own_masks: Annotated[Path | None, typer.Option(help="Masks of the renders.")] = None,
    mask_mode: MaskMode = "none",
    crop: Crop = "none",
    background: Background = "as given",
    sequence: Annotated[bool, typer.Option("--sequence", help="Names in order are a sequence: measure its flicker too.")] = False,
    poses: Annotated[str, typer.Option(help="How the test poses came about; kept with every figure.")] = "not said",
    measures: Measures,
    seed: Seed = 0,
    published: Published = "",
    where: Where,
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
        measures.choice(),
        protocol,
        masks=masks and masks.absolute(),
        own_masks=own_masks and own_masks.absolute(),
        sequence=sequence,
    )
    _run(made, title=f"Renders against {truth.name}", table="folder", published=published, seed=seed, where=where)


@app.command("people-snapshot")
@grouped
def people_snapshot(
    data: Annotated[Path, typer.Argument(help="Folder of the subjects: People-Snapshot as published, or InstantAvatar's preparation of it.")],
    out: Out,
    *,
    refine_poses: Annotated[
        bool, typer.Option("--refine-poses", help="Refine test poses on the test pictures first; kept with every figure.")
    ] = False,
    background: Background = "white",
    mask_mode: MaskMode = "none",
    every: Annotated[int, typer.Option(help="Score each n-th of the split's test frames.", min=1)] = 1,
    pipeline: Pipeline,
    measures: Measures,
    seed: Seed = 0,
    published: Published = "",
    where: Where,
) -> None:
    """People-Snapshot: one frame in, the test frames of the usual splits at 540 px against it."""
    from svad_ray.protocols.refine import Refinement
    from svad_ray.protocols.snapshot import NOTES, orders

    _one_of("background", background, ("white", "black"))
    settings, choice = pipeline.settings(), measures.choice()
    refine = Refinement() if refine_poses else None
    made = orders(data.absolute(), absolute(out), settings, choice, background=background, mask_mode=mask_mode, refine=refine, every=every)
    _run(made, title="People-Snapshot", table="people-snapshot", published=published, seed=seed, where=where, notes=NOTES)


@app.command()
@grouped
def thuman(
    data: Annotated[Path, typer.Argument(help="Folder of the scans: 0000/0000.obj with its texture, ...")],
    out: Out,
    *,
    count: Annotated[int, typer.Option(help="How many scans, drawn by --seed.")] = 100,
    size: Annotated[int, typer.Option(help="Pixels.")] = 512,
    fits: Annotated[Path | None, typer.Option(help="Folder of SMPL-X fits (0000/smplx_param.pkl): where the pelvis is.")] = None,
    pipeline: Pipeline,
    measures: Measures,
    seed: Seed = 0,
    published: Published = "",
    where: Where,
) -> None:
    """THuman scans rendered by us: the front view in, front, left, right and back against the scan."""
    from svad_ray.protocols.thuman import NOTES, orders

    settings, choice = pipeline.settings(), measures.choice(usual=["psnr,ssim,lpips-alex,lpips-vgg,iou"])
    made = orders(data.absolute(), absolute(out), settings, choice, count=count, seed=seed, size=size, fits=fits and fits.absolute())
    _run(made, title="THuman", table="thuman", published=published, seed=seed, where=where, notes=NOTES)


@app.command()
@grouped
def ablations(
    out: Out,
    *,
    who: People,
    frames: Annotated[list[int] | None, typer.Option(help="Clip lengths to compare; repeatable.")] = None,
    resolution: Annotated[list[int] | None, typer.Option(help="Clip sizes in pixels to compare; repeatable.")] = None,
    size: Annotated[int, typer.Option(help="Pixels that are scored.")] = 512,
    pipeline: Pipeline,
    measures: Measures,
    seed: Seed = 0,
    where: Where,
) -> None:
    """The paper's ablations on synthetic people: no identity, no restoration, no silhouette, fewer frames, lower resolution."""
    from svad_ray.protocols import ablations as work
    from svad_ray.protocols.orders import checked

    settings, choice = pipeline.settings(), measures.choice()
    checked(settings)
    chosen = work.variants(settings, frames=frames or work.FRAMES, sizes=resolution or work.SIZES)
    seeds = who.seeds()
    with where.runner(_memory_gib(settings)) as run:
        outcome = work.carry_out(absolute(out), settings, choice, run, chosen, people=who.people, seeds=seeds, size=size, seed=seed)
    show(outcome.page, absolute(out))
    if outcome.failures:
        raise typer.Exit(INCOMPLETE)


@app.command()
def speed(
    runs: Annotated[list[str], typer.Argument(help="Output folders of create, demo, batch or evaluate.")],
    out: Annotated[str, typer.Option(help="Write the table here as well, for `page`.")] = "",
    published: Published = "",
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


def _one_of(name: str, value: str, valid: Sequence[str]) -> None:
    if value not in valid:
        raise InputError(f"--{name} {value} is unknown", expected=" or ".join(valid))


def _memory_gib(settings: Settings | None) -> float:
    """What a subject takes: the largest stage and the measures; without a pipeline the measures alone."""
    from svad_ray.backends import STAGES
    from svad_ray.deliver import described

    return _MEASURES_GIB + (max(described(settings, stage).memory_gib for stage in STAGES) if settings else 0.0)


def _run(
    orders: Sequence[Order],
    *,
    title: str,
    table: str,
    published: str,
    seed: int,
    where: Where,
    notes: Sequence[str] = (),
) -> None:
    """Measure, write, print; exit code 9 when subjects are missing."""
    from svad_ray.evaluate.published import published as known
    from svad_ray.protocols.orders import checked
    from svad_ray.protocols.results import carry_out

    others = known(table, published)
    if orders and orders[0].settings:
        checked(orders[0].parsed)
    with where.runner(_memory_gib(orders[0].parsed if orders[0].settings else None)) as run:
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
