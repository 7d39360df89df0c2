"""A teacher's advice for one view."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lvlm2p_wrappers.notebook import advice_html
from lvlm2p_wrappers.units import duration, money


@dataclass(frozen=True)
class Advice:
    """What a teacher advises for one view.

    Attributes:
        probs: (n_actions,) float32, non-negative, summing to 1.
        analysis: the first stage's answer as JSON text, ``""`` in one-stage operation.
        model: the model that answered.
        cached: whether no call was made for it.
        cost_usd: what its calls cost; 0 if none was made, None if the model has no known price.
        latency_s: seconds from the question to the answer.
        actions: the actions' names, in the order of ``probs``.
    """

    probs: NDArray[np.float32]
    analysis: str
    model: str
    cached: bool
    cost_usd: float | None
    latency_s: float
    actions: tuple[str, ...] = ()

    def _repr_html_(self) -> str:
        """What a notebook shows: a bar for every action, the analysis, and where the advice is from."""
        names = self.actions or [str(i) for i in range(len(self.probs))]
        source = "memory or store" if self.cached else f"{duration(self.latency_s)}, {money(self.cost_usd)}"
        return advice_html(self.probs, names, self.analysis, {"by": f"{self.model} ({source})"})
