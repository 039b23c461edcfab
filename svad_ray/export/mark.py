"""Marks in videos: a label that people read, and a number in the brightness that outlives re-encoding and resizing.

The hidden mark is 48 bits: a 32-bit code and 16 bits of its hash, by which it is told from chance. Each bit is spread over the cells of a 32 x 32
grid on the picture, as a smooth pattern of brightness of about one level; all frames carry the same, so a reader averages them. It tells which avatar
a video shows (``code_of``) to whoever has the avatar; it resists compression and resizing, not somebody who wants to remove it, and not cropping.

Source: ours; spread-spectrum marking after Cox et al. 1997, here in cell means instead of DCT coefficients.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

CELLS, CODE_BITS, CHECK_BITS = 32, 32, 16
BITS = CODE_BITS + CHECK_BITS
STRENGTH = 1.0  # levels of 255
_SEED = 0x5AD
_LIMIT = 4.0  # levels: a larger difference of neighbouring cells is the picture's own, and says nothing
_ROOM, _HEIGHT, _LEGIBLE = 0.015, 0.025, 9  # of a label, in heights of the picture; pixels


@dataclass(frozen=True)
class Found:
    """What a reader of hidden marks made of a video.

    Attributes:
        code: The 32 bits, or None when there is no mark. share: Of the 48 bits, how many agree with the code found or asked for.
    """

    code: int | None
    share: float


def code_of(photo_sha256: str) -> int:
    """The code of an avatar: the first 32 bits of its photo's sha256."""
    return int(photo_sha256[:8] or "0", 16)


def marked(frames: Iterable[np.ndarray], *, label: str = "", code: int | None = None) -> Iterator[np.ndarray]:
    """(H, W, 3) uint8 RGB frames with a label in the lower left corner, and with a code that is not seen."""
    for frame in frames:
        out = frame
        if label:
            out = labelled(out, label)
        if code is not None:
            out = hidden(out, code)
        yield out


def labelled(frame: np.ndarray, label: str) -> np.ndarray:
    """The frame with words on a dark strip, small enough for its width."""
    height, width = frame.shape[:2]
    room = max(2, round(_ROOM * height))
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, max(_HEIGHT * height, _LEGIBLE) / 22.0  # the font is 22 pixels high at scale 1
    (wide, high), below = cv2.getTextSize(label, font, scale, 1)
    if wide > width - 4 * room:
        scale *= (width - 4 * room) / wide
        (wide, high), below = cv2.getTextSize(label, font, scale, 1)
    out = frame.copy()
    top, right = height - 2 * room - high - below, min(width, 3 * room + wide)
    out[top : height - room, room:right] = (out[top : height - room, room:right] * 0.35).astype(np.uint8)
    cv2.putText(out, label, (2 * room, height - room - below - room // 4), font, scale, (255, 255, 255), max(1, round(scale)), cv2.LINE_AA)
    return out


def hidden(frame: np.ndarray, code: int, *, strength: float = STRENGTH) -> np.ndarray:
    """The frame with the code in its brightness."""
    pattern = _pattern(code, *frame.shape[:2]) * np.float32(strength)
    inside = np.clip(frame.astype(np.float32), strength, 255 - strength)  # white and black need room for both signs
    return np.rint(inside + pattern[..., None]).clip(0, 255).astype(np.uint8)


def find(frames: Iterable[np.ndarray], *, asked: int | None = None) -> Found:
    """The hidden mark of a video's frames.

    Args:
        asked: Compare with this code; None: whatever code its own check bits confirm.
    """
    total, count = np.zeros((CELLS, CELLS)), 0
    for frame in frames:
        total += _differences(frame)
        count += 1
    signs, owner = _spread()
    scores = np.bincount(owner.ravel(), (signs * total).ravel(), BITS)
    bits = scores > 0
    code = int("".join("1" if bit else "0" for bit in bits[:CODE_BITS]), 2)
    wanted = _bits(code if asked is None else asked)
    share = float((bits == wanted).mean()) if count else 0.0
    confirmed = count > 0 and np.array_equal(bits, _bits(code))
    return Found(code if confirmed else None, share)


def _differences(frame: np.ndarray) -> np.ndarray:
    """(32, 32) brightness of each cell less that of its eight neighbours, in levels."""
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32)
    cells = cv2.resize(grey, (CELLS, CELLS), interpolation=cv2.INTER_AREA)
    around = (cv2.blur(cells, (3, 3), borderType=cv2.BORDER_REFLECT_101) * 9 - cells) / 8
    found = cells - around
    return np.where(np.abs(found) > _LIMIT, 0.0, found)


@lru_cache(maxsize=1)
def _spread() -> tuple[np.ndarray, np.ndarray]:
    """(32, 32) signs, and which bit each cell carries."""
    rng = np.random.default_rng(_SEED)
    owner = np.resize(np.arange(BITS), CELLS * CELLS)
    rng.shuffle(owner)
    return rng.choice([-1.0, 1.0], (CELLS, CELLS)), owner.reshape(CELLS, CELLS)


def _bits(code: int) -> np.ndarray:
    """(48,) bool: the code and its check."""
    content = int(code).to_bytes(CODE_BITS // 8, "big")
    return np.unpackbits(np.frombuffer(content + hashlib.sha256(b"svad-ray" + content).digest()[: CHECK_BITS // 8], np.uint8)).astype(bool)


@lru_cache(maxsize=4)
def _pattern(code: int, height: int, width: int) -> np.ndarray:
    """(H, W) float32 in [-1, 1]: the signs of all cells, joined smoothly."""
    signs, owner = _spread()
    cells = (signs * np.where(_bits(code)[owner], 1.0, -1.0)).astype(np.float32)
    return cv2.resize(cells, (width, height), interpolation=cv2.INTER_CUBIC).clip(-1, 1)
