"""The endpoints: the application that every file in serve_configs/ names as ``svad_ray.cluster.serving:build``.

::

    gateway (HTTP, no models) -> book of avatars <- conductor -> placement-grouped task per avatar
       |                                                            |
       +-> renderer, perceive, frames-restore      picture, perceive, animate, frames-identity, frames-restore
"""

# No "from __future__ import annotations" here: Serve looks at the annotation of build's argument itself, not at its text.

import logging
from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.config import BackpressureConfig

from svad_ray.cluster.conductor import Conductor
from svad_ray.cluster.config import selector
from svad_ray.cluster.serve_config import APP, STEPS, ServeArgs
from svad_ray.cluster.serve_engine import RayEngine
from svad_ray.cluster.serve_preflight import check_room, gpus_of
from svad_ray.cluster.serve_residents import AnimateResident, FramesResident, PerceiveResident, PictureResident, RendererResident

__all__ = ["APP", "Gateway", "ServeArgs", "build"]
HEALTH_PERIOD_S, HEALTH_TIMEOUT_S = 5.0, 30.0
_CLASSES: dict[str, type] = {
    "perceive": PerceiveResident,
    "animate": AnimateResident,
    "frames-identity": FramesResident,
    "frames-restore": FramesResident,
    "picture": PictureResident,
    "renderer": RendererResident,
}


class Gateway:
    """The HTTP side: ``service.app`` with an engine that calls the deployments. Any replica answers for any avatar."""

    def __init__(self, args: ServeArgs, handles: dict[str, Any]) -> None:
        self.args, self.handles = args, handles

    def __serve_build_asgi_app__(self) -> Any:
        """Called by Serve once the replica is there."""
        from svad_ray.service.app import build_app
        from svad_ray.service.book import AvatarBook

        logging.getLogger("svad_ray").setLevel(logging.INFO)
        engine = RayEngine(self.args, self.handles, serve.get_replica_context().app_name)
        return build_app(self.args.service, AvatarBook(self.args.service.store), engine)


def build(args: ServeArgs) -> Application:
    """The application.

    Raises:
        BackendUnavailable: The cluster has no room for it. ConfigError: The service's configuration is incomplete.
    """
    if args.preflight:
        check_room(args)
    handles = {name: _deployment(kind, name, args).bind(*_arguments(name, args)) for name, kind in _CLASSES.items() if name in args.deployments}
    conductor = serve.deployment(
        name="conductor",
        num_replicas=1,
        max_ongoing_requests=1000,
        ray_actor_options=_actor(0, 0, args.conducting.label),
        graceful_shutdown_wait_loop_s=0.5,
        graceful_shutdown_timeout_s=90,
        health_check_period_s=HEALTH_PERIOD_S,
        health_check_timeout_s=HEALTH_TIMEOUT_S,
    )(Conductor)
    handles["conductor"] = conductor.bind(args)
    return _deployment(serve.ingress()(Gateway), "gateway", args).bind(args, handles)


def _arguments(name: str, args: ServeArgs) -> tuple[Any, ...]:
    return (args, name) if name in STEPS else (args,)


def _deployment(kind: type, name: str, args: ServeArgs) -> Any:
    numbers = args.deployments[name]
    scaled: dict[str, Any] = (
        {"autoscaling_config": numbers.autoscaling_config} if numbers.autoscaling_config else {"num_replicas": numbers.num_replicas}
    )
    return serve.deployment(
        name=name,
        **scaled,
        max_ongoing_requests=numbers.max_ongoing_requests,
        max_queued_requests=numbers.max_queued_requests,
        backpressure_config=BackpressureConfig(status_code=429, retry_after_s=numbers.retry_after_s),
        ray_actor_options=_actor(numbers.cpus, gpus_of(name, numbers, args), numbers.label),
        graceful_shutdown_wait_loop_s=0.5,
        graceful_shutdown_timeout_s=numbers.graceful_shutdown_timeout_s,
        health_check_period_s=HEALTH_PERIOD_S,
        health_check_timeout_s=HEALTH_TIMEOUT_S,
    )(kind)


def _actor(cpus: float, gpus: float, label: str) -> dict[str, Any]:
    chosen = {"label_selector": selector(label)} if label else {}
    return {"num_cpus": cpus, "num_gpus": gpus, **chosen}
