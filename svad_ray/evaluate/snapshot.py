"""People-Snapshot in its two layouts, and the frames that are trained and tested on.

::

    original                                   InstantAvatar
    NAME/NAME.mp4                              NAME/images/image_0000.png
    NAME/masks.hdf5            masks           NAME/masks/mask_0000.npy
    NAME/camera.pkl            camera_f ...    NAME/cameras.npz   intrinsic, extrinsic, height, width
    NAME/reconstructed_poses.hdf5  pose, trans, betas      NAME/poses.npz     thetas | global_orient + body_pose, transl, betas
                                               NAME/poses/anim_nerf_test.npz, anim_nerf_train.npz: better poses of the split's frames alone

Source: Alldieck et al. (2018) for the data; InstantAvatar's preparation and its splits (spec avatar 5) for the frames; Anim-NeRF for the poses.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from svad_ray.body.pickled import read_pickle
from svad_ray.errors import BackendUnavailable, InputError

DOWNSCALE = 2  # 1080 to 540 pixels
SMPL_JOINTS = 24


@dataclass(frozen=True)
class Split:
    """Frames of one subject, ends included: (first, last) and every which one."""

    train: tuple[int, int]
    test: tuple[int, int]
    step: int

    def frames(self, part: str) -> list[int]:
        """Frame numbers of "train" or "test"."""
        first, last = getattr(self, part)
        return list(range(first, last + 1, self.step))


SPLITS = {
    "female-3-casual": Split((0, 445), (446, 647), 4),
    "female-4-casual": Split((0, 335), (335, 523), 4),
    "male-3-casual": Split((0, 455), (456, 675), 4),
    "male-4-casual": Split((0, 659), (660, 872), 6),
}
_ORIGINAL = "NAME.mp4, masks.hdf5, camera.pkl and reconstructed_poses.hdf5 (People-Snapshot)"
_INSTANT = "images/image_0000.png, masks/mask_0000.npy, cameras.npz and poses.npz (InstantAvatar's preparation)"
_LAYOUTS = f"{_ORIGINAL}; or {_INSTANT}"


@dataclass(frozen=True)
class SmplPoses:
    """SMPL's parameters of N frames: thetas (N, 24, 3) axis-angle, transl (N, 3) metres."""

    thetas: np.ndarray
    transl: np.ndarray


@dataclass(frozen=True)
class Sequence:
    """One subject's chosen frames.

    Attributes:
        name: Of the subject. numbers: N frame numbers. images: (N, H, W, 3) uint8 RGB, undistorted, at half size. masks: (N, H, W) float32.
        K: (3, 3) at half size. viewmat: (4, 4) world to camera.
        poses: SMPL's, of the same frames. source: Which pose file they are from.
    """

    name: str
    numbers: list[int]
    images: np.ndarray
    masks: np.ndarray
    K: np.ndarray
    viewmat: np.ndarray
    poses: SmplPoses
    source: str


def subject_names(root: Path) -> list[str]:
    """The subjects with a published split that lie below ``root``.

    Raises:
        InputError: No folder, or none of them.
    """
    if not root.is_dir():
        raise InputError(f"there is no folder {root}", expected=f"folders {', '.join(SPLITS)}, each with {_LAYOUTS}")
    found = [name for name in SPLITS if (root / name).is_dir()]
    if not found:
        raise InputError(f"{root} holds none of the subjects with a split", expected=", ".join(SPLITS), remedy="give the folder that holds theirs")
    return found


def read_sequence(root: Path, name: str, part: str, *, numbers: list[int] | None = None) -> Sequence:
    """The frames of a split.

    Args:
        part: "train" or "test". numbers: These frames instead of all of the split's.

    Raises:
        InputError: A file is missing, of another layout, or shorter than the split; the message names it.
        BackendUnavailable: The original layout needs h5py, which is not installed.
    """
    folder, split = root / name, SPLITS[name]
    wanted = split.frames(part) if numbers is None else numbers
    instant = (folder / "cameras.npz").is_file() or (folder / "images").is_dir()
    if not instant and not (folder / "camera.pkl").is_file():
        here = sorted(path.name for path in folder.iterdir())[:8] if folder.is_dir() else []
        raise InputError(f"{folder} holds {', '.join(here) or 'nothing'}", expected=_LAYOUTS)
    if instant:
        K, viewmat = _instant_camera(folder)
        images, masks = _instant_pictures(folder, wanted)
    else:
        K, viewmat, distortion = _original_camera(folder)
        images, masks = _original_pictures(folder, wanted, K, distortion)
    poses, source = read_poses(folder, part, wanted, split)
    small = [_half(image) for image in images]
    half = K.copy()
    half[:2] /= DOWNSCALE
    return Sequence(name, wanted, np.stack(small), np.stack([_half(mask.astype(np.float32)) for mask in masks]), half, viewmat, poses, source)


