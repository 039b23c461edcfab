"""People-Snapshot's two layouts, written as they are published: read alike; what is wrong with a folder is named."""

from __future__ import annotations

import pickle

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from svad_ray.errors import InputError
from svad_ray.evaluate import snapshot
from svad_ray.evaluate.snapshot import SPLITS, Split, read_poses, read_sequence, subject_names

NAME, COUNT, SIDE = "female-3-casual", 14, 64
SHORT = Split((0, 7), (8, 13), 2)
ROTATION, SHIFT = np.array([0.0, 0.1, 0.0]), np.array([0.0, 0.2, 0.1])


@pytest.fixture(autouse=True)
def short_split(monkeypatch):
    """The published split needs 648 frames; its form is tested by itself."""
    monkeypatch.setitem(SPLITS, NAME, SHORT)


def truth():
    rng = np.random.default_rng(0)
    images = np.stack([cv2.GaussianBlur(rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8), (0, 0), 8) for _ in range(COUNT)])
    masks = np.zeros((COUNT, SIDE, SIDE), np.uint8)
    for k in range(COUNT):
        masks[k, 10:50, 20 + k : 30 + k] = 1
    return images, masks, 0.1 * rng.standard_normal((COUNT, 72)), 0.1 * rng.standard_normal((COUNT, 3)) + [0, 0, 2.0]


def original(root):
    """videoavatars' files: a video, HDF5 arrays and a pickled camera of protocol 2."""
    h5py = pytest.importorskip("h5py")
    images, masks, pose, trans = truth()
    folder = root / NAME
    folder.mkdir(parents=True)
    video = cv2.VideoWriter(str(folder / f"{NAME}.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 30, (SIDE, SIDE))
    for image in images:
        video.write(np.ascontiguousarray(image[..., ::-1]))
    video.release()
    with h5py.File(folder / "masks.hdf5", "w") as file:
        file["masks"] = masks
    with h5py.File(folder / "reconstructed_poses.hdf5", "w") as file:
        file["pose"], file["trans"], file["betas"] = pose, trans, np.zeros(10)
    camera = {
        "camera_f": np.array([100.0, 101.0]), "camera_c": np.array([32.0, 31.0]), "camera_k": np.zeros(5), "camera_rt": ROTATION,
        "camera_t": SHIFT, "width": SIDE, "height": SIDE,
    }  # fmt: skip
    (folder / "camera.pkl").write_bytes(pickle.dumps(camera, protocol=2))
    return folder


def prepared(root):
    """InstantAvatar's files of the same subject."""
    images, masks, pose, trans = truth()
    folder = root / NAME
    for name in ("images", "masks", "poses"):
        (folder / name).mkdir(parents=True)
    for k in range(COUNT):
        cv2.imwrite(str(folder / "images" / f"image_{k:04d}.png"), images[k, ..., ::-1])
        np.save(folder / "masks" / f"mask_{k:04d}.npy", masks[k])
    extrinsic = np.eye(4)
    extrinsic[:3, :3], extrinsic[:3, 3] = Rotation.from_rotvec(ROTATION).as_matrix(), SHIFT
    K = np.array([[100.0, 0, 32], [0, 101, 31], [0, 0, 1]])
    np.savez(folder / "cameras.npz", intrinsic=K, extrinsic=extrinsic, height=SIDE, width=SIDE)
    np.savez(folder / "poses.npz", betas=np.zeros(10), thetas=pose, transl=trans)
    return folder


def test_the_published_splits():
    assert SPLITS["female-4-casual"].frames("test")[-1] == 523 and len(SPLITS["female-4-casual"].frames("test")) == 48, "the last frame is tested"
    assert SPLITS["male-4-casual"].frames("test")[:3] == [660, 666, 672] and SPLITS["male-4-casual"].frames("test")[-1] == 870
    assert Split((0, 445), (446, 647), 4).frames("test")[-1] == 646 and len(Split((0, 445), (446, 647), 4).frames("train")) == 112


def test_both_layouts_say_the_same(tmp_path):
    original(tmp_path / "a")
    prepared(tmp_path / "b")
    assert subject_names(tmp_path / "a") == [NAME]
    ours, theirs = read_sequence(tmp_path / "a", NAME, "test"), read_sequence(tmp_path / "b", NAME, "test")
    assert ours.numbers == theirs.numbers == [8, 10, 12]
    assert ours.images.shape == (3, SIDE // 2, SIDE // 2, 3)
    np.testing.assert_array_equal(ours.masks, theirs.masks)
    assert np.abs(ours.images.astype(int) - theirs.images).mean() < 6  # the video is lossy
    for name in ("K", "viewmat"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name))
    np.testing.assert_allclose(ours.poses.thetas, truth()[2].reshape(COUNT, 24, 3)[[8, 10, 12]])
    np.testing.assert_allclose(theirs.poses.transl, truth()[3][[8, 10, 12]])
    assert (ours.source, theirs.source) == ("reconstructed_poses.hdf5", "poses.npz")
    assert ours.K[0, 0] == 50 and ours.K[1, 2] == 15.5


def test_refined_poses_of_the_split_come_first(tmp_path):
    folder = prepared(tmp_path)
    better = {"global_orient": np.full((3, 3), 0.5), "body_pose": np.zeros((3, 69)), "transl": np.ones((3, 3)), "betas": np.zeros((1, 10))}
    np.savez(folder / "poses" / "anim_nerf_test.npz", **better)
    found, source = read_poses(folder, "test", [10], SHORT)
    assert source == "poses/anim_nerf_test.npz" and found.thetas.shape == (1, 24, 3)
    np.testing.assert_array_equal(found.thetas[0, 0], 0.5)
    assert read_poses(folder, "train", [0], SHORT)[1] == "poses.npz"
    np.savez(folder / "poses" / "anim_nerf_test.npz", **{**better, "transl": np.ones((2, 3))})
    with pytest.raises(InputError, match=r"anim_nerf_test\.npz"):
        read_poses(folder, "test", [10], SHORT)


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda f: (f / "images" / "image_0010.png").unlink(), r"image_0010\.png"),
        (lambda f: np.save(f / "masks" / "mask_0012.npy", np.zeros((3, 3))), r"mask_0012\.npy"),
        (lambda f: np.savez(f / "cameras.npz", K=np.eye(3)), r"cameras\.npz holds K"),
        (lambda f: np.savez(f / "poses.npz", thetas=np.zeros((14, 55, 3)), transl=np.zeros((14, 3))), "24 joints"),
        (lambda f: np.savez(f / "poses.npz", thetas=np.zeros((5, 72)), transl=np.zeros((5, 3))), "ends at frame 4"),
        (lambda f: (f / "poses.npz").unlink(), "no poses"),
    ],
)
def test_faults_of_the_prepared_layout_are_named(tmp_path, spoil, named):
    spoil(prepared(tmp_path))
    with pytest.raises(InputError, match=named):
        read_sequence(tmp_path, NAME, "test")


