"""Forgetting a subject: what is theirs goes everywhere, everybody else's stays byte for byte, and the receipt says what is true."""

import hashlib
import io
import json
import sys
import tarfile
from pathlib import Path

import fsspec
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parent / "export"))
import frames_source as made

from svad_ray.cli import app
from svad_ray.errors import InputError, StoreError
from svad_ray.export.frames import FrameOptions, export_frames, forget_damaged
from svad_ray.forget import forget
from svad_ray.ledger import Ledger, SubjectRequest, folder_name
from svad_ray.ledger.status import SubjectStatus, read_status, write_status
from svad_ray.provenance import identity
from svad_ray.provenance.jws import read as read_signed
from svad_ray.provenance.jws import sign
from svad_ray.store import ArtefactStore, Key

pytestmark = pytest.mark.models
NAME = "Ben Ä./x"


def contents(root):
    fs, base = fsspec.core.url_to_fs(root)
    fs.invalidate_cache()
    return {path[len(base) + 1 :]: fs.cat_file(path) for path in fs.find(base)}


def bulk_run(out):
    """Two finished subjects, a status table and a record in the ledger of each."""
    keys = {name: made.add_subject(out, name, frames=frames, seed=i)[2] for i, (name, frames) in enumerate({"anna": 5, NAME: 4}.items())}
    write_status(out, [SubjectStatus(name, f"{name}.jpg", str(key), state="committed") for name, key in keys.items()])
    for key in keys.values():
        Ledger(f"{out}/ledger").begin(key, "create")
    return keys


@pytest.mark.parametrize("container", ["parquet", "webdataset"])
def test_everything_of_one_subject_and_nothing_of_others(tmp_path, container):
    out, frames = str(tmp_path / "out"), str(tmp_path / "frames")
    bulk_run(out)
    export_frames(out, frames, FrameOptions(container, max_frames=16))
    before = contents(out)
    says = forget(out, NAME, datasets=[frames])
    assert says.complete and len(says.artefacts) == 3 and says.frames and says.looked_at > 10, says
    after = contents(out)
    assert after.keys() < before.keys() and all(before[name] == after[name] for name in after if name != "status.parquet")
    assert [row["subject_id"] for row in read_status(out)] == ["anna"]
    assert {key.stage for key in ArtefactStore(f"{out}/subjects").committed_keys()} == {folder_name("anna")}
    left = contents(frames)
    for name, content in left.items():
        assert b"Ben" not in content and folder_name(NAME).encode() not in content, name
        if name.startswith("shards/"):
            if container == "parquet":
                assert set(pq.read_table(io.BytesIO(content))["subject_id"].to_pylist()) == {"anna"}
            else:
                with tarfile.open(fileobj=io.BytesIO(content)) as tar:
                    assert len({name.split(".")[0] for name in tar.getnames()}) == 5
    assert [row["subject_id"] for row in pq.read_table(io.BytesIO(left["subjects.parquet"])).to_pylist()] == ["anna"]
    assert len(json.loads(left["annotations/coco_wholebody.json"])["images"]) == 5
    assert not forget_damaged(frames), "the rest of the dataset is whole"
    again = export_frames(out, frames, FrameOptions(container, max_frames=16))
    assert again.subjects == 1 and again.frames == 5 and not again.written
    with pytest.raises(InputError, match=r"nothing in .* is of"):
        forget(out, NAME, datasets=[frames])


def test_what_another_subject_shares_stays_and_is_said(tmp_path):
    out = str(tmp_path / "out")
    keys = bulk_run(out)
    store = ArtefactStore(f"{out}/subjects")
    facts = store.committed(keys[NAME]).facts
    store.put_files(Key(folder_name("twin"), "0" * 64), {"a": b"a"}, facts={**facts, "subject_id": "twin"})
    says = forget(out, NAME)
    assert len(says.shared) == 3 and not says.artefacts and not says.complete
    assert not forget(out, "twin").shared


def test_work_without_an_avatar_may_be_theirs(tmp_path):
    out = str(tmp_path / "out")
    bulk_run(out)
    ArtefactStore(f"{out}/work").put(Key("perceive", "1" * 64), {"a": 1})
    request = SubjectRequest("carl", "carl.jpg")
    Ledger(f"{out}/ledger").quarantine(request.key, "carl", "animate", "no", attempts=2)
    says = forget(out, "carl")
    assert says.unattributed == 1 and not says.complete
    Ledger(f"{out}/ledger").quarantine(request.key, "carl", "animate", "no", attempts=2)
    says = forget(out, "carl", orphans=True)
    assert says.complete and says.artefacts == [str(Key("perceive", "1" * 64))]


