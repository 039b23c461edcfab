"""jobs/export_frames.py on this machine; on Ray see tests/cluster/test_export_job.py."""

import frames_source as made
import pytest

pytestmark = pytest.mark.models


def test_export_and_again(job, tmp_path):
    for seed, name in enumerate(("ann", "bob")):
        made.add_subject(str(tmp_path / "out"), name, frames=4, seed=seed)
    arguments = (tmp_path / "out", tmp_path / "frames", "--local", "--format", "webdataset", "--max-frames", 4)
    code, said = job("export_frames", "export", *arguments)
    assert code == 0 and "8 frames of 2 subjects in 2 shards" in said and "2 parts written now" in said
    first = sorted((tmp_path / "frames" / "shards").iterdir())[0]
    good = first.read_bytes()
    first.write_bytes(b"")
    code, said = job("export_frames", "export", *arguments, "--check")
    assert code == 0 and f"{first.name}: written again" in said and first.read_bytes() == good


def test_who_is_left_out_is_named(job, tmp_path):
    made.add_subject(str(tmp_path / "out"), "ann", frames=4)
    for path in (tmp_path / "out" / "work" / "fit").rglob("arrays.safetensors"):
        path.unlink()
    code, said = job("export_frames", "export", tmp_path / "out", tmp_path / "frames", "--local")
    assert code == 9 and "left out ann" in said
