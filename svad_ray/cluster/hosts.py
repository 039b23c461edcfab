"""Where frame blocks are done: by stages held in this worker, or by a resident Serve deployment."""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from typing import Any

from svad_ray.config import Settings
from svad_ray.errors import StageFailed
from svad_ray.fulfil import Kit
from svad_ray.local import prepare
from svad_ray.subject import Clip

HELD_CONFIGS = 3  # stages of one kind that a worker holds for different configurations
_AGAIN_S = (0.2, 1.0, 3.0, 8.0)


def prepare_worker(settings: Settings, cpus: float) -> int:
    """Threads of torch, OpenCV and the rasteriser as Ray assigned cores to this worker: too many cost a factor of three. Returns the count."""
    return prepare(settings.model_copy(update={"threads": max(1, int(cpus))}))


class PoolHost:
    """Stages held in this process, set up when first needed, told apart by their configuration."""

    def __init__(self, kit: Kit) -> None:
        self.kit = kit
        self._held: OrderedDict[str, Any] = OrderedDict()

    def stage(self, stage: str, config: dict[str, Any]) -> Any:
        """The stage with that configuration, ready to be called."""
        name = f"{stage} {json.dumps(config, sort_keys=True)}"
        if name not in self._held:
            made = self.kit.make(stage, type(Settings().stage(stage)).model_validate(config))
            made.setup()
            self._held[name] = made
            if len(self._held) > HELD_CONFIGS:
                self._held.popitem(last=False)
        self._held.move_to_end(name)
        return self._held[name]

    def __call__(self, stage: str, config: dict[str, Any], shard: Clip, context: Any) -> Clip:
        """See ``local.FrameHost``."""
        return self.stage(stage, config)(shard, context)


class ServeHost:
    """The resident deployments ``frames-<stage>`` of a Serve application.

    A call that was on its way to a replica that died is sent again: results are committed once, so doing it twice is harmless.
    """

    def __init__(self, app: str, *, timeout_s: float = 1800.0) -> None:
        self.app, self.timeout_s = app, timeout_s
        self._handles: dict[str, Any] = {}

    def __call__(self, stage: str, config: dict[str, Any], shard: Clip, context: Any) -> Clip:
        """See ``local.FrameHost``.

        Raises:
            StageFailed: No replica answered, again and again.
        """
        import ray
        from ray import serve
        from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

        lost = (
            ray.exceptions.ActorDiedError,
            ray.exceptions.ActorUnavailableError,
            ray.exceptions.WorkerCrashedError,
            ray.exceptions.ObjectLostError,
        )
        refs = ray.put(shard), ray.put(context)
        reason: Exception | None = None
        for pause in (*_AGAIN_S, 0.0):
            try:
                if stage not in self._handles:
                    self._handles[stage] = serve.get_deployment_handle(f"frames-{stage}", app_name=self.app)
                return self._handles[stage].frames.remote(config, *refs).result(timeout_s=self.timeout_s)
            except (*lost, BackPressureError, DeploymentUnavailableError) as error:
                self._handles.pop(stage, None)
                reason = error
                time.sleep(pause)
        raise StageFailed(
            f"the resident deployment frames-{stage} of '{self.app}' did not answer ({type(reason).__name__})",
            remedy="see `serve status`; raise its replicas, or use via: pool",
        ) from reason
