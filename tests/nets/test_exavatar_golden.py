"""The human model against the recorded outputs of the original (tolerances: the recording's README)."""

import json

import numpy as np
import pytest
import torch
from exavatar_kit import HUMAN, load
from torch.testing import assert_close

from svad_ray.body.lbs import rotation_matrices
from svad_ray.errors import InputError, WeightsMissing
from svad_ray.geometry.rotations import axis_angle_of, matrices_of_rows
from svad_ray.nets.exavatar.mesh import FLAGS
from svad_ray.nets.exavatar.model import AvatarModel
from svad_ray.nets.exavatar.networks import AvatarNetworks, RowNorm
from svad_ray.nets.exavatar.snapshot import FramePose, load_learned, read_snapshot, save_learned, write_snapshot


@pytest.fixture(scope="module")
def recorded(golden_avatar):
    return load(golden_avatar)


def near(got: torch.Tensor, want: np.ndarray, share: float = 5e-5) -> None:
    """Largest difference against the largest recorded value."""
    worst = np.abs(got.detach().numpy() - want).max()
    assert worst <= share * np.abs(want).max(), worst / np.abs(want).max()


def test_subdivision_and_regions_are_the_recorded_ones(recorded):
    r, d = recorded, recorded.data
    assert np.array_equal(r.mesh.faces, d["face_level2"])
    assert sorted(np.where(r.regions.face_expression)[0]) == sorted(d["expr_vertex_idx"])
    for name in FLAGS:
        assert np.array_equal(r.mesh.flags[name].numpy(), d[name]), name


def test_the_canonical_body_and_its_transforms(recorded):
    d, canonical = recorded.data, recorded.model.canonical()
    near(canonical.low, d["neutral_mesh_id_closedjaw_low"])
    near(canonical.unpose, d["neutral_transform"])
    near(canonical.rest_joints, d["zero_joint"])
    for name, value in (("neutral_mesh_id_closedjaw_up", canonical.mesh), ("pos_enc_mesh", recorded.model.positions)):
        if name in d:
            near(value, d[name])


def test_features_and_static_heads(recorded):
    d, static = recorded.data, recorded.model.static()
    rows = d["sub_idx"]
    known = {"tri_feat_sub": static.features[rows], "geo_feat_sub": static.geometry[rows], "static_scale_raw": static.log_scale}
    for name, value in {**known, "static_rgb_raw": static.rgb}.items():
        if name in d:
            near(value, d[name])


@pytest.mark.parametrize("frame", ["3", "7"])
def test_gaussians_of_a_pose(recorded, frame):
    d, p = recorded.data, f"pose{frame}_"
    if p + "nn_vertex_idx" not in d:
        pytest.skip("this frame is only in the full recording")
    posed = recorded.posed(frame)
    assert np.array_equal(posed.nearest.numpy(), d[p + "nn_vertex_idx"])
    near(posed.refined.means, d[p + "refined_mean_3d"])
    assert np.abs(posed.refined.colors.detach().numpy() - d[p + "refined_rgb"]).max() < 2e-3
    exact = {"static_mean_3d": posed.static.means, "static_scale": posed.static.scales, "refined_scale": posed.refined.scales}
    exact |= {"static_rgb": posed.static.colors, "off_mean_offset_offset": posed.offsets.mean_offset, "off_scale_offset": posed.offsets.scale_offset}
    for name, value in exact.items():
        if p + name in d:
            near(value, d[p + name])


def test_bodys_own_hands_equal_the_layer_where_no_offset_moves_them(recorded):
    """Without the original's treatment of the hand mean, hands lie where the body's layer puts them."""
    r = recorded
    model = AvatarModel(r.mesh, r.model.networks, face_offset=r.model.face_offset)
    rotations, _, transl = r.pose("7")
    canonical = model.canonical()
    x = torch.cat([canonical.low, torch.ones(len(canonical.low), 1)], 1)
    blended = torch.einsum("nj,jab->nab", r.mesh.body.lbs_weights, model.transforms(canonical, rotations))
    ours = (blended @ x[..., None])[:, :3, 0] + transl
    joint_offset = torch.cat([torch.zeros(1, 3), model.networks.joint_offset[1:]])
    angles = axis_angle_of(rotations)[None]
    out = r.mesh.body.forward(
        betas=model.networks.shape_param[None], global_orient=angles[:, 0], body_pose=angles[:, 1:22], jaw_pose=angles[:, 22],
        leye_pose=angles[:, 23], reye_pose=angles[:, 24], left_hand_pose=angles[:, 25:40], right_hand_pose=angles[:, 40:55], transl=transl[None],
        face_offset=model.face_offset, joint_offset=joint_offset, face_contour=False,
    )  # fmt: skip
    # fingertips are skinned to one joint; pose correctives, which the two apply in different places, are below a millimetre there
    alone = (r.mesh.body.lbs_weights.max(1).values > 0.999) & torch.from_numpy(r.regions.left_hand | r.regions.right_hand)
    undone = out.rest_vertices[0] - canonical_rest(model)
    bound = undone[alone].norm(dim=1).max() + 1e-5
    assert alone.any() and (ours - out.vertices[0])[alone].norm(dim=1).max() <= bound


