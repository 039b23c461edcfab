"""Which photos an avatar shows somebody by: all that it was made of, and the one that an edit began with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from svad_ray.subject import Photo


def photo_hashes(facts: Mapping[str, Any]) -> list[str]:
    """sha256 of every photo that an avatar's provenance names, the first one first, each once."""
    first = facts.get("photo") or {}
    named = [first, *(facts.get("photos") or ()), (first.get("origin") or {}).get("edited_from") or {}]
    return list(dict.fromkeys(one["sha256"] for one in named if one.get("sha256")))


def hashes_of(photo: Photo) -> list[str]:
    """The same of a photo with its further ones."""
    return photo_hashes({"photo": {"sha256": photo.sha256, "origin": photo.origin}, "photos": [{"sha256": one.sha256} for one in photo.also]})
