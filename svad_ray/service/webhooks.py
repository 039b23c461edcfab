"""Telling a caller's server that an avatar ended: signed, tried again for a while, at least once.

``Svad-Signature: t=<unix seconds>,v1=<hex>`` with v1 = HMAC-SHA256(secret, "<t>.<body>"). Check it in constant time and refuse an old t.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import time
from collections.abc import Callable
from typing import Any

from svad_ray.errors import SvadError
from svad_ray.service.addresses import Resolver, Rules, post, system_resolver
from svad_ray.service.book import AvatarBook
from svad_ray.service.records import AvatarRecord

_log = logging.getLogger(__name__)


def signature(secret: bytes, timestamp: int, body: bytes) -> str:
    """The signature header's value."""
    mac = hmac.new(secret, f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={timestamp},v1={mac}"


def notice(record: AvatarRecord) -> bytes:
    """What is sent."""
    says: dict[str, Any] = {
        "id": record.id,
        "state": record.state,
        "ended_at": record.ended_at,
        "reason": record.reason,
        "warnings": list(record.warnings),
    }
    return json.dumps(says).encode()


class Courier:
    """Sends what is due. Several may run at once: each try is taken by one of them.

    Args:
        book: Where tries are recorded. rules: Whom it may reach. secret: Signs.
        waits_s: Seconds between tries; one more try than waits.
        clock: Unix seconds.
    """

    def __init__(
        self,
        book: AvatarBook,
        rules: Rules,
        secret: bytes,
        waits_s: tuple[float, ...],
        *,
        clock: Callable[[], float] = time.time,
        resolver: Resolver = system_resolver,
    ) -> None:
        self.book, self.rules, self.secret, self.waits_s, self.clock, self.resolver = book, rules, secret, waits_s, clock, resolver

    def deliver_due(self) -> int:
        """Try everything whose time has come; returns how many arrived."""
        return sum(self._try(record) for record in self.book.to_notify())

    def _try(self, record: AvatarRecord) -> bool:
        number = self.book.begin_notice(record.id, self.waits_s)
        if number is None:
            return False
        arrived = self._send(record)
        if arrived or number > len(self.waits_s):
            self.book.notified(record.id)
            if not arrived:
                _log.warning("the webhook of avatar %s was given up after %d tries", record.id, number)
        return arrived

    def _send(self, record: AvatarRecord) -> bool:
        body, now = notice(record), int(self.clock())
        headers = {"Content-Type": "application/json", "Svad-Signature": signature(self.secret, now, body), "Svad-Avatar": record.id}
        try:
            return 200 <= post(record.order.webhook, self.rules, body, headers, resolver=self.resolver) < 300
        except SvadError as error:
            _log.info("the webhook of avatar %s did not arrive: %s", record.id, error.found)
            return False
