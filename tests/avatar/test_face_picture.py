"""The face's texture on the Gaussians' mesh: against the recorded pictures of the original, against the mesh rasteriser, and its gradient."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from exavatar_kit import load, read

from svad_ray.geometry.raster import rasterize_mesh
from svad_ray.stages.avatar.colors import View
from svad_ray.stages.avatar.face import FacePicture
from svad_ray.subject import TexturedFace

HEIGHT, WIDTH = 40, 60


def view(K: torch.Tensor, viewmat: torch.Tensor, height: int, width: int) -> View:
    return View(torch.zeros(height, width, 3), torch.zeros(height, width), torch.zeros(55, 3, 4), viewmat, K)


def mesh_of(count: int) -> SimpleNamespace:
    return SimpleNamespace(low=torch.arange(count), lbs_weights=torch.zeros(count, 55))


@pytest.fixture(scope="module")
def slanted():
    """A slanted quad with a smooth texture, some of its vertices behind numbers that the mesh has not."""
    corners = np.array([[-0.5, -0.3, 2.0], [0.5, -0.35, 3.0], [0.45, 0.4, 3.2], [-0.4, 0.35, 2.2]], np.float32)
    y, x = np.mgrid[0:64, 0:64] / 64.0
    image = (np.stack([x, y, 0.5 + 0.5 * np.sin(9 * x * y)], 2) * 255).astype(np.uint8)
    uv = np.array([[0.1, 0.1], [0.9, 0.1], [0.9, 0.9], [0.1, 0.9], [0, 0]], np.float32)
    faces = np.array([[0, 1, 2], [0, 2, 3], [0, 1, 4]])
    face = TexturedFace(image, np.ones((64, 64), bool), np.array([0, 1, 2, 3, 9]), faces, uv, faces, "body")
    K = torch.tensor([[80.0, 0, 30.5], [0, 75, 20.5], [0, 0, 1]])
    return face, torch.from_numpy(corners), view(K, torch.eye(4), HEIGHT, WIDTH)


def test_colours_are_those_that_the_mesh_rasteriser_interpolates(slanted):
    face, corners, seen = slanted
    picture = FacePicture(face, mesh_of(4), [True, False])
    assert len(picture.faces) == 2, "a triangle with a vertex that is no Gaussian is left out"
    assert picture.draw(corners, seen, 1) is None
    drawn = picture.draw(corners, seen, 0)[0].numpy()
    buffers = rasterize_mesh(corners.numpy(), face.faces[:2], seen.K.numpy(), HEIGHT, WIDTH)
    uv = np.einsum("yxk,yxkc->yxc", buffers.bary, face.uv[face.uv_faces[buffers.face_id]])
    shown = buffers.face_id >= 0
    assert (drawn[:, ~shown] == -1).all() and (drawn[3, shown] == 1).all() and shown.sum() > 300
    assert np.abs(drawn[:2, shown] - (uv[shown] - 0.5 / 64).T).max() < 0.006  # texel x holds x / 64, in steps of 1 / 255


def test_the_gradient_is_the_slope(slanted):
    face, corners, seen = slanted
    picture, weight = FacePicture(face, mesh_of(4), [True], keep=99), torch.rand(4, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    x = corners.clone().requires_grad_(True)
    (picture.draw(x, seen, 0)[0] * weight).sum().backward()  # which triangle a pixel shows is kept from here on
    for vertex, axis in ((0, 0), (2, 1), (3, 2)):
        sides = []
        for step in (-1e-4, 1e-4):
            moved = corners.clone()
            moved[vertex, axis] += step
            sides.append(float((picture.draw(moved, seen, 0)[0] * weight).double().sum()))
        assert float(x.grad[vertex, axis]) == pytest.approx((sides[1] - sides[0]) / 2e-4, rel=0.15, abs=2.0)


@pytest.mark.parametrize("name", ["static", "refined"])
def test_the_recorded_pictures(golden_avatar, name):
    losses, flame = read(golden_avatar / "item3_losses.npz"), read(golden_avatar / "body_flame.npz")
    if "in_face_texture" not in losses:
        pytest.skip("the face's texture is only in the full recording")
    r = load(golden_avatar)
    with torch.no_grad():
        r.model.networks.joint_offset.copy_(torch.tensor(losses["in_joint_offset_param"]))
        posed = r.posed("3")
    c = r.companions
    uv = ((c["flame_vt"] * [1, -1] + [0, 1]) * 63 + 0.5) / 64  # the original's corners are the middles of the outer texels
    blank = TexturedFace(
        np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64), bool), c["face_vertex_idx"], flame["f"].astype(np.int64),
        uv, c["flame_ft"].astype(np.int64), "flame",
    )  # fmt: skip
    picture = FacePicture(blank, r.mesh, [True])
    picture.texture = torch.from_numpy(np.concatenate([losses["in_face_texture"], losses["in_face_texture_mask"][:1]]))[None].float()
    (fx, fy), (cx, cy) = r.data["in_cam3_focal"], r.data["in_cam3_princpt"]
    viewmat = torch.eye(4)
    viewmat[:3, :3], viewmat[:3, 3] = r.tensor("in_cam3_R"), r.tensor("in_cam3_t")
    seen = view(torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]), viewmat, 96, 80)
    got, want = picture.draw(getattr(posed, name).means, seen, 0).numpy(), losses[f"face_render_{name}"]
    covered = want[0, 3] != -1
    assert ((got[0, 3] != -1) == covered).mean() > 0.999
    both = covered & (got[0, 3] != -1)
    assert both.sum() > 1000 and np.abs(got - want)[0, :3, both].max() < 2e-3
