"""ExAvatar's folders, out and in: the same person in the same pixels, and folders with something wrong."""

import json
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from svad_ray.errors import InputError
from svad_ray.export.exavatar import background_points, write_subject
from svad_ray.motion import load_motion, retarget, turn
from svad_ray.motion.exavatar import read_subject, read_track
from svad_ray.motion.labels import posed
from svad_ray.subject import Clip

FRAMES, SIZE = 11, 64
PARAMS = {"root_pose": 3, "body_pose": 63, "jaw_pose": 3, "leye_pose": 3, "reye_pose": 3, "lhand_pose": 45, "rhand_pose": 45, "expr": 50, "trans": 3}


@pytest.fixture(scope="module")
def body(golden_body):
    return golden_body


@pytest.fixture(scope="module")
def clip(body):
    """A person with every offset, in random poses before a camera that moves, drawn as noise."""
    rng = np.random.default_rng(0)
    person = replace(turn(1), betas=rng.normal(0, 0.5, 30).astype(np.float32), expression=np.zeros((1, 20), np.float32), body_id=body.id)
    track = retarget(turn(FRAMES), person=person, body=body, size=SIZE)
    shapes = {"face_offset": tuple(body.v_template.shape), "joint_offset": (55, 3), "locator_offset": (55, 3)}
    offsets = {name: rng.normal(0, 0.01, shape).astype(np.float32) for name, shape in shapes.items()}
    way = np.tile(np.eye(4), (FRAMES, 1, 1))
    way[:, :3, :3] = Rotation.from_euler("y", np.linspace(0, 40, FRAMES)[:, None], degrees=True).as_matrix()
    way[:, :3, 3] = rng.normal(0, 0.2, (FRAMES, 3))
    track = replace(
        track,
        expression=rng.normal(0, 1, (FRAMES, 20)).astype(np.float32),
        viewmats=(track.viewmats @ way).astype(np.float32),
        fps=30.0,
        **offsets,
    ).with_full_pose((track.full_pose + rng.normal(0, 0.2, (FRAMES, 55, 3))).astype(np.float32))
    frames = rng.integers(0, 255, (FRAMES, SIZE, SIZE, 3), np.uint8)
    masks = np.zeros((FRAMES, SIZE, SIZE), np.uint8)
    masks[:, 20:50, 20:40] = 255
    return Clip(frames, masks, track, ("",) * FRAMES)


@pytest.fixture(scope="module", params=[True, False], ids=["padded", "unpadded"])
def folder(request, clip, body, tmp_path_factory):
    return write_subject(clip, tmp_path_factory.mktemp("subject") / "me", body=body, padded=request.param)


@pytest.fixture
def broken(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "broken")


def in_camera(body, track) -> np.ndarray:
    """Vertices and joints as the camera has them, in double precision."""
    made = posed(body, track)
    points = torch.cat([made.vertices, made.joints], 1).double().numpy()
    views = track.viewmats.astype(float)
    return points @ views[:, :3, :3].transpose(0, 2, 1) + views[:, None, :3, 3]


def test_a_subject_comes_back_as_it_was(folder, clip, body):
    again = read_subject(folder, body)
    np.testing.assert_array_equal(again.frames, clip.frames)
    np.testing.assert_array_equal(again.masks, clip.masks)
    old, new = clip.track, again.track
    for name in ("face_offset", "joint_offset", "locator_offset", "Ks", "body_pose", "left_hand_pose", "jaw_pose"):
        np.testing.assert_allclose(getattr(new, name), getattr(old, name), atol=1e-6, err_msg=name)
    np.testing.assert_allclose(new.betas[:30], old.betas, atol=1e-6)
    np.testing.assert_allclose(new.expression[:, :20], old.expression, atol=1e-6)
    assert not new.betas[30:].any() and new.image_size == (SIZE, SIZE) and new.fps == 30 and new.body_id == body.id
    np.testing.assert_allclose(in_camera(body, new), in_camera(body, old), atol=5e-6)  # float32 at 4 metres
    relative = [t.viewmats.astype(float) @ np.linalg.inv(t.viewmats[0].astype(float)) for t in (old, new)]
    np.testing.assert_allclose(relative[1], relative[0], atol=1e-6)
    np.testing.assert_allclose(new.viewmats[0], np.diag([1, -1, -1, 1]), atol=1e-6)  # upright in the first camera's world


def test_their_own_formulas_give_the_same_person(folder, clip, body):
    """smplx's layer on the stored numbers, in the camera, as ExAvatar calls it; nothing of ours but the layer, which is compared elsewhere."""
    optimized = folder / "smplx_optimized"
    pad = (optimized / "smplx_params_smoothed" / "0000.json").exists()
    one = json.loads((optimized / "smplx_params_smoothed" / ("0005.json" if pad else "5.json")).read_text())
    assert {name: np.size(value) for name, value in one.items()} == PARAMS
    assert json.loads((optimized / "smplx_params" / "5.json").read_text()) == one
    shared = {name: np.array(json.loads((optimized / f"{name}.json").read_text())) for name in ("shape_param", "face_offset", "joint_offset")}
    assert shared["shape_param"].shape == (100,) and shared["face_offset"].shape == body.v_template.shape
    double = body.to(torch.float64)
    rows = {name: torch.tensor(value, dtype=torch.float64).reshape(1, -1) for name, value in one.items()}
    out = double.forward(
        betas=torch.tensor(shared["shape_param"])[None], expression=rows["expr"], global_orient=rows["root_pose"], body_pose=rows["body_pose"],
        jaw_pose=rows["jaw_pose"], leye_pose=rows["leye_pose"], reye_pose=rows["reye_pose"], left_hand_pose=rows["lhand_pose"],
        right_hand_pose=rows["rhand_pose"], transl=rows["trans"], face_offset=torch.tensor(shared["face_offset"]),
        joint_offset=torch.tensor(shared["joint_offset"]),
    )  # fmt: skip
    np.testing.assert_allclose(out.vertices[0], in_camera(body, clip.track)[5, : len(body.v_template)], atol=5e-6)
    camera = json.loads((folder / "cam_params" / ("0000.json" if pad else "0.json")).read_text())
    np.testing.assert_allclose(camera["R"], np.eye(3), atol=1e-7)
    np.testing.assert_allclose([*camera["focal"], *camera["princpt"]], clip.track.Ks[0][[0, 1, 0, 1], [0, 1, 2, 2]], atol=1e-5)


def test_lists_points_and_background(folder, clip, body):
    lists = {part: (folder / f"frame_list_{part}.txt").read_text().split() for part in ("all", "train", "test")}
    assert sorted(lists["train"] + lists["test"]) == sorted(lists["all"]) and len(lists["all"]) == FRAMES and len(lists["test"]) == 1
    first = (folder / "frames" / lists["all"][3]).with_suffix(".png")
    np.testing.assert_array_equal(cv2.imread(str(first))[..., ::-1], clip.frames[3])
    points = np.array(json.loads((folder / "keypoints_whole_body" / first.with_suffix(".json").name).read_text()))
    assert points.shape == (133, 3) and set(points[:, 2]) <= {0, 0.5, 1}
    hips = in_camera(body, clip.track)[3, len(body.v_template) :][[1, 2]] @ clip.track.Ks[3].T
    np.testing.assert_allclose(points[[11, 12], :2], hips[:, :2] / hips[:, 2:], atol=1e-3)
    behind = np.loadtxt(folder / "bkg_point_cloud.txt")
    np.testing.assert_allclose(behind, background_points(clip, body), atol=1e-5)
    pixel = behind[:, :3] @ clip.track.Ks[0].T
    pixel = np.floor(pixel[:, :2] / pixel[:, 2:] + 1e-4).astype(int)
    assert not clip.masks[0][pixel[:, 1], pixel[:, 0]].any()
    np.testing.assert_allclose(behind[:, 3:], clip.frames[:, pixel[:, 1], pixel[:, 0], ::-1].mean(0), atol=1e-4)


def test_it_dances_as_a_motion_wherever_one_points(folder, clip, body):
    inside = ("", "smplx_optimized", "smplx_optimized/smplx_params", "smplx_optimized/smplx_params_smoothed")
    motions = [load_motion(folder / part, body) for part in inside]
    for motion in motions:
        np.testing.assert_allclose(motion.full_pose, motions[0].full_pose, atol=1e-6)
        np.testing.assert_allclose(motion.body_pose, clip.track.body_pose, atol=1e-6)
        assert motion.face_offset is None and not motion.betas.any() and motion.body_id == ""  # a stranger's shape stays behind
    assert retarget(motions[0], person=clip.track.frames(slice(0, 1)), body=body).face_offset is clip.track.face_offset


def _cut(path):
    path.write_bytes(path.read_bytes()[:40])


def _file(folder, part, number):
    return next(file for file in (folder / part).iterdir() if int(file.stem) == number)


def _with(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


SMOOTHED = "smplx_optimized/smplx_params_smoothed"
FAULTS = {
    "a truncated frame": (lambda f: _cut(_file(f, SMOOTHED, 4)), "no readable JSON"),
    "a frame that is missing": (lambda f: _file(f, SMOOTHED, 4).unlink(), "lacks frames between 3 and 5"),
    "two names of one frame": (lambda f: shutil.copy(_file(f, SMOOTHED, 4), f / SMOOTHED / "00004.json"), "00004.json"),
    "a pose that is no number": (lambda f: _with(_file(f, SMOOTHED, 4), root_pose=[float("nan")] * 3), "not finite"),
    "words for a pose": (lambda f: _with(_file(f, SMOOTHED, 4), body_pose="none"), "holds no numbers"),
    "a pose without hips": (lambda f: _with(_file(f, SMOOTHED, 4), body_pose=[[0, 0, 0]] * 20), "21 axis-angle"),
    "expressions of two lengths": (lambda f: _with(_file(f, SMOOTHED, 4), expr=[0.0] * 10), "expr has another length"),
    "a camera that is missing": (lambda f: _file(f, "cam_params", 10).unlink(), "lacks frame 10"),
    "a camera without a place": (lambda f: _with(_file(f, "cam_params", 2), t=[0]), "t of shape"),
    "a mask that is missing": (lambda f: _file(f, "masks", 10).unlink(), "masks lacks frame 10"),
    "half a picture": (lambda f: _cut(_file(f, "frames", 7)), "no readable picture"),
    "offsets of another body": (lambda f: (f / "smplx_optimized/face_offset.json").write_text("[[0, 0, 0]]"), r"face_offset of shape \(1, 3\)"),
    "no shape": (lambda f: (f / "smplx_optimized/shape_param.json").unlink(), "shape_param.json"),
    "a shape of a richer body": (lambda f: (f / "smplx_optimized/shape_param.json").write_text(str([1.0] * 200)), "200 coefficients"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_folders_with_something_wrong_are_refused(broken, body, fault):
    spoil, says = FAULTS[fault]
    spoil(broken)
    with pytest.raises(InputError, match=says):
        read_subject(broken, body)


def test_some_names_padded_and_others_not(broken, clip, body):
    for number in (2, 9, 10):
        file = _file(broken, SMOOTHED, number)
        file.rename(file.with_name(f"{number}.json" if file.stem.startswith("0") else f"{number:04d}.json"))
    np.testing.assert_allclose(read_track(broken, body).body_pose, clip.track.body_pose, atol=1e-6)


def test_folders_that_are_in_use_and_strangers_are_refused(folder, clip, body, tmp_path):
    with pytest.raises(InputError, match="is there already"):
        write_subject(clip, folder, body=body)
    with pytest.raises(InputError, match="belongs to body"):
        write_subject(replace(clip, track=replace(clip.track, body_id="other")), tmp_path / "new", body=body)
    assert not list(tmp_path.glob("*")) and not list(tmp_path.glob(".*"))
    with pytest.raises(InputError, match="no smplx_optimized"):
        read_track(tmp_path, body)


@pytest.mark.models
def test_a_run_gives_its_fit_and_its_folder(tmp_path):
    """Blocks of frames joined in order, the whole track in one file, and the commands that write and read them."""
    import frames_source
    from typer.testing import CliRunner

    from svad_ray.body import load_body
    from svad_ray.cli import app
    from svad_ray.motion import load_track

    clip, track, _ = frames_source.add_subject(str(tmp_path / "run"), "me", frames=5, block=2)
    for name in ("fit", "svad"):
        done = CliRunner().invoke(app, ["export", str(tmp_path / "run"), "--format", name, "--out", str(tmp_path / name)])
        assert done.exit_code == 0, done.exception
    kept = load_track(tmp_path / "fit")
    np.testing.assert_array_equal(kept.vertex_offset, track.vertex_offset)
    np.testing.assert_array_equal(kept.viewmats, track.viewmats)
    again = read_subject(tmp_path / "svad", load_body())
    np.testing.assert_array_equal(again.frames, clip.frames)
    assert (tmp_path / "svad" / "frames" / "0004.png").is_file()
    done = CliRunner().invoke(app, ["track", str(tmp_path / "svad"), "--out", str(tmp_path / "again.npz")])
    assert done.exit_code == 0 and "5 frames" in done.output
    np.testing.assert_allclose(load_track(tmp_path / "again.npz").betas[:10], track.betas, atol=1e-6)
    done = CliRunner().invoke(app, ["export", str(tmp_path / "nothing"), "--format", "fit"])
    assert isinstance(done.exception, InputError)
