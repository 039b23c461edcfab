"""Reaching out to addresses that strangers name, safely: only to hosts that the operator listed, never into the operator's own network by accident.

The name is resolved once, every address it stands for is checked, and the connection goes to exactly the checked one, so that a name which answers
differently the second time gains nothing. Redirects go through the same checks. Blocking; call from a thread.
"""

from __future__ import annotations

import http.client
import ipaddress
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import SplitResult, urljoin, urlsplit

from svad_ray.errors import InputError

MAX_REDIRECTS = 3
MAX_ADDRESS = 2048
_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[a-z0-9_.-]{1,253}|[0-9a-f:.]{2,45}")
_CLEAN = re.compile(r"[!-\[\]-~]+")  # printable ASCII without blanks and backslash
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_SPECIAL = tuple(ipaddress.ip_network(text) for text in ("192.0.0.0/24", "192.88.99.0/24", "2001::/23"))  # protocol assignments, old relays
_CHUNK = 1 << 16
IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolver = Callable[[str, int], list[str]]


class AddressRefused(InputError):
    """The address may not be reached."""


class AddressFailed(InputError):
    """The address is allowed, but did not give what was asked for."""


@dataclass(frozen=True)
class Rules:
    """Where one may go.

    Attributes:
        hosts: "name", "*.name" (any name below it) or either with ":port"; without a port the scheme's own.
        schemes: "https", "http". private_hosts: Entries that may stand for addresses that are not public.
        timeout_s: For everything together, redirects included.
    """

    hosts: tuple[str, ...] = ()
    schemes: tuple[str, ...] = ("https",)
    private_hosts: tuple[str, ...] = ()
    timeout_s: float = 20.0


@dataclass(frozen=True)
class Target:
    """A checked address: what is asked for, and which machine the connection goes to."""

    scheme: str
    host: str
    port: int
    path: str
    address: str


@dataclass(frozen=True)
class Answer:
    """An HTTP answer: status and (bounded) body."""

    status: int
    body: bytes


def system_resolver(host: str, port: int) -> list[str]:
    """Every address that the system knows for a name."""
    return list(dict.fromkeys(str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))


def check(url: str, rules: Rules, *, resolver: Resolver = system_resolver) -> Target:
    """The target that ``url`` stands for.

    Raises:
        AddressRefused: Not an address, not on the list, or one that stands for a machine that is not public.
    """
    parts, host = _parsed(url)
    port = parts.port or _PORTS.get(parts.scheme, 0)
    if parts.scheme not in rules.schemes or not _listed(host, port, parts.scheme, rules.hosts):
        raise AddressRefused(
            "this address is not on the list of allowed ones", expected=_expected(rules), remedy="upload the photo, or ask the operator"
        )
    try:
        addresses = resolver(host, port)
    except (OSError, UnicodeError) as error:
        raise AddressFailed(f"the name {host} cannot be resolved", remedy="check the spelling") from error
    private = _listed(host, port, parts.scheme, rules.private_hosts)
    if not addresses or not (private or all(is_public(address) for address in addresses)):
        raise AddressRefused(f"the name {host} does not stand for a public address", expected="a public machine", remedy="ask the operator")
    return Target(parts.scheme, host, port, (parts.path or "/") + (f"?{parts.query}" if parts.query else ""), addresses[0])


def is_public(address: str) -> bool:
    """Is it an address that anybody on the internet means the same machine by? Addresses that carry another one inside are judged by it as well."""
    try:
        ip = ipaddress.ip_address(address.split("%")[0])
    except ValueError:
        return False
    return all(_judged_public(one) for one in (ip, *_inner(ip)) if not _is_wrapper(one))


def _judged_public(ip: IPAddress) -> bool:
    site_local = isinstance(ip, ipaddress.IPv6Address) and ip.is_site_local
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or site_local or any(ip in network for network in _SPECIAL))


def _inner(ip: IPAddress) -> list[IPAddress]:
    """IPv4 addresses inside mapped, NAT64, 6to4 and Teredo addresses."""
    if isinstance(ip, ipaddress.IPv4Address):
        return []
    found: list[IPAddress] = [one for one in (ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())) if one is not None]
    return [*found, ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)] if ip in _NAT64 else found


def _is_wrapper(ip: IPAddress) -> bool:
    return isinstance(ip, ipaddress.IPv6Address) and (ip.ipv4_mapped is not None or ip in _NAT64)


