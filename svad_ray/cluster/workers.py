"""What runs inside the workers of a bulk run: the two-attempt rule round every step, and the pools' actors.

A row between the pools is a message (JSON) and the pixels of one block of frames; everything else travels as keys and lies in the store.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from typing import Any, TypeVar

import ray

from svad_ray import pipeline
from svad_ray.cluster.config import ClusterConfig, Pool
from svad_ray.cluster.hosts import PoolHost, prepare_worker
from svad_ray.cluster.session import alive_nodes, assigned_cpus, this_node
from svad_ray.config import PictureConfig, Settings
from svad_ray.errors import ArtefactDamaged, BackendUnavailable, InputError, QualityRejected, StoreError, Unanswered, WeightsMissing
from svad_ray.fulfil import find_kit, fulfil, photo_of
from svad_ray.ledger import Exhausted, Ledger, SubjectRequest
from svad_ray.ledger.limits import bounded
from svad_ray.local import BlockOrder, FrameHost, Kept, LocalRunner, commit_step
from svad_ray.store import ArtefactStore, Key
from svad_ray.subject import Clip
from svad_ray.usage import Meter

T = TypeVar("T")
OF_THE_JOB = (StoreError, WeightsMissing, BackendUnavailable)  # every other subject would meet the same: the run stops, nobody is given up
PERMANENT = (QualityRejected, InputError)  # trying again cannot help
DAMAGED_AT_MOST = 20  # artefacts of one subject that may be found damaged, and are made again, before its store is past help
UNANSWERED_AT_MOST = 5  # times that a service stays away (most of a minute each) before that is the run's trouble
BLOCK, READY, FAILED = "block", "ready", "failed"
STEPS = ("identity", "restore")
Row = dict[str, list[Any]]


@dataclass(frozen=True)
class Job:
    """What every worker of a run is told.

    Attributes:
        out: Root of the run. run: Its name, new for each start. config: What runs where.
    """

    out: str
    run: str
    config: ClusterConfig

    @property
    def work(self) -> ArtefactStore:
        """Artefacts of the stages."""
        return ArtefactStore(f"{self.out}/work")

    def ledger(self) -> Ledger:
        """The run's ledger as seen from this node."""
        return Ledger(f"{self.out}/ledger", run=self.run, node=this_node(), node_alive=lambda node: node in alive_nodes())


class GaveUp(Exception):
    """A subject's step will not succeed."""

    def __init__(self, step: str, reason: str, attempts: int) -> None:
        super().__init__(reason)
        self.step, self.reason, self.attempts = step, reason, attempts


def tried(job: Job, key: Key, step: str, work: Callable[[], T], *, timeout_s: float, memory_gib: float) -> T:
    """``work()``, at most twice for this subject and step, whatever becomes of the process.

    Raises:
        GaveUp: It failed for good.
        ArtefactDamaged: Something that it reads is not there any more; it was forgotten, so that whoever makes it makes it again.
        StoreError, WeightsMissing, BackendUnavailable: The run's own trouble.
    """
    ledger, unanswered = job.ledger(), 0
    while True:
        try:
            attempt = ledger.begin(key, step)
        except Exhausted as error:
            raise GaveUp(step, str(error), len(error.reasons)) from None
        try:
            with bounded(timeout_s=timeout_s, memory_gib=memory_gib, say=partial(ledger.failed, attempt)):
                value = work()
        except ArtefactDamaged as error:
            if error.key:
                ledger.excuse(attempt, str(error))  # not this step's doing, and mended by forgetting it
                job.work.uncommit(Key.parse(error.key))
            else:
                ledger.failed(attempt, str(error))
            raise
        except OF_THE_JOB as error:
            ledger.excuse(attempt, str(error))
            raise
        except Unanswered as error:
            ledger.excuse(attempt, str(error))
            unanswered += 1
            if unanswered >= UNANSWERED_AT_MOST:
                raise BackendUnavailable(error.found, expected=error.expected, remedy=error.remedy) from error
            continue
        except PERMANENT as error:
            ledger.failed(attempt, str(error))
            raise GaveUp(step, str(error), 1) from error
        except Exception as error:
            ledger.failed(attempt, f"{type(error).__name__}: {error}")
            continue
        ledger.succeeded(attempt)
        return value


class _Reached(Exception):
    """The front of the pipeline is done."""


