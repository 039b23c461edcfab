"""How long GPUs would stand idle in a bulk run on 1 to 64 nodes: a discrete-event simulation, held against the optimum.

    python benchmarks/simulator.py [--nodes 1 4 16 64] [--per-gpu 20] [--seeds 5] [--mtbf-h 0] [--plot idle.png]

A subject passes animate, identity and restore (in blocks of frames that go their way independently), fit and avatar. Mean stage times are those that
the SVAD paper prints for one A100; everything else (spread, loading, failures) is an assumption, named in ``Plant`` and ``subjects``.

What a run is compared with: no schedule whatever can be shorter than ``shortest_possible`` (a bound, perhaps out of reach); ``best_list`` is the
shortest list schedule that we know of when nothing costs anything. The optimum lies between the two.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import math
import sys
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from scipy import stats

MINUTE_S, HOUR_S = 60.0, 3600.0


@dataclass(frozen=True)
class Stage:
    """One kind of work.

    Attributes:
        mean_s: GPU seconds of a subject, all blocks together.
        blocks: Parts that run independently of each other.
        load_s: A GPU's time to have the model in memory.
        checkpointed: Whether an interrupted call goes on from its last kept state.
    """

    name: str
    mean_s: float
    blocks: int = 1
    load_s: float = 0.0
    checkpointed: bool = False


PAPER = (
    Stage("animate", 18.33 * MINUTE_S, load_s=90),
    Stage("identity", 3.02 * MINUTE_S, blocks=12, load_s=30),
    Stage("restore", 11.00 * MINUTE_S, blocks=12, load_s=30),
    Stage("fit", 60.55 * MINUTE_S, load_s=15),
    Stage("avatar", 273.23 * MINUTE_S, load_s=15, checkpointed=True),
)
FRONT, TRAIN = (2, 1, 0), (4, 3)  # indices into PAPER; what is nearest to the end goes first


@dataclass(frozen=True)
class Plant:
    """The machines.

    Attributes:
        dispatch_s: From the decision to a call's first instruction.
        checkpoint_s: Between two kept states of a checkpointed stage.
        mtbf_h: Mean hours between failures of ONE node; 0 = none fails.
        detect_s: Until a lost call is queued again. repair_s: Until the node is back, empty.
    """

    nodes: int = 1
    gpus_per_node: int = 8
    stages: tuple[Stage, ...] = PAPER
    dispatch_s: float = 0.02
    checkpoint_s: float = 60.0
    mtbf_h: float = 0.0
    detect_s: float = 18.0
    repair_s: float = 900.0

    @property
    def gpus(self) -> int:
        return self.nodes * self.gpus_per_node


@dataclass(frozen=True)
class Kind:
    """What a GPU is for.

    Attributes:
        serves: Stages, most urgent first.
        resident: All its models stay in memory; False = one at a time.
        then: What the GPU becomes when no work of its stages can come any more.
    """

    serves: tuple[int, ...]
    resident: bool = True
    then: Kind | None = None


@dataclass(frozen=True)
class Policy:
    """Who does what.

    Attributes:
        layout: Number of GPUs -> the kind of each.
        long_first: The subject with the most work goes first; False = first come, first served.
        keeps: Stages after which the GPU goes on with the same subject's next stage: one placement group for both.
    """

    name: str
    layout: Callable[[int], list[Kind]]
    long_first: bool = True
    keeps: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Subject:
    """Seconds of each stage, all blocks together, and when it comes in."""

    seconds: tuple[float, ...]
    release: float = 0.0

    @property
    def total(self) -> float:
        return sum(self.seconds)


@dataclass
class Outcome:
    """GPU seconds by use; they add up to ``gpus * makespan``. ``waits``: queueing seconds of every call, by stage."""

    gpus: int
    makespan: float = 0.0
    useful: float = 0.0
    loading: float = 0.0
    dispatching: float = 0.0
    redone: float = 0.0
    down: float = 0.0
    finished: int = 0
    waits: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))

    @property
    def idle(self) -> float:
        """Share of all GPU time in which a working GPU had nothing to do."""
        spent = self.useful + self.loading + self.dispatching + self.redone + self.down
        return 1 - spent / (self.gpus * self.makespan)

    @property
    def unproductive(self) -> float:
        """Share of all GPU time that brought no subject forward, whatever the reason."""
        return 1 - self.useful / (self.gpus * self.makespan)


@dataclass
class _Call:
    subject: int
    stage: int
    block: int
    left: float
    ready: float = 0.0


@dataclass
class _Gpu:
    node: int
    kind: Kind
    loaded: set[int] = field(default_factory=set)
    call: _Call | None = None
    began: float = 0.0  # when the call took the GPU
    works: float = 0.0  # when its model was there
    epoch: int = 0  # of the node's life; ends of calls of an earlier life do not count
    up: bool = True


class Simulation:
    """One run of ``subjects`` through a plant under a policy. ``run`` once."""

    def __init__(self, plant: Plant, policy: Policy, subjects: Sequence[Subject], *, seed: int = 0) -> None:
        self.plant, self.policy, self.subjects = plant, policy, subjects
        self.rng = np.random.default_rng(seed)
        self.now, self._number, self._events = 0.0, itertools.count(), list[tuple[float, int, Callable[[], None]]]()
        self.gpus = [_Gpu(i // plant.gpus_per_node, kind) for i, kind in enumerate(policy.layout(plant.gpus))]
        self.outcome = Outcome(len(self.gpus))
        self._queues: list[list[tuple[float, int, _Call]]] = [[] for _ in plant.stages]
        self._free: dict[Kind, deque[_Gpu]] = defaultdict(deque)
        self._left = [[stage.blocks for stage in plant.stages] for _ in subjects]  # blocks that are not finished
        self._to_come = [stage.blocks * len(subjects) for stage in plant.stages]
        self._down_since: dict[int, float] = {}

    def run(self) -> Outcome:
        """Until every subject is through."""
        for i, subject in enumerate(self.subjects):
            self._at(subject.release, partial(self._release, i, 0))
        for gpu in self.gpus:
            self._offer(gpu)
        if self.plant.mtbf_h:
            for node in range(self.plant.nodes):
                self._at(self._lifetime(), partial(self._fail, node))
        while self.outcome.finished < len(self.subjects):
            self.now, _, event = heapq.heappop(self._events)
            event()
        self.outcome.makespan = self.now
        self.outcome.down += sum(self.now - since for since in self._down_since.values()) * self.plant.gpus_per_node
        return self.outcome

    def _at(self, when: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._number), event))

    # calls -------------------------------------------------------------------------------------------------------------------------------------

    def _release(self, subject: int, stage: int) -> None:
        for block in range(self.plant.stages[stage].blocks):
            self._queue(self._call(subject, stage, block))

    def _call(self, subject: int, stage: int, block: int) -> _Call:
        return _Call(subject, stage, block, self.subjects[subject].seconds[stage] / self.plant.stages[stage].blocks)

    def _queue(self, call: _Call) -> None:
        call.ready = self.now
        urgency = -self.subjects[call.subject].total if self.policy.long_first else 0.0
        heapq.heappush(self._queues[call.stage], (urgency, next(self._number), call))
        for kind, free in self._free.items():
            if call.stage in kind.serves and free:
                self._offer(free.popleft())
                return

    def _offer(self, gpu: _Gpu) -> None:
        """Give the GPU the most urgent call of its kind; let it change kind, or wait."""
        if not gpu.up:
            return
        for stage in gpu.kind.serves:
            if self._queues[stage]:
                self._start(gpu, heapq.heappop(self._queues[stage])[2])
                return
        if gpu.kind.then and not any(self._to_come[stage] for stage in gpu.kind.serves):
            gpu.kind = gpu.kind.then
            self._offer(gpu)
        else:
            self._free[gpu.kind].append(gpu)

    def _start(self, gpu: _Gpu, call: _Call) -> None:
        self.outcome.waits[call.stage].append(self.now - call.ready)
        load = 0.0 if call.stage in gpu.loaded else self.plant.stages[call.stage].load_s
        gpu.loaded = gpu.loaded | {call.stage} if gpu.kind.resident else {call.stage}
        gpu.call, gpu.began, gpu.works = call, self.now, self.now + self.plant.dispatch_s + load
        self._at(gpu.works + call.left, partial(self._finish, gpu, gpu.epoch))

    def _finish(self, gpu: _Gpu, epoch: int) -> None:
        if epoch != gpu.epoch or gpu.call is None:
            return
        call, gpu.call = gpu.call, None
        self._account(gpu, gpu.works - gpu.began)
        self.outcome.useful += call.left
        self._to_come[call.stage] -= 1
        self._left[call.subject][call.stage] -= 1
        following = self._next(call)
        if call.stage in self.policy.keeps and following:
            following[0].ready = self.now
            self._start(gpu, following[0])
        else:
            for later in following:
                self._queue(later)
            self._offer(gpu)
        if self._to_come[call.stage] == 0:
            self._change_kinds()

    def _next(self, call: _Call) -> list[_Call]:
        """Calls that this one's end makes possible: the same block's, where both stages have the same blocks; else all, after the last block."""
        stage, stages = call.stage + 1, self.plant.stages
        if stage == len(stages):
            self.outcome.finished += self._left[call.subject][call.stage] == 0
            return []
        if stages[stage].blocks == stages[call.stage].blocks:
            return [self._call(call.subject, stage, call.block)]
        if self._left[call.subject][call.stage]:
            return []
        return [self._call(call.subject, stage, block) for block in range(stages[stage].blocks)]

    def _change_kinds(self) -> None:
        """GPUs that wait for work that cannot come any more turn to other work."""
        for kind in [kind for kind in self._free if kind.then]:
            waiting = self._free.pop(kind)
            for gpu in waiting:
                self._offer(gpu)

    def _account(self, gpu: _Gpu, before_work: float) -> None:
        dispatching = min(before_work, self.plant.dispatch_s)
        self.outcome.dispatching += dispatching
        self.outcome.loading += before_work - dispatching

    # failures ----------------------------------------------------------------------------------------------------------------------------------

    def _lifetime(self) -> float:
        return self.now + float(self.rng.exponential(self.plant.mtbf_h * HOUR_S))

    def _fail(self, node: int) -> None:
        self._down_since[node] = self.now
        for gpu in self.gpus[node * self.plant.gpus_per_node : (node + 1) * self.plant.gpus_per_node]:
            gpu.up, gpu.epoch, gpu.loaded = False, gpu.epoch + 1, set()
            if gpu.call:
                self._lose(gpu, gpu.call)
            elif gpu in self._free[gpu.kind]:
                self._free[gpu.kind].remove(gpu)
            gpu.call = None
        self._at(self.now + self.plant.repair_s, lambda: self._back(node))

    def _lose(self, gpu: _Gpu, call: _Call) -> None:
        """What was done since the last kept state is done again, elsewhere."""
        self._account(gpu, min(self.now, gpu.works) - gpu.began)
        done = max(0.0, self.now - gpu.works)
        kept = math.floor(done / self.plant.checkpoint_s) * self.plant.checkpoint_s if self.plant.stages[call.stage].checkpointed else 0.0
        self.outcome.useful += kept
        self.outcome.redone += done - kept
        again = replace(call, left=call.left - kept)
        self._at(self.now + self.plant.detect_s, lambda: self._queue(again))

    def _back(self, node: int) -> None:
        self.outcome.down += (self.now - self._down_since.pop(node)) * self.plant.gpus_per_node
        for gpu in self.gpus[node * self.plant.gpus_per_node : (node + 1) * self.plant.gpus_per_node]:
            gpu.up = True
            self._offer(gpu)
        self._at(self._lifetime(), lambda: self._fail(node))


# policies ------------------------------------------------------------------------------------------------------------------------------------------

ANY = Kind((4, 3, 2, 1, 0), resident=False)
TRAINER = Kind(TRAIN)


def front_count(gpus: int, *, headroom: float = 1.0) -> int:
    """GPUs for the frame work: its share of all work times ``headroom``, rounded up, since a pool that is too small starves all training."""
    share = sum(PAPER[i].mean_s for i in FRONT) / sum(stage.mean_s for stage in PAPER)
    return min(math.ceil(headroom * share * gpus), max(1, gpus - 1))


def pooled(gpus: int, *, headroom: float = 1.0) -> list[Kind]:
    """The bulk run with fractional GPUs: each frame GPU holds a worker of all three pools; when the pools run dry it takes training bundles."""
    count = front_count(gpus, headroom=headroom)
    return [Kind(FRONT, then=TRAINER)] * count + [TRAINER] * (gpus - count)


def separate(gpus: int) -> list[Kind]:
    """Every worker of a pool has a GPU of its own."""
    counts = [max(1, round(PAPER[i].mean_s / sum(s.mean_s for s in PAPER) * gpus)) for i in FRONT]
    kinds = [Kind((stage,), then=TRAINER) for stage, count in zip(FRONT, counts) for _ in range(count)]
    return kinds + [TRAINER] * (gpus - len(kinds))


POLICIES = (
    Policy("pools, long work first", lambda gpus: pooled(gpus, headroom=3.0), keeps=frozenset({3})),
    Policy("pools, first come first served", lambda gpus: pooled(gpus, headroom=3.0), long_first=False, keeps=frozenset({3})),
    Policy("pools no larger than their share", pooled, keeps=frozenset({3})),
    Policy("pools on nearly all GPUs", lambda gpus: pooled(gpus, headroom=9.0), keeps=frozenset({3})),
    Policy("a whole GPU for every pool worker", separate, keeps=frozenset({3})),
    Policy("any GPU, any stage", lambda gpus: [ANY] * gpus),
    Policy("one GPU per subject", lambda gpus: [ANY] * gpus, keeps=frozenset({0, 1, 2, 3})),
)


def simulate(plant: Plant, policy: Policy, subjects: Sequence[Subject], *, seed: int = 0) -> Outcome:
    """One run. A policy that keeps its GPU through the frame steps does their blocks one after the other: as one block."""
    if 0 in policy.keeps and len(plant.stages) == len(PAPER):
        plant = replace(plant, stages=tuple(replace(stage, blocks=1) for stage in plant.stages))
    return Simulation(plant, policy, subjects, seed=seed).run()


# what cannot be beaten -----------------------------------------------------------------------------------------------------------------------------


def subjects_of(plant: Plant, per_gpu: int, *, spread: float = 0.15, seed: int = 0) -> list[Subject]:
    """Subjects whose stage times vary: a factor of the subject's own (longer clips take longer everywhere), log-normal with mean 1."""
    sigma = math.sqrt(math.log1p(spread**2))
    factors = np.random.default_rng(seed).lognormal(-(sigma**2) / 2, sigma, per_gpu * plant.gpus)
    return [Subject(tuple(float(stage.mean_s * factor) for stage in plant.stages)) for factor in factors]


