"""The HTTP application: every part put together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
from fastapi import APIRouter, FastAPI, Response
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from svad_ray import __version__
from svad_ray.errors import ConfigError
from svad_ray.service import avatars, calls, files
from svad_ray.service.addresses import Resolver, system_resolver
from svad_ray.service.answers import install, responses
from svad_ray.service.book import AvatarBook
from svad_ray.service.config import ServiceConfig
from svad_ray.service.engine import Engine
from svad_ray.service.guard import Service, TheCaller, TheService
from svad_ray.service.middleware import Guarded
from svad_ray.service.tokens import Tokens
from svad_ray.service.webhooks import Courier

_log = logging.getLogger(__name__)
COURIER_EVERY_S, SWEEP_EVERY_S = 2.0, 600.0
system = APIRouter(prefix="/v1", tags=["system"])


class Health(BaseModel):
    """The process answers."""

    status: str = "ok"
    version: str = __version__


class Ready(BaseModel):
    """Which parts can work now."""

    ready: bool
    parts: dict[str, bool]


class Models(BaseModel):
    """What does the work: one entry a backend."""

    models: list[dict[str, Any]]


@system.get("/health", response_model=Health, summary="Is the process alive? (no token)")
async def health() -> Health:
    """Answers at once, whatever the store and the workers do."""
    return Health()


@system.get("/ready", response_model=Ready, responses={503: {"model": Ready}}, summary="Can it take work? (no token)")
async def ready(service: TheService, response: Response) -> Ready:
    """503 until every part can."""
    parts = {"store": await _store_answers(service), **await service.engine.ready()}
    response.status_code = 200 if all(parts.values()) else 503
    return Ready(ready=all(parts.values()), parts=parts)


@system.get("/models", response_model=Models, responses=responses(), summary="Backends and models behind the service")
async def models(caller: TheCaller, service: TheService) -> Models:
    """Names, licences, and what is resident."""
    return Models(models=await service.engine.models())


async def _store_answers(service: Service) -> bool:
    with suppress(Exception):
        async with asyncio.timeout(5):
            await anyio.to_thread.run_sync(service.book.files.names, "tombstones", abandon_on_cancel=True, limiter=service.store_threads)
            return True
    return False


def build_app(config: ServiceConfig, book: AvatarBook, engine: Engine, *, resolver: Resolver = system_resolver) -> FastAPI:
    """The application. It starts and closes ``engine``, calls webhooks and sweeps the book while it runs.

    Args:
        resolver: Name -> addresses, for photos and webhooks.

    Raises:
        ConfigError: Tokens are required but there is no file for them; webhooks are allowed but there is no secret.
    """
    if config.require_tokens and not config.tokens_file:
        remedy = "name tokens_file, or set require_tokens: false where something else guards the port"
        raise ConfigError("the service requires tokens, but knows of none", expected="tokens_file", remedy=remedy)
    config.base_settings()
    service = Service(config, book, engine, Tokens(config.tokens_file) if config.require_tokens else None, resolver)
    courier = None
    if config.webhook_hosts:
        courier = Courier(book, service.webhook_rules, config.webhook_secret(), config.webhook_waits_s, resolver=resolver)
    app = FastAPI(
        title="svad-ray", version=__version__, lifespan=_lifespan(service, courier), docs_url=None, redoc_url=None, openapi_url="/v1/openapi.json"
    )
    app.state.service = service
    for router in (avatars.router, files.router, calls.router, system):
        app.include_router(router)
    hide = (book.root, book.files.root)
    install(app, hide=hide)
    app.add_middleware(Guarded, config=config, hide=hide)
    _describe(app)
    return app


def _lifespan(service: Service, courier: Courier | None) -> Callable[[FastAPI], Any]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await service.engine.start()
        chores = [asyncio.create_task(_every(SWEEP_EVERY_S, lambda: service.store(service.book.sweep)))]
        if courier is not None:
            chores.append(asyncio.create_task(_every(COURIER_EVERY_S, lambda: service.store(courier.deliver_due))))
        try:
            yield
        finally:
            for chore in chores:
                chore.cancel()
            await asyncio.gather(*chores, return_exceptions=True)
            await service.engine.close()

    return lifespan


async def _every(seconds: float, chore: Callable[[], Awaitable[Any]]) -> None:
    """Do a chore again and again; one that fails is logged and tried at the next time."""
    while True:
        try:
            await chore()
        except Exception:
            _log.exception("a chore of the service failed")
        await asyncio.sleep(seconds)


def _describe(app: FastAPI) -> None:
    """Add to the OpenAPI description what the signatures do not say."""

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(title=app.title, version=app.version, routes=app.routes, description=__doc__)
            _, extra = models_json_schema([(model, "validation") for model in avatars.BODY_MODELS], ref_template="#/components/schemas/{model}")
            schema.setdefault("components", {}).setdefault("schemas", {}).update(extra.get("$defs", {}))
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign]
