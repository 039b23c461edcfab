"""The PLY against the published encoding of 3D Gaussian splatting, read back without our reader, and posing in float64."""

from dataclasses import replace

import numpy as np
import pytest
from plyfile import PlyData, PlyElement
from scipy.spatial.transform import Rotation

from svad_ray.errors import InputError
from svad_ray.export.ply import read_ply, write_ply
from svad_ray.motion import blank_track
from svad_ray.subject import BodyTrack

TURN = np.diag([1.0, -1.0, -1.0])


def raw(path) -> np.ndarray:
    return PlyData.read(str(path))["vertex"].data


def columns(rows, *names) -> np.ndarray:
    return np.stack([rows[name] for name in names], 1).astype(np.float64)


def covariances(quats, scales) -> np.ndarray:
    """(N, 3, 3) R S S R^T."""
    axes = Rotation.from_quat(quats, scalar_first=True).as_matrix() * np.asarray(scales, np.float64)[:, None]
    return axes @ axes.transpose(0, 2, 1)


def random_pose(frames: int) -> BodyTrack:
    rng = np.random.default_rng(3)
    track = blank_track(rng.normal(0, 0.4, (frames, 55, 3)), transl=rng.normal(0, 1, (frames, 3)), fps=25.0)
    return replace(track, expression=rng.normal(0, 1, (frames, 10)).astype(np.float32))


def test_attributes_are_those_of_gaussian_splatting_in_its_order(avatar, tmp_path):
    write_ply(avatar, tmp_path / "a.ply")
    f_dc, scale, rot = ([f"{part}_{k}" for k in range(n)] for part, n in (("f_dc", 3), ("scale", 3), ("rot", 4)))
    assert list(raw(tmp_path / "a.ply").dtype.names) == ["x", "y", "z", "nx", "ny", "nz", *f_dc, "opacity", *scale, *rot]
    assert (tmp_path / "a.ply").read_bytes().startswith(b"ply\nformat binary_little_endian 1.0\n")


def test_values_decode_as_the_original_viewer_decodes_them(avatar, tmp_path):
    write_ply(avatar, tmp_path / "a.ply", y_up=True)
    rows, t = raw(tmp_path / "a.ply"), avatar.tensors
    np.testing.assert_array_equal(columns(rows, "x", "y", "z"), t["means"])
    np.testing.assert_allclose(1 / (1 + np.exp(-rows["opacity"].astype(float))), t["opacities"], atol=1e-6)
    np.testing.assert_allclose(np.exp(columns(rows, "scale_0", "scale_1", "scale_2")), t["scales"], rtol=1e-5)
    colour = 0.5 + 0.28209479177387814 * columns(rows, "f_dc_0", "f_dc_1", "f_dc_2")
    np.testing.assert_allclose(colour, t["colors"], atol=1e-6)
    np.testing.assert_allclose(columns(rows, "rot_0", "rot_1", "rot_2", "rot_3"), t["quats"], atol=1e-7)


def test_the_y_down_turn_moves_points_and_shapes_alike(avatar, tmp_path):
    write_ply(avatar, tmp_path / "a.ply")
    rows, t = raw(tmp_path / "a.ply"), avatar.tensors
    np.testing.assert_allclose(columns(rows, "x", "y", "z"), t["means"] @ TURN, atol=1e-7)
    expected = TURN @ covariances(t["quats"], t["scales"]) @ TURN.T
    found = covariances(columns(rows, "rot_0", "rot_1", "rot_2", "rot_3"), np.exp(columns(rows, "scale_0", "scale_1", "scale_2")))
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert np.abs(found - covariances(t["quats"], t["scales"])).max() > 1e-5  # the turn is not nothing


def test_opacities_of_zero_and_one_stay_finite(avatar, tmp_path):
    tensors = {**avatar.tensors, "opacities": np.where(np.arange(240) % 2, 1.0, 0.0).astype(np.float32)}
    write_ply(replace(avatar, tensors=tensors), tmp_path / "a.ply")
    assert np.isfinite(raw(tmp_path / "a.ply")["opacity"]).all()
    np.testing.assert_allclose(read_ply(tmp_path / "a.ply")["opacities"], tensors["opacities"], atol=2e-6)


@pytest.mark.parametrize(("degree", "rest"), [(0, 0), (1, 9), (3, 45)])
def test_view_dependent_terms_are_there_when_asked_for(avatar, tmp_path, degree, rest):
    write_ply(avatar, tmp_path / "a.ply", sh_degree=degree)
    rows = raw(tmp_path / "a.ply")
    names = [name for name in rows.dtype.names if name.startswith("f_rest_")]
    assert names == [f"f_rest_{k}" for k in range(rest)]
    assert all(not rows[name].any() for name in names)


