"""Calling resident deployments: what is sent again, how their errors arrive, and stages of a task that run in a deployment."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import ray
from ray import serve
from ray.exceptions import ActorDiedError, ActorUnavailableError, ObjectLostError, RayTaskError, WorkerCrashedError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, ReplicaUnavailableError

from svad_ray.cluster.serve_residents import BEGAN
from svad_ray.errors import StageFailed, Unanswered
from svad_ray.fulfil import Kit
from svad_ray.stages.base import Progress, silent
from svad_ray.subject import Animation, BodyTrack, Clip, Perception, Photo, join_clips

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


def insisted(name: str, stream: Callable[[], Iterable[Any]], take: Callable[[Any], None]) -> None:
    """Hand the parts of a streamed call to ``take``, sent again while its deployment is busy or being replaced.

    A replica that dies while it works on this very call may do so because of it. That is not tried again here, but counted as a failed try of the
    avatar, whose number is bounded; a call that was still waiting when its replica died is innocent.

    Raises:
        StageFailed: The replica died on it. Unanswered: None answered. Else: The error that the replica raised.
    """
    reason: Exception | None = None
    for pause in _PAUSES_S:
        began = False
        try:
            for part in stream():
                began = True
                if part != BEGAN:
                    take(part)
            return
        except (*AWAY, *DIED) as error:
            if began:
                raise StageFailed(f"the replica of {name} died while it worked on this ({type(error).__name__})") from error
            reason = error
            time.sleep(pause)
        except RayTaskError as error:
            raise plain(error) from None
    raise Unanswered(
        f"the resident deployment {name} did not answer ({type(reason).__name__})", remedy="see `serve status`; it may need more replicas"
    ) from reason


def _handle(name: str, app: str) -> Any:
    return serve.get_deployment_handle(name, app_name=app).options(stream=True)


class ResidentFrames:
    """The resident deployments ``frames-<stage>`` as a ``local.FrameHost`` of the conductor's tasks."""

    def __init__(self, app: str) -> None:
        self.app = app

    def __call__(self, stage: str, config: dict[str, Any], shard: Clip, context: Any) -> Clip:
        """See ``local.FrameHost``."""
        refs, made = (ray.put(shard), ray.put(context)), list[Clip]()
        name = f"frames-{stage}"
        insisted(name, lambda: _handle(name, self.app).told_frames.remote(config, *refs), made.append)
        return made[-1]


class _Resident:
    """Stands in a task for a stage that a deployment holds: same backend, version and configuration, so results have the same keys."""

    def __init__(self, stage: Any, app: str) -> None:
        self.backend, self.version, self.config = stage.backend, stage.version, stage.config
        self.app, self.name = app, stage.backend.stage

    def setup(self) -> None:
        """The deployment did that."""

    def _plain_config(self) -> dict[str, Any]:
        return self.config.model_dump(mode="json")


class ResidentPerceive(_Resident):
    """See ``stages.base.PerceiveStage``."""

    def __call__(self, photo: Photo) -> Perception:
        seen: list[Perception] = []
        insisted(self.name, lambda: _handle(self.name, self.app).told.remote(self._plain_config(), photo), seen.append)
        return seen[-1]


class ResidentAnimate(_Resident):
    """See ``stages.base.AnimateStage``. Progress and frames arrive as they are made."""

    def __call__(self, photo: Photo, perception: Perception, *, progress: Progress = silent) -> Animation:
        blocks: list[Clip] = []
        tracks: list[BodyTrack] = []

        def take(part: float | Clip | BodyTrack) -> None:
            if isinstance(part, float):
                progress(part)
            elif isinstance(part, Clip):
                blocks.append(part)
            else:
                tracks.append(part)

        insisted(self.name, lambda: _handle(self.name, self.app).remote(self._plain_config(), photo, perception), take)
        return Animation(join_clips(blocks), tracks[-1])


def resident_kit(kit: Kit, app: str) -> Kit:
    """``kit`` for a task whose perceive and animate stages run in the deployments of ``app``."""
    kinds = {"perceive": ResidentPerceive, "animate": ResidentAnimate}

    def make(stage: str, config: Any) -> Any:
        made = kit.make(stage, config)
        return kinds[stage](made, app) if stage in kinds else made

    return replace(kit, make=make)
