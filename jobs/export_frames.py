"""Labelled frames of every finished subject as a dataset (parquet or WebDataset shards, COCO-WholeBody annotations, index).

    ray job submit --working-dir . -- python jobs/export_frames.py s3://bucket/avatars s3://bucket/frames
    python jobs/export_frames.py out/ frames/ --local --format webdataset --image jpeg

Run it again when more subjects are finished, or after an interruption: what is written stays. Exit status 0: every finished subject is in the
dataset. 9: some had to be left out, with the reason; the next run tries them again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from svad_ray.cli import run_command
from svad_ray.commands.batch import INCOMPLETE, absolute

_out, _err = Console(), Console(stderr=True)


def export(
    source: Annotated[str, typer.Argument(help="Output folder of batch or create, or a service's store; any fsspec address.")],
    target: Annotated[str, typer.Argument(help="Where the dataset goes; any fsspec address.")],
    format: Annotated[str, typer.Option(help="parquet or webdataset.")] = "parquet",
    image: Annotated[str, typer.Option(help="png (exact) or jpeg (smaller).")] = "png",
    jpeg_quality: Annotated[int, typer.Option(help="1 to 100.")] = 95,
    every: Annotated[int, typer.Option(help="Take each n-th frame of a subject.")] = 1,
    max_frames: Annotated[int, typer.Option(help="A shard holds no more frames.")] = 2048,
    max_mib: Annotated[int, typer.Option(help="A shard is no larger.")] = 256,
    body: Annotated[str, typer.Option(help="The SMPLX_*.npz that the subjects were fitted with, if it was not the open body.")] = "",
    check: Annotated[bool, typer.Option("--check", help="Read the shards that are there, and write damaged ones again.")] = False,
    local: Annotated[bool, typer.Option("--local", help="On this machine, without Ray.")] = False,
    workers: Annotated[int, typer.Option(help="Parts at once with --local; 0 = one for each core.")] = 0,
    address: Annotated[str | None, typer.Option(help="A Ray cluster; default: the job's own, else this machine.")] = None,
) -> None:
    """Write the labelled frames of every finished subject below SOURCE as a dataset below TARGET."""
    import torch

    from svad_ray.body import load_body
    from svad_ray.export.frames import FrameOptions, export_frames, forget_damaged
    from svad_ray.usage import cores

    options = FrameOptions(format, image, jpeg_quality, every, max_frames, max_mib)
    source, target = absolute(source), absolute(target)
    for name in forget_damaged(target) if check else ():
        _out.print(f"[yellow]damaged[/] {escape(name)}: written again", soft_wrap=True)
    torch.set_num_threads(1)  # the same sums in the same order on every machine
    with _runner(local, address) as run, Progress(console=_err, transient=True) as bars:
        if local:
            load_body(body or None)
        task = bars.add_task("parts", total=None)
        summary = export_frames(
            source,
            target,
            options,
            body=body,
            run=run,
            workers=workers or cores(),
            tell=lambda done, total: bars.update(task, completed=done, total=total),
        )
    frames = f"{summary.frames} frames of {summary.subjects} subjects in {summary.shards} shards, {summary.bytes / 1e6:.1f} MB"
    _out.print(f"{frames} ({summary.written} parts written now): {escape(target)}", soft_wrap=True)
    for entry in summary.left_out:
        _out.print(f"[yellow]left out[/] {escape(entry.subject_id or entry.key)}: {escape(entry.reason)}", soft_wrap=True)
    if summary.left_out:
        raise typer.Exit(INCOMPLETE)


@contextmanager
def _runner(local: bool, address: str | None) -> Iterator[Callable[[Sequence[dict[str, Any]]], Iterable[dict[str, Any]]] | None]:
    """What does the parts: Ray, or None for threads here."""
    if local:
        yield None
        return
    from svad_ray.cluster.export_job import export_parts
    from svad_ray.cluster.session import session

    with session(address):
        yield export_parts


if __name__ == "__main__":
    run_command(export)
