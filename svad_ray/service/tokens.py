"""Who may call: tokens kept as salted hashes, compared in constant time.

A token is ``svad_<id>_<secret>``: 64 public bits to find its entry by, and 256 random ones. Nothing of that length can be guessed, so a salted hash
is enough and a check costs microseconds. The file is re-read when it changes: a token that was removed stops working without a restart.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from svad_ray.errors import ConfigError, InputError, StoreError

ANONYMOUS = "anonymous"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
_TOKEN = re.compile(r"svad_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")
_NOBODY = "0" * 64


@dataclass(frozen=True)
class TokenEntry:
    """What is kept of a token.

    Attributes:
        name: Whose it is; avatars belong to names, so a new token of the same name sees them.
        id: Public part. salt, hash: Of the secret. created_at: Unix seconds.
        requests_per_minute, open_avatars: Limits of its own; None = the service's.
    """

    name: str
    id: str
    salt: str
    hash: str
    created_at: float
    requests_per_minute: int | None = None
    open_avatars: int | None = None


def add_token(path: str | Path, name: str, *, requests_per_minute: int | None = None, open_avatars: int | None = None) -> str:
    """Make a token and keep its hash; the returned text is shown once and cannot be had again.

    Raises:
        InputError: Not a name. StoreError: The file cannot be written. ConfigError: It is no token file.
    """
    if not _NAME.fullmatch(name) or name == ANONYMOUS:
        raise InputError(f"'{name}' cannot be a token's name", expected=f"lower-case letters, digits, '-' and '_', at most 40; not '{ANONYMOUS}'")
    public, secret, salt = secrets.token_hex(8), secrets.token_urlsafe(32), secrets.token_hex(16)
    entry = TokenEntry(name, public, salt, _hash(salt, secret), time.time(), requests_per_minute, open_avatars)
    with _locked(Path(path)):
        _write(Path(path), [*read_tokens(path), entry])
    return f"svad_{public}_{secret}"


def remove_tokens(path: str | Path, name: str) -> int:
    """Forget every token of a name; returns how many there were."""
    with _locked(Path(path)):
        entries = read_tokens(path)
        kept = [entry for entry in entries if entry.name != name]
        if len(kept) < len(entries):
            _write(Path(path), kept)
    return len(entries) - len(kept)


def read_tokens(path: str | Path) -> list[TokenEntry]:
    """Every entry; none when there is no file. Raises ``ConfigError`` for a damaged one."""
    try:
        says = json.loads(Path(path).read_text(encoding="utf-8"))
        return [TokenEntry(**entry) for entry in says["tokens"]]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"the token file {path} cannot be read ({type(error).__name__})", remedy="make it anew with `svad-ray serve token add`"
        ) from error


class Tokens:
    """Checks tokens against a file that may change meanwhile."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._seen: tuple[int, int, int] | None = None
        self._entries: dict[str, TokenEntry] = {}

    def check(self, token: str) -> TokenEntry | None:
        """Whose token this is; None = nobody's. Takes the same work whether or not its public part is known."""
        match = _TOKEN.fullmatch(token)
        public, secret = match.groups() if match else ("", "")
        entry = self._current().get(public)
        right = hmac.compare_digest(_hash(entry.salt if entry else "", secret), entry.hash if entry else _NOBODY)
        return entry if right else None

    def _current(self) -> dict[str, TokenEntry]:
        try:
            stat = self.path.stat()
            seen = stat.st_mtime_ns, stat.st_size, stat.st_ino
        except OSError:
            self._seen, self._entries = None, {}
            return {}
        if seen != self._seen:
            self._entries, self._seen = {entry.id: entry for entry in read_tokens(self.path)}, seen
        return self._entries


class RateLimiter:
    """So many calls a minute for each name, in this process: a bucket that fills steadily.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._left: dict[str, tuple[float, float]] = {}
        self._lock = threading.Lock()

    def wait_s(self, name: str, per_minute: int) -> float:
        """Take one call out of the bucket; 0 = go on, else seconds until there will be one."""
        with self._lock:
            now = self.clock()
            left, since = self._left.get(name, (float(per_minute), now))
            left = min(float(per_minute), left + (now - since) * per_minute / 60)
            if left < 1:
                self._left[name] = left, now
                return (1 - left) * 60 / per_minute
            self._left[name] = left - 1, now
            return 0.0


def _hash(salt: str, secret: str) -> str:
    return hashlib.sha256(f"{salt}:{secret}".encode()).hexdigest()


def _locked(path: Path) -> FileLock:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"the folder {path.parent} cannot be made: {error}", remedy="choose another token file") from error
    return FileLock(path.with_name(f".{path.name}.lock"))


def _write(path: Path, entries: list[TokenEntry]) -> None:
    """Replace the file; only its owner may read it."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    says: dict[str, Any] = {"tokens": [asdict(entry) for entry in entries]}
    try:
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as stream:
            json.dump(says, stream, indent=1)
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise StoreError(f"the token file {path} cannot be written: {error.strerror or error}", remedy="choose another token file") from error
