"""Segment Anything: the mask of the one person whose key points are known. The network is the package ``segment-anything``'s own.

Source: Kirillov et al., Segment Anything (2023); prompts and the two passes as ExAvatar's fitting code uses them (spec: avatar 3.9).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from svad_ray.errors import BackendUnavailable, InputError, WeightsMissing
from svad_ray.nets.checkpoint import fill, read_state

SOURCE, LICENCE, EXTRA = "the Segment Anything project", "Apache-2.0", "vision"
SIDE = 1024  # pixels of the square that the network sees
SURE = 0.5  # score above which a key point counts
BOX = 1.2  # the prompt's box over the points' own
_MEAN, _STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
_WIDTH = "image_encoder.pos_embed"  # its last dimension tells the sizes apart


@dataclass(frozen=True)
class SamSize:
    """One image encoder: the published file's name, width, blocks, heads, and the blocks that see the whole picture."""

    file: str
    dim: int
    depth: int
    heads: int
    whole: tuple[int, ...]


SIZES = {
    "h": SamSize("sam_vit_h_4b8939.pth", 1280, 32, 16, (7, 15, 23, 31)),
    "l": SamSize("sam_vit_l_0b3195.pth", 1024, 24, 16, (5, 11, 17, 23)),
    "b": SamSize("sam_vit_b_01ec64.pth", 768, 12, 12, (2, 5, 8, 11)),
}


@dataclass(frozen=True)
class Prompt:
    """Where the person is: points (N, 2) on them, and a box (4,) x1, y1, x2, y2 round them; pixels of the picture."""

    points: np.ndarray
    box: np.ndarray


def prompt(keypoints: np.ndarray, scores: np.ndarray, *, height: int, width: int) -> Prompt | None:
    """The prompt of (133, 2) key points with (133,) scores: the sure ones, and their box, larger by ``BOX`` about its middle.

    Points and box may reach beyond the picture, as in the published code. None where no sure point lies in the picture, or where all of them
    fall on one place.
    """
    points = np.asarray(keypoints)[(scores > SURE) & np.isfinite(keypoints).all(1)]
    inside = ((points >= 0) & (points < [width, height])).all(1)
    if not inside.any() or not (np.ptp(points, axis=0) > 0).any():
        return None
    low, high = points.min(0), points.max(0)
    middle, half = (low + high) / 2, (high - low) / 2 * BOX
    return Prompt(points, np.concatenate((middle - half, middle + half)))


