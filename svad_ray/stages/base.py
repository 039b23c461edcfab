"""The stage contract. A stage turns values into values; it knows nothing of stores, runners or Ray.

The same object runs in a plain loop, in an actor pool and behind an endpoint, so a call must depend on its arguments and ``config`` alone:
no state carried from call to call, no clock, no thread count in the result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

from svad_ray.backends import Backend
from svad_ray.config import StageConfig
from svad_ray.subject import Animation, Avatar, BodyTrack, Clip, Further, Perception, Photo

Progress = Callable[[float], None]
"""Called with the finished share of a call, 0 to 1."""


def silent(done: float) -> None:
    """The progress callback of whoever does not want to know."""


class Checkpoint(Protocol):
    """Where a long call keeps its state, so that another process can go on from there. How often is the runner's business."""

    def load(self) -> dict[str, Any] | None:
        """The newest kept state of this very call; None to begin at the beginning."""

    def offer(self, state: Callable[[], dict[str, Any]]) -> None:
        """Called whenever the call could be continued from here; ``state`` is asked for only when it is time to keep one."""


class NoCheckpoint:
    """Keeps nothing."""

    def load(self) -> None:
        """Nothing is kept."""

    def offer(self, state: Callable[[], dict[str, Any]]) -> None:
        """Nothing is kept."""


NO_CHECKPOINT = NoCheckpoint()


@dataclass(frozen=True)
class Step:
    """What a runner gives to the call of a step."""

    progress: Progress = silent
    checkpoint: Checkpoint = NO_CHECKPOINT


@runtime_checkable
class Stage(Protocol):
    """What every stage has.

    Attributes:
        backend: The backend's descriptor.
        version: Raised whenever the same arguments give another result, so that kept results of older code are not taken for new ones.
        config: What it was made with.
    """

    backend: ClassVar[Backend]
    version: ClassVar[int]
    config: Any

    def __init__(self, config: Any = None) -> None: ...

    def setup(self) -> None:
        """Load models; called once before the first call, never where nothing is left to do."""


class PerceiveStage(Stage, Protocol):
    """Photo -> what it shows."""

    def __call__(self, photo: Photo) -> Perception: ...


class AnimateStage(Stage, Protocol):
    """Photo and what it shows -> the turn-around clip, and the body fitted to the photo.

    ``also`` is given only with several photos; a backend without it makes avatars of one.
    """

    def __call__(self, photo: Photo, perception: Perception, *, also: Sequence[Further] = (), progress: Progress = silent) -> Animation: ...


class IdentityStage(Stage, Protocol):
    """The photo's head, put into every frame of a shard (8-16 consecutive frames); the shard's track stays as it is."""

    def reference(self, photo: Photo, perception: Perception, photo_track: BodyTrack) -> Any: ...

    def __call__(self, shard: Clip, reference: Any) -> Clip: ...


class RestoreStage(Stage, Protocol):
    """Sharper frames of a shard; the size may grow, and the track's Ks with it."""

    def plan(self, track: BodyTrack) -> Any:
        """Which frames get how much work, decided once for the whole clip, so that a frame's share does not depend on its shard."""

    def __call__(self, shard: Clip, plan: Any = None) -> Clip: ...


class FitStage(Stage, Protocol):
    """The body in every frame of the whole clip."""

    def __call__(self, clip: Clip, photo: Photo, perception: Perception, photo_track: BodyTrack, *, progress: Progress = silent) -> BodyTrack: ...


class AvatarStage(Stage, Protocol):
    """Frames and the fitted body -> the avatar. ``also``: further photos with the body fitted to each; as for ``AnimateStage``."""

    def __call__(
        self,
        clip: Clip,
        track: BodyTrack,
        photo: Photo,
        perception: Perception,
        photo_track: BodyTrack,
        *,
        also: Sequence[Further] = (),
        progress: Progress = silent,
        checkpoint: Checkpoint = NO_CHECKPOINT,
    ) -> Avatar: ...


def make(stage: str, config: StageConfig) -> Any:
    """The configured backend of ``stage``, not yet set up. Raises as ``backends.load``."""
    from svad_ray.backends import load

    return load(stage, config.backend)(config)