def _half(image: np.ndarray) -> np.ndarray:
    size = (image.shape[1] // DOWNSCALE, image.shape[0] // DOWNSCALE)
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def read_poses(folder: Path, part: str, wanted: list[int], split: Split) -> tuple[SmplPoses, str]:
    """SMPL's poses of the ``wanted`` frames: Anim-NeRF's or refined ones of the split where they lie in ``poses/``, else those of the whole video."""
    of_split = split.frames(part)
    for file in (folder / "poses" / f"anim_nerf_{part}.npz", folder / "poses" / f"{part}.npz"):
        if file.is_file():
            found = _npz_poses(file)
            if len(found.thetas) != len(of_split):
                raise InputError(f"{file} has poses of {len(found.thetas)} frames", expected=f"one for each of the split's {len(of_split)} frames")
            rows = [of_split.index(number) for number in wanted]
            return SmplPoses(found.thetas[rows], found.transl[rows]), f"poses/{file.name}"
    if (folder / "poses.npz").is_file():
        found, source = _npz_poses(folder / "poses.npz"), "poses.npz"
    elif (folder / "reconstructed_poses.hdf5").is_file():
        found, source = _hdf5_poses(folder / "reconstructed_poses.hdf5"), "reconstructed_poses.hdf5"
    else:
        raise InputError(f"{folder} holds no poses", expected="poses/anim_nerf_test.npz, poses.npz or reconstructed_poses.hdf5")
    if max(wanted) >= len(found.thetas):
        raise InputError(f"{folder / source} ends at frame {len(found.thetas) - 1}", expected=f"frame {max(wanted)} of the split")
    return SmplPoses(found.thetas[wanted], found.transl[wanted]), source


def _npz_poses(path: Path) -> SmplPoses:
    arrays = _npz(path)
    if "thetas" in arrays:
        thetas = arrays["thetas"]
    elif {"global_orient", "body_pose"} <= arrays.keys():
        thetas = np.concatenate([arrays["global_orient"].reshape(-1, 3), arrays["body_pose"].reshape(len(arrays["body_pose"]), -1)], axis=1)
    else:
        raise InputError(f"{path} holds {', '.join(arrays)}", expected="thetas, or global_orient and body_pose; and transl (SMPL)")
    return _poses(thetas, arrays.get("transl", arrays.get("trans")), path)


def _poses(thetas: np.ndarray, transl: np.ndarray | None, path: Path) -> SmplPoses:
    count = len(thetas)
    if transl is None or np.shape(transl) != (count, 3) or thetas.size != count * SMPL_JOINTS * 3:
        shape = None if transl is None else np.shape(transl)
        raise InputError(f"{path} has poses of {np.shape(thetas)} and places of {shape}", expected="(N, 72) and (N, 3): SMPL's 24 joints")
    if not (np.isfinite(thetas).all() and np.isfinite(transl).all()):
        raise InputError(f"{path} holds values that are no numbers", expected="finite poses")
    return SmplPoses(np.asarray(thetas, np.float64).reshape(count, SMPL_JOINTS, 3), np.asarray(transl, np.float64))


def _hdf5_poses(path: Path) -> SmplPoses:
    with _hdf5(path) as stored:
        if lacking := [key for key in ("pose", "trans") if key not in stored]:
            raise InputError(f"{path} holds {', '.join(stored)} and no {lacking[0]}", expected="pose, trans and betas (videoavatars)")
        return _poses(np.asarray(stored["pose"]), np.asarray(stored["trans"]), path)


def _hdf5(path: Path) -> Any:
    try:
        import h5py
    except ModuleNotFoundError as error:
        remedy = "pip install svad-ray[evaluate], or use InstantAvatar's prepared layout"
        raise BackendUnavailable(f"{path.name} needs the package 'h5py', which is not installed", remedy=remedy) from error
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}", expected="an HDF5 file, complete", remedy="download it again") from error


