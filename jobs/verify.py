"""Check the results of a bulk run: every marker, every checksum, orphans, references, and committed + quarantined against the list.

    python jobs/verify.py s3://bucket/avatars --manifest people.csv
    python jobs/verify.py out --repair           damaged artefacts are forgotten, so that the next run makes them again; old garbage goes

Exit status 0: everything is sound. 8: something is damaged, missing or counted twice.
"""

from __future__ import annotations

from typing import Annotated

import typer

from svad_ray.cli import bars, run_command
from svad_ray.commands.batch import absolute
from svad_ray.config import load_settings

UNSOUND = 8
_SHOWN = 50


def verify(
    out: Annotated[str, typer.Argument(help="Where the run's results are: a folder or an fsspec address.")],
    manifest: Annotated[str | None, typer.Option(help="The run's list; every subject of it must be committed or quarantined.")] = None,
    profile: Annotated[str | None, typer.Option(help="As the run had it.")] = None,
    sets: Annotated[list[str] | None, typer.Option("--set", metavar="STAGE.KEY=VALUE", help="As the run had them.")] = None,
    consent: Annotated[str, typer.Option(help="As the run had it.")] = "",
    repair: Annotated[bool, typer.Option("--repair", help="Forget what is damaged, remove old garbage.")] = False,
    older_than_h: Annotated[float, typer.Option(help="Garbage younger than this may still be written by somebody.")] = 24.0,
) -> None:
    """Check everything below OUT."""
    from svad_ray.ledger.audit import audit, mend
    from svad_ray.ledger.manifest import read_manifest

    listed = None
    if manifest:
        listed = [request.key for request in read_manifest(manifest, load_settings(profile=profile, sets=sets or ()), consent=consent).requests]
    target = absolute(out)
    with bars() as tell:
        found = audit(target, listed=listed, progress=tell)
    for name, store in found.stores.items():
        typer.echo(f"{name}: {store.artefacts} artefacts, {store.files} files, {store.bytes / 1e6:.1f} MB read")
    typer.echo(f"subjects: {len(found.committed)} committed, {len(found.quarantined)} quarantined" + (f" of {len(listed)}" if listed else ""))
    for name, finding in found.findings[:_SHOWN]:
        typer.echo(f"{finding.kind}\t{name}/{finding.where}\t{finding.what}")
    if len(found.findings) > _SHOWN:
        typer.echo(f"and {len(found.findings) - _SHOWN} more")
    for key in found.missing[:_SHOWN]:
        typer.echo(f"missing\t{key}\tneither committed nor quarantined: run the list again")
    for key in found.twice[:_SHOWN]:
        typer.echo(f"twice\t{key}\tboth committed and quarantined")
    if repair:
        forgotten, removed = mend(target, found, older_than_h=older_than_h)
        typer.echo(f"repaired: {forgotten} damaged artefacts forgotten, {removed} pieces of garbage removed; run the list again")
    if not found.sound:
        raise typer.Exit(UNSOUND)


if __name__ == "__main__":
    run_command(verify)
