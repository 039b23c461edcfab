"""The perceive stage as the paper has it: DWPose's key points, and masks by Segment Anything where they are; depth where it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from svad_ray.backends import Backend, ModelFile
from svad_ray.config import PerceiveConfig
from svad_ray.pose.estimators import DETECTOR_FILE, LICENCE, POSE_FILE, SOURCE
from svad_ray.stages.perceive.dwpose import DWPosePerceive
from svad_ray.subject import Perception, Photo

SAM_FILE = "sam_vit_h_4b8939.pth"
UNPROMPTED = "no sure key point lies in the picture, so nothing tells Segment Anything where the person is"
UNMASKED = "Segment Anything marks nothing at the key points"
_BATCH = {"cpu": 1, "cuda": 4}  # pictures at once: more of them save nothing on a CPU, and each takes gigabytes


class DWPoseSamPerceive(DWPosePerceive):
    """As ``DWPosePerceive``, with masks by Segment Anything: 1 on the person and 0 elsewhere.

    A picture without a prompt, or whose mask is empty, shows nobody (``people`` 0), and ``warnings`` says why.
    """

    backend: ClassVar[Backend] = Backend(
        name="dwpose-sam",
        stage="perceive",
        summary="DWPose key points, SAM masks (ViT-H; L and B by perceive.sam), Depth Anything V2 by perceive.depth; face and hands as mediapipe",
        code_licence="Apache-2.0",
        weights_licence="Apache-2.0; Depth Anything V2 Base and Large, which are off by default, CC-BY-NC-4.0",
        commercial=True,
        commercial_reason="Apache-2.0 code and weights; not with the base or large depth model",
        models=("mediapipe",),
        files=(
            *(ModelFile(name, SOURCE, LICENCE) for name in (DETECTOR_FILE, POSE_FILE)),
            ModelFile(SAM_FILE, "the Segment Anything project", "Apache-2.0"),
        ),
        extra="vision",
        memory_gib=8,
    )
    version: ClassVar[int] = 1

    @classmethod
    def described(cls, config: PerceiveConfig) -> Backend:
        """With the file of the chosen size, and the terms of the chosen depth network."""
        from svad_ray.nets.sam import SIZES

        files = tuple(replace(file, name=SIZES[config.sam].file) if file.name == SAM_FILE else file for file in cls.backend.files)
        if config.depth not in ("base", "large"):
            return replace(cls.backend, files=files)
        reason = f"Depth Anything V2 {config.depth} is for non-commercial use"
        return replace(cls.backend, files=files, commercial=False, commercial_reason=reason)

    def load(self, folder: str) -> None:
        """All networks, on the GPU where there is one."""
        from svad_ray.nets.device import device_and_dtype
        from svad_ray.nets.sam import load_sam

        device, _ = device_and_dtype("float32")
        self.sam = load_sam(folder, self.config.sam, device=device, batch=_BATCH[device])
        self.depth = None
        if self.config.depth != "off":
            from svad_ray.nets.depth_anything import load_depth

            self.depth = load_depth(folder, self.config.depth, device=device)
        super().load(folder)

    def __call__(self, photo: Photo) -> Perception:
        """Everything about the largest person of a photo."""
        return self.refined([photo.image], [super().__call__(photo)])[0]

    def track(self, frames: np.ndarray, *, masks: bool = False, **options: Any) -> list[Perception]:
        """The same person in every frame of a clip."""
        seen = super().track(frames, **options)
        return self.refined(frames, seen) if masks else seen

    def refined(self, frames: Sequence[np.ndarray] | np.ndarray, seen: Sequence[Perception]) -> list[Perception]:
        """Perceptions of T pictures with masks, and depth where it is configured; those of nobody stay as they are."""
        from svad_ray.nets.sam import prompt

        prompts = [
            prompt(one.keypoints, one.scores, height=frame.shape[0], width=frame.shape[1]) if one.people else None for frame, one in zip(frames, seen)
        ]
        masks = self.sam(frames, prompts)
        out = [_masked(one, mask, UNMASKED if asked else UNPROMPTED) for one, asked, mask in zip(seen, prompts, masks)]
        if self.depth is None:
            return out
        return [replace(one, depth=self.depth([frame])[0]) if one.people else one for one, frame in zip(out, frames)]


def _masked(seen: Perception, mask: np.ndarray, reason: str) -> Perception:
    """A perception with its mask; of nobody, for a ``reason``, where that is empty."""
    if not seen.people:
        return seen
    seen = replace(seen, mask=mask.astype(np.float32))
    return seen if mask.any() else replace(seen, people=0, person_score=0.0, warnings=(*seen.warnings, reason))
