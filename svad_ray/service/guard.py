"""Who calls, and may they now? What every endpoint shares lies in ``Service``, kept in the application's state."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, TypeVar

import anyio
from anyio import CapacityLimiter
from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from svad_ray.service.addresses import Resolver, Rules, system_resolver
from svad_ray.service.answers import Unauthorized
from svad_ray.service.book import AvatarBook
from svad_ray.service.config import ServiceConfig
from svad_ray.service.engine import Busy, Engine
from svad_ray.service.tokens import ANONYMOUS, RateLimiter, Tokens

T = TypeVar("T")
STORE_THREADS, DECODE_THREADS = 32, 2
_bearer = HTTPBearer(auto_error=False, description="A token made with `svad-ray serve token add NAME`.")


@dataclass(frozen=True)
class Caller:
    """Who calls, and their limits."""

    name: str
    requests_per_minute: int
    open_avatars: int


@dataclass
class Service:
    """What the endpoints work with; one per application."""

    config: ServiceConfig
    book: AvatarBook
    engine: Engine
    tokens: Tokens | None
    resolver: Resolver = system_resolver
    rates: RateLimiter = field(default_factory=RateLimiter)
    streams: Counter[str] = field(default_factory=Counter)
    store_threads: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(STORE_THREADS))
    decode_threads: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(DECODE_THREADS))
    creating: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def store(self, call: Callable[..., T], *args: object, **options: object) -> T:
        """A blocking call to the book, in a thread: a slow store holds up nobody else."""
        return await anyio.to_thread.run_sync(partial(call, *args, **options), limiter=self.store_threads)

    async def decode(self, call: Callable[..., T], *args: object, **options: object) -> T:
        """Work on pixels, in one of few threads."""
        return await anyio.to_thread.run_sync(partial(call, *args, **options), limiter=self.decode_threads)

    @property
    def photo_rules(self) -> Rules:
        """From where photos may come."""
        c = self.config
        return Rules(c.uri_hosts, c.uri_schemes, c.private_hosts, c.fetch_timeout_s)

    @property
    def webhook_rules(self) -> Rules:
        """Whom the service may call."""
        c = self.config
        return Rules(c.webhook_hosts, c.webhook_schemes, c.private_hosts, c.fetch_timeout_s)


async def service_of(request: Request) -> Service:
    """The application's."""
    return request.app.state.service


async def caller_of(
    request: Request, service: Annotated[Service, Depends(service_of)], given: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Caller:
    """Who calls.

    Raises:
        Unauthorized: Nobody known. Busy: They called too often.
    """
    config, tokens = service.config, service.tokens
    if tokens is None:
        caller = Caller(ANONYMOUS, config.requests_per_minute, config.open_avatars)
    else:
        entry = await service.store(tokens.check, given.credentials) if given else None
        if entry is None:
            raise Unauthorized("the token is missing or not known", expected="Authorization: Bearer TOKEN", remedy="ask the operator for a token")
        caller = Caller(entry.name, entry.requests_per_minute or config.requests_per_minute, entry.open_avatars or config.open_avatars)
    request.state.caller = caller.name
    if wait_s := service.rates.wait_s(caller.name, caller.requests_per_minute):
        raise Busy.for_seconds(wait_s, f"more than {caller.requests_per_minute} requests a minute")
    return caller


TheService = Annotated[Service, Depends(service_of)]
TheCaller = Annotated[Caller, Depends(caller_of)]
