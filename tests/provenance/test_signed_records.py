"""Signed records: against c2pa's own reader and cryptography's verification, and every kind of change is seen."""

import base64
import json
import os
import stat
import subprocess
import sys
from dataclasses import replace

import c2pa
import cv2
import numpy as np
import pytest
from cryptography import x509
from typer.testing import CliRunner

from svad_ray.cli import app
from svad_ray.errors import InputError
from svad_ray.export.video import read_video, write_mp4
from svad_ray.provenance import check, identity, seal, seal_folder, sidecar
from svad_ray.provenance import jws as signed
from svad_ray.provenance.identity import _pem

FACTS = {"consent": "Anna agreed", "photo": {"name": "anna", "sha256": "ab" * 32}, "commercial_use": True}


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    return identity(str(tmp_path_factory.mktemp("mine") / "signing"))


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    return identity(str(tmp_path_factory.mktemp("theirs") / "signing"))


def film(path):
    write_mp4(iter(np.random.default_rng(0).integers(0, 256, (6, 48, 64, 3), np.uint8)), path, 24.0)


def flipped(path, at=-40):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_the_key_is_the_owners_alone_and_stays(mine):
    assert stat.S_IMODE(os.stat(mine.folder / "key.pem").st_mode) == 0o600 and stat.S_IMODE(os.stat(mine.folder).st_mode) == 0o700
    assert identity(str(mine.folder)) == mine
    own, root = mine.certificates
    own.verify_directly_issued_by(root)
    assert not own.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_processes_that_begin_together_agree_on_one_key(tmp_path):
    code = "import sys; from svad_ray.provenance import identity; print(identity(sys.argv[1]).root.decode())"
    begun = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "k")], stdout=subprocess.PIPE) for _ in range(3)]
    assert len({process.communicate()[0] for process in begun}) == 1 and [p.name for p in tmp_path.iterdir()] == ["k"]


@pytest.mark.parametrize("damage", ["other key", "no key"])
def test_a_key_that_cannot_be_used_is_named(tmp_path, damage):
    made = identity(str(tmp_path / "a"))
    (made.folder / "key.pem").write_bytes(identity(str(tmp_path / "b")).key if damage == "other key" else b"nonsense")
    with pytest.raises(InputError, match="cannot be used"):
        identity(str(made.folder))


@pytest.mark.parametrize("name", ["a.mp4", "a.png", "a.jpg"])
def test_pictures_and_videos_carry_their_record(tmp_path, mine, theirs, name):
    path = tmp_path / name
    picture = np.random.default_rng(1).integers(0, 256, (40, 40, 3), np.uint8)
    film(path) if name == "a.mp4" else cv2.imwrite(str(path), picture)
    before = read_video(path)[0] if name == "a.mp4" else cv2.imread(str(path))
    seal(path, "kind", FACTS, mine)
    after = read_video(path)[0] if name == "a.mp4" else cv2.imread(str(path))
    assert np.array_equal(before, after) and not sidecar(path).exists()
    with path.open("rb") as stream:  # another reader, without our root
        says = json.loads(c2pa.Reader({"a.mp4": "video/mp4", "a.png": "image/png", "a.jpg": "image/jpeg"}[name], stream).json())
    assert says["validation_state"] == "Valid" and "Anna agreed" in json.dumps(says)
    found = check(path, mine.root)
    assert found.good and found.record["avatar"] == FACTS and found.record["format"] == "kind"
    stranger = check(path, theirs.root)
    assert not stranger.good and not stranger.wrong
    flipped(path)
    assert not check(path, mine.root).good


def test_other_files_have_it_beside_them(tmp_path, mine, theirs):
    path = tmp_path / "a.ply"
    path.write_bytes(b"ply" * 100)
    seal(path, "ply", FACTS, mine)
    first = sidecar(path).read_bytes()
    seal(path, "ply", FACTS, mine)
    assert sidecar(path).read_bytes() == first, "equal exports of one installation have equal records"
    assert check(path, mine.root).good and check(sidecar(path), mine.root).good and not check(path, theirs.root).good
    flipped(path)
    assert "changed" in check(path, mine.root).wrong[0]
    path.unlink()
    assert "missing" in check(sidecar(path), mine.root).wrong[0]


def test_a_signature_is_what_the_standard_says(mine, theirs):
    content = json.loads(signed.sign({"a": 1}, mine))
    head = json.loads(base64.urlsafe_b64decode(content["protected"] + "=="))
    own = x509.load_der_x509_certificate(base64.b64decode(head["x5c"][0]))
    own.public_key().verify(base64.urlsafe_b64decode(content["signature"] + "=="), f"{content['protected']}.{content['payload']}".encode())
    assert head["alg"] == "EdDSA" and signed.read(json.dumps(content).encode()).payload == {"a": 1}
    other = json.loads(signed.sign({"a": 2}, theirs))
    for part in ("payload", "protected", "signature"):
        with pytest.raises(signed.Broken):
            signed.read(json.dumps({**content, part: other[part]}).encode())
    forged = replace(theirs, chain=_pem(theirs.certificates[0]) + mine.root)  # signed with a key of one's own, under our root
    with pytest.raises(signed.Broken):
        signed.read(signed.sign({"a": 3}, forged))


@pytest.mark.parametrize("nonsense", [b"", b"{}", b"[]", b'{"protected": 1, "payload": "", "signature": ""}', b"\xff"])
def test_nonsense_is_no_record(nonsense):
    with pytest.raises(signed.Broken):
        signed.read(nonsense)


def test_folders(tmp_path, mine):
    folder = tmp_path / "avatar"
    (folder / "deep").mkdir(parents=True)
    for name in ("a.json", "deep/b.bin"):
        (folder / name).write_text(name)
    seal_folder(folder, "avatar", FACTS, mine)
    assert check(folder, mine.root).good
    (folder / "c.txt").write_text("new")
    assert check(folder, mine.root).wrong == ("c.txt is not in the record",)
    (folder / "c.txt").unlink()
    (folder / "deep/b.bin").write_text("deep/B.bin")
    assert check(folder, mine.root).wrong == ("deep/b.bin was changed after it was signed",)


def test_the_commands(tmp_path, mine, theirs):
    run = CliRunner()
    path, key = tmp_path / "a.splat", ["--signing", str(mine.folder)]
    path.write_bytes(b"x")
    assert "no record" in run.invoke(app, ["provenance", "verify", str(path), *key]).output
    seal(path, "splat", FACTS, mine)
    done = run.invoke(app, ["provenance", "verify", str(path), *key])
    assert done.exit_code == 0 and "as it was signed" in done.output
    other = run.invoke(app, ["provenance", "verify", str(path), "--signing", str(theirs.folder)])
    assert other.exit_code == 1 and "--signer" in other.output
    named = ["provenance", "verify", str(path), "--signing", str(theirs.folder), "--signer", str(mine.folder / "root.pem")]
    assert run.invoke(app, named).exit_code == 0
    shown = run.invoke(app, ["provenance", "show", str(path), *key])
    assert json.loads(shown.stdout)["avatar"] == FACTS
    assert str(mine.folder) in run.invoke(app, ["provenance", "key", *key]).output.replace("\n", "")