def canonical_rest(model: AvatarModel) -> torch.Tensor:
    """The rest vertices that the canonical layer call skinned."""
    star = torch.zeros(1, 21, 3)
    star[0, 0, 2], star[0, 1, 2] = 1.0, -1.0
    n = model.networks
    out = model.mesh.body.forward(betas=n.shape_param[None], body_pose=star, face_offset=model.face_offset, face_contour=False)
    return out.rest_vertices[0]


def test_row_norm_is_group_norm():
    torch.manual_seed(0)
    ours, torchs = RowNorm(4, 128).double(), torch.nn.GroupNorm(4, 128).double()
    torchs.load_state_dict({k: torch.randn_like(v) for k, v in ours.state_dict().items()})
    ours.load_state_dict(torchs.state_dict())
    x = torch.randn(7, 128, dtype=torch.float64)
    assert_close(ours(x), torchs(x))


def test_rotation_forms_agree():
    angles = torch.randn(40, 3, dtype=torch.float64) * 0.8
    m = rotation_matrices(angles)
    assert_close(matrices_of_rows(m[:, :2].flatten(1)), m)
    assert_close(axis_angle_of(m), angles, atol=1e-9, rtol=1e-9)


def poses_of(recorded) -> dict[int, FramePose]:
    rotations, expression, transl = recorded.pose("7")
    return {7: FramePose(rotations[:, :2].flatten(1), expression, transl)}


def test_an_original_snapshot_is_read_and_written_in_its_layout(recorded, tmp_path):
    model, want = recorded.model, json.loads(str(recorded.data["snapshot_keys_json"]))
    write_snapshot(tmp_path / "whole.pth", model.networks, poses_of(recorded), mesh=recorded.mesh, positions=model.positions, epoch=3)
    written = torch.load(tmp_path / "whole.pth", weights_only=True)
    assert set(written) == {"epoch", "network", "optimizer"} and written["epoch"] == 3
    ours = {key: list(value.shape) for key, value in written["network"].items()}
    assert ours == {key: shape for key, shape in want.items() if key.startswith(HUMAN) or ".7." in key}
    got = read_snapshot(tmp_path / "whole.pth")
    assert all(torch.equal(a, b) for a, b in zip(got.networks.state_dict().values(), model.networks.state_dict().values()))
    assert torch.equal(got.poses[7].rotations, poses_of(recorded)[7].rotations)


def test_the_learned_part_is_small_and_comes_back_bit_for_bit(recorded, tmp_path):
    networks = recorded.model.networks
    save_learned(tmp_path / "a.safetensors", networks, facts={"levels": 2})
    assert (tmp_path / "a.safetensors").stat().st_size < 13.6e6
    got, facts = load_learned(tmp_path / "a.safetensors")
    assert facts == {"levels": 2} and all(torch.equal(value, networks.state_dict()[key]) for key, value in got.state_dict().items())


def test_files_that_are_no_avatar_are_refused_by_name(tmp_path):
    networks, path = AvatarNetworks(10, triplane=4), tmp_path / "a.safetensors"
    with pytest.raises(WeightsMissing, match="no avatar file"):
        load_learned(path)
    save_learned(path, networks)
    whole = path.read_bytes()
    for broken in (b"", whole[:5], whole[: len(whole) // 2], b"\xff" * 100):
        path.write_bytes(broken)
        with pytest.raises(InputError, match="cannot be read"):
            load_learned(path)
    path.write_bytes(whole.replace(b'"format":"1"', b'"format":"9"'))
    with pytest.raises(InputError, match="format 9"):
        load_learned(path)
    with torch.no_grad():
        networks.shape_param[0] = torch.nan
    save_learned(path, networks)
    with pytest.raises(InputError, match="no numbers"):
        load_learned(path)
    torch.save({"epoch": 0, "network": {HUMAN + "triplane": torch.zeros(3, 32, 4, 4)}, "optimizer": {}}, tmp_path / "s.pth")
    with pytest.raises(InputError, match="lacks shape_param"):
        read_snapshot(tmp_path / "s.pth")
    (tmp_path / "s.pth").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(InputError, match="cannot be read"):
        read_snapshot(tmp_path / "s.pth")
