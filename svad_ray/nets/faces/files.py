"""What is said when a face network's file is not there."""

from __future__ import annotations

from pathlib import Path

from svad_ray.errors import WeightsMissing


def missing(path: Path, source: str, licence: str) -> WeightsMissing:
    """The error that names the file, where it comes from, and what to do without it."""
    return WeightsMissing(
        f"the restore backend 'bfrffusion' needs {path}, which is not there",
        expected=f"{path.name} from {source} ({licence})",
        remedy="put it there, or use the embedded backend: --set restore.backend=realesrgan",
    )
