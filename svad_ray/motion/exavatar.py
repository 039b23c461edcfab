"""ExAvatar's folders, read: the motion of a subject alone, or the fitted subject with shape, offsets, cameras, frames and masks.

Layout, numbers with or without leading zeros (SVAD pads most of them, ExAvatar none)::

    <subject>/frames/0.png masks/0.png keypoints_whole_body/0.json frame_list_{all,train,test}.txt bkg_point_cloud.txt
    <subject>/cam_params/0.json                              R, t (world to camera), focal, princpt (pixels)
    <subject>/smplx_optimized/{shape_param,face_offset,joint_offset,locator_offset}.json
    <subject>/smplx_optimized/smplx_params[_smoothed]/0.json root_pose, body_pose, ..., expr, trans: in the camera's axes, as smplx's transl

``svad_ray.export.exavatar`` writes them. Poses hold no mean hand there either, and ``expr`` are FLAME's on the body's head.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from svad_ray.conventions import BODY_TO_CAMERA
from svad_ray.errors import InputError
from svad_ray.motion.builtin import blank_track
from svad_ray.motion.parts import check_finite, joined_parts, listed, numbers
from svad_ray.subject import OFFSETS, BodyTrack, Clip

if TYPE_CHECKING:
    from svad_ray.body import Body

FPS = 30.0  # of their videos; the folders do not say
OPTIMIZED, SMOOTHED, RAW = "smplx_optimized", "smplx_params_smoothed", "smplx_params"
OWN_OFFSETS = tuple(name for name in OFFSETS if name != "vertex_offset")  # clothes are ours alone
_AGAIN = "fit the subject again, or point at a complete folder"


def read_motion(folder: Path) -> BodyTrack:
    """The motion of a subject: its folder, its ``smplx_optimized``, or a folder of numbered JSON files. Shape and offsets stay behind.

    Raises:
        InputError: No such folder, frames missing between others, or a file that cannot be used.
    """
    pose, expression, transl = _frames_of(_poses_folder(folder))
    half_turn = Rotation.from_matrix(BODY_TO_CAMERA[:3, :3])
    pose[:, 0] = (half_turn * Rotation.from_rotvec(pose[:, 0])).as_rotvec()
    return replace(blank_track(pose, transl=half_turn.apply(transl), fps=FPS), expression=expression)


def read_track(folder: Path, body: Body, *, fps: float = FPS) -> BodyTrack:
    """The fitted subject: poses, shape, offsets and cameras, in a world with y up before the first camera.

    Args:
        folder: The subject's, or its ``smplx_optimized``.
        body: That it was fitted with.

    Raises:
        InputError: Files are missing, damaged or of another body.
    """
    from svad_ray.body.person import check_person, person_joints

    root = _root(folder)
    poses = _poses_folder(root)
    pose, expression, transl = _frames_of(poses)
    viewmats, Ks, size = _cameras(root, list(numbered(poses, "json")))
    shared = _shared(root / OPTIMIZED)
    expression = _limited(expression, body.exprdirs.shape[-1], f"{poses}: expr", body)
    track = replace(
        blank_track(pose, fps=fps),
        betas=_limited(shared.pop("shape_param").ravel(), body.shapedirs.shape[-1], f"{root}: shape_param", body),
        expression=expression,
        viewmats=viewmats.astype(np.float32),
        Ks=Ks.astype(np.float32),
        image_size=size,
        body_id=body.id,
        **shared,
    )
    check_person(body, track)
    pelvis = person_joints(body, track, body.v_template.new_tensor(expression))[:, 0].numpy()
    turned, place = carried(pose[:, 0], transl, pelvis, np.linalg.inv(viewmats))
    return replace(track, global_orient=turned.astype(np.float32), transl=place.astype(np.float32))


def read_subject(folder: Path, body: Body, *, fps: float = FPS) -> Clip:
    """The fitted subject with its frames and masks; arguments and errors as ``read_track``."""
    root = _root(folder)
    track = read_track(root, body, fps=fps)
    wanted = list(numbered(_poses_folder(root), "json"))
    frames = np.stack([_picture(path, cv2.IMREAD_COLOR, track.image_size)[..., ::-1] for path in _matching(root / "frames", "png", wanted)])
    masks = np.stack([_picture(path, cv2.IMREAD_GRAYSCALE, track.image_size) for path in _matching(root / "masks", "png", wanted)])
    return Clip(frames, np.where(masks > 127, 255, 0).astype(np.uint8), track, ("",) * len(track))


def carried(orient: np.ndarray, transl: np.ndarray, pelvis: np.ndarray, motion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Root rotations (T, 3) axis-angle and translations (T, 3) of a body that rigid motions (T, 4, 4) carry off.

    A body turns about its pelvis, (T, 3) at rest: the place that moves is pelvis + transl.
    """
    turn = Rotation.from_matrix(motion[:, :3, :3])
    return (turn * Rotation.from_rotvec(orient)).as_rotvec(), turn.apply(pelvis + transl) + motion[:, :3, 3] - pelvis


