"""How much a student should still learn from its teacher's labels, by the progress that it makes."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any, Protocol

_LEAST_FALL = 1024
"""Frames in which the weight falls to 0 at the earliest, so that two measurements in a row do not decide."""

_STEP = 0.05
"""Progress is a rise by this share of the range in which all values so far have been."""


class HasState(Protocol):
    """A torch module or optimizer."""

    def state_dict(self) -> dict[str, Any]:
        """What it is made of."""

    def load_state_dict(self, state_dict: dict[str, Any], /) -> object:
        """Put that back."""


class Lambda:
    """The weight ``lam`` of the distillation loss: it is constant while the student makes progress, then falls to 0.

    Progress is a higher mean return, or a smaller distance to labels that the student has not yet learnt from. A
    student that goes on with the same labels afterwards learns the teacher's errors by heart, too. The weight falls
    linearly, in ``patience`` times the frames that the student took up to its last progress: a task that is learnt
    slowly is learnt from the teacher for longer. New progress brings it back, unless it was 0 already.

    When it reaches 0, the learners go back to the state that they had at their highest mean return: what a student has
    meanwhile learnt of its teacher's errors, reinforcement takes long to undo.

    Args:
        lam: the weight while there is progress.
        patience: 0 for a constant weight.
        learners: the student and its optimizer.

    Attributes:
        lam: the present weight; at 0 no label is worth asking for.

    Example:
        >>> weight = Lambda(1.0, patience=0.5)
        >>> for step, mean_return in ((2000, 0.1), (4000, 0.9), (5000, 0.9), (6000, 0.9)):
        ...     weight.update(step, distance=None, mean_return=mean_return)
        ...     print(weight.lam)
        1.0
        1.0
        0.5
        0.0
    """

    def __init__(self, lam: float, patience: float, *learners: HasState) -> None:
        self.lam = self._full = lam
        self._learners, self._best_return, self._best = learners, -math.inf, list[dict[str, Any]]()
        self._patience, self._progress_at = patience, 0
        self._ranges: dict[str, tuple[float, float]] = {}

    def update(self, global_step: int, distance: float | None, mean_return: float | None) -> None:
        """Measure the student after a rollout.

        Args:
            global_step: the frames so far.
            distance: mean KL(teacher || student) over the latest new labels, each measured before the student learnt
                from it; None if there are none.
            mean_return: of the last episodes; None while there are too few of them, which counts as progress.
        """
        values = {"distance": None if distance is None else -distance, "return": mean_return}
        rises = [self._is_rise(name, value) for name, value in values.items() if value is not None]
        if any(rises) or mean_return is None:
            self._progress_at = global_step
        if self._patience and self.lam > 0:
            self._keep_best(mean_return)
            frames = self._patience * max(self._progress_at, _LEAST_FALL)
            self.lam = self._full * max(1 - (global_step - self._progress_at) / frames, 0.0)
            if self.lam == 0:
                for learner, state in zip(self._learners, self._best, strict=False):
                    learner.load_state_dict(state)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        best = {"best_return": self._best_return, "best": self._best if self.lam > 0 else []}
        return {"lam": self.lam, "progress_at": self._progress_at, "ranges": self._ranges, **best}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from a :meth:`state`."""
        self.lam, self._progress_at, self._ranges = state["lam"], state["progress_at"], dict(state["ranges"])
        self._best_return, self._best = state["best_return"], state["best"]

    def _keep_best(self, mean_return: float | None) -> None:
        if mean_return is not None and mean_return >= self._best_return:
            self._best_return = mean_return
            self._best = copy.deepcopy([learner.state_dict() for learner in self._learners])

    def _is_rise(self, name: str, value: float) -> bool:
        least, best = self._ranges.get(name, (value, value))
        is_rise = name not in self._ranges or value > best + _STEP * (best - least)
        self._ranges[name] = min(least, value), value if is_rise else best
        return is_rise
