"""The whole of an evaluation: labels, then episodes, then the card; what is there already is not done again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, get_args

import gymnasium as gym

from lvlm2p_wrappers.errors import TeacherError, UsageError
from lvlm2p_wrappers.evaluation.folder import Arguments, Episode, Label, Record, Way
from lvlm2p_wrappers.evaluation.labelling import UnfinishedError, label_states
from lvlm2p_wrappers.evaluation.metrics import card
from lvlm2p_wrappers.evaluation.rollout import Job, play
from lvlm2p_wrappers.evaluation.states import State, collect_states
from lvlm2p_wrappers.teacher import Teacher
from lvlm2p_wrappers.views import EnvInfo

_SEEDS = 1_000_000  # between the seeds of two evaluations


class Watch(Protocol):
    """Is told how an evaluation goes on."""

    def __call__(self, what: str, done: int, of: int) -> None:
        """So many of all labels or episodes are there."""


def arguments_of(teacher: Teacher, env_info: EnvInfo, *, prompts: str | None, **numbers: int) -> Arguments:
    """What an evaluation of a teacher depends on.

    Args:
        teacher: who is evaluated.
        env_info: of the environment.
        prompts: the prompt set, as the user named it; None for the bundled one that fits.
        **numbers: ``seed``, ``states`` and ``episodes``.
    """
    teacher.prepare(env_info)
    return Arguments(
        env_id=env_info.env_id,
        model=teacher.model,
        prompts=prompts or env_info.family,
        fingerprint=teacher.prompts(env_info).fingerprint,
        **numbers,
    )


def evaluate(
    teacher: Teacher,
    make: Callable[[], gym.Env[Any, Any]],
    record: Record,
    *,
    width: int,
    watch: Watch,
) -> TeacherError | None:
    """Do what is missing of an evaluation. Whatever happens, what was answered is kept.

    Args:
        teacher: who is evaluated.
        make: makes the environment.
        record: where rows are kept, and which are there.
        width: how many states are asked about, and episodes played, at a time.
        watch: is told of every row.

    Returns:
        Why rows are missing at the end; None if none is.
    """
    if not (record.folder / "evaluation.json").exists():
        record.save(card(record.labels, record.episodes), complete=False)
    try:
        _label(teacher, make, record, watch, width)
        _play(teacher, make, record, watch, width)
    except UnfinishedError as error:
        return error
    finally:
        teacher.drain()
    return None


def _label(teacher: Teacher, make: Callable[[], gym.Env[Any, Any]], record: Record, watch: Watch, width: int) -> None:
    env = make()
    states = collect_states(env, record.arguments.states, seed=record.arguments.seed)
    env.close()
    there = {label.id: label.picture for label in record.labels}
    if any(number >= len(states) or states[number].view.picture.digest != there[number] for number in there):
        raise UsageError(
            f"the states in {record.folder} are not those that would be labelled now: the environment or its version "
            "has changed. Name another folder with --out."
        )

    def keep(state: State, label: Label) -> None:
        record.add_label(label, state.view.picture)
        watch("states", len(record.labels), len(states))

    watch("states", len(there), len(states))
    label_states(teacher, [state for state in states if state.id not in there], keep, width=width)


def _play(teacher: Teacher, make: Callable[[], gym.Env[Any, Any]], record: Record, watch: Watch, width: int) -> None:
    seeds = range(record.arguments.seed * _SEEDS, record.arguments.seed * _SEEDS + record.arguments.episodes)
    jobs = [Job(way, seed) for seed in seeds for way in get_args(Way)]
    there = {Job(row.way, row.seed) for row in record.episodes}

    def keep(episode: Episode) -> None:
        record.add_episode(episode)
        watch("episodes", len(record.episodes), len(jobs))

    watch("episodes", len(there), len(jobs))
    play(teacher, make, [job for job in jobs if job not in there], keep, width=width)
