"""The paper's restore backend: BFRffusion on every face, Real-ESRGAN on the frame (SVAD section 3.3)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from svad_ray.backends import Backend, ModelFile
from svad_ray.config import RestoreConfig
from svad_ray.errors import WeightsMissing
from svad_ray.stages.restore.detail import resize, scaled_clip
from svad_ray.stages.restore.faces import SMALLEST_EYES, Aligned, align, eye_distance, paste, paste_gradients, soft_mask
from svad_ray.subject import BodyTrack, Clip

X2PLUS = "RealESRGAN_x2plus.pth"
_TILE_PAD = 10
Face = tuple[np.ndarray, np.ndarray, np.ndarray]


class BFRffusionRestore:
    """``setup``, then blocks of frames. The faces of a whole block are restored together."""

    version: ClassVar[int] = 1
    backend: ClassVar[Backend] = Backend(
        name="bfrffusion",
        stage="restore",
        summary="BFRffusion faces and Real-ESRGAN x2 frames",
        code_licence="MIT; Real-ESRGAN BSD-3-Clause",
        weights_licence="BFRffusion weights on Stable Diffusion 2.1 OpenRAIL; RetinaFace and ParseNet MIT; Real-ESRGAN BSD-3-Clause",
        commercial=False,
        commercial_reason="built on OpenRAIL weights whose limits of use the user must accept",
        models=("realesrgan",),
        files=(
            ModelFile("checkpoint_BFRffusion_FFHQ.ckpt", "the BFRffusion project", "as its project states"),
            ModelFile("detection_Resnet50_Final.pth", "the facexlib project", "MIT"),
            ModelFile("parsing_parsenet.pth", "the facexlib project", "MIT"),
        ),
        memory_gib=16,
        device="cuda",
        batch=8,
    )

    def __init__(self, config: RestoreConfig | None = None) -> None:
        self.config = config or RestoreConfig()

    def setup(self) -> None:
        """Load the four networks.

        Raises:
            WeightsMissing: No folder is configured, or files are not in it. InputError: A file is damaged or of another network.
        """
        from svad_ray.nets.bfrffusion.load import load_networks
        from svad_ray.nets.device import device_and_dtype
        from svad_ray.nets.faces import parsenet, retinaface

        if not self.config.weights:
            raise WeightsMissing(
                "the restore backend 'bfrffusion' has no folder of checkpoints",
                expected="; ".join(f"{file.name} from {file.source} ({file.licence})" for file in self.backend.files),
                remedy="--set restore.weights=FOLDER, or use the embedded backend: --set restore.backend=realesrgan",
            )
        root, (device, dtype) = Path(self.config.weights), device_and_dtype(self.config.faces.dtype)
        self.finder = retinaface.load_retinaface(root / retinaface.FILE, device=device)
        self.parser = parsenet.load_parsenet(root / parsenet.FILE, device=device)
        self.networks = load_networks(root, dtype=dtype, device=device)
        self.enlarge = background(self.config, device=device, dtype=dtype)

    def plan(self, track: BodyTrack) -> tuple[int, ...]:
        """Nothing to plan: every face of every frame is restored."""
        return ()

    def __call__(self, shard: Clip, plan: Any = None) -> Clip:
        """The frames, ``config.scale`` times larger, with restored faces; the same number in the same order."""
        crops, remarks = self._find(shard.frames)
        restored, good = self._restore([one.crop for found in crops for one in found])
        frames, said, at = [], [], 0
        for i, (frame, found) in enumerate(zip(shard.frames, crops)):
            part = slice(at, at + len(found))
            faces = [(face, one.matrix, weights) for (face, weights), one in zip(restored[part], found)]
            image, remark = self._frame(frame, [face for face, fine in zip(faces, good[part]) if fine])
            failed = sum(not fine for fine in good[part])
            notes = [remarks[i], remark, f"{failed} kept as they were: the network gave no numbers" if failed else ""]
            frames.append(image)
            said.append("; ".join(note for note in (shard.remarks[i], *notes) if note))
            at += len(found)
        return scaled_clip(shard, np.stack(frames), tuple(said), self.config.scale)

    def _find(self, frames: np.ndarray) -> tuple[list[list[Aligned]], list[str]]:
        """The upright crops of every frame's faces, and what is said of the frame."""
        from svad_ray.nets.faces.retinaface import detect

        crops, remarks = [], []
        for frame in frames:
            (rows,) = detect(self.finder, frame[None], confidence=self.config.faces.confidence)
            found, remark = crops_of(frame, [row[5:].reshape(5, 2) for row in rows])
            crops.append(found)
            remarks.append(remark)
        return crops, remarks

    def _restore(self, crops: list[np.ndarray]) -> tuple[list[tuple[np.ndarray, np.ndarray]], np.ndarray]:
        """(restored face, weights of its pixels) of every crop, and whether it could be restored."""
        from svad_ray.nets.bfrffusion.networks import Options, restore
        from svad_ray.nets.faces.parsenet import labels

        if not crops:
            return [], np.zeros(0, bool)
        c = self.config.faces
        faces, good = restore(self.networks, np.stack(crops), Options(steps=c.steps, guidance=c.guidance, batch=c.batch, seed=self.config.seed + 42))
        return [(face, soft_mask(parts)) for face, parts in zip(faces, labels(self.parser, faces))], good

    def _frame(self, frame: np.ndarray, faces: list[Face]) -> tuple[np.ndarray, str]:
        enlarged = self.enlarge(frame)
        if self.config.faces.paste == "parse" or not faces:
            return paste(enlarged, faces, scale=self.config.scale), ""
        image, reasons = paste_gradients(enlarged, faces, scale=self.config.scale)
        return image, "; ".join(reasons)