def resized_shape(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of a picture whose longer side is ``SIDE``."""
    scale = SIDE / max(height, width)
    return int(height * scale + 0.5), int(width * scale + 0.5)


def resized(image: np.ndarray) -> np.ndarray:
    """An (H, W, 3) uint8 picture at ``resized_shape``, with the filter that the network was trained with."""
    rows, columns = resized_shape(*image.shape[:2])
    return np.asarray(Image.fromarray(image).resize((columns, rows), Image.Resampling.BILINEAR))


def to_frame(xy: np.ndarray, height: int, width: int) -> np.ndarray:
    """(..., 2) pixels of a picture in the network's frame, float64."""
    rows, columns = resized_shape(height, width)
    return np.asarray(xy, float) * (columns / width, rows / height)


class Sam:
    """Masks of prompted people.

    Args:
        model: The package's ``Sam``, filled, on its device. batch: Pictures embedded at once.
    """

    def __init__(self, model: Any, *, batch: int = 1) -> None:
        self.model, self.batch = model.eval().requires_grad_(False), batch

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @torch.inference_mode()
    def __call__(self, frames: Sequence[np.ndarray] | np.ndarray, prompts: Sequence[Prompt | None]) -> list[np.ndarray]:
        """(H, W) bool of each of T pictures (H, W, 3) uint8 RGB; all False where its prompt is None, whose picture costs nothing."""
        masks = [np.zeros(frame.shape[:2], bool) for frame in frames]
        asked = [(i, wanted) for i, wanted in enumerate(prompts) if wanted is not None]
        for first in range(0, len(asked), self.batch):
            part = asked[first : first + self.batch]
            for (i, wanted), embedding in zip(part, self.embed([frames[i] for i, _ in part])):
                masks[i] = self.mask(embedding, wanted, *frames[i].shape[:2])
        return masks

    @torch.inference_mode()
    def embed(self, frames: Sequence[np.ndarray]) -> Tensor:
        """(T, 256, 64, 64) embeddings of T pictures of any sizes."""
        pictures = [torch.tensor(resized(frame), device=self.device).permute(2, 0, 1) for frame in frames]
        return self.model.image_encoder(torch.stack([self.model.preprocess(picture.float()) for picture in pictures]))

    @torch.inference_mode()
    def mask(self, embedding: Tensor, wanted: Prompt, height: int, width: int) -> np.ndarray:
        """(height, width) bool: the second pass, which is shown the first one's logits."""
        first, _ = self.logits(embedding, wanted, height, width)
        second, _ = self.logits(embedding, wanted, height, width, before=first)
        whole = self.model.postprocess_masks(second, resized_shape(height, width), (height, width))
        return (whole[0, 0] > self.model.mask_threshold).cpu().numpy()

    @torch.inference_mode()
    def logits(self, embedding: Tensor, wanted: Prompt, height: int, width: int, *, before: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """One pass.

        Args:
            embedding: (256, 64, 64). before: (1, 1, 256, 256) logits of an earlier pass.

        Returns:
            (1, 1, 256, 256) logits of the mask, and (1, 1) the network's own estimate of its quality.
        """
        points = torch.as_tensor(to_frame(wanted.points, height, width), dtype=torch.float32, device=self.device)[None]
        box = torch.as_tensor(to_frame(wanted.box.reshape(2, 2), height, width), dtype=torch.float32, device=self.device).view(1, 4)
        labels = torch.ones(points.shape[:2], dtype=torch.int, device=self.device)
        sparse, dense = self.model.prompt_encoder(points=(points, labels), boxes=box, masks=before)
        return self.model.mask_decoder(
            image_embeddings=embedding[None],
            image_pe=self.model.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=False,
        )


def build(size: SamSize) -> Any:
    """The package's network of a size, weights at random. Raises BackendUnavailable."""
    try:
        from segment_anything.build_sam import _build_sam  # its public builders know three sizes
    except ModuleNotFoundError as error:
        raise BackendUnavailable(
            f"masks by Segment Anything need the package '{error.name}', which is not installed",
            remedy=f"pip install svad-ray[{EXTRA}], as docs/extras.md says",
        ) from error
    return _build_sam(size.dim, size.depth, size.heads, list(size.whole))


def load_sam(folder: str | Path, size: str = "h", *, device: str = "cpu", batch: int = 1) -> Sam:
    """The network filled from ``folder``, every tensor by name and shape.

    Args:
        size: Key of ``SIZES``.

    Raises:
        BackendUnavailable: The package is not installed. WeightsMissing: The file is not there.
        InputError: It is damaged, partial, or a network of another size.
    """
    wanted = SIZES[size]
    with torch.device("meta"):
        model = build(wanted)
    path = Path(folder) / wanted.file
    state = read_state(path, missing=lambda: _missing(path))
    _check_size(path, state, wanted)
    fill(model, state, path, what=f"Segment Anything of size '{size}'")
    model.pixel_mean, model.pixel_std = (torch.tensor(value).view(3, 1, 1) for value in (_MEAN, _STD))  # in no file
    return Sam(model.to(device), batch=batch)


def _missing(path: Path) -> WeightsMissing:
    return WeightsMissing(
        f"masks by Segment Anything need {path}, which is not there",
        expected=f"{path.name} from {SOURCE} ({LICENCE})",
        remedy="put it there, choose another size (--set perceive.sam=b), or use the embedded backend: --set perceive.backend=mediapipe",
    )


def _check_size(path: Path, state: dict[str, Tensor], wanted: SamSize) -> None:
    """Raises InputError where the file holds another published network."""
    width = state[_WIDTH].shape[-1] if _WIDTH in state else 0
    found = next((name for name, size in SIZES.items() if size.dim == width), None)
    if found is not None and SIZES[found] is not wanted:
        raise InputError(
            f"{path} holds the network of size '{found}'", expected=f"the content of {wanted.file}", remedy=f"--set perceive.sam={found}"
        )
