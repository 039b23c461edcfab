"""Lists of subjects as people bring them."""

import json

import fsspec
import pyarrow
import pyarrow.parquet
import pytest

from svad_ray.config import Settings
from svad_ray.errors import ConfigError, InputError
from svad_ray.ledger import SubjectRequest, folder_name
from svad_ray.ledger.manifest import read_manifest

ROWS = [
    {"subject_id": "007", "uri": "a/b.jpg", "sha256": "AB" * 32, "animate.frames": 48},
    {"subject_id": "Zoë/..", "uri": "s3://bucket/z.png", "options": {"avatar.gaussians": 9000}, "consent": "yes"},
    {"subject_id": "plain", "uri": "/photos/p.png", "colour": "red"},
]


def write(folder, kind):
    path = folder / f"people.{kind}"
    if kind == "jsonl":
        path.write_text("\n".join(json.dumps(row) for row in ROWS) + "\n\n")
    elif kind == "csv":
        path.write_text(
            "\ufeffsubject_id,uri,sha256,animate.frames,options,consent,colour\n"
            f'007,a/b.jpg,{"AB" * 32},48,,,\nZoë/..,s3://bucket/z.png,,,"{{""avatar.gaussians"": 9000}}",yes,\nplain,/photos/p.png,,,,,red\n',
            encoding="utf-8",
        )
    else:
        columns = sorted({name for row in ROWS for name in row})
        rows = [{name: json.dumps(row[name]) if name == "options" and name in row else row.get(name) for name in columns} for row in ROWS]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_the_same_list_in_every_form(tmp_path, kind):
    manifest = read_manifest(str(write(tmp_path, kind)), Settings(), consent="asked")
    seven, zoe, plain = manifest.requests
    assert (seven.subject_id, seven.uri, seven.sha256, seven.settings.animate.frames) == ("007", f"{tmp_path}/a/b.jpg", "ab" * 32, 48)
    assert (zoe.uri, zoe.settings.avatar.gaussians, zoe.consent) == ("s3://bucket/z.png", 9000, "yes")
    assert (plain.uri, plain.settings, plain.consent) == ("/photos/p.png", Settings(), "asked")
    assert manifest.notes == ("the column 'colour' is not used",)


def test_a_folder_names_subjects_after_their_files(tmp_path):
    for name in ("b.JPG", "a.png", "a.jpg", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    requests = read_manifest(str(tmp_path), Settings()).requests
    assert [(r.subject_id, r.uri) for r in requests] == [
        ("a.jpg", f"{tmp_path}/a.jpg"),
        ("a.png", f"{tmp_path}/a.png"),
        ("b", f"{tmp_path}/b.JPG"),
    ]


def test_a_list_on_another_file_system():
    with fsspec.open("memory://lists/people.jsonl", "w") as stream:
        stream.write('{"subject_id": "x", "uri": "photos/x.png"}')
    assert read_manifest("memory://lists/people.jsonl", Settings()).requests[0].uri == "memory:///lists/photos/x.png"


def test_the_same_row_twice_is_done_once_and_two_different_ones_are_refused(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("subject_id,uri\na,x.png\nb,y.png\na,x.png\n")
    manifest = read_manifest(str(path), Settings())
    assert [r.subject_id for r in manifest.requests] == ["a", "b"] and "rows 1 and 3 are the same subject 'a'" in manifest.notes[0]
    path.write_text("subject_id,uri\na,x.png\nb,y.png\na,z.png\n")
    with pytest.raises(InputError, match="rows 1 and 3 both name the subject 'a'"):
        read_manifest(str(path), Settings())


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("p.csv", "subject_id\na\n", "row 1 has no uri"),
        ("p.csv", "uri\na.png\n", "row 1 has no subject_id"),
        ("p.csv", "", "names no subject"),
        ("p.csv", "subject_id,uri,options\na,b,{oops\n", "options of row 1 are no JSON object"),
        ("p.csv", "subject_id,uri,options\na,b,[1]\n", "options of row 1 are no JSON object"),
        ("p.jsonl", '{"subject_id": "a"', "cannot be read"),
        ("p.jsonl", '["a", "b"]', "row 1 is no object"),
        ("p.parquet", "no parquet", "cannot be read"),
        ("p.xlsx", "x", "is no manifest"),
        (None, "", "there is no manifest"),
    ],
)
def test_what_cannot_be_read_is_said_plainly(tmp_path, name, content, words):
    path = tmp_path / (name or "missing.csv")
    if name:
        path.write_text(content)
    with pytest.raises(InputError, match=words) as caught:
        read_manifest(str(path), Settings())
    assert caught.value.expected or caught.value.remedy


