"""What the endpoints are told: the service, and how many replicas of which size hold the models. The ``args`` of every file in serve_configs/."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator
from ray.serve.config import AutoscalingConfig

from svad_ray.cluster.config import Training
from svad_ray.config import Settings, override
from svad_ray.service.config import ServiceConfig

_FROZEN = ConfigDict(frozen=True, extra="forbid")
APP = "svad-ray"
STEPS = {"perceive": "perceive", "animate": "animate", "frames-identity": "identity", "frames-restore": "restore", "picture": "picture"}
"""Deployment -> the stage that it holds. ``picture`` is there only when it is asked for."""


class Replicas(BaseModel):
    """One deployment. The names of Serve's own options mean what they mean there.

    Attributes:
        num_replicas: How many, unless ``autoscaling_config`` says between which numbers.
        cpus: Of one replica. gpus: Likewise; None = one if the stage's backend runs on a GPU. A fraction shares it; it limits no GPU memory.
        threads: Of one replica; 0 = as many as ``cpus``, at least one.
        max_ongoing_requests: Calls that a replica accepts at once; it works on one and has the next at hand.
        max_queued_requests: Calls that each caller may have waiting beyond those; further ones are answered with 429. -1 = any.
        retry_after_s: What they are told to wait.
        graceful_shutdown_timeout_s: Longest time for calls in progress to end when a replica is stopped.
        hung_s: A call that takes longer counts as hung, and its replica is replaced.
        label: Only nodes with this label "key=value"; "" = any.
    """

    model_config = _FROZEN
    num_replicas: int = Field(default=1, ge=1)
    autoscaling_config: AutoscalingConfig | None = None
    cpus: float = Field(default=0.1, ge=0)
    gpus: float | None = Field(default=None, ge=0)
    threads: int = Field(default=0, ge=0)
    max_ongoing_requests: int = Field(default=2, ge=1)
    max_queued_requests: int = Field(default=8, ge=-1)
    retry_after_s: float = Field(default=2.0, ge=0)
    graceful_shutdown_timeout_s: float = Field(default=60.0, ge=0)
    hung_s: float = Field(default=1800.0, gt=0)
    label: str = ""

    @property
    def least(self) -> int:
        """Replicas that there are without load."""
        scaling = self.autoscaling_config
        return self.num_replicas if scaling is None else max(scaling.min_replicas, scaling.initial_replicas or 0)


class Conducting(BaseModel):
    """How avatars are made: each in a placement-grouped task, its models called in the resident deployments.

    Attributes:
        training: Bundle and limits of one avatar's task; ``at_once`` 0 = as many as fit.
        threads: Of the task; 0 = as many as the bundle has cores.
        waiting: Avatars that ask for a bundle at once while there is no room; more tell an autoscaler to add several nodes.
        lease_s: After a crash of the conductor its avatars are taken up again that much later.
        poll_s: Between two looks at the book for work that nobody told of.
        label: Only nodes with this label "key=value".
    """

    model_config = _FROZEN
    training: Training = Training()
    threads: int = Field(default=0, ge=0)
    waiting: int = Field(default=1, ge=1)
    lease_s: float = Field(default=20.0, gt=0)
    poll_s: float = Field(default=2.0, gt=0)
    label: str = ""


class ServeArgs(BaseModel):
    """All of the application. The defaults are those of two CPU cores; a deployment that is given in part keeps the rest of its defaults.

    Attributes:
        service: The HTTP side, see ``service.config``; ``store`` must be named. Paths are taken as seen from the nodes.
        kit: "module:attribute" of a ``svad_ray.fulfil.Kit`` with backends of your own; "" = the product's.
        offline, cache_dir: As in the settings, on every node.
        gateway: The HTTP replicas; they hold no model.
        perceive, animate, identity, restore: The resident stages. renderer: Poses and draws finished avatars.
        picture: What draws and edits photos by ``picture.weights`` of the service's settings; None = the task of each avatar that needs it loads it.
        conducting: The tasks that make avatars.
        preflight: Refuse to deploy what the cluster has no room for now; off where nodes are added on demand.
    """

    model_config = _FROZEN
    service: ServiceConfig
    kit: str = ""
    offline: bool = False
    cache_dir: str = ""
    gateway: Replicas = Replicas(cpus=0, max_ongoing_requests=100, max_queued_requests=200, graceful_shutdown_timeout_s=20)
    perceive: Replicas = Replicas(cpus=0.1, threads=2)
    animate: Replicas = Replicas(cpus=0.3, threads=2, max_ongoing_requests=1, hung_s=7200)
    identity: Replicas = Replicas(cpus=0.2, threads=2, max_ongoing_requests=4)
    restore: Replicas = Replicas(cpus=0.2, threads=2, max_ongoing_requests=4)
    renderer: Replicas = Replicas(cpus=0.2, threads=2)
    picture: Replicas | None = None
    conducting: Conducting = Conducting(training=Training(cpus=1, at_once=1), threads=2)
    preflight: bool = True

    @model_validator(mode="before")
    @classmethod
    def _completed(cls, values: Any) -> Any:
        """A deployment's missing numbers are its own defaults; "~" in paths is the home folder."""
        if not isinstance(values, dict):
            return values
        values = {name: _merged(_default(cls, name), value) for name, value in values.items()}
        service = values.get("service")
        if isinstance(service, dict):
            values["service"] = {name: _whole(value) if name in _PATHS else value for name, value in service.items()}
        return values

    @model_validator(mode="after")
    def _something_to_draw_with(self) -> ServeArgs:
        if self.picture is not None and not self.settings.picture.weights:
            raise ValueError("a deployment 'picture' needs the model that draws: service.settings has no 'picture.weights'")
        return self

    @property
    def settings(self) -> Settings:
        """What avatars are made with where the caller says nothing, on this machine."""
        return override(self.service.base_settings(), {"offline": self.offline, "cache_dir": self.cache_dir})

    @property
    def deployments(self) -> dict[str, Replicas]:
        """Name -> its numbers, the conductor aside."""
        named = {name: numbers for name, field in STEPS.items() if (numbers := getattr(self, field)) is not None}
        return {**named, "renderer": self.renderer, "gateway": self.gateway}


_PATHS = ("store", "tokens_file", "webhook_secret_file")


def _default(model: type[BaseModel], name: str) -> Any:
    default = model.model_fields[name].default if name in model.model_fields else None
    return default.model_dump(exclude_unset=True) if isinstance(default, BaseModel) else None


def _merged(default: Any, value: Any) -> Any:
    if not (isinstance(default, dict) and isinstance(value, dict)):
        return value
    return {**default, **{name: _merged(default.get(name), one) for name, one in value.items()}}


def _whole(path: Any) -> Any:
    """Replicas have other working folders: a relative path would mean another place on each."""
    if not isinstance(path, str) or not path or "://" in path or "::" in path:
        return path
    whole = Path(path).expanduser()
    if not whole.is_absolute():
        raise ValueError(f"the path '{path}' is relative; replicas run in other folders, so write it in full or beginning with ~")
    return str(whole)
