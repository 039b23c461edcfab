"""Avatars held in memory and drawn: what a renderer does, in this process or in a resident replica."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from svad_ray.conventions import WHOLEBODY_FACE, to_uint8
from svad_ray.errors import InputError, QualityRejected
from svad_ray.service.engine import View
from svad_ray.subject import Avatar, BodyTrack, Perception, Photo

if TYPE_CHECKING:
    from svad_ray.stages.avatar.asset import PosableAvatar
    from svad_ray.stages.restore.networks import Networks

HELD = 4  # avatars, about 20 MB each
_HEAD_GROWN = (0.35, 0.55, 0.35, 0.2)  # left, up, right, down of the face's box, in its own width and height: hair and chin
RESTORE_SCALE = 2
_FACE_SCORE = 0.3


@lru_cache(maxsize=1)
def open_body() -> Any:
    """The body that avatars are posed with; built or loaded once."""
    from svad_ray.body import load_body

    return load_body(None)


@dataclass
class _Held:
    avatar: Avatar
    posable: PosableAvatar
    tracks: dict[tuple[str, int], BodyTrack] = field(default_factory=dict)


class Studio:
    """Renders avatars by id and keeps the last ones. Safe for several threads.

    Args:
        load: id -> avatar (``AvatarBook.avatar``); its errors pass through.
        body: Gives the body; asked for when first needed.
    """

    def __init__(self, load: Callable[[str], Avatar], *, body: Callable[[], Any] = open_body, held: int = HELD) -> None:
        self.load, self.body, self.held = load, body, held
        self._kept: OrderedDict[str, _Held] = OrderedDict()
        self._lock = threading.Lock()

    def render(self, avatar_id: str, view: View) -> np.ndarray:
        """(H, W, 3) uint8 RGB of one view. Raises ``InputError`` for a pose or frame that does not exist."""
        held = self._get(avatar_id)
        track = view_track(held.avatar, view, self.body, motion=lambda: self._motion(held, view.motion, view.size))
        return to_uint8(held.posable.render(track, 0)[0])

    def frames(self, avatar_id: str, motion: str, size: int) -> Iterator[np.ndarray]:
        """(size, size, 3) uint8 RGB frames of a built-in motion, one by one."""
        held = self._get(avatar_id)
        return held.posable.frames_of(self._motion(held, motion, size))

    def forget(self, avatar_id: str) -> None:
        """Let go of an avatar that was removed."""
        with self._lock:
            self._kept.pop(avatar_id, None)

    def _get(self, avatar_id: str) -> _Held:
        from svad_ray.stages.avatar.asset import PosableAvatar

        with self._lock:
            found = self._kept.get(avatar_id)
            if found is not None:
                self._kept.move_to_end(avatar_id)
                return found
        avatar = self.load(avatar_id)
        made = _Held(avatar, PosableAvatar(avatar))
        with self._lock:
            self._kept[avatar_id] = made
            while len(self._kept) > self.held:
                self._kept.popitem(last=False)
        return made

    def _motion(self, held: _Held, motion: str, size: int) -> BodyTrack:
        if (motion, size) not in held.tracks:
            held.tracks[motion, size] = motion_track(held.avatar, motion, size, self.body())
        return held.tracks[motion, size]


def motion_track(avatar: Avatar, motion: str, size: int, body: Any) -> BodyTrack:
    """A built-in motion danced by the avatar's person, with the camera that frames it.

    Raises:
        InputError: No such motion; names of files are none.
    """
    from svad_ray.motion import MOTIONS, load_motion, retarget

    if motion not in MOTIONS:
        raise InputError("there is no such motion", expected=" or ".join(MOTIONS))
    return retarget(load_motion(motion, body), person=avatar.track, body=body, size=size)


def view_track(avatar: Avatar, view: View, body: Callable[[], Any], *, motion: Callable[[], BodyTrack]) -> BodyTrack:
    """One frame: the view's pose and camera.

    Args:
        motion: Gives the track of ``view.motion``; asked for only when the view has no pose of its own.
    """
    from svad_ray.deliver import turned

    if (view.viewmat is None) != (view.K is None):
        raise InputError("only one of viewmat and K is given", expected="both or none")
    if view.pose is not None:
        track = _posed(avatar, view, body)
    else:
        whole = motion()
        if not 0 <= view.frame < len(whole):
            raise InputError(f"the motion has no frame {view.frame}", expected=f"0 to {len(whole) - 1}", remedy="change frame")
        track = whole.frames(slice(view.frame, view.frame + 1))
    track = turned(track, math.radians(view.yaw_deg)) if view.yaw_deg else track
    if view.viewmat is None or view.K is None:
        return track
    viewmat, K = (np.asarray(matrix, np.float32)[None] for matrix in (view.viewmat, view.K))
    _check_camera(viewmat[0], K[0])
    return replace(track, viewmats=viewmat, Ks=K, image_size=(view.size, view.size))


def _posed(avatar: Avatar, view: View, body: Callable[[], Any]) -> BodyTrack:
    """One frame in the view's own pose: as it is under a camera of its own, else standing on the floor and framed."""
    from svad_ray.motion import blank_track, retarget
    from svad_ray.motion.parts import SLICES

    given = dict(view.pose or {})
    pose = np.zeros((1, 55, 3), np.float32)
    for name, where in SLICES.items():
        if given.get(name) is not None:
            pose[0, where] = np.asarray(given[name], np.float32).reshape(-1, 3)
    transl = np.asarray(given["transl"], np.float32)[None] if given.get("transl") is not None else None
    track = blank_track(pose, transl=transl, fps=1.0)
    if given.get("expression"):
        track = replace(track, expression=np.asarray(given["expression"], np.float32)[None])
    if view.viewmat is not None:
        return track
    return retarget(replace(track, transl=np.zeros((1, 3), np.float32)), person=avatar.track, body=body(), size=view.size)


