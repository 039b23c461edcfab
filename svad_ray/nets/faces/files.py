"""What is said when a face network's file is not there."""

from __future__ import annotations

from pathlib import Path

from svad_ray.errors import WeightsMissing
from svad_ray.nets.checkpoint import absent


def missing(path: Path, source: str, licence: str) -> WeightsMissing:
    """The error that names the file, where it comes from, and what to do without it."""
    remedy = "put it there, or use the embedded backend: --set restore.backend=realesrgan"
    return absent(path, source, licence, who="the restore backend 'bfrffusion'", remedy=remedy)
