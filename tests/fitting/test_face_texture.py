"""The face's texture against the recorded unwrapping, and its depth maps and background points."""

import cv2
import numpy as np
import pytest

from svad_ray.errors import InputError
from svad_ray.fitting import face_texture as ours
from svad_ray.fitting.depth_alignment import align_depth, background_points
from svad_ray.nets.depth_anything import to_levels


def arrays(folder, *names):
    out = {}
    for name in names:
        path = folder / f"{name}.npz"
        if not path.exists():
            pytest.skip(f"{path.name} is not among the recorded files kept here; set SVAD_GOLDEN to a folder that has it")
        with np.load(path) as file:
            out |= {key: file[key] for key in file.files}
    return out


@pytest.fixture(scope="module")
def head(golden_avatar):
    data = arrays(golden_avatar, "body_flame", "body_companions")
    uv = data["flame_vt"] * [1, -1] + [0, 1]
    layout = ours.texture_map(data["f"].astype(int), uv, data["flame_ft"])
    return layout, data["flame2019_expr_moving"], data["weights"].argmax(1) == 0


@pytest.fixture(scope="module")
def recorded(golden_avatar):
    data = arrays(golden_avatar, "item5_post", "item4_fitting")
    if "tex_face_texture" not in data or "ds_cam_param_face_focal" not in data:
        pytest.skip("the unwrapping is not among the recorded arrays kept here")
    Ks = np.tile(np.eye(3), (len(data["ds_bbox_face"]), 1, 1))
    Ks[:, [0, 1], [0, 1]], Ks[:, :2, 2] = data["ds_cam_param_face_focal"], data["ds_cam_param_face_princpt"]
    crops = [crop(frame, box) for frame, box in zip(data["in_frames_rgb"], data["ds_bbox_face"])]
    return data, Ks, np.stack(crops)


def crop(frame, box, size=256):
    scale = size / box[2:]
    shift = size / 2 - (box[:2] + box[2:] / 2) * scale
    affine = np.array([[scale[0], 0, shift[0]], [0, scale[1], shift[1]]])
    return cv2.warpAffine(frame.astype(np.float32), affine, (size, size), flags=cv2.INTER_LINEAR) / 255


def test_equals_the_recorded_texture(head, recorded):
    layout, moving, neck = head
    data, Ks, crops = recorded
    np.testing.assert_array_equal(layout.texels.face_id, data["pix_to_face_uv"])
    np.testing.assert_array_equal(ours.face_texels(layout, moving=moving, neck=neck), data["uv_mask"] > 0)
    if "ds_img_face_frame0" in data:
        np.testing.assert_allclose(crops[0], data["ds_img_face_frame0"].transpose(1, 2, 0), atol=2e-2)
        crops = np.concatenate((data["ds_img_face_frame0"].transpose(1, 2, 0)[None], crops[1:]))
    vertices = data["tex_in_flame_mesh_cam"]
    color, known = ours.unwrap(layout, crops[0], vertices[0], Ks[0], official=True)
    np.testing.assert_array_equal(known[::3, ::3], data["tex_raw_mask_every3"][0])
    raw = data["tex_raw_every3"][0].transpose(1, 2, 0)
    assert (np.abs(color[::3, ::3] - raw).max(-1)[known[::3, ::3]] < 1e-3).mean() > 0.999
    made = ours.face_texture(layout, crops, vertices, Ks, data["tex_in_face_valid"], moving=moving, neck=neck, official=True)
    mask = data["tex_face_texture_mask"][0] > 0
    assert (made.mask != mask).sum() <= 1e-3 * mask.sum()
    off = np.abs(made.color - data["tex_face_texture"].transpose(1, 2, 0)).max(-1)[mask]
    print(f"texture: {np.quantile(off, 0.999):.1e} off at 99.9 %, {off.max():.1e} at most")
    assert (off < 2e-2).mean() > 0.999


