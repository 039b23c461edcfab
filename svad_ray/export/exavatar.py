"""A fitted subject as ExAvatar's folder (layout: ``svad_ray.motion.exavatar``), so that their training and tools take it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from svad_ray.body.model import Body
from svad_ray.body.person import check_person, person_joints
from svad_ray.errors import InputError, StoreError
from svad_ray.export.frames.subjects import FinishedSubject, encoded_picture, find_subjects
from svad_ray.motion.exavatar import OPTIMIZED, OWN_OFFSETS, RAW, SMOOTHED, carried
from svad_ray.motion.labels import Labeller
from svad_ray.store import ArtefactStore, Key
from svad_ray.store.verify import WORK
from svad_ray.subject import BodyTrack, Clip, join_clips

SHAPES, EXPRESSIONS = 100, 50  # coefficients that their code expects
TEST_EVERY = 10  # frames, of which one is for their test list
_BACKGROUND_EVERY = 4  # pixels of the background's points
_BEHIND = 2.0  # times the person's distance: the background's depth, which nobody measured


def fitted_clip(root: Path) -> Clip:
    """The restored frames of a finished run, with the track that was fitted to all of them.

    Args:
        root: Output of ``svad-ray create``.

    Raises:
        InputError: No single finished subject lies there. ArtefactDamaged: Something of it is lost.
    """
    found, left = find_subjects(str(root))
    if len(found) != 1:
        why = f": {left[0].reason}" if left else ""
        raise InputError(
            f"{len(found)} finished subjects lie in {root}{why}", expected="one, as `svad-ray create` leaves it", remedy="name its folder"
        )
    return _clip_of(found[0])


def _clip_of(subject: FinishedSubject) -> Clip:
    store = ArtefactStore(f"{subject.out}/{WORK}")
    clip = join_clips([store.get(Key.parse(name)) for name in subject.restore])
    track: BodyTrack = store.get(Key.parse(subject.fit))
    if len(track) != len(clip):
        raise InputError(f"{subject.fit} has {len(track)} frames, the restored clip {len(clip)}", remedy="make the subject again")
    return Clip(clip.frames, clip.masks, track, clip.remarks)


def write_subject(clip: Clip, folder: str | Path, *, body: Body, padded: bool = False) -> Path:
    """Write everything that their training of an avatar reads; of the face's texture one that is on FLAME's map; appears whole or not at all.

    Cameras keep their intrinsics; the world is the first camera's. Points are the fitted body's, 1 where they are seen. The clothed surface's
    offset is ours alone and is left out. Of the background the colours are the frames', and the depth is a plane behind the person.

    Args:
        clip: Frames and masks; its track is the fitted one.
        folder: Must not exist, or be empty.
        body: The track's.
        padded: Numbers as SVAD writes them (0000); else as ExAvatar (0).

    Raises:
        InputError: Another body, a folder that is not empty or cannot be written.
    """
    check_person(body, clip.track)
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is there already", expected="a folder that does not exist, or an empty one", remedy="choose another with --out")
    aside = folder.with_name(f".{folder.name}.part")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        _write_clip(clip, aside, body, padded)
        if folder.exists():
            folder.rmdir()
        aside.replace(folder)
    except OSError as error:
        raise StoreError(f"the subject cannot be written to {folder}: {error}", remedy="check the folder's permissions and the free space") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def _write_clip(clip: Clip, folder: Path, body: Body, padded: bool) -> None:
    names = [f"{i:04d}" if padded else f"{i}" for i in range(len(clip))]
    for inside in ("frames", "masks", "keypoints_whole_body", "cam_params", f"{OPTIMIZED}/{RAW}", f"{OPTIMIZED}/{SMOOTHED}"):
        (folder / inside).mkdir(parents=True)
    labels = Labeller(body, clip.track)
    for i, name in enumerate(names):
        _write_png(folder / "frames" / f"{name}.png", clip.frames[i][..., ::-1])
        _write_png(folder / "masks" / f"{name}.png", np.where(clip.masks[i] > 127, 255, 0).astype(np.uint8))
        seen = labels(slice(i, i + 1))
        _write_json(folder / "keypoints_whole_body" / f"{name}.json", np.column_stack([seen.keypoints[0], seen.scores[0]]))
    cameras, poses = camera_values(clip.track), frame_values(clip.track, body)
    for i, name in enumerate(names):
        _write_json(folder / "cam_params" / f"{name}.json", cameras[i])
        _write_json(folder / OPTIMIZED / RAW / f"{i}.json", poses[i])  # theirs are never padded
        _write_json(folder / OPTIMIZED / SMOOTHED / f"{name}.json", poses[i])
    for name, value in shared_values(clip.track, body).items():
        _write_json(folder / OPTIMIZED / f"{name}.json", value)
    if clip.track.face is not None and clip.track.face.source == "flame":  # their map; a body's own would be read wrongly
        _write_png(folder / OPTIMIZED / "face_texture.png", clip.track.face.image[..., ::-1])
        _write_png(folder / OPTIMIZED / "face_texture_mask.png", np.where(clip.track.face.mask, 255, 0).astype(np.uint8))
    _write_lists(folder, [f"{name}.png" if padded else name for name in names])
    np.savetxt(folder / "bkg_point_cloud.txt", background_points(clip, body), fmt="%.5f")


def frame_values(track: BodyTrack, body: Body) -> list[dict[str, np.ndarray]]:
    """Their parameters of every frame, in its camera's axes."""
    expression = _filled(track.expression, EXPRESSIONS)
    known = body.v_template.new_tensor(track.expression[:, : body.exprdirs.shape[-1]])
    pelvis = person_joints(body, track, known)[:, 0].numpy()
    root, trans = carried(track.global_orient.astype(float), track.transl.astype(float), pelvis, track.viewmats.astype(float))
    parts = {"body_pose": track.body_pose, "jaw_pose": track.jaw_pose, "leye_pose": track.leye_pose, "reye_pose": track.reye_pose}
    parts |= {"root_pose": root, "lhand_pose": track.left_hand_pose, "rhand_pose": track.right_hand_pose, "expr": expression, "trans": trans}
    return [{name: value[i] for name, value in parts.items()} for i in range(len(track))]


