"""Serving from one command: a file of serve_configs/, this machine (or a cluster), and an orderly end."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from svad_ray.cluster.serve_config import APP, ServeArgs
from svad_ray.errors import BackendUnavailable, ConfigError, InputError

IMPORT_PATH = "svad_ray.cluster.serving:build"
DEFAULT_STORE, DEFAULT_TOKENS = "~/svad-ray-store", "~/svad-ray-tokens.json"


@dataclass(frozen=True)
class Plan:
    """What is deployed, and where it listens.

    Attributes:
        args: Of the application. name, route_prefix: The application's.
        http: Serve's HTTP options. proxy_location: On which nodes it listens.
    """

    args: ServeArgs
    name: str
    route_prefix: str
    http: Mapping[str, Any]
    proxy_location: str

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{self.http['host']}:{self.http['port']}{self.route_prefix.rstrip('/')}"


def read_plan(path: str | Path | None, service: Mapping[str, Any], values: Mapping[str, Any]) -> Plan:
    """From a file of serve_configs/ (None = the defaults, which are those of embedded.yaml) and values that win.

    Args:
        service: Values of the service's configuration; host and port are where the server listens.
        values: Other values of the application's arguments.

    Raises:
        ConfigError: The file is not for this application, or says something that cannot be. InputError: It cannot be read.
    """
    from ray.serve.schema import ServeDeploySchema

    written = (
        _read(path) if path else {"proxy_location": "HeadOnly", "applications": [{"name": APP, "route_prefix": "/", "import_path": IMPORT_PATH}]}
    )
    try:
        schema = ServeDeploySchema.model_validate(written)
        application = _application(schema, path)
        given = dict(application.args) if isinstance(application.args, dict) else application.args.model_dump()
        merged = {"store": DEFAULT_STORE, "tokens_file": DEFAULT_TOKENS, **given.get("service", {}), **service}
        args = ServeArgs.model_validate({**given, **values, "service": merged})
    except ValidationError as error:
        first = error.errors()[0]
        dotted = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{dotted or 'the serving configuration'} cannot be used: {first['msg']}", remedy="see docs/serving.md") from None
    http = {**schema.http_options.model_dump(exclude_unset=True)}
    http |= {name: service.get(name) or http.get(name) or getattr(args.service, name) for name in ("host", "port")}
    return Plan(args, application.name, application.route_prefix or "/", http, schema.proxy_location.value)


def _application(schema: Any, path: str | Path | None) -> Any:
    found = [one for one in schema.applications if one.import_path == IMPORT_PATH]
    if len(schema.applications) != 1 or not found:
        raise ConfigError(f"{path} is not for one application with import_path {IMPORT_PATH}", remedy="use `serve deploy` for other files")
    if found[0].deployments:
        raise ConfigError(f"{path} overrides deployments", expected="their numbers under args", remedy="see serve_configs/autoscale.yaml")
    return found[0]


def _read(path: str | Path) -> dict[str, Any]:
    try:
        written = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the serving configuration {path} cannot be read: {error}", remedy="check the path given to --config") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"the serving configuration {path} is not YAML: {error}", remedy="see serve_configs/embedded.yaml") from error
    if not isinstance(written, dict):
        raise ConfigError(f"the serving configuration {path} holds a {type(written).__name__}", expected="a mapping")
    return written


@contextmanager
def deployed(plan: Plan, *, address: str | None = None, options: Mapping[str, Any] | None = None) -> Iterator[str]:
    """The application answers inside the body; at its end requests are finished and everything that was started here is ended.

    Args:
        address: A Ray cluster; None = one is started on this machine, for the time of the body.
        options: For ``ray.init``.

    Yields:
        The address where it answers.

    Raises:
        BackendUnavailable: No room, or the port is taken. WeightsMissing: A node has not the model files.
    """
    import ray

    from svad_ray.cluster.session import session

    joins = ray.is_initialized() or address or os.environ.get("RAY_ADDRESS")
    if not joins:
        _check_port(plan)
    if plan.args.offline:
        os.environ["SVAD_OFFLINE"] = "1"
    if plan.args.cache_dir:
        os.environ["SVAD_CACHE"] = plan.args.cache_dir
    with session(address, **(options or {})):
        yield from _run(plan, ends_serve=not joins)


def _run(plan: Plan, *, ends_serve: bool) -> Iterator[str]:
    from ray import serve

    from svad_ray.cluster.serve_preflight import check_files, check_room
    from svad_ray.cluster.serving import build
    from svad_ray.store.files import Files

    if plan.args.preflight:
        check_room(plan.args)
        Files(plan.args.service.store).probe()
        check_files(plan.args)
    try:
        serve.start(proxy_location=plan.proxy_location, http_options=dict(plan.http), logging_config={"enable_access_log": False})
        serve.run(build(plan.args), name=plan.name, route_prefix=plan.route_prefix)
        yield plan.url
    finally:
        with suppress(Exception):
            serve.delete(plan.name)
        if ends_serve:
            with suppress(Exception):
                serve.shutdown()


def _check_port(plan: Plan) -> None:
    """Serve would report a taken port much later, from inside an actor."""
    host, port = str(plan.http["host"]), int(plan.http["port"])
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise BackendUnavailable(f"{host}:{port} cannot be listened on ({error.strerror})", remedy="choose another with --port") from error
