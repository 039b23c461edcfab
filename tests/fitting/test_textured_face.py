"""The textured face of a clip: colours laid on a body come back from its frames, and FLAME's map is read as it is published."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from svad_ray.body import load_body
from svad_ray.body.flame import flame_from_arrays
from svad_ray.errors import InputError
from svad_ray.fitting.textured_face import (
    MAP_FILE,
    MOVING_FILE,
    Seen,
    _scaled_crop,
    body_layout,
    clip_face,
    face_in_camera,
    face_seen,
    fill,
    flame_layout,
)
from svad_ray.geometry.raster import rasterize_mesh
from svad_ray.motion import load_motion, load_track, retarget, save_track
from svad_ray.motion.labels import posed
from svad_ray.subject import Clip

FRAMES, SIDE = 8, 320


@pytest.fixture(scope="module")
def body():
    return load_body()


@pytest.fixture(scope="module")
def turning(body):
    """One turn in eight frames, seen from the chest upwards; and its frames, coloured by where the rest surface lies."""
    motion = load_motion("turn", body)
    motion = motion.frames(np.linspace(0, len(motion) - 1, FRAMES).astype(int))
    track = retarget(motion, person=motion.frames(slice(0, 1)), body=body, size=SIDE)
    Ks = track.Ks.copy()
    Ks[:, [0, 1], [0, 1]] *= 5  # a long lens on the head
    head = posed(body, track).joints[0, 15].numpy()
    place = track.viewmats[0, :3, :3] @ head + track.viewmats[0, :3, 3]
    Ks[:, :2, 2] = SIDE / 2 - Ks[0, [0, 1], [0, 1]] * place[:2] / place[2]
    track = replace(track, Ks=Ks)
    color = colors(body)
    frames = np.zeros((FRAMES, SIDE, SIDE, 3), np.uint8)
    for t, vertices in enumerate(face_in_camera(_everything(body), body, track)):
        seen = rasterize_mesh(vertices, body.faces, Ks[t], SIDE, SIDE)
        frames[t][seen.mask] = 255 * (color[body.faces[seen.face_id[seen.mask]]] * seen.bary[seen.mask][..., None]).sum(1)
    return Clip(frames, np.zeros(frames.shape[:3], np.uint8), track, ("",) * FRAMES)


def colors(body):
    rest = body.v_template.numpy()
    head = rest[np.asarray(body.tables.regions["face"])]
    return ((rest - head.min(0)) / (head.max(0) - head.min(0))).clip(0, 1)


class _everything:
    def __init__(self, body):
        self.rows = np.arange(len(body.v_template))


def test_a_body_s_colours_come_back(body, turning):
    """Each texel has the colour of the rest surface that it lies on, wherever two pixels of the face do not shade into each other."""
    face = clip_face(turning, turning.track, body)
    assert face.source == "body" and face.image.shape == (512, 512, 3) and face.uv.min() >= 0 and face.uv.max() <= 1
    assert list(np.flatnonzero(face_seen(body, turning.track))) == [0, 7]  # the turn's ends look ahead; 51 degrees do not
    layout = rasterize_mesh(np.column_stack((face.uv * 512, np.ones(len(face.uv)))), face.uv_faces, np.eye(3), 512, 512)
    both = layout.mask & face.mask
    assert both.sum() > 0.5 * layout.mask.sum()
    corners = face.rows[face.faces[layout.face_id[both]]]
    wanted = (colors(body)[corners] * layout.bary[both][..., None]).sum(1)
    off = np.abs(face.image[both] / 255 - wanted).max(1)
    assert np.median(off) < 0.03 and np.quantile(off, 0.9) < 0.1, np.quantile(off, [0.5, 0.9])
    assert (body.faces.reshape(-1, 1) == face.rows).any(0).all()


def test_nothing_where_no_frame_shows_the_face_or_the_body_has_no_map(body, turning):
    away = turning.slice(3, 6)
    assert clip_face(away, away.track, body) is None
    bare = replace(body, tables=replace(body.tables, uv=np.zeros((0, 2)), uv_faces=np.zeros((0, 3), int)))
    assert body_layout(bare) is None and clip_face(turning, turning.track, bare) is None


def test_the_texture_travels_with_the_track(body, turning, tmp_path):
    face = clip_face(turning, turning.track, body)
    kept = replace(turning.track, face=face)
    save_track(kept, tmp_path / "track.npz")
    again = load_track(tmp_path / "track.npz")
    np.testing.assert_array_equal(again.face.image, face.image)
    assert again.face.source == "body" and clip_face(turning, again, body) is again.face
    assert kept.frames(slice(0, 2)).face is face
    with np.load(tmp_path / "track.npz") as stored:
        cut = {name: stored[name] for name in stored.files if name != "face_texture_uv"}
    np.savez(tmp_path / "cut.npz", **cut)
    with pytest.raises(InputError, match="lacks the face's uv"):
        load_track(tmp_path / "cut.npz")


@pytest.fixture
def flame(golden_avatar):
    return flame_from_arrays(dict(np.load(golden_avatar / "body_flame.npz")))


def test_flame_s_map_is_read_from_the_published_files(golden_avatar, body, flame, tmp_path):
    with np.load(golden_avatar / "body_companions.npz") as more:
        vt, ft, moving = more["flame_vt"], more["flame_ft"], more["flame2019_expr_moving"]
    head = np.arange(len(flame.v_template))
    assert flame_layout(tmp_path, body, flame, head) is None
    np.savez(tmp_path / MAP_FILE, vt=vt, ft=ft)
    layout = flame_layout(tmp_path, body, flame, head)
    np.testing.assert_allclose(layout.uv, vt * [1, -1] + [0, 1], atol=1e-6)
    np.testing.assert_array_equal(layout.moving, body.tables.regions["face"][head])  # the older FLAME is not there
    older = dict(np.load(golden_avatar / "body_flame.npz"))
    older["shapedirs"] = older["shapedirs"].copy()
    betas = 300 if older["shapedirs"].shape[-1] > 300 else older["shapedirs"].shape[-1] // 2
    older["shapedirs"][~moving, :, betas:] = 0
    (tmp_path / "2019").mkdir()
    import pickle

    (tmp_path / MOVING_FILE).write_bytes(pickle.dumps(older))
    np.testing.assert_array_equal(flame_layout(tmp_path, body, flame, head).moving, moving)
    np.savez(tmp_path / MAP_FILE, vt=vt, ft=ft[:-1])
    with pytest.raises(InputError, match="maps 245 triangles"):
        flame_layout(tmp_path, body, flame, head)
    (tmp_path / MAP_FILE).write_bytes(b"PK broken")
    with pytest.raises(InputError, match="cannot be read"):
        flame_layout(tmp_path, body, flame, head)


def test_released_crops_look_where_the_frame_does():
    """A crop's camera projects to where the frame's pixel went: a bright dot is found at the projected place."""
    frame = np.zeros((100, 140, 3), np.uint8)
    frame[40:43, 60:63] = 255
    K = np.array([[100.0, 0, 70], [0, 100, 50], [0, 0, 1]])
    crop, made = _scaled_crop(frame, np.array([30.0, 20, 64, 64]), K)
    y, x = np.unravel_index(cv2.GaussianBlur(crop[..., 0], (0, 0), 2).argmax(), crop.shape[:2])
    at = made @ np.array([(61.0 - 70) / 100, (41.0 - 50) / 100, 1])
    assert abs(at[0] - x) < 2.1 and abs(at[1] - y) < 2.1
    assert crop.shape == (256, 256, 3) and crop.max() <= 1


def test_nothing_seen_fills_nothing(body):
    layout = body_layout(body)
    assert fill(layout, Seen(np.zeros((1, 8, 8, 3), np.uint8), np.zeros((1, 1, 3)), np.eye(3)[None], np.zeros(1, bool))) is None
