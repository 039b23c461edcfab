"""The schedule: a warm-up of places and turns, then everything, in epochs; all frames at once or in the original's batches.

Source: ExAvatar's fitting stage. ``EXAVATAR`` is its schedule; ``SVAD_RELEASE`` the one that SVAD's release ships, in whose only epoch the shared
parameters (shapes and offsets) are left out, so that they stay as they began.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch

from svad_ray.fitting.paper.losses import Losses, Start
from svad_ray.fitting.paper.model import OF_HEAD, PER_FRAME, SHARED, State
from svad_ray.fitting.paper.targets import Targets

WARM = ("root_pose", "trans", "head_root_pose", "head_trans")


@dataclass(frozen=True)
class Schedule:
    """How long and how fast.

    Attributes:
        epochs: The shared parameters are moved in all but the last.
        warm_up: Steps in which both bodies are only placed and turned. first: Steps of the first epoch after those. later: Of every other epoch.
        rates: Of the warm-up; then of the three parts of an epoch.
        drops: Steps (counted from the epoch's begin, warm-up included) at which the rate falls, in the first epoch and in later ones.
        batch: Frames fitted together; 0 = all. first_every: Steps after which the first poses are posed
            again with the present shape; 1 = as released.
    """

    epochs: int = 3
    warm_up: int = 100
    first: int = 400
    later: int = 250
    rates: tuple[float, float, float, float] = (1e-1, 1e-2, 1e-3, 1e-4)
    drops: tuple[tuple[int, int], tuple[int, int]] = ((250, 400), (100, 200))
    batch: int = 0
    first_every: int = 1

    @property
    def steps(self) -> int:
        """Of each frame."""
        return self.warm_up + self.first + (self.epochs - 1) * self.later

    def scaled(self, share: float) -> Schedule:
        """The same schedule in a share of its steps."""

        def part(steps: int) -> int:
            return max(min(steps, 1), round(steps * share))

        drops = tuple((part(a), part(b)) for a, b in self.drops)
        return replace(self, warm_up=part(self.warm_up), first=part(self.first), later=part(self.later), drops=(drops[0], drops[1]))


EXAVATAR = Schedule()
SVAD_RELEASE = Schedule(epochs=1)
PRESETS = {"exavatar": EXAVATAR, "svad_release": SVAD_RELEASE}


@dataclass(frozen=True)
class Step:
    """One step of an epoch: its learning rate, whether it is of the warm-up, and whether the fingers' offsets are free."""

    rate: float
    warm_up: bool
    relaxed: bool


def steps_of(schedule: Schedule, epoch: int) -> Iterator[Step]:
    """The steps of an epoch. Fingers are free from the first fall of the rate on, and stay so."""
    warm, _, _, _ = schedule.rates
    first, second = schedule.drops[min(epoch, 1)]
    begin = schedule.warm_up if epoch == 0 else 0
    for i in range(begin + (schedule.first if epoch == 0 else schedule.later)):
        rate = warm if i < begin else schedule.rates[1 if i < first else 2 if i < second else 3]
        yield Step(rate, i < begin, epoch > 0 or i >= first)


def fit(
    losses: Losses, state: State, targets: Targets, start: Start, schedule: Schedule = EXAVATAR, *, progress: Callable[[float], None] = lambda _: None
) -> State:
    """The state that explains the key points best; frames in which nobody was seen follow their start."""
    state = _leaves(state)
    total, done = schedule.steps * len(_batches(len(state), schedule.batch)), 0
    for epoch in range(schedule.epochs):
        for batch in _batches(len(state), schedule.batch):
            part, there = _leaves(_frames(state, batch)), (targets.frames(batch), start.frames(batch))
            for i in _run(losses, part, *there, schedule, epoch):
                progress((done + i + 1) / total)
            done += i + 1
            state = _written(state, part, batch)
    return state


def _run(losses: Losses, state: State, targets: Targets, start: Start, schedule: Schedule, epoch: int) -> Iterator[int]:
    """Move ``state`` in place through the steps of an epoch."""
    shared = epoch < schedule.epochs - 1
    adam, warm, first = None, None, None
    for i, step in enumerate(steps_of(schedule, epoch)):
        if step.warm_up != warm:  # another set of parameters: a new optimiser
            adam, warm = torch.optim.Adam(_moved(losses, state, step, shared=shared)), step.warm_up
        if step.warm_up:
            terms = losses.warm_up(state, targets)
        else:
            if first is None or i % schedule.first_every == 0:
                first = losses.first(state, targets, start)
            terms = losses.main(state, targets, start, relaxed=step.relaxed, first=first)
        descend(adam, terms, step.rate)
        yield i


def descend(adam: torch.optim.Optimizer | None, terms: dict[str, torch.Tensor], rate: float) -> float:
    """One step down the sum of the terms; returns the sum before it."""
    if adam is None:
        raise ValueError("no optimiser")
    for group in adam.param_groups:
        group["lr"] = rate
    total = torch.stack(list(terms.values())).sum()
    adam.zero_grad()
    total.backward()
    adam.step()
    return total.item()


def _moved(losses: Losses, state: State, step: Step, *, shared: bool) -> list[torch.Tensor]:
    names = WARM if step.warm_up else (*PER_FRAME, *(SHARED if shared else ()))
    if losses.bodies.flame is None:
        names = tuple(name for name in names if name not in OF_HEAD)
    return [getattr(state, name) for name in names]


def _batches(frames: int, size: int) -> list[torch.Tensor]:
    order = torch.arange(frames)
    return list(order.split(size)) if size else [order]


def _leaves(state: State) -> State:
    return State(**{name: getattr(state, name).detach().clone().requires_grad_(True) for name in (*PER_FRAME, *SHARED)})


def _frames(state: State, batch: torch.Tensor) -> State:
    return replace(state, **{name: getattr(state, name).detach()[batch] for name in PER_FRAME})


def _written(state: State, part: State, batch: torch.Tensor) -> State:
    """The whole state with the frames of a batch and the shared parameters of its fit."""
    moved = {name: getattr(state, name).detach().index_copy(0, batch, getattr(part, name).detach()) for name in PER_FRAME}
    return State(**moved, **{name: getattr(part, name).detach() for name in SHARED})
