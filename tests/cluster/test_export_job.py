"""The frames dataset written by Ray's workers is the one that this process writes, byte for byte."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "export"))
import frames_source as made

pytestmark = pytest.mark.models


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_ray_and_local_write_the_same(ray_cluster, tmp_path):
    from svad_ray.cluster.export_job import export_parts
    from svad_ray.export.frames import FrameOptions, export_frames

    for seed, name in enumerate(("ann", "bob", "cy")):
        made.add_subject(str(tmp_path / "out"), name, frames=3, seed=seed)
    options, told = FrameOptions(max_frames=3), []
    summary = export_frames(
        str(tmp_path / "out"), str(tmp_path / "ray"), options, run=export_parts, tell=lambda done, total: told.append((done, total))
    )
    assert (summary.frames, summary.written, told) == (9, 3, [(0, 3), (1, 3), (2, 3), (3, 3)])
    export_frames(str(tmp_path / "out"), str(tmp_path / "local"), options)
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")


def test_a_target_that_cannot_be_written_ends_the_export(ray_cluster, tmp_path):
    from svad_ray.cluster.export_job import export_parts
    from svad_ray.errors import StageFailed

    order = {"target": str(tmp_path / "file"), "number": 0, "subjects": [], "options": {}, "body": ""}
    (tmp_path / "file").write_bytes(b"no folder")
    with pytest.raises(StageFailed, match="could not be written"):
        list(export_parts([order]))
