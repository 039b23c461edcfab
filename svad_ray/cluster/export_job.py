"""Parts of a frames dataset as Ray tasks: one a part, anywhere in the cluster; a part that is done twice is the same bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import ray

from svad_ray.errors import StageFailed
from svad_ray.export.frames.dataset import Order, Record, export_part

ASKED_AT_ONCE = 200  # tasks that are known to Ray; the others wait here
RETRIES = 3


def export_parts(orders: Sequence[Order], *, num_cpus: float = 1.0, memory_gib: float = 2.0) -> Iterator[Record]:
    """The parts' records as they are done. Connect to a cluster first (``session.connect``).

    Args:
        num_cpus, memory_gib: What a part gets; it holds one shard and one subject's frames in memory.

    Raises:
        StageFailed: A part could not be written; those that were stay.
    """
    task = ray.remote(_one).options(num_cpus=num_cpus, memory=memory_gib * 1024**3, max_retries=RETRIES)
    waiting, running = list(orders), list[ray.ObjectRef]()
    try:
        while waiting or running:
            while waiting and len(running) < ASKED_AT_ONCE:
                running.append(task.remote(json.dumps(waiting.pop(0))))
            done, running = ray.wait(running, num_returns=1)
            said = ray.get(done[0])
            if said["error"]:
                raise StageFailed(
                    f"a part of the dataset could not be written: {said['error']}", remedy="mend that and run again; what is written stays"
                )
            yield json.loads(said["record"])
    finally:
        for ref in running:
            ray.cancel(ref)


def _one(order: str) -> dict[str, Any]:
    import torch

    from svad_ray.errors import SvadError

    torch.set_num_threads(1)
    try:
        return {"record": json.dumps(export_part(json.loads(order))), "error": ""}
    except SvadError as error:
        return {"record": "", "error": str(error)}
