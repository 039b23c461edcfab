"""A training run that can be left and continued to the same numbers."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch


@dataclass
class Run:
    """All that the next training step depends on.

    Attributes:
        parameters: What is trained. adam: Its optimiser. rng: Decides the order of views and the backgrounds. order: Views left in this round.
    """

    parameters: list[torch.Tensor]
    adam: torch.optim.Adam
    rng: np.random.Generator
    order: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def next_view(self, count: int) -> int:
        """Every one of ``count`` views once per round, in random order."""
        if not self.order:
            self.order = list(self.rng.permutation(count))
        return self.order.pop()

    def state(self) -> dict[str, Any]:
        """Plain values and arrays that ``resume`` continues from, bit for bit."""
        return {
            "parameters": [p.detach().numpy().copy() for p in self.parameters],
            "moments": [{name: value.numpy().copy() for name, value in self.adam.state[p].items()} for p in self.parameters],
            "rng": json.dumps(self.rng.bit_generator.state),
            "order": [int(i) for i in self.order],
            "losses": np.array(self.losses),
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from ``state``."""
        with torch.no_grad():
            for p, value, moments in zip(self.parameters, state["parameters"], state["moments"], strict=True):
                p.copy_(torch.from_numpy(value.copy()))
                if moments:  # a parameter that no loss has reached yet has none
                    self.adam.state[p] = {name: torch.from_numpy(np.array(m)) for name, m in moments.items()}
        self.rng.bit_generator.state = json.loads(state["rng"])
        self.order, self.losses = list(state["order"]), state["losses"].tolist()
