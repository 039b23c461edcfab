"""The artefact store: written aside, checked, and committed by creating one marker.

Layout below the root::

    <stage>/<digest>/attempt-<id>/...     files of one attempt, with manifest.json (sizes and sha256)
    <stage>/<digest>/COMMITTED.json       the marker: which attempt counts; created only if absent
    <stage>/<digest>/CHECKPOINT.json      names the checkpoint-<id>/ folder of a long call that is not finished; gone once it is committed

A reader trusts markers alone. Two writers of one key both do the work; the first marker wins and the other takes the winner's artefact.
A process that is killed leaves at most an attempt without a marker, which nobody reads and the next commit of that key removes.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any

from svad_ray.errors import ArtefactDamaged, StoreError
from svad_ray.store.codec import decode, encode
from svad_ray.store.files import Files, plain_errors
from svad_ray.store.keys import Key

MARKER, MANIFEST, CHECKPOINT = "COMMITTED.json", "manifest.json", "CHECKPOINT.json"
_AGAIN = "remove its folder and run again"


@dataclass(frozen=True)
class Committed:
    """What a marker says: the attempt that counts, the manifest's hash, and the facts its writer recorded (times, memory, models)."""

    key: Key
    attempt: str
    manifest_sha256: str
    facts: dict[str, Any]


