"""What frames say of the body's parts against closed forms, annotations through pycocotools, and the export of one avatar by the command line."""

import contextlib
import io
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from svad_ray.body import load_body
from svad_ray.cli import app
from svad_ray.export.frames import FrameOptions, export_frames
from svad_ray.fitting.clothed import PARTS
from svad_ray.geometry.raster import rasterize_mesh
from svad_ray.motion.labels import Labeller, seen_shares
from svad_ray.provenance import check, identity
from svad_ray.store import ArtefactStore, Key, save_avatar

sys.path.insert(0, str(Path(__file__).parent))
import frames_source as made

pytestmark = pytest.mark.models


def ball(radius, centre, rings=48):
    """Vertices and outward faces of a sphere."""
    polar, round_ = np.linspace(0, np.pi, rings + 1), np.linspace(0, 2 * np.pi, 2 * rings, endpoint=False)
    p, r = np.meshgrid(polar, round_, indexing="ij")
    points = np.stack([np.sin(p) * np.cos(r), np.sin(p) * np.sin(r), np.cos(p)], -1).reshape(-1, 3)
    i, j = np.meshgrid(np.arange(rings), np.arange(2 * rings), indexing="ij")
    a, b = i * 2 * rings + j, i * 2 * rings + (j + 1) % (2 * rings)
    faces = np.concatenate([np.stack([a, a + 2 * rings, b], -1).reshape(-1, 3), np.stack([b, a + 2 * rings, b + 2 * rings], -1).reshape(-1, 3)])
    return (points * radius + centre).astype(np.float32), faces.astype(np.int32)


def test_a_ball_is_seen_as_far_as_its_horizon_and_hides_the_one_behind():
    K = np.array([[400, 0, 128], [0, 400, 128], [0, 0, 1]], np.float32)
    near, faces = ball(0.5, [0, 0, 3.0])
    far, _ = ball(0.3, [0, 0, 5.0])
    beside, _ = ball(0.2, [5.0, 0, 3.0])
    vertices, all_faces = np.concatenate([near, far, beside]), np.concatenate([faces + k * len(near) for k in range(3)])
    depth = rasterize_mesh(vertices, all_faces, K, 256, 256, threads=1).depth
    found = seen_shares(vertices[all_faces], np.repeat([0, 1, 2], len(faces)), K, depth)
    assert abs(found[0] - (1 - 0.5 / 3.0) / 2) < 0.015, "a cap up to the tangent cone"
    assert found[1] == 0 and found[2] == 0 and not found[3:].any()


def test_sides_of_a_person():
    track = made.track(4, 1, yaws=np.array([0, -np.pi / 2, np.pi, np.pi / 2]))  # front, left, back, right to the camera
    quiet = {name: np.zeros_like(getattr(track, name)) for name in ("body_pose", "left_hand_pose", "right_hand_pose")}
    seen = Labeller(load_body(), replace(track, **quiet))(slice(0, 4)).part_seen
    arm = {side: seen[:, PARTS.index(f"{side}_arm")] for side in ("left", "right")}
    assert arm["left"][1] > 0.25 and arm["right"][1] < 0.1 and arm["right"][3] > 0.25 and arm["left"][3] < 0.1
    assert (seen >= 0).all() and (seen < 0.62).all() and (seen[[0, 2]][:, PARTS.index("torso")] > 0.3).all()


@pytest.mark.parametrize("container", ["parquet", "webdataset"])
def test_what_photos_showed_comes_from_the_avatar(tmp_path, avatar, container):
    out = str(tmp_path / "out")
    _, _, key = made.add_subject(out, "anna", frames=3)
    store = ArtefactStore(f"{out}/subjects")
    facts = store.committed(key).facts
    shown = {"parts": {name: {"seen": 0.1 * i} for i, name in enumerate(PARTS[:-1])}}
    ArtefactStore(f"{out}/work").put(Key("avatar", "a" * 64), replace(avatar, facts={"confidence": shown}))
    store.uncommit(key)
    store.put_files(key, {"a": b""}, facts={**facts, "keys": {**facts["keys"], "avatar": f"avatar/{'a' * 64}"}})
    export_frames(out, str(tmp_path / "f"), FrameOptions(container))
    if container == "parquet":
        (shard,) = (tmp_path / "f/shards").iterdir()
        got = [np.array(row, np.float32).ravel() for row in pq.read_table(shard)["part_photo"].to_pylist()]
    else:
        webdataset = pytest.importorskip("webdataset")
        (shard,) = (tmp_path / "f/shards").iterdir()
        rows = list(webdataset.WebDataset(str(shard), shardshuffle=False, empty_check=False))
        got = [np.array([np.nan if v is None else v for v in json.loads(row["json"])["part_photo"]]) for row in rows]
    assert len(got) == 3 and np.isnan(got[0][-1])
    np.testing.assert_allclose(got[0][:-1], 0.1 * np.arange(9), atol=1e-6)


def test_pycocotools_reads_and_scores_the_annotations(tmp_path):
    coco_module, evaluation = pytest.importorskip("pycocotools.coco"), pytest.importorskip("pycocotools.cocoeval")
    out = str(tmp_path / "out")
    made.add_subject(out, "anna", frames=5)
    export_frames(out, str(tmp_path / "f"))
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco_module.COCO(str(tmp_path / "f/annotations/coco_wholebody.json"))
        notes = truth.loadAnns(truth.getAnnIds())

        def score(moved):
            guess = [
                {
                    "image_id": n["image_id"],
                    "category_id": 1,
                    "score": 1.0,
                    "keypoints": [v + moved * (i % 3 == 0) for i, v in enumerate(n["keypoints"])],
                }
                for n in notes
            ]
            run = evaluation.COCOeval(truth, truth.loadRes(guess), "keypoints")
            run.evaluate()
            run.accumulate()
            run.summarize()
            return run.stats[0]

        assert len(notes) == 5 and truth.loadCats([1])[0]["keypoints"][0] == "nose"
        assert score(0) == pytest.approx(1.0) and score(30) < 0.2


def test_one_avatar_by_the_command_line(tmp_path, avatar):
    run = tmp_path / "me"
    clip, _, _ = made.add_subject(str(run), "x", frames=4)
    ArtefactStore(f"{run}/subjects").files.remove("")
    words = ["export", str(run), "--format", "frames"]
    assert "avatar" in str(CliRunner().invoke(app, words).exception)
    save_avatar(replace(avatar, facts={"provenance": {"consent": "agreed"}}), run / "avatar")
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    table = pq.read_table(next((run / "frames/shards").iterdir()))
    assert len(table) == len(clip) == 4 and np.isnan(np.array(table["part_photo"].to_pylist(), float)).all()
    sealed = check(run / "frames", identity().root)
    assert sealed.good and sealed.record["avatar"]["consent"] == "agreed"
    assert CliRunner().invoke(app, words).exit_code == 0 and check(run / "frames", identity().root).good
    bare = save_avatar(avatar, tmp_path / "bare")
    assert "work/" in str(CliRunner().invoke(app, ["export", str(bare), "--format", "frames"]).exception)
