"""The teacher and the saved student, whose rollouts give states as well; and which policies a user has named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from lvlm2p_wrappers.errors import UsageError
from lvlm2p_wrappers.evaluation.labelling import collect
from lvlm2p_wrappers.evaluation.rollout import choose
from lvlm2p_wrappers.records import Source, View
from lvlm2p_wrappers.saved_student import Student, load_student
from lvlm2p_wrappers.teacher import Teacher

MIXED: tuple[Source, ...] = ("random", "noisy_expert", "expert")
"""The policies that depend on nobody: every teacher labels the same states."""


class Players:
    """The policies that a user has named.

    Args:
        states_from: ``"mixed"``, or names of policies and folders of runs, separated by commas.
        teacher: who acts where ``"teacher"`` is among them; None refuses that.
        trust: whether the environment of a run may be in a module, which is imported.

    Attributes:
        sources: the policies.

    Raises:
        UsageError: if there is no such policy, or no student in such a folder.
    """

    def __init__(self, states_from: str = "mixed", *, teacher: Teacher | None = None, trust: bool = False) -> None:
        sources: dict[Source, None] = {}
        self._teacher = teacher
        self._student: Student | None = None
        self._env: gym.Env[Any, Any] | None = None
        for name in states_from.split(","):
            if name == "mixed":
                sources |= dict.fromkeys(MIXED)
            elif name in MIXED or (name == "teacher" and teacher is not None):
                sources[name] = None  # type: ignore[index]
            elif Path(name).exists() and self._student is None:
                self._student = load_student(Path(name))
                env_id = self._student.about["env_id"]
                if ":" in env_id and not trust:  # the module may run any code
                    raise UsageError(f"{name}: its environment {env_id} is in a module; add --trust to import it")
                sources["saved_student"] = None
            else:
                known = ", ".join(["mixed", *MIXED, *(["teacher"] if teacher else [])])
                raise UsageError(f"--states-from {name!r} is none of {known}, and no folder of a run; one run at most")
        self.sources = tuple(sources)

    def students_env(self) -> gym.Env[Any, Any]:
        """The environment of the saved student, as it sees it."""
        assert self._student is not None
        self._env = self._env or self._student.env()
        return self._env

    def action(self, source: Source, view: View, rng: np.random.Generator) -> int:
        """An action's number, drawn from the distribution of the teacher or of the saved student.

        Raises:
            UnfinishedError: if the teacher gave no answer for a reason that may pass.
            TeacherError: if too many replies were bad, or the user has to mend something.
        """
        if source == "teacher":
            assert self._teacher is not None
            probs = collect(self._teacher, self._teacher.submit(view))
        else:
            assert self._student is not None
            probs = self._student.probs(view.observation).astype(np.float32)
        return choose(probs, "sampled", len(view.actions), rng)