def fetch(url: str, rules: Rules, *, max_bytes: int, resolver: Resolver = system_resolver) -> bytes:
    """The body at ``url``, at most ``max_bytes``.

    Raises:
        AddressRefused: It, or an address it redirects to, may not be reached. AddressFailed: It did not answer with a body of that size in time.
    """
    deadline = time.monotonic() + rules.timeout_s
    for _ in range(MAX_REDIRECTS + 1):
        target = check(url, rules, resolver=resolver)
        answer, location = _exchange("GET", target, deadline, max_bytes=max_bytes)
        if answer.status in (301, 302, 303, 307, 308) and location:
            url = urljoin(url, location)
            continue
        if answer.status != 200:
            raise AddressFailed(f"{target.host} answered with status {answer.status}", expected="200", remedy="check the address")
        if len(answer.body) > max_bytes:
            raise AddressFailed(f"what lies at {target.host} is larger than {max_bytes} bytes", remedy="make the photo smaller")
        return answer.body
    raise AddressFailed(f"the address redirects more than {MAX_REDIRECTS} times", remedy="name the photo's own address")


def post(url: str, rules: Rules, body: bytes, headers: Mapping[str, str], *, resolver: Resolver = system_resolver) -> int:
    """Post ``body``; the status that came back. A redirect is not followed. Raises as ``fetch``."""
    target = check(url, rules, resolver=resolver)
    return _exchange("POST", target, time.monotonic() + rules.timeout_s, max_bytes=_CHUNK, body=body, headers=headers)[0].status


class _Pinned(http.client.HTTPConnection):
    """A connection to the checked machine, whatever its name says by now."""

    def __init__(self, target: Target, timeout_s: float) -> None:
        super().__init__(target.host, target.port, timeout=timeout_s)
        self.target = target
        self.wire: socket.socket | None = None

    def connect(self) -> None:
        self.sock = self.wire = socket.create_connection((self.target.address, self.target.port), timeout=self.timeout)
        if self.target.scheme == "https":
            self.sock = self.wire = ssl.create_default_context().wrap_socket(self.sock, server_hostname=self.target.host)

    def cut(self) -> None:
        """End whatever is going on; the thread that waits for it gets an error."""
        if self.wire is not None:
            with suppress(OSError):
                self.wire.shutdown(socket.SHUT_RDWR)


def _exchange(
    method: str, target: Target, deadline: float, *, max_bytes: int, body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> tuple[Answer, str]:
    """One request: the answer (one byte more than ``max_bytes`` tells that there is more) and its Location."""
    left = deadline - time.monotonic()
    connection = _Pinned(target, max(left, 0.1))
    watch = threading.Timer(max(left, 0.1), connection.cut)  # a timeout of the socket alone would let a drip of bytes go on for ever
    watch.daemon = True
    watch.start()
    try:
        sent = {"Accept-Encoding": "identity", "User-Agent": "svad-ray", "Connection": "close", **(headers or {})}
        connection.request(method, target.path, body=body, headers=sent)
        response = connection.getresponse()
        content = bytearray()
        while len(content) <= max_bytes and (part := response.read(min(_CHUNK, max_bytes + 1 - len(content)))):
            content += part
        if time.monotonic() >= deadline or (response.length and len(content) <= max_bytes):
            raise http.client.IncompleteRead(bytes(content))  # a cut wire reads like the end
        return Answer(response.status, bytes(content)), response.getheader("Location") or ""
    except (OSError, http.client.HTTPException, ValueError) as error:
        late = time.monotonic() >= deadline
        reason = "took too long" if late else f"did not answer properly ({type(error).__name__})"
        raise AddressFailed(f"{target.host} {reason}", remedy="try again later, or upload the photo") from error
    finally:
        watch.cancel()
        connection.close()


def _parsed(url: str) -> tuple[SplitResult, str]:
    refused = AddressRefused("this is no address that can be fetched", expected="https://host/path", remedy="check the address")
    if len(url) > MAX_ADDRESS or not _CLEAN.fullmatch(url):
        raise refused
    try:
        parts = urlsplit(url)
        host, _ = (parts.hostname or "").rstrip("."), parts.port
    except ValueError as error:
        raise refused from error
    if not _HOST.fullmatch(host) or parts.username is not None or parts.password is not None:
        raise refused
    return parts, host


def _listed(host: str, port: int, scheme: str, entries: tuple[str, ...]) -> bool:
    return any(_matches(host, port, scheme, entry.lower()) for entry in entries)


def _matches(host: str, port: int, scheme: str, entry: str) -> bool:
    name, given = entry, _PORTS.get(scheme, 0)
    if (match := re.fullmatch(r"(\[.+\]|[^:]+):(\d+)", entry)) is not None:
        name, given = match.group(1), int(match.group(2))
    name = name.strip("[]")
    return port == given and (host == name or (name.startswith("*.") and host.endswith(name[1:])))


def _expected(rules: Rules) -> str:
    if not rules.hosts:
        return "nothing: this service reaches out to nobody"
    return f"{' or '.join(rules.schemes)} to one of {', '.join(rules.hosts)}"
