"""Which finished subjects there are, and their labelled frames one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np

from svad_ray.body.model import Body
from svad_ray.errors import InputError, StoreError, SvadError
from svad_ray.export.frames.sample import SMPLX, Sample
from svad_ray.fitting.clothed import PARTS
from svad_ray.ledger.requests import folder_name
from svad_ray.motion.labels import FrameLabels, Labeller
from svad_ray.store import ArtefactStore, Key, digest
from svad_ray.store.files import Files
from svad_ray.store.verify import SUBJECTS, WORK, run_roots
from svad_ray.subject import BodyTrack, Clip

_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 3]


@dataclass(frozen=True)
class FinishedSubject:
    """A subject whose frames can be exported.

    Attributes:
        subject_id: The caller's name. key: "<folder>/<digest>" of the order.
        out: Root of its artefacts. restore: Keys of the restored blocks, in order. fit: Key of the body track.
        frames: How many. photo_sha256, consent: As its marker has them. avatar: Key of the avatar, "" where it is not known.
    """

    subject_id: str
    key: str
    out: str
    restore: tuple[str, ...]
    fit: str
    frames: int
    photo_sha256: str = ""
    consent: str = ""
    avatar: str = ""

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> FinishedSubject:
        """The subject that ``asdict`` made plain."""
        return cls(**{**values, "restore": tuple(values["restore"])})

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "restore": list(self.restore)}

    def sample_key(self, frame: int) -> str:
        """Name of a frame, without a dot and unlike any other's."""
        folder, _, rest = self.key.partition("/")
        return f"{folder}-{rest[:8]}-{frame:06d}"


@dataclass(frozen=True)
class LeftOut:
    """A subject that is not exported, and why."""

    subject_id: str
    key: str
    reason: str


def find_subjects(root: str, *, threads: int = 8) -> tuple[list[FinishedSubject], list[LeftOut]]:
    """Finished subjects below ``root`` in the order of their keys, and those whose markers cannot be used.

    Args:
        root: Output of a bulk run or of ``svad-ray create``, or a service's store; any fsspec address.

    Raises:
        InputError: Nothing of the kind lies there.
    """
    found: list[FinishedSubject | LeftOut] = []
    for out in run_roots(root):
        if not Files(out).names(SUBJECTS):
            found += _created(out)
            continue
        store = ArtefactStore(f"{out}/{SUBJECTS}")
        with ThreadPoolExecutor(threads) as pool:
            found += pool.map(lambda key, out=out, store=store: _marked(out, store, key), list(store.committed_keys()))  # type: ignore[misc]
    subjects = sorted((s for s in found if isinstance(s, FinishedSubject)), key=lambda s: (s.key, s.out))
    unique = list({subject.key: subject for subject in reversed(subjects)}.values())[::-1]
    return unique, [s for s in found if isinstance(s, LeftOut)]


def _marked(out: str, store: ArtefactStore, key: Key) -> FinishedSubject | LeftOut:
    """A subject as its marker describes it."""
    try:
        marker = store.committed(key)
        if marker is None:
            return LeftOut("", str(key), "it is not there any more")
        facts = marker.facts
        keys = facts["keys"]
        frames = int(facts.get("quality", {}).get("frames", 0)) or 1
        restore = tuple(str(name) for name in keys["restore"])
        about = {"photo_sha256": str(facts.get("photo_sha256", "")), "consent": str(facts.get("consent", "")), "avatar": str(keys.get("avatar", ""))}
        return FinishedSubject(str(facts["subject_id"]), str(key), out, restore, str(keys["fit"]), frames, **about)
    except (SvadError, KeyError, TypeError, ValueError) as error:
        return LeftOut("", str(key), f"its marker cannot be used: {error}")


def _created(out: str) -> list[FinishedSubject | LeftOut]:
    """The one subject of ``svad-ray create``, which keeps no marker of the whole: its artefacts say which belong together."""
    store = ArtefactStore(f"{out}/{WORK}")
    name = out.rstrip("/").rsplit("/", 1)[-1]
    keys = list(store.committed_keys())
    fits = [key for key in keys if key.stage == "fit"]
    if len(fits) != 1:
        found = f"{len(fits)} fitted bodies lie in {out}/{WORK}"
        raise InputError(
            found, expected="one, as a single finished run of `svad-ray create` leaves it", remedy="export the output of `svad-ray batch`"
        )
    try:
        track: BodyTrack = store.get(fits[0])
        first = {str(key): store.get(key).first for key in keys if key.stage == "restore"}
    except StoreError as error:
        return [LeftOut(name, str(fits[0]), str(error))]
    blocks = tuple(sorted(first, key=lambda key: (first[key], key)))
    if len(set(first.values())) != len(blocks):
        found = f"the restored frames in {out}/{WORK} are of several runs"
        raise InputError(found, expected="those of a single run of `svad-ray create`", remedy="export the output of `svad-ray batch`")
    key = Key(folder_name(name), digest(str(fits[0]), *blocks))
    avatars = [str(key) for key in keys if key.stage == "avatar"]
    return [FinishedSubject(name, str(key), out, blocks, str(fits[0]), len(track), avatar=avatars[0] if len(avatars) == 1 else "")]


