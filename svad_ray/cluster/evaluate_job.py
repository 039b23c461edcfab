"""Evaluation orders as Ray tasks: one subject a task, anywhere in the cluster; a subject that is measured twice counts once."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import ray

from svad_ray.protocols.orders import Failure, Order

RETRIES = 2


def measure_orders(orders: Sequence[Order], *, num_cpus: float = 1.0, num_gpus: float = 0.0, memory_gib: float = 6.0) -> Iterator[Failure | None]:
    """Each subject's failure, or None, as it is done. Connect to a cluster first (``session.connect``).

    Args:
        num_cpus, num_gpus, memory_gib: What a subject gets, for the whole pipeline and the measures.
    """
    task = ray.remote(_one).options(num_cpus=num_cpus, num_gpus=num_gpus, memory=memory_gib * 1024**3, max_retries=RETRIES)
    running = {task.remote(json.dumps(asdict(order)), max(1, round(num_cpus))): order for order in orders}
    try:
        while running:
            (done,), _ = ray.wait(list(running), num_returns=1)
            order = running.pop(done)
            try:
                said = ray.get(done)
            except ray.exceptions.RayError as error:
                said = {"error": f"its worker was lost: {str(error).splitlines()[0]}"}
            yield Failure(order.subject, said["error"]) if said["error"] else None
    finally:
        for reference in running:
            ray.cancel(reference)


def _one(order: str, threads: int) -> dict[str, Any]:
    import torch

    from svad_ray.errors import SvadError
    from svad_ray.protocols.orders import measured

    torch.set_num_threads(threads)
    told = json.loads(order)
    told["inputs"] = tuple(told["inputs"])
    told["settings"] = told["settings"] and {**told["settings"], "threads": threads}
    try:
        measured(Order(**told))
    except SvadError as error:
        return {"error": str(error).replace("\n", " ")}
    return {"error": ""}
