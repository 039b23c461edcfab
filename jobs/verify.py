"""Check everything that a run left: markers, checksums, references, and the list against what became of it.

    python jobs/verify.py s3://bucket/avatars --manifest people.csv
    ray job submit --working-dir . -- python jobs/verify.py s3://bucket/avatars --repair

Exit status 0: all is as it was committed, or was but for garbage that --repair removed. 7: something is wrong, or has to be made again.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from svad_ray.cli import run_command
from svad_ray.commands.batch import absolute
from svad_ray.errors import InputError, StoreError
from svad_ray.store.files import Files
from svad_ray.store.keys import Key
from svad_ray.store.repair import Repair, repair
from svad_ray.store.verify import Fault, Report, run_roots, verify

_out, _err = Console(), Console(stderr=True)
_SHOWN = 20


def verify_store(
    root: Annotated[str, typer.Argument(help="Output folder of create or batch, or a service's store; any fsspec address.")],
    manifest: Annotated[str | None, typer.Option(help="The list of the run: each of its subjects must be committed or quarantined.")] = None,
    profile: Annotated[str | None, typer.Option(help="As the run had it.")] = None,
    config: Annotated[Path | None, typer.Option("--config", help="As the run had it.")] = None,
    sets: Annotated[list[str] | None, typer.Option("--set", metavar="STAGE.KEY=VALUE", help="As the run had them.")] = None,
    consent: Annotated[str, typer.Option(help="As the run had it.")] = "",
    hours: Annotated[float, typer.Option(min=0.0, help="What nobody wrote to for so long, and no marker names, was left behind.")] = 24.0,
    repair_it: Annotated[bool, typer.Option("--repair", help="Remove what was left behind; move damaged artefacts aside to be made again.")] = False,
    remake: Annotated[
        bool, typer.Option("--remake-subjects", help="With --repair: also put aside deliveries whose artefacts are not there, for a rerun to remake.")
    ] = False,
    threads: Annotated[int, typer.Option(min=1, help="Folders read at once.")] = 8,
    report: Annotated[str | None, typer.Option(help="Write everything that was found as JSON; any fsspec address.")] = None,
) -> None:
    """Read every committed byte below ROOT and say what is wrong."""
    target = absolute(root)
    wanted = _wanted(manifest, profile, config, sets, consent) if manifest else None
    places, said, wrong = run_roots(target), [], 0
    if wanted is not None and places != [target]:
        raise InputError("a service's store has no manifest", remedy="leave --manifest out")
    for place in places:
        found = _verified(place, wanted, hours * 3600, threads)
        _show(found)
        done = repair(found, older_s=hours * 3600, remake_subjects=remake) if repair_it and found.faults else None
        if done is not None:
            _show_repair(done)
        wrong += len(found.faults) if done is None else len(done.left) + len(done.moved)
        said.append({**found.to_json(), "repair": done and {"removed": done.removed, "moved": done.moved}})
    if report:
        name = absolute(report)
        Files(name.rsplit("/", 1)[0]).write(name.rsplit("/", 1)[1], json.dumps(said, indent=1).encode())
    if wrong:
        raise typer.Exit(StoreError.exit_code)


def _wanted(manifest: str, profile: str | None, config: Path | None, sets: list[str] | None, consent: str) -> dict[Key, str]:
    from svad_ray.config import load_settings
    from svad_ray.ledger.manifest import read_manifest

    listed = read_manifest(manifest, load_settings(profile=profile, path=config, sets=sets or ()), consent=consent)
    return {request.key: request.subject_id for request in listed.requests}


def _verified(place: str, wanted: dict[Key, str] | None, older_s: float, threads: int) -> Report:
    with Progress(console=_err, transient=True) as bars:
        task = bars.add_task("verify", total=None)
        return verify(place, wanted=wanted, older_s=older_s, threads=threads, tell=lambda done, total: bars.update(task, completed=done, total=total))


def _show(found: Report) -> None:
    size, seconds = found.bytes / 1e6, max(found.seconds, 1e-3)
    what = f"{found.artefacts} artefacts, {found.files} files, {size:.1f} MB in {seconds:.1f} s ({size / seconds:.0f} MB/s)"
    people = f"{found.subjects} subjects finished, {found.quarantined} quarantined"
    _out.print(f"{escape(found.root)}: {what}; {people}; {found.in_progress} attempts in progress", soft_wrap=True)
    if found.sound:
        _out.print("[green]everything is as it was committed[/]")
    _list(found.faults)


def _list(faults: list[Fault]) -> None:
    for kind, count in Counter(fault.kind for fault in faults).items():
        _out.print(f"[red]{kind}[/] {count} x", soft_wrap=True)
        same = [fault for fault in faults if fault.kind == kind]
        for fault in same[:_SHOWN]:
            _out.print(f"  {escape(fault.path)}: {escape(fault.detail)}", soft_wrap=True)
        if count > _SHOWN:
            _out.print(f"  and {count - _SHOWN} more; --report writes them all")


def _show_repair(done: Repair) -> None:
    _out.print(f"removed {len(done.removed)} left-behind files and attempts, moved {len(done.moved)} markers and records to damaged/")
    if done.moved:
        _out.print("Run the same job again: what was moved aside is made again.")
    if done.left:
        _out.print(f"{len(done.left)} faults stay:")
        _list(done.left)


if __name__ == "__main__":
    run_command(verify_store)