def labelled_frames(subject: FinishedSubject, body: Body, *, every: int = 1, jpeg_quality: int = 0) -> Iterator[Sample]:
    """The subject's frames with their labels.

    Args:
        body: That the subject was fitted with.
        every: Take each n-th frame.
        jpeg_quality: 0 = PNG.

    Raises:
        ArtefactDamaged: An artefact is not there or not what was committed.
        InputError: It was fitted with another body, or its artefacts do not belong together.
    """
    store = ArtefactStore(f"{subject.out}/{WORK}")
    track: BodyTrack = store.get(Key.parse(subject.fit))
    if track.body_id != body.id:
        raise InputError(
            f"'{subject.subject_id}' was fitted with body {track.body_id}", expected=f"body {body.id}", remedy="give its file with --body"
        )
    labeller, next_frame, shown = Labeller(body, track), 0, photo_shares(store, subject.avatar)
    for name in subject.restore:
        clip: Clip = store.get(Key.parse(name))
        stop = next_frame + len(clip)
        if clip.first != next_frame or clip.frames.shape[1:3] != tuple(track.image_size) or stop > len(track):
            raise InputError(f"{name} does not continue the clip that {subject.fit} was fitted to", remedy="make the subject again")
        chosen = np.flatnonzero(np.arange(next_frame, stop) % every == 0)
        labels = labeller(chosen + next_frame) if len(chosen) else None
        for i, t in enumerate(chosen):
            if labels is not None:
                yield _sample(subject, name, clip, int(t), track, labels, i, jpeg_quality, shown)
        next_frame = stop
    if next_frame != len(track):
        raise InputError(f"{subject.fit} has {len(track)} frames, the restored clip {next_frame}", remedy="make the subject again")


def photo_shares(store: ArtefactStore, avatar: str) -> np.ndarray:
    """(10,) float32: the share of each part's surface that a photo showed, as the avatar's facts have it; NaN where they do not."""
    parts = store.get(Key.parse(avatar)).facts.get("confidence", {}).get("parts", {}) if avatar else {}
    return np.array([parts.get(name, {}).get("seen", np.nan) for name in PARTS], np.float32)


def _sample(
    subject: FinishedSubject, block: str, clip: Clip, t: int, track: BodyTrack, labels: FrameLabels, i: int, quality: int, shown: np.ndarray
) -> Sample:
    frame = clip.first + t
    mask = clip.masks[t]
    residual = np.nan if track.residual_px is None else track.residual_px[frame]
    values: dict[str, Any] = {
        "subject_id": subject.subject_id,
        "frame": frame,
        "height": mask.shape[0],
        "width": mask.shape[1],
        "keypoints": labels.keypoints[i],
        "scores": labels.scores[i],
        "visible": labels.visible[i],
        "part_seen": labels.part_seen[i],
        "part_photo": shown,
        "betas": np.asarray(track.betas, np.float32),
        **{name: np.asarray(getattr(track, name)[frame], np.float32) for name in SMPLX},
        "viewmat": np.asarray(track.viewmats[frame], np.float32),
        "K": np.asarray(track.Ks[frame], np.float32),
        "body_id": track.body_id,
        "fps": float(track.fps),
        "residual_px": float(residual),
        "remark": clip.remarks[t],
        "source_restore": block,
        "source_fit": subject.fit,
    }
    box = tuple(int(v) for v in cv2.boundingRect((mask > 127).astype(np.uint8)))
    image = cv2.cvtColor(clip.frames[t], cv2.COLOR_RGB2BGR)
    encoded = encoded_picture(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality]) if quality else encoded_picture(".png", image, _PNG)
    return Sample(
        subject.sample_key(frame),
        encoded,
        encoded_picture(".png", mask, _PNG),
        encoded_picture(".png", labels.depth_mm[i], _PNG),
        values,
        int((mask > 127).sum()),
        (box[0], box[1], box[2], box[3]),
    )


def encoded_picture(kind: str, picture: np.ndarray, options: list[int]) -> bytes:
    done, content = cv2.imencode(kind, picture, options)
    if not done:
        raise StoreError(f"a picture of shape {picture.shape} could not be written as {kind}")
    return content.tobytes()
