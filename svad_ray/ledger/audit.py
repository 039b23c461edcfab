"""A whole run checked: both stores, what subjects refer to, and the sum of committed and quarantined against the list."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from svad_ray.errors import StoreError
from svad_ray.ledger.attempts import Ledger
from svad_ray.store import ArtefactStore, Key
from svad_ray.store.verify import Finding, Verified, repair, verify_store

STORES = ("work", "subjects")


@dataclass
class Audit:
    """What was found below one root.

    Attributes:
        stores: Name -> what its check found. dangling: Subjects whose marker names an artefact that is not there.
        committed, quarantined: Keys of subjects. missing: Keys of the list that are neither. twice: Keys that are both.
    """

    stores: dict[str, Verified] = field(default_factory=dict)
    dangling: list[Finding] = field(default_factory=list)
    committed: set[str] = field(default_factory=set)
    quarantined: set[str] = field(default_factory=set)
    missing: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Nothing damaged, nothing dangling, nobody missing, nobody twice."""
        return all(store.sound for store in self.stores.values()) and not (self.dangling or self.missing or self.twice)

    @property
    def findings(self) -> list[tuple[str, Finding]]:
        """(store, finding) of every store, dangling references last."""
        found = [(name, finding) for name, store in self.stores.items() for finding in store.findings]
        return [*found, *(("subjects", finding) for finding in self.dangling)]


def audit(out: str, *, listed: Collection[Key] | None = None, progress: Callable[[str, float], None] = lambda name, done: None) -> Audit:
    """Check everything below ``out``.

    Args:
        listed: Keys of the run's list; None = only what is there is checked.
        progress: Told each store's finished share.
    """
    found = Audit()
    for name in STORES:
        found.stores[name] = verify_store(ArtefactStore(f"{out}/{name}"), progress=partial(progress, name))
    subjects, work = ArtefactStore(f"{out}/subjects"), ArtefactStore(f"{out}/work")
    known = {str(key) for key in work.committed_keys()}
    for key in subjects.committed_keys():
        found.committed.add(str(key))
        try:
            marker = subjects.committed(key)
        except StoreError:
            continue  # found by the store's own check
        gone = sorted(set(_named(marker.facts)) - known) if marker and known else []  # a work folder that was thrown away is not missed
        found.dangling += [Finding("dangling", str(key), f"its marker names {name}, which is not there") for name in gone]
    found.quarantined = {str(key) for key in Ledger(f"{out}/ledger").quarantined()}
    found.twice = sorted(found.committed & found.quarantined)
    found.missing = sorted({str(key) for key in listed or ()} - found.committed - found.quarantined)
    return found


def mend(out: str, found: Audit, *, older_than_h: float = 24.0) -> tuple[int, int]:
    """``repair`` for every store: how many artefacts were forgotten and how many pieces of garbage removed."""
    both = [repair(ArtefactStore(f"{out}/{name}"), store.findings, older_than_h=older_than_h) for name, store in found.stores.items()]
    return sum(forgotten for forgotten, _ in both), sum(removed for _, removed in both)


def _named(facts: Mapping[str, Any]) -> list[str]:
    """Keys of the artefacts that a subject's marker names."""
    keys = facts.get("keys", {})
    found: list[str] = []
    for name, value in keys.items():
        if name != "clip":
            found += value if isinstance(value, list) else [value]
    return found
