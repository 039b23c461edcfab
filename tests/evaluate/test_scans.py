"""Scans in THuman's layout: read, placed and drawn; a bad one is named."""

from __future__ import annotations

import pickle

import cv2
import numpy as np
import pytest

from svad_ray.errors import InputError
from svad_ray.evaluate.scans import HEIGHT, drawn_names, read_obj, read_scan, render_scan, scan_names

# A box of 2 x 4 x 1 units whose front shows the texture's left half (red) and whose back its right half (blue).
BOX = """mtllib material0.mtl
v -1 0 0.5
v 1 0 0.5
v 1 4 0.5
v -1 4 0.5
v -1 0 -0.5
v 1 0 -0.5
v 1 4 -0.5
v -1 4 -0.5
vt 0.02 0.02
vt 0.48 0.02
vt 0.48 0.98
vt 0.02 0.98
vt 0.52 0.02
vt 0.98 0.02
vt 0.98 0.98
vt 0.52 0.98
f 1/1 2/2 3/3 4/4
f 6/5 5/6 8/7 7/8
"""


def write_scan(root, name="0003", obj=BOX):
    folder = root / name
    folder.mkdir(parents=True)
    (folder / f"{name}.obj").write_text(obj)
    (folder / "material0.mtl").write_text("newmtl material0\nmap_Kd material0.png\n")
    texture = np.zeros((40, 80, 3), np.uint8)
    texture[:, :40, 0], texture[:20, :40, 1] = 255, 255  # left: yellow above red
    texture[:, 40:, 2] = 255
    cv2.imwrite(str(folder / "material0.png"), texture[..., ::-1])
    return folder


def test_a_scan_is_drawn_where_a_pinhole_puts_it(tmp_path):
    write_scan(tmp_path)
    scan = read_scan(tmp_path, "0003")
    assert np.ptp(scan.vertices[:, 1]) == pytest.approx(HEIGHT) and scan.vertices[:, 1].min() == 0
    front, back = (render_scan(scan, yaw, size=128) for yaw in (0.0, np.pi))
    rows, columns = np.nonzero(front.mask > 0.5)
    f, near = front.K[0, 0], 3.4 - 0.5 * HEIGHT / 4  # the front face stands half its depth before the axis
    assert np.ptp(rows) + 1 == pytest.approx(f * HEIGHT / near, abs=1.5)
    assert np.ptp(columns) + 1 == pytest.approx(f * HEIGHT / 2 / near, abs=1.5)
    middle = columns.mean().astype(int)
    assert front.image[rows.max() - 4, middle].tolist() == [255, 0, 0] and front.image[rows.min() + 4, middle].tolist() == [255, 255, 0]
    assert back.image[64, 64].tolist() == [0, 0, 255] and front.image[2, 2].tolist() == [255, 255, 255]
    assert front.depth[64, 64] == pytest.approx(near, abs=1e-5)


def test_polygons_and_relative_numbers_are_read(tmp_path):
    folder = write_scan(tmp_path, obj=BOX + "f -8/-8 -7/-7 -6/-6\n")
    vertices, faces, uv, uv_faces = read_obj(folder / "0003.obj")
    assert (len(vertices), len(uv), len(faces)) == (8, 8, 5)
    assert faces[:2].tolist() == [[0, 1, 2], [0, 2, 3]] and faces[4].tolist() == uv_faces[4].tolist() == [0, 1, 2]


def test_a_fit_says_where_the_pelvis_is(tmp_path):
    folder = write_scan(tmp_path)
    assert read_scan(tmp_path, "0003").pelvis == pytest.approx([0, 0.53 * HEIGHT, 0])
    (folder / "smplx_param.pkl").write_bytes(pickle.dumps({"transl": np.array([[0.2, 2.0, 0.1]])}))
    assert read_scan(tmp_path, "0003").pelvis == pytest.approx(np.array([0.2, 2.0, 0.1]) * HEIGHT / 4)
    (folder / "smplx_param.pkl").write_bytes(pickle.dumps({"transl": np.array([90.0, 2.0, 0.1])}))
    with pytest.raises(InputError, match="outside"):
        read_scan(tmp_path, "0003")
    with pytest.raises(InputError, match=r"no .*smplx_param"):
        read_scan(tmp_path, "0003", fits=tmp_path / "fits")


@pytest.mark.parametrize(
    ("obj", "named"),
    [
        ("v 1 2\nf 1/1 1/1 1/1", "line 2"),
        (BOX.replace("f 1/1 2/2", "f 1 2"), "line 18"),
        ("v 0 0 0\n", "no face"),
        (BOX.replace("6/5", "60/5"), "line 19"),
    ],
)
def test_a_bad_mesh_is_named_by_its_line(tmp_path, obj, named):
    write_scan(tmp_path, obj=obj)
    with pytest.raises(InputError, match=named):
        read_scan(tmp_path, "0003")


def test_bad_folders_are_named(tmp_path):
    with pytest.raises(InputError, match="no folder"):
        scan_names(tmp_path / "absent")
    with pytest.raises(InputError, match="no scan"):
        scan_names(tmp_path)
    folder = write_scan(tmp_path)
    assert scan_names(tmp_path) == ["0003"]
    (folder / "material0.png").unlink()
    with pytest.raises(InputError, match="texture"):
        read_scan(tmp_path, "0003")


def test_the_list_of_scans_is_its_seed():
    names = [f"{k:04d}" for k in range(526)]
    assert drawn_names(names, 100, 0) == drawn_names(names, 100, 0) != drawn_names(names, 100, 1)
    assert len(set(drawn_names(names, 100, 0))) == 100 and drawn_names(names[:3], 100, 0) == names[:3]
