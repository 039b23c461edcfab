"""Checkpoints that the user brings: which ones they are, and whether they are real."""

from __future__ import annotations

import hashlib
from pathlib import Path

from svad_ray.backends import Backend, ModelFile

RULE_MADE = "RULE_MADE_WEIGHTS.txt"
"""Lies in a folder of weights that come from a rule and not from training."""
_WEIGHTS = (".pth", ".pt", ".bin", ".ckpt", ".safetensors", ".onnx")
_EDGE = 1 << 20  # bytes at either end of a file that count


def is_rule_made(folder: str | Path) -> bool:
    """Do the weights in ``folder`` come from a rule?"""
    return bool(folder) and (Path(folder) / RULE_MADE).exists()


def fingerprint(folder: str | Path) -> dict[str, str]:
    """Relative path -> hash of size, first and last mebibyte of every weight file below ``folder``: which weights these are, in a moment.

    Empty for an empty name or a folder that is not there.
    """
    root = Path(folder)
    if not folder or not root.is_dir():
        return {}
    return {path.relative_to(root).as_posix(): edges(path) for path in sorted(root.rglob("*")) if path.suffix in _WEIGHTS}


def lacking_files(backend: Backend, folder: str | Path) -> list[ModelFile]:
    """The files of a backend that are not in ``folder``; all of them without one.

    A safetensors file stands for a file of the same stem; transformers writes its own under another stem.
    """
    return [file for file in backend.files if not folder or not any(_there(Path(folder) / name) for name in (file.name, file.or_else) if name)]


def _there(path: Path) -> bool:
    return path.exists() or path.with_suffix(".safetensors").exists() or (path.parent / "model.safetensors").exists()


def named_files(*paths: str) -> dict[str, str]:
    """Name -> hash, of those of the paths that exist: what a configuration names by path counts by its content; of folders by their JSON files."""
    return {Path(path).name: edges(Path(path)) if Path(path).is_file() else _folder(Path(path)) for path in paths if path and Path(path).exists()}


def _folder(path: Path) -> str:
    hashed = hashlib.sha256()
    for file in sorted(path.rglob("*.json")):
        hashed.update(f"{file.relative_to(path)} {edges(file)}\n".encode())
    return hashed.hexdigest()[:16]


def edges(path: Path) -> str:
    """Hash of a file's size, first and last mebibyte."""
    size = path.stat().st_size
    hashed = hashlib.sha256(str(size).encode())
    with path.open("rb") as stream:
        hashed.update(stream.read(_EDGE))
        stream.seek(max(0, size - _EDGE))
        hashed.update(stream.read(_EDGE))
    return hashed.hexdigest()[:16]
