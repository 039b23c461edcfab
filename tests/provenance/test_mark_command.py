"""``svad-ray provenance mark``: whose video it is, by any photo of the avatar or by a photo's file."""

import hashlib
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from svad_ray.cli import app
from svad_ray.export.mark import code_of, marked
from svad_ray.export.video import write_mp4
from svad_ray.provenance.photos import hashes_of, photo_hashes
from svad_ray.store import save_avatar
from svad_ray.subject import Photo

sys.path += [str(Path(__file__).parents[1] / "service"), str(Path(__file__).parents[1])]
PHOTOS = {name: f"the bytes of {name}".encode() for name in ("front", "back", "source", "somebody")}
HASHES = {name: hashlib.sha256(content).hexdigest() for name, content in PHOTOS.items()}


@pytest.fixture
def avatar(tmp_path):
    import service_kit

    photo = {"sha256": HASHES["front"], "origin": {"edited_from": {"sha256": HASHES["source"]}}}
    facts = {"provenance": {"photo": photo, "photos": [{"sha256": HASHES["front"]}, {"sha256": HASHES["back"]}]}}
    for name, content in PHOTOS.items():
        (tmp_path / f"{name}.jpg").write_bytes(content)
    return save_avatar(replace(service_kit.person(np.ones(60)), facts=facts), tmp_path / "avatar")


def video(folder, name):
    """One whose mark names that photo."""
    frame = np.full((512, 512, 3), 120, np.uint8)
    write_mp4(marked([frame] * 12, code=code_of(HASHES[name])), folder / f"{name}.mp4", 12.0)
    return folder / f"{name}.mp4"


def said(*words):
    done = CliRunner().invoke(app, ["provenance", "mark", *map(str, words)])
    return done.exit_code, done.output


@pytest.mark.parametrize("name", PHOTOS)
def test_any_photo_of_the_avatar_counts(avatar, tmp_path, name):
    code, words = said(video(tmp_path, name), "--avatar", avatar)
    assert (code, f"{code_of(HASHES[name]):08x}" in words) == (1 if name == "somebody" else 0, True)
    assert ("another avatar" if name == "somebody" else "this avatar") in words


def test_a_photo_is_asked_by_its_file(avatar, tmp_path):
    made = video(tmp_path, "back")
    assert said(made, "--photo", tmp_path / "somebody.jpg", "--photo", tmp_path / "back.jpg")[0] == 0
    assert said(made, "--photo", tmp_path / "somebody.jpg")[0] == 1 and said(made)[0] == 0
    assert "cannot be read" in str(CliRunner().invoke(app, ["provenance", "mark", str(made), "--photo", str(tmp_path / "none")]).exception)


def test_hashes_of_a_photo_are_those_of_its_provenance():
    side = Photo("side", np.zeros((1, 1, 3), np.uint8), "b" * 64)
    assert hashes_of(replace(side, sha256="a" * 64, also=(side,))) == ["a" * 64, "b" * 64]
    assert hashes_of(replace(side, origin={"edited_from": {"sha256": "c" * 64}})) == ["b" * 64, "c" * 64]
    assert photo_hashes({}) == [] and photo_hashes({"photo": {"sha256": "a"}, "photos": [{"sha256": "a"}, {"sha256": "b"}]}) == ["a", "b"]