def numbered(folder: Path, suffix: str) -> dict[int, Path]:
    """Number -> file of a folder, in order; names may be padded, not, or both.

    Raises:
        InputError: None there, two names of one number, or numbers missing between others.
    """
    found: dict[int, Path] = {}
    for file in sorted(folder.glob(f"*.{suffix}")):
        if not file.stem.isdecimal():
            continue
        if (number := int(file.stem)) in found:
            raise InputError(f"{folder} holds {found[number].name} and {file.name}", expected="one file of each number", remedy="remove one of them")
        found[number] = file
    if not found:
        inside = ", ".join(sorted(file.name for file in folder.iterdir())[:6]) if folder.is_dir() else ""
        raise InputError(
            f"the folder {folder} holds {inside or 'nothing'}",
            expected=f"0.{suffix}, 1.{suffix}, ... as ExAvatar writes them",
            remedy="point at a subject's folder or at one of numbered JSON files",
        )
    _check_steps(folder, sorted(found))
    return {number: found[number] for number in sorted(found)}


def _check_steps(folder: Path, found: Sequence[int]) -> None:
    """Every n-th frame is a choice; a gap in that is a loss."""
    steps = np.diff(found)
    if len(steps) and (steps != steps.min()).any():
        gap = int(np.argmax(steps != steps.min()))
        raise InputError(
            f"{folder} lacks frames between {found[gap]} and {found[gap + 1]}",
            expected="numbers in equal steps",
            remedy="fit the missing frames, or move the part that you want to a folder of its own",
        )


def _root(folder: Path) -> Path:
    """The subject's folder, which ``folder`` is or lies in."""
    for root in (folder, folder.parent, folder.parent.parent):
        if (root / OPTIMIZED).is_dir():
            return root
    raise InputError(f"{folder} holds no {OPTIMIZED}", expected="the folder of a subject that ExAvatar fitted", remedy=_AGAIN)


def _poses_folder(folder: Path) -> Path:
    """Where the numbered parameters are; the smoothed ones where there are both."""
    for inside in (folder / OPTIMIZED / SMOOTHED, folder / OPTIMIZED / RAW, folder / SMOOTHED, folder / RAW):
        if inside.is_dir():
            return inside
    return folder


