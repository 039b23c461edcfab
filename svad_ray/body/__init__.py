"""The body: parameters in SMPL-X's terms to vertices, joints and named points.

``names`` holds the words, ``lbs`` the arithmetic, ``model`` the body, ``load`` its files, ``tables`` what vertices mean, ``makehuman`` the CC0
data that ``builder`` makes the open body from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from svad_ray.body.load import load_body
    from svad_ray.body.model import Body, BodyOutput

__all__ = ["Body", "BodyOutput", "load_body"]
_HOMES = {"load_body": "load", "Body": "model", "BodyOutput": "model"}


def __getattr__(name: str) -> Any:  # torch is imported when a body is wanted, not when its names are
    if name not in _HOMES:
        raise AttributeError(name)
    from importlib import import_module

    return getattr(import_module(f"svad_ray.body.{_HOMES[name]}"), name)
