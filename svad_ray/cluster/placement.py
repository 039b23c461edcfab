"""Long tasks in placement groups: one STRICT_PACK bundle each, as many at once as fit, long work first, groups always removed."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

GONE_WITHIN_S = 30.0


@dataclass(frozen=True)
class Finished:
    """A task that ended: with a value, or with the error that ended it (its own, or the loss of its worker or node)."""

    name: str
    value: Any = None
    error: Exception | None = None


class PlacementQueue:
    """Tasks waiting for a bundle, and those that have one.

    Args:
        bundle: Resources of each task's bundle.
        at_most: Tasks at once; None = as many as fit.
        label_selector: Nodes that may be used.
        waiting_groups: Groups that may wait for room at once; each tells an autoscaler that more nodes are wanted.
    """

    def __init__(
        self, bundle: dict[str, float], *, at_most: int | None = None, label_selector: dict[str, str] | None = None, waiting_groups: int = 1
    ) -> None:
        self.bundle, self.at_most, self.label_selector, self.waiting_groups = bundle, at_most, label_selector, waiting_groups
        self._waiting: list[tuple[float, int, str, Callable[..., Any], tuple[Any, ...]]] = []
        self._number = itertools.count()
        self._groups: dict[ray.ObjectRef, PlacementGroup] = {}  # asked for, by their ready reference
        self._running: dict[ray.ObjectRef, tuple[str, PlacementGroup]] = {}

    def submit(self, name: str, function: Callable[..., Any], *args: Any, cost: float = 0.0) -> None:
        """Queue ``function(*args)``; the longest (``cost``) goes first, equals in order."""
        heapq.heappush(self._waiting, (-cost, next(self._number), name, function, args))

    def __len__(self) -> int:
        """Tasks that have not ended."""
        return len(self._waiting) + len(self._running)

    @property
    def running(self) -> list[str]:
        """Names of the tasks that have a bundle."""
        return [name for name, _ in self._running.values()]

    def finished(self, timeout_s: float) -> list[Finished]:
        """Start what fits and wait at most ``timeout_s`` for something to end; what ended, with its group removed."""
        self._ask()
        refs = [*self._groups, *self._running]
        if not refs:
            return []
        ready, _ = ray.wait(refs, num_returns=1, timeout=timeout_s)
        more, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
        ended = []
        for ref in {*ready, *more}:
            if ref in self._groups:
                self._start(self._groups.pop(ref))
            else:
                ended.append(self._end(ref))
        self._ask()
        return ended

    def cancel(self, name: str) -> bool:
        """Drop a waiting task or end a running one, its group too; returns when its worker is gone. False when there is none of that name."""
        before = len(self._waiting)
        self._waiting = [entry for entry in self._waiting if entry[2] != name]
        heapq.heapify(self._waiting)
        for ref, (running, group) in list(self._running.items()):
            if running == name:
                del self._running[ref]
                ray.cancel(ref, force=True)
                remove_placement_group(group)
                ray.wait([ref], timeout=GONE_WITHIN_S)
                return True
        return len(self._waiting) < before

    def close(self) -> None:
        """End everything and remove every group."""
        self._waiting.clear()
        for ref, (_, group) in self._running.items():
            ray.cancel(ref, force=True)
            remove_placement_group(group)
        for group in self._groups.values():
            remove_placement_group(group)
        if self._running:
            ray.wait(list(self._running), num_returns=len(self._running), timeout=GONE_WITHIN_S)
        self._running.clear()
        self._groups.clear()

    def _ask(self) -> None:
        """Ask for groups while tasks wait for one and few are asked for; give back those that nobody waits for any more."""
        room = self.at_most - len(self._running) if self.at_most else len(self._waiting)
        wanted = min(len(self._waiting), self.waiting_groups, max(0, room))
        while len(self._groups) < wanted:
            options: dict[str, Any] = {"bundle_label_selector": [self.label_selector]} if self.label_selector else {}
            group = placement_group([self.bundle], strategy="STRICT_PACK", **options)
            self._groups[group.ready()] = group
        while len(self._groups) > wanted:
            _, group = self._groups.popitem()
            remove_placement_group(group)

    def _start(self, group: PlacementGroup) -> None:
        """The longest waiting task goes into the group that is ready."""
        if not self._waiting:
            remove_placement_group(group)
            return
        _, _, name, function, args = heapq.heappop(self._waiting)
        where = PlacementGroupSchedulingStrategy(group, placement_group_capture_child_tasks=True)
        options: dict[str, Any] = {"num_cpus": self.bundle.get("CPU", 0), "num_gpus": self.bundle.get("GPU", 0)}
        task = ray.remote(function).options(scheduling_strategy=where, max_retries=0, name=f"train {name}", **options)
        self._running[task.remote(*args)] = (name, group)

    def _end(self, ref: ray.ObjectRef) -> Finished:
        name, group = self._running.pop(ref)
        try:
            return Finished(name, value=ray.get(ref))
        except ray.exceptions.RayTaskError as error:
            return Finished(name, error=error.cause if isinstance(error.cause, Exception) else error)
        except ray.exceptions.RayError as error:
            return Finished(name, error=error)
        finally:
            remove_placement_group(group)
