"""All results on one page, put together from what evaluations wrote and from nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from svad_ray.errors import InputError
from svad_ray.export.atomic import atomic_path
from svad_ray.protocols.results import MARKDOWN
from svad_ray.store.files import Files

_HEAD = """# Results

Written by `svad-ray evaluate page`, never by hand: every table is what the command under it wrote. With the same seed and version it writes the
same digits, times excepted. What the figures mean and what they cannot say: [evaluate.md](evaluate.md).
"""


def write_results_page(outs: Sequence[str], path: Path, command: str) -> None:
    """Write the page of the evaluations in ``outs``.

    Raises:
        InputError: One of them holds no table.
    """
    parts = [_HEAD]
    for out in outs:
        content = Files(out).read(MARKDOWN)
        if content is None:
            raise InputError(f"{out} holds no {MARKDOWN}", expected="an output folder of `svad-ray evaluate`", remedy="run the evaluation first")
        parts.append("#" + content.decode().rstrip() + "\n")
    parts.append(f"This page:\n\n```\n{command}\n```\n")
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(parts), encoding="utf-8")