def test_a_trace_elsewhere_is_found(tmp_path):
    out = str(tmp_path / "out")
    bulk_run(out)
    (tmp_path / "out/notes.json").write_text(json.dumps({"who": NAME}))
    (tmp_path / "out" / f"old-{folder_name(NAME)}.bin").write_bytes(b"")
    says = forget(out, NAME)
    assert says.left == ["notes.json", f"old-{folder_name(NAME)}.bin"] and not says.complete


def test_a_damaged_marker_stops_it_before_anything_goes(tmp_path):
    out = str(tmp_path / "out")
    keys = bulk_run(out)
    marker = next((tmp_path / "out/subjects" / folder_name("anna")).glob("*/COMMITTED.json"))
    marker.write_text("{")
    before = contents(out)
    with pytest.raises(StoreError, match="repair"):
        forget(out, NAME)
    assert contents(out) == before and keys


def test_the_command_writes_a_receipt_that_names_nobody(tmp_path):
    out = str(tmp_path / "out")
    bulk_run(out)
    words = ["forget", NAME, "--out", out, "--receipt", str(tmp_path / "r.json"), "--signing", str(tmp_path / "k"), "--yes"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    receipt = (tmp_path / "r.json").read_bytes()
    signed = read_signed(receipt)
    assert signed.root == identity(str(tmp_path / "k")).root and signed.payload["complete"] is True
    assert signed.payload["subject_sha256"] == hashlib.sha256(NAME.encode()).hexdigest() and "Ben" not in json.dumps(signed.payload)
    assert CliRunner().invoke(app, ["forget", NAME, "--out", out], input="n\n").exit_code == 1
    verify = ["provenance", "verify", str(tmp_path / "r.json"), "--signing", str(tmp_path / "k")]
    assert CliRunner().invoke(app, verify).exit_code == 0
    says = json.loads(receipt)
    (tmp_path / "r.json").write_text(json.dumps(says | {"payload": says["payload"][:-4] + "AAAA"}))
    done = CliRunner().invoke(app, verify)
    assert done.exit_code == 1 and "the signature is wrong" in done.output
    (tmp_path / "r.json").write_bytes(sign({"type": "svad-ray provenance", "files": {}}, identity(str(tmp_path / "k"))))
    assert CliRunner().invoke(app, verify).exit_code == 1, "a record of files that lies alone is no receipt"


def test_every_photo_of_a_subject_is_looked_for(tmp_path):
    """A bulk subject made of three photos, of which older markers name two apart."""
    out = str(tmp_path / "out")
    keys = bulk_run(out)
    hashes = [hashlib.sha256(name).hexdigest() for name in (b"front", b"back", b"edited")]
    store = ArtefactStore(f"{out}/subjects")
    facts = store.committed(keys[NAME]).facts | {"photo_sha256": hashes[0], "also_sha256": [hashes[1]], "photos_sha256": [hashes[0], hashes[2]]}
    store.put_files(Key(folder_name(NAME), "1" * 64), {"a": b"a"}, facts=facts)
    (tmp_path / "out/notes.json").write_text(json.dumps({"from": hashes[1]}))
    (tmp_path / f"out/{hashes[2]}.jpg").write_bytes(b"")
    says = forget(out, NAME)
    assert set(hashes) <= set(says.photos) and len(set(says.photos)) == len(says.photos)
    assert set(says.left) == {"notes.json", f"{hashes[2]}.jpg"} and not says.complete


def test_an_output_of_create_goes_whole_and_names_all_its_photos(tmp_path):
    from svad_ray.commands.export import _NAMES
    from svad_ray.deliver import _CLIP_FILES, _DELIVERED

    out = tmp_path / "anna"
    photo = {"sha256": "a" * 64, "origin": {"edited_from": {"sha256": "c" * 64}}}
    provenance = {"photo": photo, "photos": [{"sha256": "a" * 64}, {"sha256": "b" * 64}]}
    for name in {*_DELIVERED, *_CLIP_FILES, *_NAMES.values()} - {"avatar"}:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(b"theirs")
        (out / f"{name}.provenance.json").write_bytes(b"theirs")
    (out / "avatar").mkdir()
    (out / "avatar/avatar.json").write_text(json.dumps({"facts": {"provenance": provenance}}))
    ArtefactStore(out / "work").put(Key("perceive", "1" * 64), {"a": 1})
    (out / "mine.json").write_text("b" * 64)
    says = forget(str(out), "anna")
    assert says.photos == ["a" * 64, "b" * 64, "c" * 64] and says.left == ["mine.json"]
    assert [path.name for path in out.rglob("*") if path.is_file()] == ["mine.json"]
