"""``svad-ray models import``: checkpoints wherever they lie, recognised and laid out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from svad_ray.checkpoints.find import Found
    from svad_ray.checkpoints.layout import Laid

_out, _err = Console(), Console(stderr=True)
_BAD = ("kept", "damaged")


def import_models(
    path: Annotated[Path, typer.Argument(help="A file, or a folder: SVAD's bundle, ExAvatar's tree, folders of a model hub.")],
    to: Annotated[Path | None, typer.Option(help="The models root; default: below the cache folder.")] = None,
    link: Annotated[bool, typer.Option("--link/--copy", help="Link to the files where they lie, or copy them.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what is there.")] = False,
) -> None:
    """Recognise checkpoints by what they hold and lay them out as the stages expect. Nothing in them is run; again, it does what is left."""
    from svad_ray.checkpoints.check import faults
    from svad_ray.checkpoints.find import find
    from svad_ray.checkpoints.layout import SETTINGS, default_root, lay_out
    from svad_ray.commands.progress import bars, interruptible

    root = (to or default_root()).expanduser()
    with bars() as tell, interruptible():
        found = find(path, progress=lambda done: tell("looking", done))
        laid = [] if dry_run else lay_out(found, root, link=link, progress=tell)
    _print_found(found, laid, path)
    wrong = {f"{folder.name}/{name}": fault for folder in _stage_folders(root, laid) for name, fault in faults(folder).items() if fault}
    for place, fault in wrong.items():
        _err.print(f"[red]{escape(place)}[/] {escape(fault)}", soft_wrap=True)
    if laid:
        _out.print(f"svad-ray create photo.jpg --out out/me --profile paper --config {escape(str(root / SETTINGS))}", soft_wrap=True)
    if wrong or any(one.state in _BAD for one in laid) or not any(one.what for one in found):
        raise typer.Exit(1)


def _stage_folders(root: Path, laid: list[Laid]) -> list[Path]:
    return sorted({root / one.place.partition("/")[0] for one in laid})


def _print_found(found: list[Found], laid: list[Laid], below: Path) -> None:
    table = Table("what it is", "commercial", "licence", "goes to", box=None)
    table.add_column("file", overflow="fold", ratio=1)
    base = below.expanduser() if below.expanduser().is_dir() else below.expanduser().parent
    for one in sorted(found, key=lambda one: not one.what):
        fates = [entry for entry in laid if entry.source in {source for source, _ in one.targets}]
        where = "; ".join(f"{fate.place} ({fate.note or fate.state})" for fate in fates[:2]) + (
            f" and {len(fates) - 2} more" if len(fates) > 2 else ""
        )
        planned = one.reason or where or ", ".join(place for _, place in one.targets[:2])
        row = (one.what or "unknown", ("yes" if one.commercial else "no") if one.what else "", one.licence, planned, str(one.path.relative_to(base)))
        table.add_row(*(escape(_printable(cell)) for cell in row))
    _out.print(table)
    unknown = sum(not one.what for one in found)
    _out.print(f"{len(found) - unknown} known, {unknown} unknown")


def _printable(text: str) -> str:
    """A file's name need not be text: what is none shows as a question mark."""
    return text.encode("utf-8", "replace").decode()
