"""Packages that are no part of the core: their tests are skipped where they are not installed, and fail where they must be."""

import importlib.util
import os

import pytest


def needs(package: str, *, extra: str) -> None:
    """Skip the calling module without ``package``; with SVAD_EXTRAS=required in the environment, fail."""
    if importlib.util.find_spec(package) is None:
        reason = f"'{package}' of the extra [{extra}] is not installed"
        if os.environ.get("SVAD_EXTRAS") == "required":
            pytest.fail(reason)
        pytest.skip(reason, allow_module_level=True)