def shortest_possible(plant: Plant, subjects: Sequence[Subject]) -> float:
    """Seconds below which no schedule can end, even if loading, dispatch and failures cost nothing.

    The largest of: all work spread evenly; the longest subject's own chain, with its blocks side by side; and, since the last stage cannot be split
    or moved: of the k*G + 1 longest last stages, k + 1 share a GPU, after the shortest way to the first of them.
    """
    area = sum(subject.total for subject in subjects) / plant.gpus
    blocks = [stage.blocks for stage in plant.stages]
    chain = max(sum(t / b for t, b in zip(s.seconds, blocks)) for s in subjects)
    lead = min(sum(t / b for t, b in zip(s.seconds[:-1], blocks)) for s in subjects)
    last = sorted((subject.seconds[-1] / blocks[-1] for subject in subjects), reverse=True) if blocks[-1] == 1 else []
    shared = [lead + sum(last[k * plant.gpus - k : k * plant.gpus + 1]) for k in range(1, (len(last) - 1) // plant.gpus + 1)]
    return max(area, chain, *shared)


def best_list(plant: Plant, subjects: Sequence[Subject]) -> float:
    """The shortest of several list schedules in which nothing costs anything: what a perfect scheduler can at least reach, in seconds."""
    free = replace(plant, dispatch_s=0.0, mtbf_h=0.0, stages=tuple(replace(stage, load_s=0.0) for stage in plant.stages))
    late, early = tuple(reversed(range(len(plant.stages)))), tuple(range(len(plant.stages)))
    policies = [Policy("", partial(_alike, order)) for order in (late, early)]
    return min(simulate(free, policy, subjects).makespan for policy in policies)


def _alike(order: tuple[int, ...], gpus: int) -> list[Kind]:
    return [Kind(order)] * gpus


# the table -----------------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """Shares of GPU time in per cent: mean and half width of the 95 % confidence interval over seeds."""

    mean: float
    half: float

    @classmethod
    def of(cls, shares: Sequence[float]) -> Cell:
        values = 100 * np.asarray(shares)
        half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
        return cls(float(values.mean()), float(half))

    def __str__(self) -> str:
        return f"{self.mean:.1f}" if math.isnan(self.half) else f"{self.mean:.1f} ± {self.half:.1f}"


@dataclass(frozen=True)
class Line:
    """One number of nodes. ``bound``: unproductive share below which no schedule comes; ``reached``: of the best list schedule."""

    nodes: int
    bound: Cell
    reached: Cell
    policies: dict[str, Cell]
    hours: dict[str, float]


def study(nodes: int, *, per_gpu: int, seeds: int, policies: Sequence[Policy] = POLICIES, **plant: float) -> Line:
    """All policies on one size of cluster, over the same subjects."""
    shares: dict[str, list[float]] = defaultdict(list)
    hours: dict[str, list[float]] = defaultdict(list)
    bound, reached = [], []
    for seed in range(seeds):
        machines = Plant(nodes, **plant)  # type: ignore[arg-type]  # float fields by name
        people = subjects_of(machines, per_gpu, seed=seed)
        work = sum(subject.total for subject in people) / machines.gpus
        bound.append(1 - work / shortest_possible(machines, people))
        reached.append(1 - work / best_list(machines, people))
        for policy in policies:
            outcome = simulate(machines, policy, people, seed=seed)
            shares[policy.name].append(outcome.unproductive)
            hours[policy.name].append(outcome.makespan / HOUR_S)
    cells = {name: Cell.of(values) for name, values in shares.items()}
    return Line(nodes, Cell.of(bound), Cell.of(reached), cells, {name: float(np.mean(values)) for name, values in hours.items()})


def table(lines: Sequence[Line]) -> str:
    """Markdown: GPU time that brings no subject forward, in per cent."""
    names = list(lines[0].policies)
    head = ["nodes", "no schedule below", "best list, no costs", *names, "first policy over the bound, points"]
    rows = [head, ["---"] * len(head)]
    for line in lines:
        over = line.policies[names[0]].mean - line.bound.mean
        rows.append([str(line.nodes), str(line.bound), str(line.reached), *(str(line.policies[name]) for name in names), f"{over:.1f}"])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def plot(lines: Sequence[Line], path: Path) -> None:
    """The table as curves."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 5.5), layout="constrained")
    nodes = [line.nodes for line in lines]
    axes.fill_between(nodes, [c.bound.mean for c in lines], [c.reached.mean for c in lines], color="0.85", label="the optimum lies here")
    for i, name in enumerate(lines[0].policies):
        cells = [line.policies[name] for line in lines]
        errors = None if math.isnan(cells[0].half) else [c.half for c in cells]
        axes.errorbar(nodes, [c.mean for c in cells], errors, marker="osD^vxP"[i % 7], linewidth=2.5 if i == 0 else 1.2, capsize=3, label=name)
    axes.set(xscale="log", xlabel="nodes of 8 GPUs", ylabel="GPU time that brings no subject forward, %", ylim=(0, None))
    axes.set_xticks(nodes, [str(n) for n in nodes])
    axes.grid(alpha=0.3)
    figure.legend(fontsize=8, loc="outside lower center", ncols=3)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument("--per-gpu", type=int, default=20, help="subjects per GPU")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--mtbf-h", type=float, default=0.0, help="mean hours between failures of one node; 0 = none")
    parser.add_argument("--checkpoint-s", type=float, default=60.0)
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args()
    lines = []
    for nodes in given.nodes:
        lines.append(study(nodes, per_gpu=given.per_gpu, seeds=given.seeds, mtbf_h=given.mtbf_h, checkpoint_s=given.checkpoint_s))
        print(f"{nodes} nodes done", file=sys.stderr)
    print(table(lines))
    if given.plot:
        plot(lines, given.plot)


if __name__ == "__main__":
    main()
