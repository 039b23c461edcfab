"""Artefacts: what a stage made, kept under a key made of everything it was made from.

``codec`` turns dataclasses into files and back, ``keys`` names them, ``artefacts`` commits them, ``avatar_folder`` is the product's own format.
"""

from svad_ray.store.artefacts import ArtefactStore, Committed
from svad_ray.store.avatar_folder import load_avatar, save_avatar
from svad_ray.store.keys import Key, content_key, digest

__all__ = ["ArtefactStore", "Committed", "Key", "content_key", "digest", "load_avatar", "save_avatar"]
