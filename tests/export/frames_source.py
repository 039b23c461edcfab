"""Finished subjects with random poses and noise for pictures, kept as a real run keeps them."""

from __future__ import annotations

from typing import Any

import numpy as np

from svad_ray.body import load_body
from svad_ray.ledger import folder_name
from svad_ray.store import ArtefactStore, Key, digest
from svad_ray.subject import BodyTrack, Clip

SIZE = 96
FOCAL = 130.0


def track(frames: int, seed: int, *, yaws: np.ndarray | None = None) -> BodyTrack:
    """A person 3 m before the camera, turning, limbs moving a little."""
    body, rng = load_body(), np.random.default_rng(seed)

    def some(*shape: int, scale: float = 0.1) -> np.ndarray:
        return (scale * rng.standard_normal((frames, *shape))).astype(np.float32)

    orient = np.zeros((frames, 3), np.float32)
    orient[:, 1] = np.linspace(0, 2 * np.pi, frames, endpoint=False) if yaws is None else yaws
    K = np.array([[FOCAL, 0, SIZE / 2], [0, FOCAL, SIZE / 2], [0, 0, 1]], np.float32)
    view = np.diag([1, -1, -1, 1]).astype(np.float32)
    view[:3, 3] = [0, -0.3, 3.0]
    return BodyTrack(
        betas=rng.standard_normal(10).astype(np.float32) * 0.5,
        global_orient=orient,
        body_pose=some(21, 3),
        left_hand_pose=some(15, 3),
        right_hand_pose=some(15, 3),
        jaw_pose=some(3),
        leye_pose=some(3),
        reye_pose=some(3),
        expression=some(10),
        transl=some(3, scale=0.02),
        viewmats=np.repeat(view[None], frames, 0),
        Ks=np.repeat(K[None], frames, 0),
        image_size=(SIZE, SIZE),
        fps=25.0,
        body_id=body.id,
        vertex_offset=(0.003 * rng.random(body.v_template.shape)).astype(np.float32),
        residual_px=rng.random(frames).astype(np.float32),
    )


def clip_of(whole: BodyTrack, seed: int) -> Clip:
    """Noise, a rectangle for a mask, a remark here and there."""
    rng, count = np.random.default_rng(seed), len(whole)
    masks = np.zeros((count, SIZE, SIZE), np.uint8)
    for t in range(count):
        masks[t, 10 + t : 60 + t, 20:70] = 255
    remarks = tuple("fusion refused: disparity 0.4" if t % 3 == 1 else "" for t in range(count))
    return Clip(rng.integers(0, 256, (count, SIZE, SIZE, 3), np.uint8), masks, whole, remarks)


def add_subject(out: str, name: str, *, frames: int = 7, block: int = 3, seed: int = 0) -> tuple[Clip, BodyTrack, Key]:
    """Commit the subject's artefacts and its marker."""
    whole = track(frames, seed)
    clip, work = clip_of(whole, seed), ArtefactStore(f"{out}/work")
    restore: list[str] = []
    for start in range(0, frames, block):
        key = Key("restore", digest(name, str(start), str(seed)))
        work.put(key, clip.slice(start, min(frames, start + block)))
        restore.append(str(key))
    fit = Key("fit", digest(name, "fit", str(seed)))
    work.put(fit, whole)
    facts: dict[str, Any] = {
        "subject_id": name,
        "photo_sha256": digest(name, "photo").ljust(64, "0")[:64],
        "consent": "agreed",
        "quality": {"frames": float(frames)},
    }
    facts["keys"] = {"restore": restore, "fit": str(fit), "clip": "no key"}
    key = Key(folder_name(name), digest(name, str(seed)))
    ArtefactStore(f"{out}/subjects").put_files(key, {"avatar.ply": b"ply"}, facts=facts)
    return clip, whole, key
