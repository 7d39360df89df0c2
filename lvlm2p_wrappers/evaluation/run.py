"""A whole evaluation: first the labels, then the rollouts; what is there already is not done again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, get_args

import gymnasium as gym

from lvlm2p_wrappers.errors import TeacherError, UsageError
from lvlm2p_wrappers.evaluation.folder import EvaluationFolder
from lvlm2p_wrappers.evaluation.labelling import UnfinishedError, label_states
from lvlm2p_wrappers.evaluation.players import Players
from lvlm2p_wrappers.evaluation.rollout import Job, roll_out
from lvlm2p_wrappers.evaluation.states import State, collect_states
from lvlm2p_wrappers.records import EvaluationArguments, Policy
from lvlm2p_wrappers.teacher import Teacher

_SEEDS = 1_000_000  # distance between the first seeds of two evaluations


Progress: TypeAlias = Callable[[str, int, int], None]
"""Is told of progress: ``"states"`` or ``"episodes"``, how many of them are done, and of how many."""


def evaluate(
    teacher: Teacher,
    make: Callable[[], gym.Env[Any, Any]],
    folder: EvaluationFolder,
    *,
    width: int,
    progress: Progress,
    trust: bool = False,
) -> TeacherError | None:
    """Add the missing rows of an evaluation. Whatever happens, the answers that came are kept.

    Args:
        teacher: who is evaluated.
        make: makes the environment.
        folder: keeps the rows.
        width: how many states, and episodes, are asked about at a time.
        progress: is told of every row.
        trust: whether the environment of a saved student may be in a module, which is imported.

    Returns:
        Why rows are missing at the end; None if none is.
    """
    players = Players(folder.arguments.states_from, teacher=teacher, trust=trust)
    jobs = _jobs(folder.arguments)
    labelled = {label.id for label in folder.labels}
    done = {Job(episode.policy, episode.seed) for episode in folder.episodes}
    try:
        states = _states(make(), teacher, folder, players)
        progress("states", len(folder.labels), len(states))
        for label in label_states(teacher, [state for state in states if state.id not in labelled], width=width):
            folder.add_label(label)
            progress("states", len(folder.labels), len(states))
        progress("episodes", len(folder.episodes), len(jobs))
        for episode in roll_out(teacher, make, [job for job in jobs if job not in done], width=width):
            folder.add_episode(episode)
            progress("episodes", len(folder.episodes), len(jobs))
    except UnfinishedError as error:
        return error
    finally:
        teacher.drain()
    return None


def _states(env: gym.Env[Any, Any], teacher: Teacher, folder: EvaluationFolder, players: Players) -> list[State]:
    """The states that are labelled, those of the folder's labels among them."""
    arguments, own = folder.arguments, teacher.own_view
    frames = teacher.frames_of(env)
    teacher.resume()
    states = collect_states(env, arguments.states, seed=arguments.seed, frames=frames, own=own, players=players)
    env.close()
    pictures = {state.id: teacher.prompts(state.view.env_info).as_told(state.view).picture for state in states}
    if any(label.id not in pictures or label.picture != pictures[label.id] for label in folder.labels):
        raise UsageError(
            f"the states in {folder.path} are not those that would be labelled now: the environment, its version "
            "or who acted has changed. Name another folder with --out."
        )
    return states


def _jobs(arguments: EvaluationArguments) -> list[Job]:
    first = arguments.seed * _SEEDS
    return [Job(policy, first + n) for n in range(arguments.episodes) for policy in get_args(Policy)]
