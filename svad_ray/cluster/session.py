"""Joining a Ray cluster, or starting one on this machine: private, authenticated, quiet."""

from __future__ import annotations

import logging
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from svad_ray.errors import BackendUnavailable
from svad_ray.usage import cores

_HOME_TOKEN = Path.home() / ".ray" / "auth_token"


@contextmanager
def session(address: str | None = None, **options: Any) -> Iterator[None]:
    """``connect``, and leave at the end; a cluster that was started here ends with it, one that was joined or found stays."""
    import ray

    ours = not ray.is_initialized()
    connect(address, **options)
    try:
        yield
    finally:
        if ours:
            ray.shutdown()


def connect(address: str | None = None, **options: Any) -> None:
    """Join the cluster at ``address`` (or the one that a submitted job runs in), else start one here with a token of its own.

    Does nothing when this process is connected already. Ray takes the machine's own address even when told the loopback interface, so it is the token
    that keeps others out (docs/cluster.md, Security).

    Args:
        address: "auto" or "host:port"; None = RAY_ADDRESS, else a new local one.
        options: For ``ray.init``: num_cpus, num_gpus, object_store_memory, ...

    Raises:
        BackendUnavailable: There is no cluster at ``address``, or one was to be started by a process that imported ray before ``svad_ray.cluster``.
    """
    if "ray" in sys.modules and sys.modules["ray"].is_initialized():
        return
    if not (address or os.environ.get("RAY_ADDRESS")):
        own_token()
    import ray

    address = address or os.environ.get("RAY_ADDRESS") or None
    common: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address is None:
        common |= {"address": "local", "num_cpus": cores(), "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    else:
        common |= {"address": address}
    try:
        ray.init(**{**common, **options})
    except ConnectionError as error:
        remedy = "start one with `ray start --head`, or leave --address out to use this machine alone"
        raise BackendUnavailable(f"no Ray cluster answers at '{address}' ({error})", remedy=remedy) from error
    except ray.exceptions.AuthenticationError as error:
        remedy = "set RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH, to the token that it was started with"
        raise BackendUnavailable(f"the Ray cluster at '{address}' lets nobody in without its token", remedy=remedy) from error
    quiet()


def own_token() -> None:
    """Give the cluster that starts here a token of its own, known to this process and its children only, when none is at hand."""
    if "RAY_AUTH_MODE" not in os.environ:
        raise BackendUnavailable(
            "ray was imported before svad_ray.cluster, so that its authentication is fixed and off",
            remedy="import svad_ray.cluster first, or set RAY_AUTH_MODE=token (or disabled) in the environment",
        )
    at_hand = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH") or _HOME_TOKEN.exists()
    if os.environ["RAY_AUTH_MODE"] == "token" and not at_hand:
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def quiet() -> None:
    """Ray Data and Serve say only what is wrong; what a person wants to see is our own progress view."""
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    for name in ("ray.data", "ray.serve"):
        logging.getLogger(name).setLevel(logging.WARNING)


def alive_nodes() -> set[str]:
    """Ids of the nodes that are part of the cluster now."""
    import ray

    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


def this_node() -> str:
    """Id of the node that this process is on."""
    import ray

    return ray.get_runtime_context().get_node_id()


def assigned_cpus() -> float:
    """Cores that Ray gave to this worker."""
    import ray

    return float(ray.get_runtime_context().get_assigned_resources().get("CPU", 0.0))
