"""Signed records of where an export comes from: whose likeness, from which photo, with whose consent, made by what.

``identity`` is the key that an installation signs with, ``jws`` signs plain values, ``content`` puts a record into pictures and videos (C2PA), and
``seal`` decides which of both an export gets and checks either.
"""

from svad_ray.provenance.identity import Identity, identity
from svad_ray.provenance.seal import Checked, check, seal, seal_folder, sidecar

__all__ = ["Checked", "Identity", "check", "identity", "seal", "seal_folder", "sidecar"]