class ArtefactStore:
    """Artefacts under one root.

    Args:
        root: A folder, or any fsspec address whose file system can create a file only if it is absent (``file://``, ``memory://``, ``s3://``).
        options: Passed to the file system.
    """

    def __init__(self, root: str | os.PathLike[str], **options: Any) -> None:
        self.files = Files(root, **options)
        self.fs, self.root = self.files.fs, self.files.root

    def committed(self, key: Key) -> Committed | None:
        """The key's marker, or None when nothing is committed."""
        try:
            content = self.fs.cat_file(f"{self._folder(key)}/{MARKER}")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"{key}: the marker cannot be read ({error})", remedy="check the permissions of the store") from error
        try:
            says = json.loads(content)
            return Committed(key, says["attempt"], says["manifest_sha256"], says["facts"])
        except (ValueError, KeyError, TypeError) as error:
            raise _damaged(key, f"the marker {self._folder(key)}/{MARKER} is damaged") from error

    def put(self, key: Key, value: Any, *, facts: Mapping[str, Any] | None = None) -> Committed:
        """Write ``value`` and commit it; when another writer was first, its artefact counts and this one is dropped.

        Raises:
            StoreError: Disk full, no permission; nothing of the value is visible then.
        """
        return self._commit(key, encode(value), facts or {})

    def put_files(self, key: Key, files: Mapping[str, bytes], *, facts: Mapping[str, Any] | None = None) -> Committed:
        """``put`` for ready-made files, relative name -> content; read back with ``open``."""
        return self._commit(key, files.items(), facts or {})

    def _commit(self, key: Key, files: Iterable[tuple[str, bytes]], facts: Mapping[str, Any]) -> Committed:
        attempt = f"attempt-{uuid.uuid4().hex[:12]}"
        folder = f"{self._folder(key)}/{attempt}"
        try:
            with plain_errors(self.root):
                manifest = self._write(folder, files)
                marker = {"attempt": attempt, "manifest_sha256": manifest, "facts": dict(facts)}
                won = self.files.create(f"{key.stage}/{key.digest}/{MARKER}", json.dumps(marker, indent=1).encode())
        except BaseException:
            self._remove(folder)
            other = self._others_commit(key)
            if other is None:
                raise
            return other
        self._sweep(key, keep=attempt) if won else self._remove(folder)
        winner = self.committed(key)
        if winner is None:
            raise StoreError(f"{key}: the marker vanished while it was written", remedy="run again; let nothing else remove files from the store")
        return winner

    def get(self, key: Key) -> Any:
        """The committed value, every file checked against the manifest.

        Raises:
            StoreError: Nothing committed, a file missing or changed.
        """
        return self._value(self._marker(key))

    def listing(self, key: Key) -> dict[str, dict[str, Any]]:
        """Files of the committed artefact: name -> {"bytes", "sha256"}. Raises ``StoreError`` when nothing is committed."""
        return self._manifest(self._marker(key))

    def open(self, key: Key, name: str) -> IO[bytes]:
        """A committed file, opened for reading; its content is not checked against the manifest.

        Raises:
            StoreError: Nothing committed, or no such file in the manifest (so a name never leads out of the artefact).
        """
        marker = self._marker(key)
        if name not in self._manifest(marker):
            raise StoreError(f"{key} has no file '{name}'", remedy="see its listing")
        return self.fs.open(f"{self._folder(key)}/{marker.attempt}/{name}", "rb")

    def verify(self, key: Key) -> int:
        """Check every file of a committed artefact; returns how many. Raises ``StoreError`` naming the first that is wrong."""
        marker = self._marker(key)
        listed = self._manifest(marker)
        for name, entry in listed.items():
            self._read_checked(key, f"{self._folder(key)}/{marker.attempt}/{name}", entry)
        return len(listed)

    def save_checkpoint(self, key: Key, value: Any) -> None:
        """Keep ``value`` as the newest state of the unfinished work on ``key``; an older one stays in force until this one is whole."""
        attempt = f"checkpoint-{uuid.uuid4().hex[:12]}"
        try:
            with plain_errors(self.root):
                manifest = self._write(f"{self._folder(key)}/{attempt}", encode(value))
            says = {"attempt": attempt, "manifest_sha256": manifest, "facts": {}}
            self.files.write(f"{key.stage}/{key.digest}/{CHECKPOINT}", json.dumps(says).encode())
        except BaseException:
            self._remove(f"{self._folder(key)}/{attempt}")
            raise
        self._sweep(key, keep=attempt, kind="checkpoint-")

    def load_checkpoint(self, key: Key) -> Any | None:
        """The newest kept state, or None; one that is damaged or half removed counts as none."""
        content = self.files.read(f"{key.stage}/{key.digest}/{CHECKPOINT}")
        try:
            says = json.loads(content) if content else None
            return self._value(Committed(key, says["attempt"], says["manifest_sha256"], {})) if says else None
        except (StoreError, ValueError, KeyError, TypeError):
            return None

    def uncommit(self, key: Key) -> None:
        """Forget a damaged artefact, so that it is made again: its marker goes, its files are garbage for the next commit to sweep."""
        self.files.remove(f"{key.stage}/{key.digest}/{MARKER}")

    def committed_keys(self) -> Iterator[Key]:
        """Every committed key."""
        for path in sorted(self.fs.glob(f"{self.root}/*/*/{MARKER}")):
            stage, digest = path.split("/")[-3:-1]
            yield Key(stage, digest)

    def _marker(self, key: Key) -> Committed:
        marker = self.committed(key)
        if marker is None:
            raise _damaged(key, f"nothing is committed under {key}", remedy="run the stage first")
        return marker

    def _folder(self, key: Key) -> str:
        return f"{self.root}/{key.stage}/{key.digest}"

    def _write(self, folder: str, files: Iterable[tuple[str, bytes]]) -> str:
        """Write every file, then the manifest; returns the manifest's sha256."""
        listed = {}
        for name, content in files:
            path = f"{folder}/{name}"
            self.fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
            self.fs.pipe_file(path, content)
            listed[name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        manifest = json.dumps(listed, indent=1).encode()
        self.fs.pipe_file(f"{folder}/{MANIFEST}", manifest)
        return hashlib.sha256(manifest).hexdigest()

    def _value(self, marker: Committed) -> Any:
        """The attempt that a marker names, every file checked."""
        folder, listed = f"{self._folder(marker.key)}/{marker.attempt}", self._manifest(marker)

        def read(name: str) -> bytes:
            if name not in listed:
                raise StoreError(f"{folder}/{name} is not in the manifest", remedy=_AGAIN)
            return self._read_checked(marker.key, f"{folder}/{name}", listed[name])

        return decode(read)

    def _manifest(self, marker: Committed) -> dict[str, dict[str, Any]]:
        path = f"{self._folder(marker.key)}/{marker.attempt}/{MANIFEST}"
        content = self._bytes(marker.key, path)
        if hashlib.sha256(content).hexdigest() != marker.manifest_sha256:
            raise _damaged(marker.key, f"{path} was changed after it was committed")
        return json.loads(content)

    def _read_checked(self, key: Key, path: str, entry: Mapping[str, Any]) -> bytes:
        content = self._bytes(key, path)
        if len(content) != entry["bytes"] or hashlib.sha256(content).hexdigest() != entry["sha256"]:
            raise _damaged(key, f"{path} was changed after it was committed", expected=f"sha256 {entry['sha256']}")
        return content

    def _bytes(self, key: Key, path: str) -> bytes:
        try:
            return self.fs.cat_file(path)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise _damaged(key, f"{path} is missing") from error
        except OSError as error:
            raise StoreError(f"{path} cannot be read ({error})", remedy="check the permissions of the store") from error

    def _others_commit(self, key: Key) -> Committed | None:
        with suppress(StoreError, OSError):
            return self.committed(key)
        return None

    def _sweep(self, key: Key, *, keep: str, kind: str = "") -> None:
        """Drop what killed attempts and checkpoints left under a key, all but ``keep`` and the marker; only of ``kind``, if one is given."""
        with suppress(OSError):
            for path in self.fs.ls(self._folder(key), detail=False, refresh=True):
                name = path.rsplit("/", 1)[-1]
                if name not in (keep, MARKER) and name.startswith(kind or ("attempt-", "checkpoint-", CHECKPOINT)):
                    self._remove(path)

    def _remove(self, folder: str) -> None:
        with suppress(OSError):
            self.fs.rm(folder, recursive=True)


def _damaged(key: Key, found: str, *, expected: str = "", remedy: str = _AGAIN) -> ArtefactDamaged:
    error = ArtefactDamaged(found, expected=expected, remedy=remedy)
    error.key = str(key)
    return error
