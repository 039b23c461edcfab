"""Try quarantined subjects again: ``svad-ray batch --retry``, optionally only those whose reason matches.

ray job submit --working-dir . -- python jobs/retry_quarantine.py people.csv --out s3://bucket/avatars --reason "out of memory"
"""

from __future__ import annotations

import re
from typing import Annotated

import typer

from svad_ray.cli import run_command
from svad_ray.commands.batch import absolute, batch
from svad_ray.ledger import Ledger


def retry_quarantine(
    manifest: Annotated[str, typer.Argument(help="The list of the run.")],
    out: Annotated[str, typer.Option(help="Where the run's results are.")],
    reason: Annotated[str, typer.Option(help="Regular expression that the reason must match; default: any.")] = "",
    list_only: Annotated[bool, typer.Option("--list", help="Only say who is quarantined and why.")] = False,
    cluster: Annotated[str | None, typer.Option("--cluster", help="YAML that says what runs where.")] = None,
    address: Annotated[str | None, typer.Option(help="A Ray cluster; default: the job's own, else this machine.")] = None,
    sets: Annotated[list[str] | None, typer.Option("--set", metavar="STAGE.KEY=VALUE", help="As the run had them.")] = None,
    profile: Annotated[str | None, typer.Option(help="As the run had it.")] = None,
    log: Annotated[str | None, typer.Option(help="JSON lines: a file, or - for standard output.")] = None,
) -> None:
    """Release quarantined subjects and run the list again; what is finished is not done again."""
    from pathlib import Path

    ledger = Ledger(f"{absolute(out)}/ledger")
    chosen = {key: entry for key, entry in ledger.quarantined().items() if re.search(reason, entry.reason)}
    for entry in chosen.values():
        typer.echo(f"{entry.subject_id}\t{entry.step}\t{entry.attempts} attempts\t{entry.reason.splitlines()[0]}")
    if list_only:
        return
    for key in chosen:
        ledger.release(key)
    batch(manifest, out, profile=profile, sets=sets, cluster=Path(cluster) if cluster else None, address=address, log=log)


if __name__ == "__main__":
    run_command(retry_quarantine)
