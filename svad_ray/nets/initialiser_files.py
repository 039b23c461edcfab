"""What is said when a file of the networks is not there that give the paper's fit its first poses."""

from __future__ import annotations

from pathlib import Path

from svad_ray.errors import WeightsMissing
from svad_ray.nets.checkpoint import absent


def missing(path: Path, source: str, licence: str) -> WeightsMissing:
    """The error that names the file, where it comes from, and what to do without it."""
    remedy = "put it there, or leave fit.initialiser at track, which begins with the motion that drove the clip"
    return absent(path, source, licence, who="the initialiser 'hand4whole'", remedy=remedy)
