"""Calling resident deployments: what is sent again, how their errors arrive, and stages of a task that run in a deployment."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from ray import serve
from ray.exceptions import ActorDiedError, ActorUnavailableError, ObjectLostError, RayTaskError, WorkerCrashedError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, ReplicaUnavailableError

from svad_ray.errors import StageFailed
from svad_ray.fulfil import Kit
from svad_ray.stages.base import Progress, silent
from svad_ray.subject import Animation, Clip, Perception, Photo, join_clips

T = TypeVar("T")
LOST = (ActorDiedError, ActorUnavailableError, WorkerCrashedError, ObjectLostError, DeploymentUnavailableError, ReplicaUnavailableError)
"""The replica that had the call is gone. Calls only compute, so sending one again is harmless."""
_PAUSES_S = (0.2, 1.0, 3.0, 8.0, 15.0, 15.0, 0.0)  # a replica that loads its models again is back within their sum, as a rule
RESIDENT = ("perceive", "animate")


def plain(error: Exception) -> Exception:
    """The error that a replica or task raised, without Ray's wrapping."""
    while isinstance(error, RayTaskError) and isinstance(error.cause, Exception):
        error = error.cause
    return error


def insisted(name: str, call: Callable[[], T]) -> T:
    """``call()``, again while its replica dies or its deployment is busy.

    Raises:
        StageFailed: No replica answered, again and again. Else: The error that the replica raised.
    """
    reason: Exception | None = None
    for pause in _PAUSES_S:
        try:
            return call()
        except (*LOST, BackPressureError) as error:
            reason = error
            time.sleep(pause)
        except RayTaskError as error:
            raise plain(error) from None
    raise StageFailed(
        f"the resident deployment {name} did not answer ({type(reason).__name__})", remedy="see `serve status`; it may need more replicas"
    ) from reason


class _Resident:
    """Stands in a task for a stage that a deployment holds: same backend, version and configuration, so results have the same keys."""

    def __init__(self, stage: Any, app: str) -> None:
        self.backend, self.version, self.config = stage.backend, stage.version, stage.config
        self.app, self.name = app, stage.backend.stage

    def setup(self) -> None:
        """The deployment did that."""

    def _handle(self) -> Any:
        return serve.get_deployment_handle(self.name, app_name=self.app)

    def _plain_config(self) -> dict[str, Any]:
        return self.config.model_dump(mode="json")


class ResidentPerceive(_Resident):
    """See ``stages.base.PerceiveStage``."""

    def __call__(self, photo: Photo) -> Perception:
        return insisted(self.name, lambda: self._handle().remote(self._plain_config(), photo).result())


class ResidentAnimate(_Resident):
    """See ``stages.base.AnimateStage``. Progress and frames arrive as they are made."""

    def __call__(self, photo: Photo, perception: Perception, *, progress: Progress = silent) -> Animation:
        return insisted(self.name, lambda: self._streamed(photo, perception, progress))

    def _streamed(self, photo: Photo, perception: Perception, progress: Progress) -> Animation:
        blocks: list[Clip] = []
        for part in self._handle().options(stream=True).remote(self._plain_config(), photo, perception):
            if isinstance(part, float):
                progress(part)
            elif isinstance(part, Clip):
                blocks.append(part)
            else:
                return Animation(join_clips(blocks), part)
        raise StageFailed("the animate deployment ended without a result", remedy="see its log")


def resident_kit(kit: Kit, app: str) -> Kit:
    """``kit`` for a task whose perceive and animate stages run in the deployments of ``app``."""
    kinds = {"perceive": ResidentPerceive, "animate": ResidentAnimate}

    def make(stage: str, config: Any) -> Any:
        made = kit.make(stage, config)
        return kinds[stage](made, app) if stage in kinds else made

    return replace(kit, make=make)
