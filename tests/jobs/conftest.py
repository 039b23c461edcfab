"""The scripts of jobs/, as programs that can be called here."""

import importlib.util
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

TESTS = Path(__file__).parent.parent
for folder in (TESTS, TESTS / "export"):  # sources of finished subjects
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


@pytest.fixture(scope="session")
def job():
    """(file name, its command, arguments) -> (exit code, what it printed)."""

    def call(name: str, command: str, *arguments: object) -> tuple[int, str]:
        spec = importlib.util.spec_from_file_location(f"job_{name}", TESTS.parent / "jobs" / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        app = typer.Typer(pretty_exceptions_enable=False)
        app.command()(getattr(module, command))
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.output

    return call
