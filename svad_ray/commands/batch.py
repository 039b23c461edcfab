"""``svad-ray batch``: a list of photos to a folder of avatars, on this machine or on a Ray cluster."""

from __future__ import annotations

import signal
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from svad_ray.config import load_settings, override

if TYPE_CHECKING:
    from svad_ray.cluster.bulk import Summary
    from svad_ray.cluster.config import ClusterConfig

INTERRUPTED, INCOMPLETE = 130, 9
_out, _err = Console(), Console(stderr=True)


def batch(
    manifest: Annotated[str, typer.Argument(help="Parquet, CSV or JSONL with subject_id and uri, or a folder of photos; any fsspec address.")],
    out: Annotated[str, typer.Option(help="Where everything goes: a folder or an fsspec address.")],
    profile: Annotated[str | None, typer.Option(help="embedded (CPU, nothing to bring) or paper.")] = None,
    config: Annotated[Path | None, typer.Option("--config", help="YAML with any part of the settings.")] = None,
    sets: Annotated[list[str] | None, typer.Option("--set", metavar="STAGE.KEY=VALUE", help="Override one value; repeatable.")] = None,
    cluster: Annotated[Path | None, typer.Option("--cluster", help="YAML that says what runs where; see docs/cluster.md.")] = None,
    address: Annotated[str | None, typer.Option(help="A Ray cluster (auto, host:port); default: the job's own, else this machine.")] = None,
    export: Annotated[
        list[str] | None, typer.Option("--export", help="ply, gltf, mesh, turntable, report; repeatable. The avatar folder always.")
    ] = None,
    consent: Annotated[str, typer.Option(help="Statement that the people agree, for rows without one.")] = "",
    at_once: Annotated[int | None, typer.Option(help="Subjects in training at once; default: as many as fit.")] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Try quarantined subjects again.")] = False,
    log: Annotated[str | None, typer.Option(help="JSON lines of everything that happens: a file, or - for standard output.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Never fetch model files.")] = False,
) -> None:
    """Make the avatars of many people. Run again after an interruption: what is finished is not done again."""
    from svad_ray.cluster.config import load_cluster_config
    from svad_ray.ledger.manifest import read_manifest

    settings = override(load_settings(profile=profile, path=config, sets=sets or ()), {"offline": offline})
    values: dict[str, Any] = {"exports": tuple(export)} if export else {}
    values |= {"train": {"at_once": at_once}} if at_once else {}
    where = load_cluster_config(cluster, values)
    listed = read_manifest(manifest, settings, consent=consent)
    for note in listed.notes:
        _err.print(f"[yellow]note[/] {escape(note)}")
    target = absolute(out)
    if retry:
        release(target, [request.key for request in listed.requests])
    with _stoppable(), _lines(log) as stream:
        summary = run_listed(listed.requests, target, where, address=address, stream=stream)
    report(summary, target)
    if not summary.complete:
        raise typer.Exit(INCOMPLETE)


def run_listed(requests: Any, out: str, where: ClusterConfig, *, address: str | None, stream: IO[str] | None) -> Summary:
    """Connect, run, show."""
    from svad_ray.cluster.bulk import run_bulk
    from svad_ray.cluster.session import session
    from svad_ray.cluster.view import View

    with session(address), View(len(requests), json_to=stream, console=_err) as view:
        return run_bulk(requests, out, where, view=view)


def report(summary: Summary, out: str) -> None:
    """The end of a run in a few lines."""
    done = f"{summary.committed} of {summary.total} avatars are in {out}/subjects"
    earlier = f" ({summary.found_done} were finished earlier)" if summary.found_done else ""
    _out.print(f"{escape(done)}{earlier}; table: {escape(out)}/status.parquet", soft_wrap=True)
    given_up = [status for status in summary.statuses if status.state == "quarantined"]
    for reason, count in Counter(f"{status.step}: {status.reason}" for status in given_up).most_common(10):
        _out.print(f"[yellow]quarantined[/] {count} x {escape(reason)}", soft_wrap=True)
    if given_up:
        _out.print("`svad-ray batch ... --retry` tries them again.")


def release(out: str, keys: Any) -> int:
    """Let quarantined subjects be tried again; how many there were."""
    from svad_ray.ledger import Ledger

    ledger = Ledger(f"{out}/ledger")
    found = ledger.quarantined().keys() & set(keys)
    for key in found:
        ledger.release(key)
    _err.print(f"{len(found)} quarantined subjects will be tried again")
    return len(found)


def absolute(address: str) -> str:
    """Workers have another working directory: local folders are named in full."""
    return address if "://" in address or "::" in address else str(Path(address).absolute())


@contextmanager
def _lines(log: str | None) -> Iterator[IO[str] | None]:
    if not log:
        yield None
    elif log == "-":
        yield sys.stdout
    else:
        Path(log).parent.mkdir(parents=True, exist_ok=True)
        with open(log, "a", encoding="utf-8") as stream:
            yield stream


@contextmanager
def _stoppable() -> Iterator[None]:
    """Ctrl-C and the SIGTERM of ``ray job stop`` end the run in order."""
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    except KeyboardInterrupt:
        _err.print("Stopped. What was finished is kept; the same command goes on from there.")
        raise typer.Exit(INTERRUPTED) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt
