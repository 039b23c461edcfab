"""Motions from files: round trips, foreign layouts written by hand, and axes checked on a walking person."""

import json
from dataclasses import fields, replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from svad_ray.errors import InputError
from svad_ray.motion import blank_track, load_motion, load_track, resample, save_track, walk
from svad_ray.subject import BodyTrack


def random_track(frames: int = 4) -> BodyTrack:
    rng = np.random.default_rng(1)
    return blank_track(rng.normal(0, 0.3, (frames, 55, 3)), transl=rng.normal(0, 1, (frames, 3)), fps=30.0)


@pytest.mark.parametrize("optional", [(), ("vertex_offset", "face_offset", "joint_offset", "residual_px")])
def test_a_saved_track_loads_bit_for_bit(tmp_path, optional):
    extra = {"vertex_offset": np.ones((7, 3), np.float32), "face_offset": np.full((7, 3), 2, np.float32)}
    extra |= {"joint_offset": np.ones((55, 3), np.float32), "residual_px": np.ones(4, np.float32)}
    track = replace(random_track(), body_id="abc", **{name: extra[name] for name in optional})
    save_track(track, tmp_path / "t.npz")
    for found in (load_track(tmp_path / "t.npz"), load_motion(tmp_path / "t.npz")):
        for f in fields(BodyTrack):
            expected, value = getattr(track, f.name), getattr(found, f.name)
            assert type(expected) is type(value), f.name
            np.testing.assert_array_equal(value, expected) if expected is not None else None