def _npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, ValueError, EOFError, AttributeError) as error:
        raise InputError(f"{path} cannot be read: {error}", expected="an npz of arrays, complete", remedy="download it again") from error


def _instant_camera(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    path = folder / "cameras.npz"
    arrays = _npz(path) if path.is_file() else {}
    none = np.zeros(0)
    K, extrinsic = arrays.get("intrinsic", none), arrays.get("extrinsic", none)
    if K.shape != (3, 3) or extrinsic.shape[-2:] != (4, 4):
        raise InputError(f"{path} holds {', '.join(arrays) or 'nothing'}", expected="intrinsic (3, 3) and extrinsic (4, 4)")
    return np.asarray(K, np.float64), np.asarray(extrinsic, np.float64).reshape(-1, 4, 4)[0]


def _original_camera(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    path = folder / "camera.pkl"
    told = read_pickle(path)
    if lacking := [key for key in ("camera_f", "camera_c", "camera_k", "camera_rt", "camera_t") if key not in told]:
        raise InputError(f"{path} has no {', '.join(lacking)}", expected="camera_f, camera_c, camera_k, camera_rt, camera_t (People-Snapshot)")
    K, viewmat = np.eye(3), np.eye(4)
    K[[0, 1], [0, 1]], K[:2, 2] = np.asarray(told["camera_f"], float).reshape(2), np.asarray(told["camera_c"], float).reshape(2)
    viewmat[:3, :3] = Rotation.from_rotvec(np.asarray(told["camera_rt"], float).reshape(3)).as_matrix()
    viewmat[:3, 3] = np.asarray(told["camera_t"], float).reshape(3)
    return K, viewmat, np.asarray(told["camera_k"], float).reshape(-1)


def _instant_pictures(folder: Path, wanted: list[int]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    images, masks = [], []
    for number in wanted:
        picture, mask = folder / "images" / f"image_{number:04d}.png", folder / "masks" / f"mask_{number:04d}.npy"
        image = cv2.imread(str(picture), cv2.IMREAD_COLOR)
        if image is None:
            raise InputError(f"{picture} is missing or no picture", expected=_INSTANT)
        try:
            cut = np.load(mask, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"{mask} is missing or no array ({error})", expected=_INSTANT) from error
        if cut.shape != image.shape[:2]:
            raise InputError(f"{mask} is of {cut.shape}", expected=f"{image.shape[:2]}, as its picture")
        images.append(np.ascontiguousarray(image[..., ::-1]))
        masks.append(cut > 0)
    return images, masks


def _original_pictures(folder: Path, wanted: list[int], K: np.ndarray, distortion: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    path = folder / "masks.hdf5"
    if not path.is_file():
        raise InputError(f"there is no {path}", expected=_ORIGINAL)
    with _hdf5(path) as stored:
        if "masks" not in stored:
            raise InputError(f"{path} holds {', '.join(stored)}", expected="masks")
        count = len(stored["masks"])
        if max(wanted) >= count:
            raise InputError(f"{path} ends at frame {count - 1}", expected=f"frame {max(wanted)} of the split")
        masks = [np.asarray(stored["masks"][number], np.uint8) for number in wanted]
    images = _video_frames(folder / f"{folder.name}.mp4", wanted)
    flat = [np.ascontiguousarray(cv2.undistort(image, K, distortion)) for image in images]
    return flat, [cv2.undistort(mask, K, distortion) > 0 for mask in masks]


def _video_frames(path: Path, wanted: list[int]) -> list[np.ndarray]:
    reader = cv2.VideoCapture(str(path)) if path.is_file() else None
    if reader is None or not reader.isOpened():
        raise InputError(f"{path} is missing or no video", expected=_ORIGINAL)
    chosen, found = set(wanted), {}
    for number in range(max(wanted) + 1):
        there, frame = reader.read()
        if not there:
            raise InputError(f"{path} ends at frame {number - 1}", expected=f"frame {max(wanted)} of the split")
        if number in chosen:
            found[number] = np.ascontiguousarray(frame[..., ::-1])
    reader.release()
    return [found[number] for number in wanted]
