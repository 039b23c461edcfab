"""Shared options: a dataclass in a command's parameters is its fields on the command line."""

from dataclasses import dataclass
from typing import Annotated, Any

import typer
from typer.testing import CliRunner

from svad_ray.commands.options import grouped


@dataclass(frozen=True)
class Size:
    width: Annotated[int, typer.Option(help="Pixels across.")]
    height: Annotated[int, typer.Option("--high", help="Pixels down.")] = 7
    tags: Annotated[list[str] | None, typer.Option("--tag")] = None


def test_fields_are_options_with_their_names_defaults_and_help() -> None:
    app, seen = typer.Typer(), list[Any]()

    @app.command()
    @grouped
    def command(where: Annotated[str, typer.Argument()], *, size: Size, fast: bool = False) -> None:
        """What it does."""
        seen.append((where, size, fast))

    run = CliRunner().invoke
    assert run(app, ["here", "--width", "3", "--tag", "a", "--tag", "b", "--fast"]).exit_code == 0
    assert run(app, ["there", "--high", "9", "--width", "3"]).exit_code == 0
    assert seen == [("here", Size(3, 7, ["a", "b"]), True), ("there", Size(3, 9, None), False)]
    assert run(app, ["here"]).exit_code == 2  # --width is asked for
    text = run(app, ["--help"], env={"COLUMNS": "100"}).output
    assert all(word in text for word in ("What it does.", "--high", "Pixels across.", "default: 7"))