def test_damaged_and_foreign_tracks_are_refused(tmp_path):
    save_track(random_track(), tmp_path / "t.npz")
    whole = (tmp_path / "t.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    arrays = dict(np.load(tmp_path / "t.npz"))
    np.savez(tmp_path / "newer.npz", **{**arrays, "svad_ray_track": 99})
    np.savez(tmp_path / "uneven.npz", **{**arrays, "jaw_pose": np.zeros((2, 3))})
    np.savez(tmp_path / "lacking.npz", **{k: v for k, v in arrays.items() if k != "betas"})
    np.savez(tmp_path / "nan.npz", **{**arrays, "body_pose": arrays["body_pose"] * np.nan})
    np.savez(tmp_path / "first.npz", **{**arrays, "svad_ray_track": 1})
    assert load_track(tmp_path / "first.npz").face_offset is None  # files of before the face are read on
    np.savez(tmp_path / "other.npz", picture=np.zeros(3))
    for name, says in (
        ("cut", "readable"),
        ("newer", "version 99"),
        ("uneven", "jaw_pose"),
        ("lacking", "betas"),
        ("nan", "not finite"),
        ("other", "picture"),
        ("no", "no track"),
    ):
        with pytest.raises(InputError, match=says):
            load_track(tmp_path / f"{name}.npz")


def _amass_walk(path, frames: int = 12):
    """A person of AMASS's z-up world who stands upright and walks along -y, which they face (zero pose lies on its back there)."""
    poses = np.zeros((frames, 165))
    poses[:, :3] = Rotation.from_euler("x", 90, degrees=True).as_rotvec()  # body y to world z, body z to world -y
    trans = np.stack([np.zeros(frames), -0.05 * np.arange(frames), np.full(frames, 0.9)], 1)
    np.savez(path, poses=poses, trans=trans, betas=np.ones(16), mocap_frame_rate=120.0, gender=np.array("neutral"))


def test_an_amass_walker_stands_upright_and_walks_where_they_look(tmp_path):
    _amass_walk(tmp_path / "a.npz")
    track = load_motion(tmp_path / "a.npz")
    root = Rotation.from_rotvec(track.global_orient)
    np.testing.assert_allclose(root.apply([0, 1, 0]), [[0, 1, 0]] * 12, atol=1e-6)  # upright
    ahead = root[0].apply([0, 0, 1])
    step = track.transl[-1] - track.transl[0]
    np.testing.assert_allclose(step / np.linalg.norm(step), ahead, atol=1e-5)
    assert step[1] == pytest.approx(0, abs=1e-6)  # the ground stays level
    assert track.fps == 120 and not track.betas.any()  # a stranger's shape is left out


@pytest.mark.parametrize(("width", "first_hand"), [(165, 75), (156, 66)])
def test_hands_are_found_in_each_layout(tmp_path, width, first_hand):
    poses = np.arange(2 * width, dtype=float).reshape(2, width) / 1000
    np.savez(tmp_path / "a.npz", poses=poses, trans=np.zeros((2, 3)))
    track = load_motion(tmp_path / "a.npz")
    np.testing.assert_allclose(track.left_hand_pose.reshape(2, 45), poses[:, first_hand : first_hand + 45], atol=1e-6)
    np.testing.assert_allclose(track.right_hand_pose.reshape(2, 45), poses[:, first_hand + 45 :], atol=1e-6)
    np.testing.assert_allclose(track.body_pose.reshape(2, 63), poses[:, 3:66], atol=1e-6)


def test_smpl_poses_leave_hands_at_rest_and_other_widths_are_refused(tmp_path):
    np.savez(tmp_path / "smpl.npz", poses=np.full((2, 72), 0.1))
    track = load_motion(tmp_path / "smpl.npz")
    assert track.body_pose[:, 20].any() and not track.left_hand_pose.any()
    np.savez(tmp_path / "odd.npz", poses=np.zeros((2, 70)))
    with pytest.raises(InputError, match="70 numbers"):
        load_motion(tmp_path / "odd.npz")


def test_split_keys_join_in_smplx_order(tmp_path):
    rng = np.random.default_rng(0)
    parts = {"root_orient": 3, "pose_body": 63, "pose_jaw": 3, "left_hand_pose": 45, "right_hand_pose": 45}
    arrays = {name: rng.normal(0, 0.2, (3, width)) for name, width in parts.items()}
    np.savez(tmp_path / "a.npz", **arrays, trans=np.zeros((3, 3)))
    pose = load_motion(tmp_path / "a.npz").full_pose.reshape(3, 165)
    zero = np.zeros((3, 6))
    order = [arrays["root_orient"], arrays["pose_body"], arrays["pose_jaw"], zero, arrays["left_hand_pose"], arrays["right_hand_pose"]]
    np.testing.assert_allclose(pose, np.concatenate(order, 1), atol=1e-6)


def test_amass_pairs_of_hands_and_eyes(tmp_path):
    rng = np.random.default_rng(0)
    pairs = {"pose_hand": rng.normal(0, 0.2, (3, 90)), "pose_eye": rng.normal(0, 0.2, (3, 6))}
    np.savez(tmp_path / "a.npz", root_orient=np.zeros((3, 3)), pose_body=np.zeros((3, 63)), trans=np.zeros((3, 3)), **pairs)
    pose = load_motion(tmp_path / "a.npz").full_pose.reshape(3, 165)
    np.testing.assert_allclose(pose[:, 75:], pairs["pose_hand"], atol=1e-6)
    np.testing.assert_allclose(pose[:, 69:75], pairs["pose_eye"], atol=1e-6)
    np.savez(tmp_path / "still.npz", poses=np.zeros((2, 165)), mocap_frame_rate=0.0)
    with pytest.raises(InputError, match="mocap_frame_rate is 0"):
        load_motion(tmp_path / "still.npz")


def test_whole_hand_poses_lose_the_bodys_mean_hand(tmp_path, body):
    np.savez(tmp_path / "a.npz", poses=np.zeros((1, 165)))
    hands = load_motion(tmp_path / "a.npz", body)
    mean = body.hands_mean.numpy().reshape(2, 15, 3)
    assert np.abs(mean).max() > 0.01
    np.testing.assert_allclose(hands.left_hand_pose[0], -mean[0], atol=1e-6)
    np.testing.assert_allclose(hands.right_hand_pose[0], -mean[1], atol=1e-6)


def test_values_that_are_not_finite_are_refused(tmp_path):
    poses = np.zeros((2, 165))
    poses[1, 7] = np.nan
    np.savez(tmp_path / "a.npz", poses=poses)
    with pytest.raises(InputError, match="finite"):
        load_motion(tmp_path / "a.npz")


def test_pickled_objects_are_never_opened(tmp_path):
    np.savez(tmp_path / "a.npz", poses=np.zeros((1, 165)), gender=np.array({"a": 1}, dtype=object), allow_pickle=True)
    assert len(load_motion(tmp_path / "a.npz")) == 1


def _exavatar_frame(k: int) -> dict:
    """A camera's view (y down, z away) of someone upright who faces the camera and comes nearer."""
    facing = Rotation.from_euler("x", 180, degrees=True).as_rotvec()
    zero = {"jaw_pose": [0] * 3, "leye_pose": [0] * 3, "reye_pose": [0] * 3, "lhand_pose": [[0] * 3] * 15, "rhand_pose": [[0] * 3] * 15}
    body = np.zeros((21, 3))
    body[0, 0] = 0.01 * k
    return {"root_pose": facing.tolist(), "body_pose": body.tolist(), "trans": [0.1, 0.2, 3 - 0.1 * k], "expr": [0.5] + [0] * 49, **zero}


def test_an_exavatar_folder_is_read_in_order_of_numbers_and_turned_upright(tmp_path):
    for k in range(11):
        (tmp_path / f"{k}.json").write_text(json.dumps(_exavatar_frame(k)))
    track = load_motion(tmp_path)
    assert len(track) == 11 and track.fps == 30
    np.testing.assert_allclose(track.body_pose[:, 0, 0], 0.01 * np.arange(11), atol=1e-6)
    root = Rotation.from_rotvec(track.global_orient[0])
    np.testing.assert_allclose(root.as_matrix(), np.eye(3), atol=1e-6)  # upright, face to the camera at +z
    assert (np.diff(track.transl[:, 2]) > 0.09).all() and track.transl[0, 1] == pytest.approx(-0.2, abs=1e-6)
    assert track.expression[0, 0] == 0.5


def test_folders_without_frames_and_broken_frames_are_named(tmp_path):
    with pytest.raises(InputError, match="nothing"):
        load_motion(tmp_path)
    (tmp_path / "0.json").write_text("{")
    with pytest.raises(InputError, match=r"0\.json"):
        load_motion(tmp_path)


def test_unknown_names_list_the_known_ones():
    with pytest.raises(InputError, match="walk"):
        load_motion("wlak")


def test_twice_the_rate_puts_frames_half_way_along_the_arc():
    pose = np.zeros((2, 55, 3))
    pose[0, 0], pose[1, 0] = [0, 0.2, 0], [0, 1.4, 0]
    pose[1, 16] = Rotation.from_euler("xyz", [70, 20, 50], degrees=True).as_rotvec()
    track = resample(blank_track(pose, transl=np.array([[0, 0, 0], [1.0, 2, 3]]), fps=10), 20)
    assert len(track) == 3 and track.fps == 20
    np.testing.assert_allclose(track.global_orient[1], [0, 0.8, 0], atol=1e-6)
    np.testing.assert_allclose(track.full_pose[1, 16], pose[1, 16] / 2, atol=1e-6)  # from rest, half the rotation vector
    np.testing.assert_allclose(track.transl[1], [0.5, 1, 1.5], atol=1e-6)


def test_resampling_keeps_the_duration_and_both_ends():
    track = walk(56)
    found = resample(track, 60.0)
    assert (len(found) - 1) / 60 == pytest.approx(55 / 25, abs=1 / 60)
    np.testing.assert_allclose(found.full_pose[0], track.full_pose[0], atol=1e-6)
    assert len(resample(track, 25.0)) == 56
    with pytest.raises(InputError, match="frame rate"):
        resample(track, 0)


def test_a_turn_across_half_a_circle_takes_the_short_way():
    pose = np.zeros((2, 55, 3))
    pose[0, 0, 1], pose[1, 0, 1] = np.radians(170), np.radians(-170)
    middle = resample(blank_track(pose, fps=10), 20).global_orient[1]
    assert abs(middle[1]) == pytest.approx(np.pi, abs=1e-5)
