"""What the service needs done, and by whom it does not care: this process, or a Ray cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from svad_ray.errors import SvadError
from svad_ray.subject import Photo


class Busy(SvadError):
    """Everything that could do it is at work; the HTTP layer answers 429 with ``retry_after_s``."""

    retry_after_s: float = 1.0

    @classmethod
    def for_seconds(cls, retry_after_s: float, found: str = "the service is busy") -> Busy:
        """Busy for about so long."""
        error = cls(found, remedy=f"try again in {retry_after_s:.0f} s")
        error.retry_after_s = retry_after_s
        return error


@dataclass(frozen=True)
class View:
    """One picture of an avatar: pose and camera. Plain values only, so that it travels to any worker.

    Attributes:
        motion, frame: The pose: one frame of a built-in motion.
        yaw_deg: Degrees that the person turns to their left.
        size: Width and height, pixels.
        pose: SMPL-X axis-angle arrays by name (``global_orient`` (3,), ``body_pose`` (21, 3), ..., ``expression`` (E,), ``transl`` (3,)) instead of
            a motion's; what is left out is zero.
        viewmat, K: (4, 4) world to camera and (3, 3) pixels instead of the camera that frames the person.
    """

    motion: str = "a-pose-turn"
    frame: int = 0
    yaw_deg: float = 0.0
    size: int = 512
    pose: Mapping[str, Any] | None = None
    viewmat: Sequence[Sequence[float]] | None = None
    K: Sequence[Sequence[float]] | None = None


class Engine(Protocol):
    """Does what the service is asked for.

    Avatars travel by id: whoever renders reads them from the book (``AvatarBook.avatar``) and keeps the last ones. Every call raises ``Busy`` when it
    would have to wait too long, and ``SvadError`` for what is the caller's or the machine's fault.
    """

    async def start(self) -> None:
        """Begin to work on what the book has unfinished; called once, in the running event loop."""

    async def close(self) -> None:
        """Let go of everything; unfinished avatars stay in the book for whoever comes next."""

    async def wake(self, avatar_id: str) -> None:
        """A new request is in the book. Returns at once."""

    async def stop(self, avatar_id: str) -> None:
        """End the work on an avatar that was cancelled or is about to be removed; returns when nothing writes below it any more."""

    async def restore(self, photo: Photo) -> np.ndarray:
        """The photo, sharper: (H, W, 3) uint8 RGB."""

    def animate(self, avatar_id: str, motion: str, size: int) -> AsyncIterator[np.ndarray]:
        """(size, size, 3) uint8 RGB frames of the avatar in a built-in motion, one by one as they are rendered."""

    async def render(self, avatar_id: str, view: View) -> np.ndarray:
        """(H, W, 3) uint8 RGB."""

    async def models(self) -> list[dict[str, Any]]:
        """What is loaded or would be: one JSON object a backend."""

    async def ready(self) -> dict[str, bool]:
        """Part -> can it work now? All true = ready."""
