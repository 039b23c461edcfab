"""CONTRIBUTING's "add a backend in five steps", done word by word in a copy of the repository; and backends of other packages."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from svad_ray import backends
from svad_ray.config import RestoreConfig
from svad_ray.errors import ConfigError

ROOT = Path(__file__).parents[1]


def steps() -> list[tuple[str, str]]:
    """(language, text) of the fenced blocks of the section."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("## Add a backend in five steps")[1]
    return re.findall(r"```(\w+)\n(.*?)```", text, re.DOTALL)


def run(command, folder: Path) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(folder), "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(command, cwd=folder, shell=True, capture_output=True, text=True, env=environment, timeout=300)


@pytest.mark.slow
def test_the_five_steps(tmp_path):
    for name in ("svad_ray", "tests", "docs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "*.npz", "*.png"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/svad-ray").write_text(f'#!/bin/sh\nexec {sys.executable} -m svad_ray "$@"\n')
    (tmp_path / "bin/python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    for tool in (tmp_path / "bin").iterdir():
        tool.chmod(0o755)
    done = 0
    for language, text in steps():
        if language == "bash":
            told = run(text.strip(), tmp_path)
            assert told.returncode == 0, told.stdout + told.stderr
        elif new := re.match(r"# new file: (\S+)\n", text):
            (tmp_path / new[1]).write_text(text[new.end() :])
        else:
            head, line = text.split("\n", 1)
            file, behind = re.fullmatch(r"# (\S+), behind: (.*)", head).groups()
            old = (tmp_path / file).read_text()
            assert old.count(behind) == 1
            at = old.index("\n", old.index(behind)) + 1
            (tmp_path / file).write_text(old[:at] + line + old[at:])
        done += 1
    assert done == 6, "five steps, the last of two blocks"
    assert "| restore | unsharp |" in (tmp_path / "docs/licences.md").read_text()
    chosen = run("svad-ray config --set restore.backend=unsharp --set restore.unsharp_amount=0.2", tmp_path)
    assert "unsharp_amount: 0.2" in chosen.stdout
    assert run("ruff check --config pyproject.toml svad_ray/stages/restore/unsharp.py tests/restore/test_unsharp.py", tmp_path).returncode == 0


def test_backends_of_installed_packages_are_found(tmp_path):
    info = tmp_path / "other-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    points = ["restore.theirs = other:Theirs", "restore.realesrgan = other:Stolen", "nowhere.x = other:X"]
    (info / "entry_points.txt").write_text("\n".join(["[svad_ray.backends]", *points]))
    (tmp_path / "other.py").write_text("class Theirs:\n    backend = None\n")
    loads = [f"b.load('restore', '{name}').__name__" for name in ("theirs", "realesrgan")]
    code = f"from svad_ray import backends as b; print(b.names('restore'), {', '.join(loads)})"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])}
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert told.stdout.strip().endswith("Theirs RealEsrganRestore") and "'theirs'" in told.stdout, told.stderr


def test_backends_of_this_process(monkeypatch):
    monkeypatch.setattr(backends, "_own", {})
    backends.register("restore", "mine", "svad_ray.stages.restore.embedded:RealEsrganRestore")
    assert backends.load("restore", "mine")(RestoreConfig(backend="mine")).config.backend == "mine"
    assert ("restore", "mine") not in backends.registry()
    for stage, name, path in (("nowhere", "x", "a:B"), ("restore", "realesrgan", "a:B"), ("restore", "mine", "a:B"), ("restore", "x", "path")):
        with pytest.raises(ConfigError):
            backends.register(stage, name, path)