@pytest.mark.parametrize(("column", "value", "words"), [("animate.framez", "4", "row 2.*framez"), ("profile", "papr", "row 2.*no profile 'papr'")])
def test_a_wrong_option_names_its_row(tmp_path, column, value, words):
    path = tmp_path / "p.csv"
    path.write_text(f"subject_id,uri,{column}\na,x,\nb,y,{value}\n")
    with pytest.raises(ConfigError, match=words):
        read_manifest(str(path), Settings())


def test_keys_follow_what_changes_the_result():
    base = SubjectRequest("a", "x.png")
    assert base.key == SubjectRequest("a", "x.png").key
    assert base.key == SubjectRequest("a", "x.png", Settings(threads=7, offline=True, cache_dir="/c")).key
    others = [
        SubjectRequest("b", "x.png"),
        SubjectRequest("a", "y.png"),
        SubjectRequest("a", "x.png", Settings(shard=4)),
        SubjectRequest("a", "x.png", consent="c"),
    ]
    assert len({r.key for r in [base, *others]}) == 5
    with_hash = SubjectRequest("a", "x.png", sha256="1" * 64)
    assert with_hash.key == SubjectRequest("a", "moved/x.png", sha256="1" * 64).key
    assert SubjectRequest.from_json(json.loads(json.dumps(with_hash.to_json()))) == with_hash


@pytest.mark.parametrize("subject_id", ["../../etc/passwd", "a/b", "ä", "", ".", "x" * 500, "a\x00b", "\ud800", "a b"])
def test_an_id_never_becomes_a_path(subject_id):
    name = folder_name(subject_id)
    assert name.replace("-", "").isalnum() and name.isascii() and len(name) < 60
    assert name != folder_name(subject_id + "x")


def test_several_photos_of_a_subject(tmp_path):
    path = tmp_path / "people.jsonl"
    path.write_text(json.dumps({"subject_id": "a", "uris": ["f.jpg", "b.jpg"], "sha256": ["AB" * 32, ""]}) + "\n")
    (request,) = read_manifest(str(path), Settings()).requests
    assert request.photos == ((f"{tmp_path}/f.jpg", "ab" * 32), (f"{tmp_path}/b.jpg", ""))
    assert SubjectRequest.from_json(json.loads(json.dumps(request.to_json()))) == request
    table = tmp_path / "people.csv"
    table.write_text('subject_id,uris\na,"[""f.jpg"", ""b.jpg""]"\n')
    assert read_manifest(str(table), Settings()).requests[0].also == (f"{tmp_path}/b.jpg",)
    alone = SubjectRequest("a", f"{tmp_path}/f.jpg", sha256="ab" * 32)
    assert alone.key != request.key and alone.key == SubjectRequest("a", "elsewhere", sha256="ab" * 32).key


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ({"subject_id": "a"}, "no uri"),
        ({"subject_id": "a", "uri": "f.jpg", "uris": ["f.jpg"]}, "both uri and uris"),
        ({"subject_id": "a", "uris": "f.jpg"}, "no list"),
        ({"subject_id": "a", "uris": ["f.jpg", 3]}, "no list"),
        ({"subject_id": "a", "uris": ["f.jpg", "f.jpg"]}, "1 different"),
        ({"subject_id": "a", "uris": ["f.jpg", "b.jpg"], "sha256": ["AB" * 32]}, "1 hashes"),
        ({"subject_id": "a", "uris": [f"{k}.jpg" for k in range(9)]}, "9 photos"),
    ],
)
def test_lists_of_photos_that_cannot_be_meant(tmp_path, row, found):
    path = tmp_path / "people.jsonl"
    path.write_text(json.dumps(row))
    with pytest.raises(InputError, match=found):
        read_manifest(str(path), Settings())
