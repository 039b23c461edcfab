"""Content keys: equal work has an equal name, whoever does it and wherever."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

KEY_LENGTH = 32  # hex digits: 128 bits


@dataclass(frozen=True)
class Key:
    """Name of one artefact: the stage that makes it and the digest of everything it is made from."""

    stage: str
    digest: str

    def __str__(self) -> str:
        return f"{self.stage}/{self.digest}"

    @classmethod
    def parse(cls, text: str) -> Key:
        """The key that ``str`` wrote."""
        stage, _, digest = text.partition("/")
        return cls(stage, digest)


def content_key(
    stage: str,
    *,
    version: int,
    parameters: Mapping[str, Any],
    inputs: Sequence[str],
    models: Mapping[str, str] | None = None,
    body_id: str = "",
) -> Key:
    """The key of what ``stage`` makes.

    Args:
        stage: Name of the stage; letters, digits, "-" and "_" only, since it becomes a folder.
        version: Of the stage's own code; raised whenever its result changes.
        parameters: The stage's configuration, plain values.
        inputs: Keys (or digests) of everything it reads, in order.
        models: Model package -> version or hash.
        body_id: Which body file.
    """
    if not stage.replace("-", "").replace("_", "").isalnum():
        raise ValueError(f"{stage!r} cannot be a folder's name")
    whole = {
        "stage": stage,
        "version": version,
        "parameters": dict(parameters),
        "inputs": list(inputs),
        "models": dict(models or {}),
        "body": body_id,
    }
    text = json.dumps(whole, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return Key(stage, hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH])


def digest(*parts: str | bytes | np.ndarray) -> str:
    """Digest of strings, bytes and arrays (values, shape and type count)."""
    whole = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            head, data = f"array {part.dtype.str} {part.shape}", part.tobytes()
        else:
            head, data = type(part).__name__, part.encode() if isinstance(part, str) else part
        whole.update(f"{head} {len(data)}:".encode() + data)
    return whole.hexdigest()[:KEY_LENGTH]