def test_faults_of_the_original_layout_are_named(tmp_path):
    h5py = pytest.importorskip("h5py")
    folder = original(tmp_path)
    (folder / "reconstructed_poses.hdf5").write_bytes(b"no HDF5")
    with pytest.raises(InputError, match=r"reconstructed_poses\.hdf5 cannot be read"):
        read_sequence(tmp_path, NAME, "test")
    with h5py.File(folder / "masks.hdf5", "w") as file:
        file["masks"] = np.zeros((9, SIDE, SIDE), np.uint8)
    with pytest.raises(InputError, match=r"masks\.hdf5 ends at frame 8"):
        read_sequence(tmp_path, NAME, "test")
    (folder / "camera.pkl").write_bytes(pickle.dumps({"camera_f": np.ones(2)}))
    with pytest.raises(InputError, match="camera_c"):
        read_sequence(tmp_path, NAME, "test")
    (folder / "camera.pkl").unlink()
    with pytest.raises(InputError, match=r"masks\.hdf5.*\n.*InstantAvatar"):
        read_sequence(tmp_path, NAME, "test")


class _Malice:
    def __reduce__(self):
        return (print, ("run",))


def test_nothing_in_a_pickled_camera_is_run(tmp_path, capsys):
    folder = original(tmp_path)
    (folder / "camera.pkl").write_bytes(pickle.dumps({"camera_f": _Malice()}))
    with pytest.raises(InputError):
        read_sequence(tmp_path, NAME, "test")
    assert capsys.readouterr().out == ""


def test_a_folder_without_subjects_is_named(tmp_path):
    with pytest.raises(InputError, match="no folder"):
        subject_names(tmp_path / "absent")
    with pytest.raises(InputError, match="none of the subjects"):
        subject_names(tmp_path)
    assert set(snapshot.SPLITS) == {"female-3-casual", "female-4-casual", "male-3-casual", "male-4-casual"}
