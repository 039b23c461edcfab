"""The record of what was seen, counted by hand; through the avatar's folder; and of avatars that have none."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_pipeline import track

from svad_ray.body import load_body
from svad_ray.fitting.clothed import PARTS, clothed_surface
from svad_ray.fitting.state import FitState, photo_camera, pose_body, relaxed_pose
from svad_ray.geometry.mesh import normals_np
from svad_ray.geometry.raster import rasterize_mesh, to_camera
from svad_ray.stages.avatar.confidence import PALETTE, palette, record, recorded, region_colors, vertex_shares
from svad_ray.store import load_avatar, save_avatar
from svad_ray.subject import Avatar, Further, Photo


def known():
    shares = np.array([[0.9, 0.1, 0.3, 0.0], [0.0, 0.8, 0.3, 0.2]])
    part = np.array([0, 0, 1, 1])
    return record(shares, part, np.array([1.0, 3.0, 1.0, 1.0]), ["front", "back"])


def test_counted_by_hand():
    one = known()
    assert one.source.tolist() == [1, 2, 1, 0] and one.source.dtype == np.uint8
    assert one.confidence.dtype == np.float16 and np.allclose(one.confidence, [0.9, 0.9, 0.6, 0.2], atol=1e-3)
    assert one.summary["photos"] == ["front", "back"] and one.summary["seen"] == pytest.approx(5 / 6, abs=1e-4)
    assert one.summary["parts"] == {"head": {"seen": 1.0, "photos": [0.25, 0.75]}, "torso": {"seen": 0.5, "photos": [0.5, 0.0]}}


def test_it_lies_in_the_folder_and_old_avatars_have_none(tmp_path):
    one, colors = known(), np.full((4, 3), 0.5, np.float32)
    avatar = Avatar("gaussian", {"colors": colors, **one.tensors}, track(1), {"confidence": one.summary})
    back = load_avatar(save_avatar(avatar, tmp_path / "new"))
    assert recorded(back) and np.array_equal(back.tensors["source"], one.source) and back.facts["confidence"] == one.summary
    assert np.array_equal(back.tensors["confidence"], one.confidence)
    old = load_avatar(save_avatar(Avatar("gaussian", {"colors": colors}, track(1), {}), tmp_path / "old"))
    assert not recorded(old) and region_colors(old) is None


def test_regions_have_their_own_colours():
    one = known()
    avatar = SimpleNamespace(tensors={"colors": np.full((4, 3), 0.5), **one.tensors})
    colors = region_colors(avatar)
    assert colors.shape == (4, 3) and len(np.unique(colors.round(3), axis=0)) == 3 and colors.min() >= 0 and colors.max() <= 1
    many = palette(np.arange(3 * len(PALETTE)))
    assert tuple(many[0]) == PALETTE[0] and not (many[1:] == PALETTE[0]).all(1).any()


@pytest.mark.models
def test_front_and_back_photo_show_front_and_back():
    """A standing body before two cameras that see it from both sides: each claims its own half, and neither the other's."""
    body = load_body()
    surface = clothed_surface(body, np.zeros(20), None)
    joints = body.J_regressor @ body.v_template
    photos = []
    for yaw in (0.0, np.pi):
        Ks, viewmats = photo_camera(256, 256, focal_factor=1.4)
        pose = relaxed_pose()[None].clone()
        pose[0, 0, 1] = yaw
        state = FitState(torch.zeros(20), pose, torch.tensor([[0.0, 0.1, -3.0]]), Ks, viewmats, (256, 256))
        points = to_camera(surface.posed(pose_body(body, joints, state.pose, state.transl).skin[0]), viewmats[0].numpy())
        mask = rasterize_mesh(points, surface.faces, Ks[0].numpy(), 256, 256).mask.astype(np.float32)
        nothing = np.full((33, 2), np.nan)
        seen = SimpleNamespace(mask=mask, landmarks=nothing, visibility=np.zeros(33), landmarks_world=np.zeros((33, 3)))
        photos.append(Further(Photo(f"{yaw:.0f}", np.zeros((256, 256, 3), np.uint8), f"{yaw}"), seen, state.to_track(body)))
    shares = vertex_shares(body, surface, joints, photos)
    torso = surface.part == PARTS.index("torso")
    facing = normals_np(surface.rest, surface.faces)
    facing /= np.linalg.norm(facing, axis=1, keepdims=True) + 1e-9
    front, back = torso & (facing[:, 2] > 0.7), torso & (facing[:, 2] < -0.7)
    assert np.median(shares[0, front]) > 0.95 and shares[1, front].max() < 0.05
    assert np.median(shares[1, back]) > 0.95 and shares[0, back].max() < 0.05
    assert shares.sum(0).max() <= 1 + 1e-5
    alone = vertex_shares(body, surface, joints, photos[:1])
    assert np.allclose(alone[0, front], shares[0, front], atol=0.05) and alone[0, back].max() < 0.05