class FrontRunner(LocalRunner):
    """Does what comes before the frame steps, writes down the frame blocks, and stops there."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.blocks: dict[str, list[BlockOrder]] = {}
        self.clip: Kept[Clip] | None = None

    def whole(self, name: str, stage: Any, call: Any, *, inputs: list[str]) -> Kept[Any]:
        """As ``LocalRunner``, up to the frame steps."""
        if self.blocks:
            raise _Reached
        return super().whole(name, stage, call, inputs=inputs)

    def frames(self, name: str, stage: Any, clip: Any, context: Any) -> Kept[Clip]:
        """Orders instead of work."""
        self.clip = self.clip or clip
        self.blocks[name] = self.orders(name, stage, clip, context)
        return self._join([Kept(str(order.key), _not_here) for order in self.blocks[name]], self.blocks[name][-1].stop)


def _not_here() -> Clip:
    raise _Reached


class GenerateWorker:
    """Perceive, animate and what else is done once a subject: one row in, a row for each block of its frames out."""

    def __init__(self, job: Job) -> None:
        self.job, self.kit = job, find_kit(job.config.kit)

    def __call__(self, batch: dict[str, Any]) -> Iterator[Row]:
        """Rows of the batch's subjects. The number of a subject's rows depends on the subject alone, so that a repeated task repeats its output."""
        for text in batch["request"]:
            request = SubjectRequest.from_json(json.loads(text))
            message = {"key": str(request.key), "kind": FAILED}
            pool = self.job.config.generate
            prepare_worker(request.settings, assigned_cpus())
            try:
                run = tried(
                    self.job,
                    request.key,
                    "generate",
                    partial(self._front, request),
                    timeout_s=pool.timeout_s,
                    memory_gib=pool.memory_gib,
                )
            except GaveUp as error:
                yield _row({**message, "step": error.step, "reason": error.reason, "attempts": error.attempts})
                continue
            except ArtefactDamaged:
                yield _row({**message, "kind": READY})  # the last step does whatever is missing
                continue
            count = len(next(iter(run.blocks.values())))
            for i in range(count):
                orders = {name: asdict(blocks[i]) | {"key": str(blocks[i].key)} for name, blocks in run.blocks.items()}
                yield _row({**message, "kind": BLOCK, "block": i, "of": count, "orders": orders}, self._pixels(run, orders))

    def _front(self, request: SubjectRequest) -> FrontRunner:
        run = FrontRunner(self.job.work, request.settings, body_id=self.kit.body_id(request.settings))
        stages = self.kit.stages(request.settings)
        self._spread(stages.animate)
        try:
            pipeline.create(photo_of(request, self.kit, run, stages), request.settings, run, stages=stages)
        except _Reached:
            return run
        raise RuntimeError("the pipeline has no frame steps")

    def _spread(self, animate: Any) -> None:
        """Give the animate stage actors to denoise on, if there shall be some and it can use them."""
        if not (self.job.config.windows.workers and hasattr(animate, "predict")):
            return
        from svad_ray.cluster.diffusion import spread_for
        from svad_ray.nets.device import device_and_dtype

        _, dtype = device_and_dtype(animate.config.diffusion.dtype)
        animate.predict = spread_for(animate.config.weights, str(dtype).removeprefix("torch."), animate.config.diffusion.compile, self.job.config)

    def _pixels(self, run: FrontRunner, orders: dict[str, dict[str, Any]]) -> bytes:
        """The block's frames as the next worker needs them; nothing when it is done."""
        first = orders[STEPS[0]]
        if run.clip is None or _done(run.store, Key.parse(first["key"])):
            return b""
        return pickle.dumps(run.clip.value.slice(first["start"], first["stop"]), protocol=5)


