"""``svad-ray provenance``: what exports say of their origin, and whether it is true. ``svad-ray forget``: remove a person's everything."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from svad_ray.errors import InputError

if TYPE_CHECKING:
    from svad_ray.provenance import Checked

app = typer.Typer(no_args_is_help=True, help="Signed records of where exports come from.")
_out, _err = Console(), Console(stderr=True)
Exports = Annotated[list[Path], typer.Argument(help="Exported files or folders.")]
Signing = Annotated[str, typer.Option("--signing", help="Folder of the signing key; default: SVAD_SIGNING, or the user's configuration folder.")]
Signer = Annotated[Path | None, typer.Option("--signer", help="root.pem of the installation that should have signed; default: this one.")]


@app.command()
def verify(paths: Exports, signer: Signer = None, signing: Signing = "") -> None:
    """Is each export as it was signed, and by the right installation? Exit status 1: not all of them."""
    from svad_ray.provenance import check

    root = _root(signer, signing)
    found = [check(path, root) for path in paths]
    for one in found:
        _out.print(f"{'[green]ok[/]' if one.good else '[red]no[/]'} {escape(str(one.path))}: {escape(_verdict(one))}", soft_wrap=True)
    if not all(one.good for one in found):
        raise typer.Exit(1)


@app.command()
def show(path: Annotated[Path, typer.Argument(help="An exported file or folder.")], signer: Signer = None, signing: Signing = "") -> None:
    """The record of an export as JSON; whether it is true goes to standard error."""
    from svad_ray.provenance import check

    one = check(path, _root(signer, signing))
    _err.print(escape(_verdict(one)), soft_wrap=True)
    typer.echo(json.dumps(one.record, indent=1))
    if not one.record:
        raise typer.Exit(1)


@app.command()
def key(signing: Signing = "") -> None:
    """Where this installation's key lies, its short name, and the file by which others recognise it. Made if there is none."""
    from svad_ray.provenance import identity
    from svad_ray.provenance.identity import ROOT, fingerprint

    mine = identity(signing)
    _out.print(f"{fingerprint(mine.root)} in {escape(str(mine.folder))}; others need {escape(str(mine.folder / ROOT))}", soft_wrap=True)


@app.command()
def mark(
    video: Annotated[Path, typer.Argument(help="A video.")],
    avatar: Annotated[Path | None, typer.Option(help="Is it this avatar, by any of its photos? Its folder.")] = None,
    photos: Annotated[list[Path] | None, typer.Option("--photo", help="Is it an avatar of this photo? The file as it was given; repeatable.")] = None,
) -> None:
    """Look for the hidden mark. Exit status 1: there is none, or it is of none of the avatar's and the given photos."""
    from svad_ray.export.mark import code_of, find
    from svad_ray.export.video import read_video
    from svad_ray.provenance.photos import photo_hashes
    from svad_ray.store import load_avatar

    asked = {code_of(sha256): "this avatar" for sha256 in (photo_hashes(load_avatar(avatar).facts.get("provenance", {})) if avatar else ())}
    asked |= {code_of(_sha256(photo)): f"of {photo}" for photo in photos or ()}
    found = find(read_video(video)[0])
    if found.code is None:
        _out.print("no mark")
    else:
        nobody = "of none of these photos, or of an avatar that they are not the first photo of" if photos else "another avatar"
        whose = f": {asked.get(found.code, nobody)}" if asked else ""
        _out.print(escape(f"mark {found.code:08x}{whose}"), soft_wrap=True)
    if found.code is None or (asked and found.code not in asked):
        raise typer.Exit(1)


def forget(
    subject: Annotated[str, typer.Argument(help="The subject's id in the run's list; of an output of create, the folder's name.")],
    out: Annotated[str, typer.Option(help="Output of batch or create; any fsspec address.")],
    frames: Annotated[list[str] | None, typer.Option(help="A frames dataset that may hold them; repeatable.")] = None,
    orphans: Annotated[bool, typer.Option("--orphans", help="Also every artefact that no finished subject names.")] = False,
    receipt: Annotated[Path, typer.Option(help="Where the signed receipt goes.")] = Path("forgotten.json"),
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    signing: Signing = "",
) -> None:
    """Remove everything that was made of a person, look for what is left, and write a signed receipt (docs/provenance.md)."""
    from svad_ray.commands.batch import absolute
    from svad_ray.forget import forget as remove
    from svad_ray.provenance import identity

    by = identity(signing)
    if not yes and not typer.confirm(f"Remove everything of '{subject}' below {out}?"):
        raise typer.Exit(1)
    says = remove(absolute(out), subject, datasets=[absolute(name) for name in frames or ()], orphans=orphans)
    receipt.write_bytes(says.receipt(by))
    _out.print(f"{len(says.artefacts)} artefacts, {says.files} files, {says.size / 1e6:.1f} MB removed; {says.looked_at} files looked at afterwards")
    for what, entries in (("still named in", says.left), ("shared with another subject", says.shared)):
        for entry in entries:
            _out.print(f"[red]{what}[/] {escape(entry)}", soft_wrap=True)
    if says.unattributed:
        _out.print(f"[yellow]{says.unattributed} artefacts[/] are of no finished subject and may be theirs: --orphans removes them", soft_wrap=True)
    _out.print(f"receipt: {escape(str(receipt))}", soft_wrap=True)
    if not says.complete:
        raise typer.Exit(1)


def _sha256(photo: Path) -> str:
    try:
        return hashlib.sha256(photo.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"the photo {photo} cannot be read: {error.strerror or error}", remedy="check the path given to --photo") from error


def _root(signer: Path | None, signing: str) -> bytes:
    from svad_ray.provenance import identity

    if signer is None:
        return identity(signing).root
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives.serialization import Encoding

        return x509.load_pem_x509_certificate(signer.read_bytes()).public_bytes(Encoding.PEM)
    except (OSError, ValueError) as error:
        raise InputError(f"{signer} is no certificate: {error}", expected="root.pem of an installation", remedy="svad-ray provenance key") from error


def _verdict(one: Checked) -> str:
    if one.wrong:
        return "; ".join(one.wrong)
    if one.trusted:
        return f"as it was signed by {one.signer}"
    return f"as it was signed, but by {one.signer or 'somebody else'}: give their root.pem with --signer"