def crops_of(frame: np.ndarray, points: list[np.ndarray]) -> tuple[list[Aligned], str]:
    """The upright crops of the faces at (5, 2) points each that are large enough, and what is said of the frame."""
    large = [one for one in points if eye_distance(one) >= SMALLEST_EYES]
    found = [one for one in (align(frame, five) for five in large) if one is not None]
    return found, _says(len(points), len(large), len(found))


def _says(seen: int, large: int, found: int) -> str:
    if not seen:
        return "no face: not restored"
    parts = [f"{found} face{'s' if found != 1 else ''} restored" if found else "no face restored"]
    if seen > large:
        parts.append(f"{seen - large} too small")
    if large > found:
        parts.append(f"{large - found} not upright")
    return ", ".join(parts)


def background(config: RestoreConfig, *, device: str, dtype: Any) -> Callable[[np.ndarray], np.ndarray]:
    """What enlarges a whole (H, W, 3) uint8 RGB frame ``config.scale`` times.

    Raises:
        WeightsMissing: x2plus is asked for and its file is not there. InputError: The file is damaged.
        BackendUnavailable: The package ``realesrgan`` is asked for and not installed.
    """
    from svad_ray import models
    from svad_ray.nets.rrdbnet import load_rrdbnet, load_rrdbnet_ncnn
    from svad_ray.nets.upscale import enlarge

    c, path = config.faces, Path(config.weights) / X2PLUS
    if c.background == "lanczos":
        return lambda frame: resize(frame, (frame.shape[0] * config.scale, frame.shape[1] * config.scale))
    if c.background == "x2plus" or (c.background == "auto" and path.exists()):
        net = load_rrdbnet(path, missing=lambda: _no_x2plus(path))
    else:
        folder = models.ensure("realesrgan")
        net = load_rrdbnet_ncnn(folder / "realesrgan-x4plus.param", folder / "realesrgan-x4plus.bin")
    if c.enlarger == "realesrgan":
        return _package(net, config, device=device, dtype=dtype)
    net = net.to(device, dtype)
    return lambda frame: enlarge(net, frame, tile=c.tile, tile_pad=_TILE_PAD, batch=c.tile_batch, outscale=config.scale)


def _package(net: Any, config: RestoreConfig, *, device: str, dtype: Any) -> Callable[[np.ndarray], np.ndarray]:
    """The same network, run by the package ``realesrgan``, which knows float32 and float16 only."""
    import torch

    from svad_ray.nets.realesrgan_package import RealEsrganPackage

    half = dtype == torch.float16
    package = RealEsrganPackage(net, tile=config.faces.tile, tile_pad=_TILE_PAD, half=half, device=torch.device(device))
    return lambda frame: package(frame, outscale=config.scale)


def _no_x2plus(path: Path) -> WeightsMissing:
    return WeightsMissing(
        f"restore.faces.background is x2plus and {path} is not there",
        expected=f"{X2PLUS} from the Real-ESRGAN project (BSD-3-Clause)",
        remedy="put it there, or --set restore.faces.background=x4plus, whose weights come with a package",
    )