class FrameWorker:
    """One step of frame blocks: identity or restore. A row in, the row with the new pixels out."""

    def __init__(self, job: Job, step: str, pool: Pool) -> None:
        self.job, self.step, self.pool, self.kit = job, step, pool, find_kit(job.config.kit)
        self.host: FrameHost = PoolHost(self.kit) if pool.via == "pool" else _resident(job)
        prepare_worker(Settings(), assigned_cpus())

    def __call__(self, batch: dict[str, Any]) -> Row:
        """The batch's rows, in order."""
        rows = [self._one(json.loads(text), pixels) for text, pixels in zip(batch["message"], batch["pixels"])]
        return {name: [row[name][0] for row in rows] for name in rows[0]}

    def _one(self, message: dict[str, Any], pixels: bytes) -> Row:
        if message["kind"] != BLOCK:
            return _row(message)
        order = message["orders"][self.step]
        key, subject = Key.parse(order["key"]), Key.parse(message["key"])
        last = self.step == STEPS[-1]
        if _done(self.job.work, key):
            return _row(message)
        try:
            clip = tried(
                self.job,
                subject,
                f"{self.step}-{order['start']}",
                lambda: self._made(message, order, key, pixels),
                timeout_s=self.pool.timeout_s,
                memory_gib=self.pool.memory_gib,
            )
        except GaveUp as error:
            return _row({**message, "kind": FAILED, "step": error.step, "reason": error.reason, "attempts": error.attempts})
        except ArtefactDamaged:
            return _row({**message, "kind": READY})
        return _row(message, b"" if last else pickle.dumps(clip, protocol=5))

    def _made(self, message: dict[str, Any], order: dict[str, Any], key: Key, pixels: bytes) -> Clip:
        meter = Meter()
        shard = pickle.loads(pixels) if len(pixels) else self._stored(message, order)
        context = _artefact(self.job.out, order["context"])
        clip = self.host(order["stage"], order["config"], shard, context)
        commit_step(self.job.work, key, clip, self.kit.make(order["stage"], _config(order)), meter.read())
        return clip

    def _stored(self, message: dict[str, Any], order: dict[str, Any]) -> Clip:
        """The block's frames from the store: what the step before committed, or a part of the generated clip."""
        at = STEPS.index(self.step)
        if at:
            return self.job.work.get(Key.parse(message["orders"][STEPS[at - 1]]["key"]))
        return _artefact(self.job.out, order["clip"]).slice(order["start"], order["stop"])


def train_subject(job: Job, text: str) -> dict[str, Any]:
    """Everything of a subject that is not committed yet (fit and avatar, as a rule) and its delivery: the task in a placement group.

    Returns:
        A message: kind "committed" with the marker's facts, or "failed" with step, reason and attempts.
    """
    request = SubjectRequest.from_json(json.loads(text))
    train = job.config.train

    kit = find_kit(job.config.kit)
    prepare_worker(request.settings, assigned_cpus())  # before the clock of the limits starts

    def work() -> dict[str, Any]:
        done = fulfil(request, job.out, kit=kit, exports=job.config.exports, checkpoint_s=train.checkpoint_s, facts={"run": job.run})
        return done.facts

    damaged = ""
    for _ in range(DAMAGED_AT_MOST):
        try:
            facts = tried(job, request.key, "train", work, timeout_s=train.timeout_s, memory_gib=train.memory_gib)
            return {"key": str(request.key), "kind": "committed", "facts": facts}
        except GaveUp as error:
            return {"key": str(request.key), "kind": FAILED, "step": error.step, "reason": error.reason, "attempts": error.attempts}
        except ArtefactDamaged as error:
            damaged = str(error)  # it was forgotten; this time it is made again
    return {"key": str(request.key), "kind": FAILED, "step": "train", "reason": damaged, "attempts": DAMAGED_AT_MOST}


@lru_cache(maxsize=4)
def _artefact(out: str, name: str) -> Any:
    """A committed value, or a part of one ("<key>.<field>"), kept for the blocks that follow."""
    key, _, part = name.partition(".")
    value = ArtefactStore(f"{out}/work").get(Key.parse(key))
    return getattr(value, part) if part else value


def _done(store: ArtefactStore, key: Key) -> bool:
    """Is it committed? A torn marker is forgotten."""
    try:
        return store.committed(key) is not None
    except ArtefactDamaged:
        store.uncommit(key)
        return False


def _config(order: dict[str, Any]) -> Any:
    return type(Settings().stage(order["stage"])).model_validate(order["config"])


def _resident(job: Job) -> FrameHost:
    from svad_ray.cluster.serve_calls import ResidentFrames

    return ResidentFrames(job.config.app, marks=job.out)


def _row(message: dict[str, Any], pixels: bytes = b"") -> Row:
    return {"message": [json.dumps(message)], "pixels": [pixels]}


def models_here(kit: str, names: tuple[str, ...]) -> str:
    """Make sure that this node has the model packages; what is wrong, or ""."""
    from svad_ray import models
    from svad_ray.errors import SvadError

    try:
        find_kit(kit)
        for name in names:
            models.ensure(name)
    except SvadError as error:
        return f"node {ray.util.get_node_ip_address()}: {error}"
    return ""


def picture_here(config: PictureConfig) -> str:
    """Does this node see the folder of what draws? What is wrong, or ""."""
    from svad_ray.errors import SvadError
    from svad_ray.stages.picture.draw import chosen

    try:
        chosen(config)
    except SvadError as error:
        return f"node {ray.util.get_node_ip_address()}: {error}"
    return ""
