"""What runs where: worker pools, the bundle of a training task, and limits. Defaults here, YAML is only their written form."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from svad_ray.config import Export, load_yaml
from svad_ray.errors import ConfigError, InputError

_FROZEN = ConfigDict(frozen=True, extra="forbid")


class Pool(BaseModel):
    """Workers of one kind, each an actor that holds its stages.

    Attributes:
        workers: How many; 0 = as many as the cluster's size asks for.
        cpus, gpus: Of one worker; a fraction shares a core or a GPU. Threads follow from ``cpus``.
        timeout_s: After so long one piece of work counts as hung and its worker is ended; 0 = never.
        memory_gib: Resident memory above which a worker is ended; 0 = any.
        via: Frame work only: do it in the pool, or in the resident Serve deployment.
    """

    model_config = _FROZEN
    workers: int = Field(default=0, ge=0)
    cpus: float = Field(default=1.0, ge=0)
    gpus: float = Field(default=0.0, ge=0)
    timeout_s: float = Field(default=1800.0, ge=0)
    memory_gib: float = Field(default=0.0, ge=0)
    via: Literal["pool", "serve"] = "pool"


class Training(BaseModel):
    """Fit and avatar of one subject: one STRICT_PACK bundle.

    Attributes:
        at_once: At most so many subjects; 0 = as many as fit.
        cpus, gpus: Of the bundle. timeout_s, memory_gib: As of a pool.
        checkpoint_s: Seconds between kept states.
    """

    model_config = _FROZEN
    at_once: int = Field(default=0, ge=0)
    cpus: float = Field(default=1.0, gt=0)
    gpus: float = Field(default=0.0, ge=0)
    timeout_s: float = Field(default=6 * 3600.0, ge=0)
    memory_gib: float = Field(default=0.0, ge=0)
    checkpoint_s: float = Field(default=30.0, gt=0)

    @property
    def bundle(self) -> dict[str, float]:
        """Resources of the placement group's one bundle."""
        return {"CPU": self.cpus} | ({"GPU": self.gpus} if self.gpus else {})


class Windows(BaseModel):
    """Actors over which the denoising of one clip is spread (``cluster.diffusion``), for each worker of the generate pool.

    Attributes:
        workers: How many; 0 = the generate worker does it by itself.
        cpus, gpus: Of one actor.
    """

    model_config = _FROZEN
    workers: int = Field(default=0, ge=0)
    cpus: float = Field(default=1.0, ge=0)
    gpus: float = Field(default=0.0, ge=0)


class ClusterConfig(BaseModel):
    """A bulk run.

    Attributes:
        generate: Perceive and animate, a subject at a time. fuse: Identity, a block of frames at a time. restore: Restoration, likewise.
        train: Fit and avatar. windows: Helpers of a generate worker whose backend is MusePose.
        exports: Written for every subject besides the avatar folder: "ply", "gltf", "mesh", "turntable", "report".
        kit: "module:attribute" of a ``svad_ray.fulfil.Kit`` with backends of your own; empty = the product's.
        app: Name of the Serve application that ``via: serve`` calls.
        label: Only nodes with this label "key=value" are used; empty = all.
        status_every_s: Seconds between two writings of the status table.
        stall_s: When the frame pools have said nothing for so long and nothing else runs, the training tasks do the rest; 0 = twice the longest
            time limit of the pools, and two minutes.
    """

    model_config = _FROZEN
    generate: Pool = Pool()
    fuse: Pool = Pool()
    restore: Pool = Pool()
    train: Training = Training()
    windows: Windows = Windows()
    exports: tuple[Export, ...] = ("ply",)
    kit: str = ""
    app: str = "svad-ray"
    label: str = ""
    status_every_s: float = Field(default=60.0, gt=0)
    stall_s: float = Field(default=0.0, ge=0)

    @property
    def label_selector(self) -> dict[str, str]:
        """The label as Ray wants it."""
        return selector(self.label)


def selector(label: str) -> dict[str, str]:
    """A label "key=value" as Ray wants it; empty for ""."""
    key, _, value = label.partition("=")
    return {key: value} if key else {}


POOLS = ("generate", "fuse", "restore")
_SHARES = {"generate": 0.4, "fuse": 0.1, "restore": 0.1}  # of a subject's core seconds in the embedded profile; training has the rest
_SMALL = {"generate": 0.5, "fuse": 0.25, "restore": 0.25}  # of the one core that is left beside training on a machine of two to four


def sized(config: ClusterConfig, *, cpus: float) -> ClusterConfig:
    """``config`` with every ``workers: 0`` decided for a cluster of ``cpus`` cores; numbers that are given stay."""
    values: dict[str, Any] = {}
    for name in POOLS:
        pool: Pool = getattr(config, name)
        if pool.workers:
            continue
        small = cpus < 5 and "cpus" not in pool.model_fields_set
        count = 1 if small else max(1, int(_SHARES[name] * cpus / max(pool.cpus, 0.1)))
        values[name] = pool.model_copy(update={"workers": count, "cpus": _SMALL[name] if small else pool.cpus})
    return config.model_copy(update=values)


def load_cluster_config(path: str | Path | None = None, values: dict[str, Any] | None = None) -> ClusterConfig:
    """From a YAML file and nested plain values, which win.

    Raises:
        ConfigError: Unknown key or value out of range. InputError: The file cannot be read.
    """
    written: dict[str, Any] = {}
    if path:
        try:
            written = load_yaml(Path(path).read_text(encoding="utf-8")) or {}
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"the cluster configuration {path} cannot be read: {error}", remedy="check the path given to --cluster") from error
        except yaml.YAMLError as error:
            raise ConfigError(f"the cluster configuration {path} is not YAML: {error}", expected="see docs/cluster.md") from error
    if not isinstance(written, dict):
        raise ConfigError(f"the cluster configuration {path} holds a {type(written).__name__}", expected="a mapping")
    merged = {**written, **{k: {**written.get(k, {}), **v} if isinstance(v, dict) else v for k, v in (values or {}).items()}}
    try:
        return ClusterConfig.model_validate(merged)
    except ValidationError as error:
        first = error.errors()[0]
        dotted = ".".join(str(part) for part in first["loc"])
        raise ConfigError(
            f"{dotted} of the cluster configuration cannot be used: {first['msg']}", remedy="see docs/cluster.md for every key"
        ) from None
