"""Calling resident deployments: what is sent again, how their errors arrive, and stages of a task that run in a deployment."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import ray
from ray import serve
from ray.exceptions import ActorDiedError, ActorUnavailableError, ObjectLostError, RayTaskError, WorkerCrashedError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, ReplicaUnavailableError

from svad_ray.cluster.serve_residents import Mark
from svad_ray.errors import StageFailed, Unanswered
from svad_ray.fulfil import Kit
from svad_ray.pipeline import require_several
from svad_ray.stages.base import Progress, silent
from svad_ray.subject import Animation, BodyTrack, Clip, Further, Perception, Photo, join_clips

T = TypeVar("T")
AWAY = (ActorUnavailableError, DeploymentUnavailableError, ReplicaUnavailableError, BackPressureError, ObjectLostError)
"""Nobody took the call: it is sent again."""
DIED = (ActorDiedError, WorkerCrashedError)
"""The replica that had the call is gone; perhaps the call is why."""
_PAUSES_S = (0.2, 1.0, 3.0, 8.0, 15.0, 15.0, 0.0)  # a replica that loads its models again is back within their sum, as a rule


def plain(error: Exception) -> Exception:
    """The error that a replica or task raised, without Ray's wrapping."""
    while isinstance(error, RayTaskError) and isinstance(error.cause, Exception):
        error = error.cause
    return error


class Insisting:
    """Calls the resident deployments of an application, again while they are busy or being replaced.

    A replica that dies while it works on a call may do so because of it. That is not tried again here, but is the caller's failed try, whose number
    is bounded; a call that was waiting or done when its replica died is innocent and sent again.

    Args:
        app: Name of the application.
        marks: Below which address replicas note what they work on; "" = they do not, and a call is taken to be at fault when its replica dies.
        together: All calls are one subject's: when one is at fault, the others end too instead of killing more replicas.
    """

    def __init__(self, app: str, *, marks: str = "", together: bool = False) -> None:
        self.app, self.marks, self.together = app, marks, together
        self._failed = threading.Event()

    def unary(self, name: str, method: str, *args: Any) -> Any:
        """The value of a call."""
        return self._insisted(name, lambda mark: getattr(self._handle(name), method).remote(*args, *mark).result())

    def streamed(self, name: str, take: Callable[[Any], None], *args: Any) -> None:
        """Hand the parts of a streamed call to ``take``."""

        def once(mark: tuple[Mark, ...]) -> None:
            for part in self._handle(name).options(stream=True).remote(*args, *mark):
                take(part)

        self._insisted(name, once)

    def _handle(self, name: str) -> Any:
        return serve.get_deployment_handle(name, app_name=self.app)

    def _insisted(self, name: str, once: Callable[[tuple[Mark, ...]], T]) -> T:
        """Raises ``StageFailed`` when the replica died on it, ``Unanswered`` when none answered; else the error that the replica raised."""
        reason: Exception | None = None
        for pause in _PAUSES_S:
            mark = (Mark.new(self.marks),) if self.marks else ()
            try:
                return once(mark)
            except (*AWAY, *DIED) as error:
                if mark[0].left() if mark else isinstance(error, DIED):
                    self._failed.set()
                    raise StageFailed(f"the replica of {name} died while it worked on this ({type(error).__name__})") from error
                reason = error
                time.sleep(pause)
            except RayTaskError as error:
                raise plain(error) from None
            if self.together and self._failed.is_set():
                raise StageFailed(f"another call of this avatar killed the replica of {name}")
        raise Unanswered(
            f"the resident deployment {name} did not answer ({type(reason).__name__})", remedy="see `serve status`; it may need more replicas"
        ) from reason


class ResidentFrames:
    """The resident deployments ``frames-<stage>`` as a ``local.FrameHost``.

    Args:
        app: Name of the application. marks: As of ``Insisting``. calls: How they are called instead.
    """

    def __init__(self, app: str, *, marks: str = "", calls: Insisting | None = None) -> None:
        self.calls = calls or Insisting(app, marks=marks)

    def __call__(self, stage: str, config: dict[str, Any], shard: Clip, context: Any) -> Clip:
        """See ``local.FrameHost``."""
        return self.calls.unary(f"frames-{stage}", "frames", config, ray.put(shard), ray.put(context))


class _Resident:
    """Stands in a task for a stage that a deployment holds: same backend, version and configuration, so results have the same keys."""

    def __init__(self, stage: Any, calls: Insisting) -> None:
        self.backend, self.version, self.config, self.calls = stage.backend, stage.version, stage.config, calls
        self.stage = stage
        self.name = stage.backend.stage

    def setup(self) -> None:
        """The deployment did that."""

    def _plain_config(self) -> dict[str, Any]:
        return self.config.model_dump(mode="json")


class ResidentPerceive(_Resident):
    """See ``stages.base.PerceiveStage``."""

    def __call__(self, photo: Photo) -> Perception:
        return self.calls.unary(self.name, "__call__", self._plain_config(), photo)


class ResidentAnimate(_Resident):
    """See ``stages.base.AnimateStage``. Progress and frames arrive as they are made."""

    def __call__(self, photo: Photo, perception: Perception, *, also: Sequence[Further] = (), progress: Progress = silent) -> Animation:
        if also:
            require_several(self.stage)
        blocks: list[Clip] = []
        tracks: list[BodyTrack] = []

        def take(part: float | Clip | BodyTrack) -> None:
            if isinstance(part, float):
                progress(part)
            elif isinstance(part, Clip):
                blocks.append(part)
            else:
                tracks.append(part)

        self.calls.streamed(self.name, take, self._plain_config(), photo, perception, tuple(also))
        whole = {block.first: block for block in blocks}  # a call that was sent again may have given some twice
        body, *others = tracks[-1 - len(also) :]
        return Animation(join_clips(list(whole.values())), body, tuple(others))


class ResidentDraw(_Resident):
    """See ``stages.picture.Draw``. The picture is judged by the caller, so tries and seeds are those of a local run."""

    def __call__(self, prompt: str, photo: Photo | None = None, *, seed: int = 0, progress: Progress = silent) -> np.ndarray:
        pictures: list[np.ndarray] = []

        def take(part: float | np.ndarray) -> None:
            if isinstance(part, float):
                progress(part)
            else:
                pictures.append(part)

        self.calls.streamed(self.name, take, self._plain_config(), prompt, photo, seed)
        return pictures[-1]


def resident_kit(kit: Kit, calls: Insisting, *, draws: bool = False) -> Kit:
    """``kit`` for a task whose perceive and animate stages run in deployments, and with ``draws`` what draws photos from prompts too."""
    kinds = {"perceive": ResidentPerceive, "animate": ResidentAnimate}

    def make(stage: str, config: Any) -> Any:
        made = kit.make(stage, config)
        return kinds[stage](made, calls) if stage in kinds else made

    return replace(kit, make=make, draw=(lambda config: ResidentDraw(kit.draw(config), calls)) if draws else kit.draw)
