"""Where brought networks run, and in which precision."""

from __future__ import annotations

from typing import Any


def device_and_dtype(wanted: str) -> tuple[str, Any]:
    """Device and torch dtype for a configured dtype: a GPU if there is one, float16 on it."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "auto":
        wanted = "float16" if device == "cuda" else "float32"
    return device, getattr(torch, wanted)