def _check_camera(viewmat: np.ndarray, K: np.ndarray) -> None:
    rotation = viewmat[:3, :3].astype(np.float64)
    rigid = np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-3) and np.linalg.det(rotation) > 0 and np.allclose(viewmat[3], [0, 0, 0, 1])
    if not rigid:
        raise InputError("viewmat is no rigid transform", expected="a rotation and a translation, last row 0 0 0 1; OpenCV axes")
    if not (K[0, 0] > 0 and K[1, 1] > 0 and np.allclose(K[2], [0, 0, 1])):
        raise InputError("K is no pinhole camera", expected="fx and fy positive, last row 0 0 1; pixels")


def restored_photo(photo: Photo, seen: Perception, networks: Networks, *, budget_s: float = 12.0) -> np.ndarray:
    """The photo at twice its size, the head enlarged by Real-ESRGAN and the rest by Lanczos.

    A head whose enlargement would take longer than ``budget_s`` (recorded, on two cores) has its detail already and is resampled like the rest.

    Raises:
        QualityRejected: The photo shows no face.
    """
    from svad_ray.stages.restore.detail import paste, resize
    from svad_ray.stages.restore.photo import restore_photo_head

    head = restore_photo_head(photo, head_box(seen), budget_s=budget_s, networks=networks)
    height, width = photo.image.shape[:2]
    out = resize(photo.image, (height * RESTORE_SCALE, width * RESTORE_SCALE))
    if head.scale == 1:
        return out
    x0, y0, x1, y1 = (side * RESTORE_SCALE for side in head.box)
    return paste(out, resize(head.image, (y1 - y0, x1 - x0)), (x0, y0))


def head_box(seen: Perception) -> np.ndarray:
    """(4,) pixels x0 y0 x1 y1 round the head, hair included. Raises ``QualityRejected`` without a face."""
    points = seen.keypoints[WHOLEBODY_FACE][seen.scores[WHOLEBODY_FACE] > _FACE_SCORE] if seen.face_mesh is None else seen.face_mesh[:, :2]
    if len(points) < 8:
        raise QualityRejected("the photo shows no face", expected="a face that can be seen", remedy="use a photo from the front")
    low, high = points.min(0), points.max(0)
    size = high - low
    left, up, right, down = _HEAD_GROWN
    return np.concatenate([low - size * [left, up], high + size * [right, down]])
