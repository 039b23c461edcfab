"""Before the application is deployed: is there room for it, are the model files there? Fails in seconds, by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import ray

from svad_ray.cluster.config import ClusterConfig, selector
from svad_ray.cluster.preflight import check_models, everywhere, labelled, words
from svad_ray.cluster.serve_config import STEPS, Replicas, ServeArgs
from svad_ray.cluster.workers import picture_here
from svad_ray.errors import BackendUnavailable, WeightsMissing
from svad_ray.fulfil import find_kit

_SLACK = 1e-6


class Ask(NamedTuple):
    """``copies`` of something that must find room together with everything else."""

    name: str
    copies: int
    resources: dict[str, float]
    label: str


def asks(args: ServeArgs) -> list[Ask]:
    """What the application needs without load: its replicas, and the bundle of one avatar's task."""
    found = [
        Ask(name, numbers.least, {"CPU": numbers.cpus, "GPU": gpus_of(name, numbers, args)}, numbers.label)
        for name, numbers in args.deployments.items()
        if numbers.least
    ]
    return [*found, Ask("conducting.training", 1, {"CPU": 0.0, "GPU": 0.0, **args.conducting.training.bundle}, args.conducting.label)]


def gpus_of(name: str, numbers: Replicas, args: ServeArgs) -> float:
    """What is said, else one for a backend that runs on a GPU."""
    if numbers.gpus is not None or name not in STEPS:
        return numbers.gpus or 0.0
    kit = find_kit(args.kit)
    stage = kit.draw(args.settings.picture) if name == "picture" else kit.make(STEPS[name], args.settings.stage(STEPS[name]))
    return 1.0 if stage.backend.device == "cuda" else 0.0


def check_room(args: ServeArgs) -> None:
    """Compare what the application asks for with what the cluster has.

    Raises:
        BackendUnavailable: It would wait for ever; names what is short.
    """
    nodes: list[Mapping] = [node for node in ray.nodes() if node["Alive"]]
    wanted = asks(args)
    for ask in wanted:
        having = labelled(nodes, selector(ask.label))
        if not having:
            raise BackendUnavailable(
                f"no node has the label '{ask.label}' that {ask.name} asks for", expected=f"one of {len(nodes)} nodes", remedy="label a node so"
            )
        if not any(all(node["Resources"].get(kind, 0.0) + _SLACK >= amount for kind, amount in ask.resources.items()) for node in having):
            largest = {kind: max(node["Resources"].get(kind, 0.0) for node in having) for kind in ask.resources}
            raise BackendUnavailable(
                f"no node can hold one {ask.name}: it asks for {words(ask.resources)}, the largest node has {words(largest)}",
                remedy=f"lower the cpus or gpus of {ask.name}, or add nodes",
            )
    for label in dict.fromkeys(["", *(ask.label for ask in wanted)]):
        _check_sum([ask for ask in wanted if label in ("", ask.label)], labelled(nodes, selector(label)))


def _check_sum(wanted: Iterable[Ask], nodes: Iterable[Mapping]) -> None:
    needed, there = Counter[str](), Counter[str]()
    for ask in wanted:
        for kind, amount in ask.resources.items():
            needed[kind] += ask.copies * amount  # type: ignore[assignment]  # fractions
    for node in nodes:
        there.update({kind: node["Resources"].get(kind, 0.0) for kind in needed})
    for kind in needed:
        if needed[kind] > there[kind] + _SLACK:
            shares = ", ".join(f"{ask.name} {ask.copies} x {ask.resources[kind]:g}" for ask in wanted if ask.resources[kind])
            raise BackendUnavailable(
                f"the application needs {needed[kind]:g} {kind} at once, the cluster has {there[kind]:g}",
                expected=shares,
                remedy="use fewer replicas or smaller shares, or add nodes; otherwise something would wait for ever",
            )


def check_files(args: ServeArgs) -> None:
    """Every node finds or fetches the model files, and finds the folder of what draws. Raises ``WeightsMissing``."""
    stages = find_kit(args.kit).stages(args.settings)
    check_models(ClusterConfig(kit=args.kit), [stage.backend for stage in vars(stages).values()])
    if args.picture is not None and (wrong := everywhere(picture_here, args.settings.picture)):
        raise WeightsMissing(
            "the model that draws cannot be used: " + "; ".join(wrong), remedy="put the folder of picture.weights at the same place on every node"
        )
