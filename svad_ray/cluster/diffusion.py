"""One clip's denoising over many workers: context windows and guidance halves of a step are independent, so each worker takes some of them.

Source: spec generation 0.2. One exchange per step: out go the noisy frames of every window, back come its predictions; everything that stays the
same through the run (image embedding, reference keys and values, pose features) is sent once.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import ray
import torch
from ray.exceptions import ActorDiedError, ActorUnavailableError, ObjectLostError, RayTaskError
from torch import Tensor

from svad_ray.cluster.config import ClusterConfig
from svad_ray.cluster.session import assigned_cpus
from svad_ray.errors import StageFailed
from svad_ray.nets.musepose.load import load_networks
from svad_ray.nets.musepose.sample import HALVES, Conditions, predict

_HELD = 2  # runs whose conditions a worker holds
_SENT_AT_MOST = 4  # times that one piece of work is sent before its worker's death is called its own doing
_PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)  # a worker that loads its networks again is back within their sum, as a rule
_AWAY = (ActorDiedError, ActorUnavailableError, ObjectLostError)


class Piece(NamedTuple):
    """One window of one guidance half."""

    window: int
    half: bool


class Forgotten(Exception):
    """A worker that was started again does not know the run."""


class WindowWorker:
    """An actor that holds the networks and predicts pieces of any run whose conditions it was given.

    Args:
        weights: Checkpoint folder, on the worker's node. dtype: "float32", ... device: "cpu" or "cuda". compile: See ``DiffusionConfig``.
    """

    def __init__(self, weights: str, dtype: str, device: str, compile: bool = False) -> None:
        torch.set_num_threads(max(1, int(assigned_cpus())))
        self.networks = load_networks(weights, dtype=getattr(torch, dtype), device=device)
        if compile:
            self.networks.compile()
        self._runs: OrderedDict[str, Conditions] = OrderedDict()

    def begin(self, run: str, conditions: Conditions) -> None:
        """Hold what stays the same through a run."""
        self._runs[run] = moved(conditions, self.networks.device, self.networks.dtype)
        while len(self._runs) > _HELD:
            self._runs.popitem(last=False)

    def predict(self, run: str, latents: Tensor, timestep: int, index: Sequence[int], half: bool) -> Tensor:
        """(1, 4, F, h, w) noisy frames of a window -> (1, 4, F, h, w). Raises ``Forgotten``."""
        if run not in self._runs:
            raise Forgotten(run)
        return predict(self.networks, latents, timestep, self._runs[run].window(index), half=half)


class SpreadPredict:
    """``nets.musepose.sample.Predict`` over ``workers`` actors; ``close`` ends them.

    Args:
        weights, dtype, device, compile: As of ``WindowWorker``. workers: How many. cpus, gpus: Of each. label_selector: Nodes that may be used.
    """

    def __init__(
        self,
        weights: str,
        *,
        workers: int,
        dtype: str = "float32",
        device: str = "cpu",
        compile: bool = False,
        cpus: float = 1.0,
        gpus: float = 0.0,
        label_selector: dict[str, str] | None = None,
    ) -> None:
        options: dict[str, Any] = {"num_cpus": cpus, "num_gpus": gpus, "max_restarts": -1}
        if label_selector:
            options["label_selector"] = label_selector
        kind = ray.remote(WindowWorker).options(**options)
        self.workers: list[Any] = [kind.remote(weights, dtype, device, compile) for _ in range(workers)]
        self._run: tuple[Conditions, str, ray.ObjectRef] | None = None

    def __call__(self, latents: Tensor, timestep: int, conditions: Conditions, index: Sequence[Sequence[int]]) -> list[Tensor]:
        """See ``Predict``; the pieces of a step go out together, and those of a lost worker again."""
        self._begin(conditions)
        waiting = [Piece(i, half) for i in range(len(index)) for half in HALVES]
        done: dict[Piece, Tensor] = {}
        for _ in range(_SENT_AT_MOST):
            sent = [
                (piece, at := number % len(self.workers), self._send(at, piece, latents, timestep, index)) for number, piece in enumerate(waiting)
            ]
            waiting = [piece for piece, at, ref in sent if not self._took(piece, at, ref, done)]
            if not waiting:
                return [torch.cat([done[Piece(i, half)] for half in HALVES]) for i in range(len(index))]
        raise StageFailed(
            f"{len(waiting)} pieces of a denoising step were lost with their workers {_SENT_AT_MOST} times",
            remedy="look at the workers' memory: `svad-ray doctor` prints what a window takes",
        )

    def close(self) -> None:
        """End the workers."""
        for worker in self.workers:
            ray.kill(worker)
        self.workers = []

    def _begin(self, conditions: Conditions) -> None:
        """Give a new run's conditions to every worker, once."""
        if self._run is not None and self._run[0] is conditions:
            return
        ref = ray.put(moved(conditions, torch.device("cpu"), None))
        self._run = (conditions, ref.hex(), ref)
        for worker in self.workers:
            worker.begin.remote(self._run[1], ref)

    def _send(self, at: int, piece: Piece, latents: Tensor, timestep: int, index: Sequence[Sequence[int]]) -> ray.ObjectRef:
        if self._run is None:
            raise RuntimeError("no run was begun")
        frames = list(index[piece.window])
        return self.workers[at].predict.remote(self._run[1], latents[:, :, frames], timestep, frames, piece.half)

    def _took(self, piece: Piece, at: int, ref: ray.ObjectRef, done: dict[Piece, Tensor]) -> bool:
        """Keep the answer; False when the worker was lost meanwhile; then it has been told everything again."""
        try:
            done[piece] = ray.get(ref)
            return True
        except RayTaskError as error:
            if not isinstance(error.cause, Forgotten):
                raise
        except _AWAY:
            pass
        self._tell_again(at)
        return False

    def _tell_again(self, at: int) -> None:
        """Wait for a worker that is being started again, and give it the run's conditions."""
        if self._run is None:
            raise RuntimeError("no run was begun")
        for pause in _PAUSES_S:
            try:
                ray.get(self.workers[at].begin.remote(*self._run[1:]))
                return
            except _AWAY:
                time.sleep(pause)


@lru_cache(maxsize=1)
def spread_for(weights: str, dtype: str, compile: bool, config: ClusterConfig) -> SpreadPredict:
    """The actors of this worker, started once; they end with it."""
    windows = config.windows
    device = "cuda" if windows.gpus else "cpu"
    return SpreadPredict(
        weights,
        workers=windows.workers,
        dtype=dtype,
        device=device,
        compile=compile,
        cpus=windows.cpus,
        gpus=windows.gpus,
        label_selector=config.label_selector or None,
    )


def moved(conditions: Conditions, device: torch.device, dtype: torch.dtype | None) -> Conditions:
    """The same on another device, in another dtype if one is given."""

    def to(x: Tensor) -> Tensor:
        return x.to(device=device, dtype=dtype or x.dtype)

    reference = {name: (to(key), to(value)) for name, (key, value) in conditions.reference.items()}
    return replace(conditions, clip=to(conditions.clip), reference=reference, pose=to(conditions.pose))