def test_reading_gives_back_what_was_written(avatar, tmp_path):
    write_ply(avatar, tmp_path / "a.ply", y_up=True)
    found = read_ply(tmp_path / "a.ply")
    for name, tolerance in (("means", 0), ("quats", 1e-6), ("scales", 1e-7), ("opacities", 1e-6), ("colors", 1e-6)):
        np.testing.assert_allclose(found[name], avatar.tensors[name], atol=tolerance, err_msg=name)
        assert found[name].dtype == np.float32


def _posed_by_hand(avatar, track, frame):
    """Means (N, 3) and blended linear parts (N, 3, 3) in float64: joint by joint down the tree."""
    t = {name: np.asarray(value, np.float64) for name, value in avatar.tensors.items()}
    pose = track.full_pose[frame].astype(np.float64)
    pose[25:] += t["hands_mean"].reshape(30, 3)
    world = np.zeros((55, 4, 4))
    for joint, parent in enumerate(avatar.tensors["parents"]):
        local = np.eye(4)
        local[:3, :3] = Rotation.from_rotvec(pose[joint]).as_matrix()
        local[:3, 3] = t["rest_joints"][joint] - (t["rest_joints"][parent] if parent >= 0 else 0)
        world[joint] = local if parent < 0 else world[parent] @ local
    means = t["means"].copy()
    means[avatar.tensors["expr_index"]] += t["expr_dirs"] @ track.expression[frame]
    linear, moved = np.zeros((len(means), 3, 3)), np.zeros_like(means)
    for k in range(6):
        at, weight = world[avatar.tensors["lbs_joints"][:, k]], t["lbs_weights"][:, k]
        rest = t["rest_joints"][avatar.tensors["lbs_joints"][:, k]]
        linear += weight[:, None, None] * at[:, :3, :3]
        moved += weight[:, None] * (np.einsum("nij,nj->ni", at[:, :3, :3], means - rest) + at[:, :3, 3])
    return moved + track.transl[frame], linear


def test_a_posed_file_holds_the_pose_of_its_frame(avatar, tmp_path):
    track = random_pose(3)
    write_ply(avatar, tmp_path / "a.ply", pose=track, frame=2, y_up=True)
    means, linear = _posed_by_hand(avatar, track, 2)
    found = read_ply(tmp_path / "a.ply")
    np.testing.assert_allclose(found["means"], means, atol=2e-5)
    rigid = slice(0, 24)  # on one joint each: the blended part is a rotation
    turned = linear[rigid] @ Rotation.from_quat(avatar.tensors["quats"][rigid], scalar_first=True).as_matrix()
    np.testing.assert_allclose(Rotation.from_quat(found["quats"][rigid], scalar_first=True).as_matrix(), turned, atol=1e-5)


def test_a_posed_file_equals_the_avatar_that_is_rendered(avatar, tmp_path):
    from svad_ray.stages.avatar.asset import PosableAvatar

    track = random_pose(2)
    write_ply(avatar, tmp_path / "a.ply", pose=track, frame=1)
    posed, found = PosableAvatar(avatar).posed(track, 1), read_ply(tmp_path / "a.ply")
    np.testing.assert_allclose(found["means"], posed.means.numpy() @ TURN, atol=1e-6)
    expected = TURN @ covariances(posed.quats.numpy(), posed.scales.numpy()) @ TURN.T
    np.testing.assert_allclose(covariances(found["quats"], found["scales"]), expected, atol=1e-8)


@pytest.mark.parametrize("frame", [-1, 2])
def test_a_frame_beyond_the_track_is_refused_and_leaves_no_file(avatar, tmp_path, frame):
    with pytest.raises(InputError, match="track of 2"):
        write_ply(avatar, tmp_path / "a.ply", pose=random_pose(2), frame=frame)
    assert not list(tmp_path.iterdir())


def test_other_kinds_and_degrees_are_refused(avatar, tmp_path):
    with pytest.raises(InputError, match="exavatar"):
        write_ply(replace(avatar, kind="voxels"), tmp_path / "a.ply")
    with pytest.raises(InputError, match="sh_degree"):
        write_ply(avatar, tmp_path / "a.ply", sh_degree=4)


def test_unreadable_files_are_named(avatar, tmp_path):
    (tmp_path / "text.ply").write_text("hello")
    points = np.zeros(2, [("x", "f4"), ("y", "f4"), ("z", "f4")])
    PlyData([PlyElement.describe(points, "vertex")]).write(str(tmp_path / "points.ply"))
    write_ply(avatar, tmp_path / "whole.ply")
    (tmp_path / "cut.ply").write_bytes((tmp_path / "whole.ply").read_bytes()[:-100])
    for name in ("text.ply", "points.ply", "cut.ply", "absent.ply"):
        with pytest.raises(InputError, match=name):
            read_ply(tmp_path / name)
