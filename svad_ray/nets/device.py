"""Where networks run, and in which precision: the one place that asks for a GPU."""

from __future__ import annotations

from typing import Any


def device_and_dtype(wanted: str) -> tuple[str, Any]:
    """Device and torch dtype for a configured dtype: a GPU if there is one, float16 on it."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "auto":
        wanted = "float16" if device == "cuda" else "float32"
    return device, getattr(torch, wanted)


def training_device(device: str = "auto", precision: str = "auto") -> tuple[Any, Any]:
    """Device of a training, and the dtype of its networks' matrix products there; None = float32.

    Args:
        device: "auto" = a GPU that gsplat can draw on, else the CPU; or "cpu", "cuda".
        precision: "auto" = bfloat16 where the device multiplies such matrices itself; or "float32", "bfloat16".

    Raises:
        BackendUnavailable: "cuda" was asked for, and there is no GPU.
    """
    import torch

    from svad_ray.errors import BackendUnavailable

    if device == "cuda" and not torch.cuda.is_available():
        raise BackendUnavailable(
            "avatar.device is cuda, but torch sees no GPU", expected="a CUDA GPU and a torch built for it", remedy="avatar.device: cpu"
        )
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    found = torch.device(device)
    half = _multiplies_halves(found.type) if precision == "auto" else precision == "bfloat16"
    return found, torch.bfloat16 if half else None


def _multiplies_halves(kind: str) -> bool:
    """Whether a GPU or this CPU has instructions for products of bfloat16: without them they are slower than those of float32."""
    import torch

    if kind == "cuda":
        return torch.cuda.is_bf16_supported()
    found = torch.cpu.get_capabilities()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))
