"""The frames dataset: labels against ray casting and float64, files against other readers, resume against bytes."""

import io
import json
import sys
import tarfile
import uuid
from pathlib import Path

import cv2
import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest

from svad_ray.body import load_body
from svad_ray.body.names import WHOLEBODY_NAMES, WHOLEBODY_TO_OUTPUT
from svad_ray.errors import ConfigError, InputError
from svad_ray.export.frames import FrameOptions, export_frames, forget_damaged
from svad_ray.motion.labels import HIDDEN, OUTSIDE, SEEN, Labeller, visibility
from svad_ray.store import ArtefactStore, Key

sys.path.insert(0, str(Path(__file__).parent))
import frames_source as made

pytestmark = pytest.mark.models  # the open body is built from a model package


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Three subjects: (folder, name -> (clip, track, key))."""
    out = str(tmp_path_factory.mktemp("source") / "out")
    names = {"anna": 7, "Ben Ä./x": 5, "eva": 4}
    return out, {name: made.add_subject(out, name, frames=frames, seed=i) for i, (name, frames) in enumerate(names.items())}


def contents(root: str) -> dict[str, bytes]:
    fs, base = fsspec.core.url_to_fs(root)
    fs.invalidate_cache()
    return {path[len(base) + 1 :]: fs.cat_file(path) for path in fs.find(base)}


def rows(root: str) -> list[dict]:
    """Every sample as pyarrow reads it, tensors as arrays."""
    found = []
    for name, content in sorted(contents(root).items()):
        if name.startswith("shards/"):
            table = pq.read_table(io.BytesIO(content))
            columns = {}
            for field in table.schema:
                column = table[field.name].combine_chunks()
                columns[field.name] = column.to_numpy_ndarray() if hasattr(column, "to_numpy_ndarray") else column.to_pylist()
            found += [{name: column[i] for name, column in columns.items()} for i in range(len(table))]
    return found


def picture(content: bytes) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    return image[..., ::-1] if image.ndim == 3 else image


def first_hits(origin: np.ndarray, directions: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """(N,) distance along each direction to the first triangle (Moeller and Trumbore 1997), float64; inf where there is none."""
    a, e1, e2 = triangles[:, 0], triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]
    out = np.full(len(directions), np.inf)
    for i, d in enumerate(directions):
        p = np.cross(d, e2)
        det = (e1 * p).sum(1)
        with np.errstate(divide="ignore", invalid="ignore"):
            s = (origin - a) / det[:, None]
            u = (s * p).sum(1)
            q = np.cross(s, e1)
            v, t = q @ d, (q * e2).sum(1)
        hit = (np.abs(det) > 1e-14) & (u >= 0) & (v >= 0) & (u + v <= 1) & (t > 0)
        out[i] = t[hit].min(initial=np.inf)
    return out


def double_forward(track):
    import torch

    body = load_body().to(torch.float64)
    names = ("expression", "global_orient", "body_pose", "left_hand_pose", "right_hand_pose", "jaw_pose", "leye_pose", "reye_pose", "transl")
    values = {name: torch.as_tensor(getattr(track, name), dtype=torch.float64) for name in names}
    offset = torch.as_tensor(track.vertex_offset, dtype=torch.float64)
    betas = torch.as_tensor(track.betas, dtype=torch.float64).expand(len(track), -1)
    return body.forward(betas=betas, vertex_offset=offset, **values)


def test_depth_is_what_rays_hit_and_points_project_in_double_precision():
    track = made.track(3, 5)
    labels, output, body = Labeller(load_body(), track)(slice(0, 3)), double_forward(track), load_body()
    outer = body.faces[~body.tables.regions["inner_mouth"][body.faces].any(1)]
    rng = np.random.default_rng(0)
    for t in range(3):
        view, K = track.viewmats[t].astype(np.float64), track.Ks[t].astype(np.float64)
        points = output.joints[t].numpy()[list(WHOLEBODY_TO_OUTPUT)] @ view[:3, :3].T + view[:3, 3]
        pixels = points @ K.T
        assert np.abs(labels.keypoints[t] - pixels[:, :2] / pixels[:, 2:]).max() < 2e-3
        depth = labels.depth_mm[t]
        row, column = np.divmod(rng.choice(np.flatnonzero(depth > 0), 12, replace=False), made.SIZE)
        rays = np.stack([column + 0.5, row + 0.5, np.ones(12)], 1) @ np.linalg.inv(K).T
        corners = (output.vertices[t].numpy() @ view[:3, :3].T + view[:3, 3])[outer]
        assert np.abs(first_hits(np.zeros(3), rays, corners) * 1000 - depth[row, column]).max() < 1.0
        empty = np.stack(np.nonzero(depth == 0), 1)[:: made.SIZE * made.SIZE // 8]
        rays = np.stack([empty[:, 1] + 0.5, empty[:, 0] + 0.5, np.ones(len(empty))], 1) @ np.linalg.inv(K).T
        assert np.isinf(first_hits(np.zeros(3), rays, corners)).all()


def test_which_side_is_seen():
    """Facing, person's left to the camera, back, person's right to the camera."""
    track = made.track(4, 1, yaws=np.array([0, -np.pi / 2, np.pi, np.pi / 2]))
    quiet = {name: np.zeros_like(getattr(track, name)) for name in ("body_pose", "left_hand_pose", "right_hand_pose")}
    track = type(track)(**{**{name: getattr(track, name) for name in track.__dataclass_fields__}, **quiet})
    seen = Labeller(load_body(), track)(slice(0, 4)).visible
    number = {name: i for i, name in enumerate(WHOLEBODY_NAMES)}

    def of(view: int, *names: str) -> set[int]:
        return {int(seen[view, number[name]]) for name in names}

    both = [f"{side}_{part}" for side in ("left", "right") for part in ("shoulder", "elbow", "hip", "knee", "ankle")]
    assert of(0, "nose", "left_eye_vertex", "face_30", "face_8", *both) == {SEEN}
    assert of(2, "nose", "left_eye_vertex", "face_30", "face_51") == {HIDDEN} and of(2, *both) == {SEEN}
    for view, near, far in ((1, "left", "right"), (3, "right", "left")):
        assert of(view, f"{near}_ear", f"{near}_hip", f"{near}_knee") == {SEEN}, near
        assert of(view, f"{far}_ear", f"{far}_shoulder", f"{far}_hip", f"{far}_elbow") == {HIDDEN}, far


def test_visibility_by_hand():
    depth = np.full((6, 8), np.inf)
    depth[2:5, 2:6] = 2.0
    points = np.array([[3.5, 3.5], [3.5, 3.5], [3.5, 3.5], [2.1, 2.1], [7.9, 5.9], [8.0, 3.0], [3.0, -0.1], [3.5, 3.5]])
    z = np.array([2.0, 2.05, 2.2, 9.0, 9.0, 1.0, 1.0, -1.0])
    assert visibility(points, z, depth, np.full(8, 0.1)).tolist() == [SEEN, SEEN, HIDDEN, SEEN, SEEN, OUTSIDE, OUTSIDE, OUTSIDE]


def test_every_frame_comes_back(source, tmp_path):
    out, people = source
    summary = export_frames(out, str(tmp_path))
    assert (summary.subjects, summary.frames, summary.shards, summary.left_out) == (3, 16, 1, ())
    found = {(row["subject_id"], row["frame"]): row for row in rows(str(tmp_path))}
    assert len(found) == 16 and len({row["key"] for row in found.values()}) == 16
    for name, (clip, track, _) in people.items():
        labels = Labeller(load_body(), track)(slice(0, len(clip)))
        for t in range(len(clip)):
            row = found[name, t]
            assert np.array_equal(picture(row["image"]), clip.frames[t]) and np.array_equal(picture(row["mask"]), clip.masks[t])
            depth = picture(row["depth"])
            assert depth.dtype == np.uint16 and np.array_equal(depth, labels.depth_mm[t])
            for field in ("body_pose", "global_orient", "left_hand_pose", "transl"):
                assert np.array_equal(row[field], getattr(track, field)[t])
            assert np.array_equal(np.float32(row["betas"]), track.betas) and np.array_equal(np.float32(row["expression"]), track.expression[t])
            assert np.array_equal(row["viewmat"], track.viewmats[t]) and np.array_equal(row["K"], track.Ks[t])
            assert row["remark"] == clip.remarks[t] and row["residual_px"] == track.residual_px[t] and row["body_id"] == track.body_id
            assert np.abs(row["keypoints"] - labels.keypoints[t]).max() < 1e-3 and np.array_equal(row["visible"], labels.visible[t])
            assert np.array_equal(row["scores"], np.array([0, 0.5, 1])[row["visible"]].astype(np.float32))
            restored = ArtefactStore(f"{out}/work").get(Key.parse(row["source_restore"]))
            assert np.array_equal(restored.frames[t - restored.first], clip.frames[t])


def test_the_index_finds_every_subject(source, tmp_path):
    out, people = source
    target = str(tmp_path)
    export_frames(out, target, FrameOptions(max_frames=6))
    import hashlib

    index, spans = json.loads((tmp_path / "index.json").read_text()), pq.read_table(tmp_path / "index.parquet").to_pylist()
    shards = {name: content for name, content in contents(target).items() if name.startswith("shards/")}
    assert {s["name"]: (s["bytes"], s["sha256"]) for s in index["shards"]} == {
        name: (len(content), hashlib.sha256(content).hexdigest()) for name, content in shards.items()
    }
    assert all(s["count"] <= 6 for s in index["shards"]) and index["frames"] == 16
    seen: dict[str, list[int]] = {}
    for span in spans:
        table = pq.read_table(io.BytesIO(shards[span["shard"]])).slice(span["offset"], span["count"])
        assert set(table["subject_id"].to_pylist()) == {span["subject_id"]} and table["frame"][0].as_py() == span["first_frame"]
        seen.setdefault(span["subject_id"], []).extend(table["frame"].to_pylist())
    assert seen == {name: list(range(len(clip))) for name, (clip, _, _) in people.items()}
    people_table = {row["subject_id"]: row for row in pq.read_table(tmp_path / "subjects.parquet").to_pylist()}
    assert {name: row["key"] for name, row in people_table.items()} == {name: str(key) for name, (_, _, key) in people.items()}
    assert {row["consent"] for row in people_table.values()} == {"agreed"}


@pytest.mark.parametrize("image", ["png", "jpeg"])
def test_webdataset_reads_the_tars(source, tmp_path, image):
    webdataset = pytest.importorskip("webdataset")
    out, people = source
    export_frames(out, str(tmp_path), FrameOptions(format="webdataset", image=image, max_frames=10))
    tars = sorted(map(str, (tmp_path / "shards").glob("*.tar")))
    assert len(tars) == 3
    found = list(webdataset.WebDataset(tars, shardshuffle=False, empty_check=False))
    assert len(found) == 16
    for sample in found:
        says = json.loads(sample["json"])
        clip, track, _ = people[says["subject_id"]]
        got = picture(sample["png" if image == "png" else "jpg"]).astype(int)
        error = np.abs(got - clip.frames[says["frame"]]).mean()
        assert error == 0 if image == "png" else error < 60
        assert np.array_equal(picture(sample["mask.png"]), clip.masks[says["frame"]]) and picture(sample["depth.png"]).dtype == np.uint16
        assert np.array_equal(np.float32(says["body_pose"]), track.body_pose[says["frame"]])
        assert np.shape(says["keypoints"]) == (133, 2) and sample["__key__"] == says["key"]
    with tarfile.open(tars[0]) as tar:
        assert {entry.mtime for entry in tar} == {0} and all("/" not in entry.name for entry in tar)


def test_coco_wholebody(source, tmp_path):
    out, people = source
    export_frames(out, str(tmp_path), FrameOptions(max_frames=6))
    coco = json.loads((tmp_path / "annotations" / "coco_wholebody.json").read_text())
    images = {image["id"]: image for image in coco["images"]}
    assert len(images) == 16 == len({a["id"] for a in coco["annotations"]})
    assert coco["categories"][0]["keypoints"][:3] == ["nose", "left_eye", "right_eye"] and len(coco["categories"][0]["keypoints"]) == 17
    by_name = {f"{row['key']}.png": row for row in rows(str(tmp_path))}
    for note in coco["annotations"]:
        row = by_name[images[note["image_id"]]["file_name"]]
        parts = [np.reshape(note[name], (-1, 3)) for name in ("keypoints", "foot_kpts", "face_kpts", "lefthand_kpts", "righthand_kpts")]
        assert [len(part) for part in parts] == [17, 6, 68, 21, 21]
        points = np.concatenate(parts)
        assert np.array_equal(points[:, 2], row["visible"])
        inside = row["visible"] > 0
        assert np.abs(points[inside, :2] + 0.5 - row["keypoints"][inside]).max() < 1e-3 and not points[~inside].any()
        clip = people[row["subject_id"]][0]
        y, x = np.nonzero(clip.masks[row["frame"]])
        assert note["area"] == len(x) and note["bbox"] == [x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1]
        face = points[23:91][points[23:91, 2] > 0]
        if note["face_valid"]:
            low, size = np.array(note["face_box"][:2]), np.array(note["face_box"][2:])
            assert np.allclose(low, face[:, :2].min(0), atol=1e-3) and np.allclose(low + size, face[:, :2].max(0), atol=2e-3)


def test_limits_and_every(source, tmp_path):
    out, _ = source
    target = f"memory://{uuid.uuid4().hex}"
    summary = export_frames(out, target, FrameOptions(every=3, max_mib=1))
    assert summary.frames == sum(-(-frames // 3) for frames in (7, 5, 4))
    assert sorted({row["frame"] for row in rows(target)}) == [0, 3, 6]
    for format in ("parquet", "webdataset"):
        big, folder = str(tmp_path / format / "big"), str(tmp_path / format / "frames")
        for seed in range(2):
            made.add_subject(big, f"p{seed}", frames=24, block=8, seed=seed)
        summary = export_frames(big, folder, FrameOptions(format=format, max_mib=1))
        sizes = [len(content) for name, content in contents(folder).items() if name.startswith("shards/")]
        assert summary.shards == len(sizes) > 1 and max(sizes) <= 1 << 20 and sum(sizes) > 0.6 * len(sizes) * (1 << 20)


def test_the_same_bytes_whatever_happened_before(source, tmp_path):
    out, _ = source
    options = FrameOptions(max_frames=7)
    whole, broken = str(tmp_path / "whole"), tmp_path / "broken"
    export_frames(out, whole, options)
    stop = iter(range(1))

    def dying(orders):
        from svad_ray.export.frames import export_part

        for order in orders:
            if next(stop, None) is None:
                raise KeyboardInterrupt
            yield export_part(order)

    with pytest.raises(KeyboardInterrupt):
        export_frames(out, str(broken), options, run=dying)
    (done,) = broken.glob("shards/*")
    written = done.stat().st_mtime_ns
    (broken / "shards" / "frames-00001-000.parquet").write_bytes(b"half a sha")  # as if it had died while writing here
    summary = export_frames(out, str(broken), options, workers=2)
    assert done.stat().st_mtime_ns == written and summary.written == len(list(broken.glob("parts/*"))) - 1
    assert contents(str(broken)) == contents(whole)
    assert export_frames(out, str(broken), options).written == 0 and contents(str(broken)) == contents(whole)


def test_more_subjects_later(tmp_path):
    out, target = f"memory://{uuid.uuid4().hex}", str(tmp_path)
    made.add_subject(out, "m", seed=1)
    export_frames(out, target)
    before = {name: content for name, content in contents(target).items() if name.startswith(("shards", "parts", "plans"))}
    made.add_subject(out, "a", seed=2)
    summary = export_frames(out, target)
    after = contents(target)
    assert (summary.subjects, summary.written) == (2, 1) and {name: after[name] for name in before} == before
    assert {row["subject_id"] for row in rows(target)} == {"m", "a"}
    coco = json.loads(after["annotations/coco_wholebody.json"])
    assert len({image["id"] for image in coco["images"]}) == 14


def test_who_cannot_be_read_is_left_out_and_tried_again(tmp_path):
    out, target = str(tmp_path / "out"), str(tmp_path / "frames")
    people = {name: made.add_subject(out, name, seed=i) for i, name in enumerate(("a", "b", "c"))}
    marker = ArtefactStore(f"{out}/subjects").committed(people["b"][2])
    block = Key.parse(marker.facts["keys"]["restore"][2])
    store = ArtefactStore(f"{out}/work")
    path = Path(out) / "work" / str(block) / store.committed(block).attempt / "value.frames" / "000000.png"
    good = path.read_bytes()
    path.write_bytes(good[:-1])
    summary = export_frames(out, target)
    assert summary.subjects == 2 and [entry.subject_id for entry in summary.left_out] == ["b"] and path.name in summary.left_out[0].reason
    assert {row["subject_id"] for row in rows(target)} == {"a", "c"}
    path.write_bytes(good)
    summary = export_frames(out, target)
    assert (summary.subjects, summary.written, summary.left_out) == (3, 1, ())
    assert sum(row["subject_id"] == "b" for row in rows(target)) == 7


def test_a_body_that_is_not_the_subjects(tmp_path):
    out = str(tmp_path / "out")
    _, track, _ = made.add_subject(out, "a")
    store = ArtefactStore(f"{out}/work")
    fit = next(key for key in store.committed_keys() if key.stage == "fit")
    store.uncommit(fit)
    store.put(fit, type(track)(**{**track.__dict__, "body_id": "another"}))
    summary = export_frames(out, str(tmp_path / "frames"))
    assert summary.frames == 0 and "fitted with body another" in summary.left_out[0].reason


def test_output_of_create_has_no_subject_markers(source, tmp_path):
    out, target = str(tmp_path / "person"), str(tmp_path / "frames")
    clip, _, _ = made.add_subject(out, "x")
    ArtefactStore(f"{out}/subjects").files.remove("")
    assert export_frames(out, target).frames == len(clip)
    found = rows(target)
    assert [row["subject_id"] for row in found] == ["person"] * 7
    assert all(np.array_equal(picture(row["image"]), clip.frames[row["frame"]]) for row in found)
    with pytest.raises(InputError, match="3 fitted bodies"):
        work_only = tmp_path / "three"
        work_only.mkdir()
        (work_only / "work").symlink_to(Path(source[0]) / "work")
        export_frames(str(work_only), str(tmp_path / "frames3"))


def test_other_options_and_other_folders_are_refused(source, tmp_path):
    export_frames(source[0], str(tmp_path / "frames"))
    with pytest.raises(ConfigError, match="other options"):
        export_frames(source[0], str(tmp_path / "frames"), FrameOptions(image="jpeg"))
    with pytest.raises(InputError, match="nothing in"):
        export_frames(str(tmp_path / "nowhere"), str(tmp_path / "frames"))
    for wrong in ({"format": "zip"}, {"image": "gif"}, {"every": 0}, {"jpeg_quality": 101}):
        with pytest.raises(ConfigError):
            FrameOptions(**wrong)


def test_damaged_shards_are_written_again(source, tmp_path):
    target, options = str(tmp_path), FrameOptions(max_frames=7)
    export_frames(source[0], target, options)
    before = contents(target)
    first, second, *_ = sorted((tmp_path / "shards").iterdir())
    first.write_bytes(first.read_bytes()[:-1])
    second.unlink()
    assert forget_damaged(target) == [f"shards/{first.name}", f"shards/{second.name}"]
    assert export_frames(source[0], target, options).written == 2 and contents(target) == before and forget_damaged(target) == []