def _frames_of(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Poses (T, 55, 3), expression (T, E) float32 and translations (T, 3) in the camera."""
    files = list(numbered(folder, "json").values())
    frames = [_read_frame(file) for file in files]
    pose = np.concatenate([joined_parts(frame, file, frames=1) for frame, file in zip(frames, files, strict=True)])
    rows = {name: [numbers(f.get(name, default), name, file).ravel() for f, file in zip(frames, files)] for name, default in _PLAIN.items()}
    for name, values in rows.items():
        if odd := [file for value, file in zip(values, files) if value.shape != values[0].shape or (name == "trans" and len(value) != 3)]:
            raise InputError(f"{odd[0]}: {name} has another length than in {files[0].name}", expected="as many values in every frame", remedy=_AGAIN)
    expression, transl = np.stack(rows["expr"]), np.stack(rows["trans"])
    for file, *values in zip(files, pose, expression, transl):
        check_finite(file, *values)
    return pose, expression.astype(np.float32), transl


_PLAIN = {"expr": np.zeros(10), "trans": np.zeros(3)}


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file} is no readable JSON ({error})", expected="a file as ExAvatar writes it", remedy="repair it") from error


def _read_frame(file: Path) -> dict[str, Any]:
    frame = _read_json(file)
    if not isinstance(frame, dict) or "body_pose" not in frame or "root_pose" not in frame:
        raise InputError(f"{file} holds {listed(frame)}", expected="root_pose, body_pose, ...", remedy="point at an smplx_params folder")
    return frame


def _matching(folder: Path, suffix: str, wanted: Sequence[int]) -> list[Path]:
    """The files of the fitted frames; others may lie beside them."""
    found = numbered(folder, suffix)
    if lacking := [number for number in wanted if number not in found]:
        raise InputError(f"{folder} lacks frame {lacking[0]} and {len(lacking) - 1} others", expected="one of every fitted frame", remedy=_AGAIN)
    return [found[number] for number in wanted]


def _cameras(root: Path, wanted: Sequence[int]) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """World to camera (T, 4, 4) from a world with y up, (T, 3, 3) pixels, and the pictures' size."""
    files = _matching(root / "cam_params", "json", wanted)
    viewmats, Ks = np.tile(np.eye(4), (len(files), 1, 1)), np.tile(np.eye(3), (len(files), 1, 1))
    shapes = {"R": (3, 3), "t": (3,), "focal": (2,), "princpt": (2,)}
    for i, file in enumerate(files):
        camera = _read_json(file)
        if not isinstance(camera, dict) or shapes.keys() - camera.keys():
            raise InputError(f"{file} holds {listed(camera)}", expected="R, t, focal, princpt", remedy=_AGAIN)
        values = {name: numbers(camera[name], name, file) for name in shapes}
        if wrong := [name for name, shape in shapes.items() if values[name].size != np.prod(shape)]:
            raise InputError(f"{file}: {wrong[0]} of shape {values[wrong[0]].shape}", expected=f"{shapes[wrong[0]]}", remedy=_AGAIN)
        check_finite(file, *values.values())
        viewmats[i, :3, :3], viewmats[i, :3, 3] = values["R"].reshape(3, 3), values["t"].ravel()
        Ks[i, [0, 1], [0, 1]], Ks[i, :2, 2] = values["focal"].ravel(), values["princpt"].ravel()
    return viewmats @ BODY_TO_CAMERA.astype(float), Ks, _size(root, Ks)


def _size(root: Path, Ks: np.ndarray) -> tuple[int, int]:
    """Height and width: the first frame's, or what the principal point halves."""
    if (root / "frames").is_dir():
        first = _picture(next(iter(numbered(root / "frames", "png").values())), cv2.IMREAD_GRAYSCALE)
        return first.shape[0], first.shape[1]
    return round(2 * Ks[0, 1, 2]), round(2 * Ks[0, 0, 2])


def _picture(path: Path, kind: int, size: tuple[int, int] | None = None) -> np.ndarray:
    picture = cv2.imread(str(path), kind)
    if picture is None:
        raise InputError(f"{path} is no readable picture", expected="a PNG file", remedy=_AGAIN)
    if size is not None and picture.shape[:2] != tuple(size):
        raise InputError(f"{path} is of size {picture.shape[:2]}", expected=f"{tuple(size)}, as the first frame", remedy=_AGAIN)
    return picture


def _shared(folder: Path) -> dict[str, Any]:
    """Shape and offsets of the whole subject, float32; an offset without a file is None."""
    out: dict[str, Any] = {"shape_param": numbers(_read_json(folder / "shape_param.json"), "shape", folder / "shape_param.json")}
    for name in OWN_OFFSETS:
        file = folder / f"{name}.json"
        out[name] = numbers(_read_json(file), name, file).astype(np.float32) if file.exists() else None
    check_finite(folder, *(value for value in out.values() if value is not None))
    return out


def _limited(values: np.ndarray, count: int, what: str, body: Body) -> np.ndarray:
    """Coefficients up to as many as the body has, float32; beyond them only zeros may stand."""
    if values[..., count:].any():
        raise InputError(f"{what} has {values.shape[-1]} coefficients", expected=f"at most {count}, as body '{body.name}'", remedy="give its body")
    return np.asarray(values[..., :count], np.float32)