def test_colours_come_back_to_their_texels():
    """A square in front of a camera, whose texture coordinates are its pixels: the texture is the picture, once for each frame that shows it."""
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], float)
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    layout = ours.texture_map(faces, corners, faces, size=32)
    vertices = np.column_stack((corners * 2 - 1, np.full(4, 2.0))).astype(np.float32)
    K = np.array([[32.0, 0, 16], [0, 32, 16], [0, 0, 1]])
    image = np.random.default_rng(3).random((32, 32, 3)).astype(np.float32)
    color, known = ours.unwrap(layout, image, vertices, K)
    assert known.all()
    np.testing.assert_allclose(color, image, atol=1e-5)
    everything, nothing = np.ones(4, bool), np.zeros(4, bool)
    two = ours.face_texture(
        layout, np.stack((image, image * 0)), np.stack((vertices,) * 2), np.stack((K,) * 2), np.array([True, False]), moving=everything, neck=nothing
    )
    np.testing.assert_allclose(two.color, image, atol=2e-4)
    assert two.mask.all() and two.image.dtype == np.uint8
    behind, none = ours.unwrap(layout, image, vertices * [1, 1, -1], K)
    assert not none.any() and not behind.any()
    with pytest.raises(InputError, match="no frame shows the face"):
        ours.face_texture(layout, image[None], vertices[None], K[None], np.array([False]), moving=everything, neck=nothing)


def test_depth_and_background_equal_the_recorded(golden_avatar):
    data = arrays(golden_avatar, "item5_post")
    if "depth_aligned_0" not in data:
        pytest.skip("depth maps are not among the recorded arrays kept here")
    count = sum(key.startswith("depth_aligned_") for key in data)
    for i in range(count):
        np.testing.assert_array_equal(to_levels(data[f"depth_in_raw_{i}"]), data[f"depth_uint8_{i}"])
        np.testing.assert_allclose(align_depth(data[f"depth_uint8_{i}"], data[f"depth_smplx_zbuf_{i}"]), data[f"depth_aligned_{i}"], rtol=1e-5)
    fit = arrays(golden_avatar, "item4_fitting")
    fx, fy, cx, cy = fit["in_cam_fx_fy_cx_cy"][count - 1]
    K = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    stacked = [np.stack([data[f"depth_{what}_{i}"] for i in range(count)]) for what in ("in_mask", "aligned")]
    points = background_points(fit["in_frames_rgb"][:count], stacked[0] > 0, stacked[1], K, official=True)
    assert len(points) == data["bkg_points_count"]
    np.testing.assert_allclose(points[::50], data["bkg_points_every50"], rtol=1e-5, atol=1e-5)


def test_depth_of_a_plane_comes_back():
    """Levels made from known metres by the inverse of the rule give those metres again; colours are red, green, blue."""
    body = np.full((6, 8), np.inf)
    body[1:5, 2:6] = np.linspace(2.0, 2.6, 16).reshape(4, 4)
    truth = np.tile(np.linspace(1.9, 2.7, 8), (6, 1))
    truth[1:5, 2:6] = body[1:5, 2:6]
    levels = 255 - np.round((truth - 1.9) / 0.8 * 250).astype(np.uint8)
    np.testing.assert_allclose(align_depth(levels, body), truth, atol=0.01)
    frames = np.full((2, 6, 8, 3), (10, 20, 30), np.uint8)
    K = np.array([[10.0, 0, 4], [0, 10, 3], [0, 0, 1]])
    points = background_points(frames, np.stack((np.isfinite(body),) * 2), np.full((2, 6, 8), 3.0), K)
    assert len(points) == 6 * 8 - 16
    np.testing.assert_allclose(points[:, 3:], np.tile([10.0, 20, 30], (len(points), 1)), rtol=1e-5)
    np.testing.assert_allclose(points[0, :3], [(0.5 - 4) / 10 * 3, (0.5 - 3) / 10 * 3, 3], rtol=1e-5)
    with pytest.raises(InputError, match="shows the body"):
        align_depth(levels, np.full((6, 8), -1.0))
    with pytest.raises(InputError, match="flat"):
        align_depth(np.full((6, 8), 7, np.uint8), body)