def camera_values(track: BodyTrack) -> list[dict[str, np.ndarray]]:
    """Their camera of every frame; a camera that stands still is the world itself, as in their own recordings."""
    views = track.viewmats.astype(float)
    views = views @ np.linalg.inv(views[0])
    return [{"R": view[:3, :3], "t": view[:3, 3], "focal": K[[0, 1], [0, 1]], "princpt": K[:2, 2]} for view, K in zip(views, track.Ks.astype(float))]


def shared_values(track: BodyTrack, body: Body) -> dict[str, np.ndarray]:
    """Their files of the whole subject."""
    sizes = {"face_offset": len(body.v_template)}
    offsets = {name: getattr(track, name) for name in OWN_OFFSETS}
    zeros = {name: np.zeros((sizes.get(name, 55), 3)) for name in OWN_OFFSETS}
    return {"shape_param": _filled(track.betas, SHAPES)} | {name: zeros[name] if value is None else value for name, value in offsets.items()}


def background_points(clip: Clip, body: Body) -> np.ndarray:
    """(N, 6) x y z metres on the first camera's axes and colours 0-255, blue first as their own files have them.

    Every fourth pixel where no person ever is, coloured by the mean of the frames, on a plane behind the person.
    """
    free = np.zeros(clip.masks.shape[1:], bool)
    free[::_BACKGROUND_EVERY, ::_BACKGROUND_EVERY] = True
    ys, xs = np.nonzero(free & ~(clip.masks > 127).any(0))
    colors = np.zeros((len(xs), 3))
    for frame in clip.frames:  # one frame at a time: all of them as floats would take gigabytes
        colors += frame[ys, xs, ::-1]
    K, view = clip.track.Ks[0].astype(float), clip.track.viewmats[0].astype(float)
    pelvis = person_joints(body, clip.track)[0].numpy() + clip.track.transl[0]
    depth = _BEHIND * float(view[2, :3] @ pelvis + view[2, 3])
    rays = np.stack([(xs + 0.5 - K[0, 2]) / K[0, 0], (ys + 0.5 - K[1, 2]) / K[1, 1], np.ones(len(xs))], 1)
    return np.hstack([rays * depth, colors / len(clip)])


def _filled(values: np.ndarray, count: int) -> np.ndarray:
    """At least ``count`` coefficients: zeros behind shorter ones; longer ones lose zeros alone."""
    width = max(count, int(np.max(np.nonzero(values.any(0) if values.ndim == 2 else values)[-1], initial=-1)) + 1)
    out = np.zeros((*values.shape[:-1], width))
    kept = min(width, values.shape[-1])
    out[..., :kept] = values[..., :kept]
    return out


def _write_lists(folder: Path, names: list[str]) -> None:
    """Their lists of frames: all, and every tenth kept from training."""
    test = set(names[TEST_EVERY // 2 :: TEST_EVERY])
    parts = {"all": names, "train": [name for name in names if name not in test], "test": [name for name in names if name in test]}
    for part, lines in parts.items():
        (folder / f"frame_list_{part}.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _write_json(path: Path, value: Any) -> None:
    plain = {name: np.asarray(one, float).tolist() for name, one in value.items()} if isinstance(value, dict) else np.asarray(value, float).tolist()
    path.write_text(json.dumps(plain), encoding="utf-8")


def _write_png(path: Path, picture: np.ndarray) -> None:
    path.write_bytes(encoded_picture(".png", np.ascontiguousarray(picture), [cv2.IMWRITE_PNG_COMPRESSION, 1]))
