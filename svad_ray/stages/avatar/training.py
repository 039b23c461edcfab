"""The optimisation that every avatar model shares: Adam over views, on any device, that can be left and continued to the same numbers.

Nothing in a step waits for the device: losses stay there until somebody asks for them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from svad_ray.stages.base import NO_CHECKPOINT, Checkpoint, silent

FIRST, SECOND = 0.9, 0.999  # Adam's decay rates


class FrameRows:
    """Values of T frames (T, D), of which a step moves the row of one frame: Adam with a count of its own for every row.

    The same numbers as a parameter for each frame, of which only the one that was looked at has a gradient.
    """

    def __init__(self, values: torch.Tensor, *, eps: float = 1e-15) -> None:
        self.values, self.eps = values, eps
        self.first, self.second, self.counts = torch.zeros_like(values), torch.zeros_like(values), [0] * len(values)

    def leaf(self, frame: int) -> torch.Tensor:
        """(D,) the frame's values, to be differentiated by."""
        return self.values[frame].detach().clone().requires_grad_(True)

    @torch.no_grad()
    def step(self, frame: int, gradient: torch.Tensor, rate: float) -> None:
        """Move one row against its gradient (D,)."""
        self.counts[frame] += 1
        count, first, second = self.counts[frame], self.first[frame], self.second[frame]
        first.lerp_(gradient, 1 - FIRST)
        second.mul_(SECOND).addcmul_(gradient, gradient, value=1 - SECOND)
        size = (second.sqrt() / (1 - SECOND**count) ** 0.5).add_(self.eps)
        self.values[frame].addcdiv_(first, size, value=-rate / (1 - FIRST**count))

    def state(self) -> dict[str, Any]:
        """Plain arrays that ``resume`` continues from."""
        held = {name: getattr(self, name).cpu().numpy().copy() for name in ("values", "first", "second")}
        return {**held, "counts": list(self.counts)}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state``."""
        for name in ("values", "first", "second"):
            getattr(self, name).copy_(torch.from_numpy(np.array(state[name])))
        self.counts = [int(n) for n in state["counts"]]


class Run:
    """All that the next training step depends on.

    Args:
        groups: Of parameters with a learning ``rate`` each, as torch's Adam takes them; may be empty.
        steps: In all. seed: Decides the order of views. eps: Adam's.
    """

    def __init__(self, groups: Sequence[dict[str, Any]], *, steps: int, seed: int, eps: float, device: torch.device | str = "cpu") -> None:
        self.parameters = [p for group in groups for p in group["params"]]
        self.adam = torch.optim.Adam(groups, lr=0.0, eps=eps, fused=True) if self.parameters else None
        self.rng, self.order, self.done = np.random.default_rng(seed), list[int](), 0
        self.losses = torch.zeros(steps, device=device)

    def next_view(self, count: int) -> int:
        """Every one of ``count`` views once per round, in random order."""
        if not self.order:
            self.order = list(self.rng.permutation(count))
        return int(self.order.pop())

    def state(self) -> dict[str, Any]:
        """Plain values and arrays that ``resume`` continues from, bit for bit."""
        moments = [self.adam.state[p] if self.adam else {} for p in self.parameters]
        return {
            "parameters": [p.detach().cpu().numpy().copy() for p in self.parameters],
            "moments": [{name: value.cpu().numpy().copy() for name, value in m.items()} for m in moments],
            "rng": json.dumps(self.rng.bit_generator.state),
            "order": [int(i) for i in self.order],
            "losses": self.losses[: self.done].cpu().numpy().copy(),
        }

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state``."""
        with torch.no_grad():
            for p, value, moments in zip(self.parameters, state["parameters"], state["moments"], strict=True):
                p.copy_(torch.from_numpy(np.array(value)))
                if moments and self.adam:  # a parameter that no loss has reached yet has none
                    self.adam.state[p] = {name: _like(p, np.array(m)) for name, m in moments.items()}
        self.rng.bit_generator.state = json.loads(state["rng"])
        self.order, self.done = list(state["order"]), len(state["losses"])
        self.losses[: self.done] = torch.from_numpy(np.array(state["losses"], np.float32))


def _like(parameter: torch.Tensor, kept: np.ndarray) -> torch.Tensor:
    """A kept moment with the parameter's layout in memory, which the fused optimiser wants; a count as it is."""
    value = torch.from_numpy(kept).to(parameter.device)
    return torch.empty_like(parameter).copy_(value) if kept.shape == tuple(parameter.shape) and kept.ndim else value


def optimise(
    run: Run,
    loss_of: Callable[[int, int], torch.Tensor],
    *,
    views: int,
    factor: Callable[[int], float],
    after: Callable[[int, float], None] = lambda view, factor: None,
    state: Callable[[], dict[str, Any]] | None = None,
    progress: Callable[[float], None] = silent,
    checkpoint: Checkpoint = NO_CHECKPOINT,
) -> list[float]:
    """Steps until all are done, one view each; returns the loss of every step.

    Args:
        loss_of: (step, view) -> the loss. factor: step -> what the learning rates are multiplied by.
        after: (view, factor) moves what is no parameter of the optimiser. state: What a checkpoint keeps; None = the run's own state.
    """
    steps = len(run.losses)
    for step in range(run.done, steps):
        share, view = factor(step), run.next_view(views)
        loss = loss_of(step, view)
        if run.adam:
            for group in run.adam.param_groups:
                group["lr"] = group["rate"] * share
            run.adam.zero_grad()
        loss.backward()
        if run.adam:
            run.adam.step()
        after(view, share)
        run.losses[step] = loss.detach()
        run.done = step + 1
        checkpoint.offer(state or run.state)
        progress((step + 1) / steps)
    return [float(x) for x in run.losses.tolist()]
