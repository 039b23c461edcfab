"""Parts of a frames dataset on Ray Data: one task a part, anywhere in the cluster; a part that is done twice is the same bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import ray

from svad_ray.errors import StageFailed
from svad_ray.export.frames.dataset import Order, Record, export_part


def export_parts(orders: Sequence[Order], *, num_cpus: float = 1.0, memory_gib: float = 2.0) -> Iterator[Record]:
    """The parts' records as they are done. Connect to a cluster first (``session.connect``).

    Args:
        num_cpus, memory_gib: What a part gets; it holds one shard and one subject's frames in memory.

    Raises:
        StageFailed: A part could not be written; those that were stay.
    """
    if not orders:
        return
    rows = [{"order": json.dumps(order)} for order in orders]
    parts = ray.data.from_items(rows, override_num_blocks=len(rows)).map(_one, num_cpus=num_cpus, memory=memory_gib * 1024**3)
    for row in parts.iter_rows():
        if row["error"]:
            raise StageFailed(f"a part of the dataset could not be written: {row['error']}", remedy="mend that and run again; what is written stays")
        yield json.loads(row["record"])


def _one(row: dict[str, Any]) -> dict[str, Any]:
    import torch

    from svad_ray.errors import SvadError

    torch.set_num_threads(1)
    try:
        return {"record": json.dumps(export_part(json.loads(row["order"]))), "error": ""}
    except SvadError as error:
        return {"record": "", "error": str(error)}
