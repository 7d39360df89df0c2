"""Few-shot examples: in words, for the templates to print, or with a picture that an environment draws."""

from __future__ import annotations

import contextlib
import fnmatch
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
from pydantic import ConfigDict, Field, ValidationError

from lvlm2p_wrappers.errors import PromptError, UsageError
from lvlm2p_wrappers.prompts.loader import PromptFiles
from lvlm2p_wrappers.prompts.options import Pattern, Table
from lvlm2p_wrappers.views import EnvInfo, EpisodeMemory, View, viewer


class State(Table):
    """A state of an environment: made by its id, reset with a seed, after some actions."""

    env_id: str
    seed: int = Field(default=0, ge=0)
    actions: tuple[str, ...] = Field(default=(), max_length=1000)


class InWords(Table):
    """An example for the templates to print; which fields it has is theirs to say."""

    model_config = ConfigDict(extra="allow")

    env: Pattern = "*"


class Pictured(Table):
    """An example with a picture: the state that is shown, and the replies to imitate."""

    env: Pattern = "*"
    picture: State
    analysis: dict[str, Any] = Field(default_factory=dict)
    reasoning: str = ""
    probabilities: dict[str, float]


class Worked(NamedTuple):
    """A pictured example and its view; ``where`` names its file and number in errors."""

    view: View
    example: Pictured
    where: str


@dataclass(frozen=True)
class Examples:
    """The examples in a set's ``examples.toml``.

    Attributes:
        path: the file.
        in_words: the tables without a picture, in the file's order; only the templates read them.
        pictured: those with one, each with its number in the file.
    """

    path: Path
    in_words: tuple[dict[str, Any], ...]
    pictured: tuple[tuple[int, Pictured], ...]

    def in_words_for(self, env_id: str) -> list[dict[str, Any]]:
        """The examples in words that fit an environment."""
        return [row for row in self.in_words if fnmatch.fnmatchcase(env_id, row.get("env", "*"))]

    def pictured_for(
        self, env_id: str, most: int, memory: Callable[[], EpisodeMemory], names: Callable[[EnvInfo], Sequence[str]]
    ) -> list[Worked]:
        """The first pictured examples that fit an environment, drawn.

        Args:
            env_id: the environment that is asked about.
            most: how many at most.
            memory: makes what remembers the pictures and actions that a question shows and tells.
            names: gives the actions of an environment their names in the set.

        Raises:
            PromptError: if an environment of one is not registered, or its state cannot be reached.
        """
        fitting = [pair for pair in self.pictured if fnmatch.fnmatchcase(env_id, pair[1].env)][:most]
        found = []
        for number, example in fitting:
            where = f"{self.path}: example {number}"
            found.append(Worked(_view(example.picture, memory(), names, where), example, where))
        return found


def read_examples(files: PromptFiles) -> Examples:
    """Read ``examples.toml``.

    Raises:
        PromptError: if it is broken.
    """
    path = files.path("examples.toml")
    tables = (files.tables("examples.toml") or [{}])[-1].get("example", [])
    if not (isinstance(tables, list) and all(isinstance(table, dict) for table in tables)):
        raise PromptError(f"{path}: write [[example]], with two brackets")
    in_words, pictured = [], []
    for number, table in enumerate(tables, start=1):
        try:
            if "picture" in table:
                pictured.append((number, Pictured.model_validate(table)))
            else:
                InWords.model_validate(table)
                in_words.append(table)
        except ValidationError as error:
            first = error.errors()[0]
            problem = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
            raise PromptError(f"{path}: example {number}: {problem}") from None
    return Examples(path, tuple(in_words), tuple(pictured))


def _view(state: State, memory: EpisodeMemory, names: Callable[[EnvInfo], Sequence[str]], where: str) -> View:
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # BabyAI tells of every layout that it rejects
            env = gym.make(_registered(state.env_id), render_mode="rgb_array", disable_env_checker=True)
            env.reset(seed=state.seed)
            look = viewer(env)
            shown = memory.look(look)
            for action in _played(env, _numbers_of(state, look.env_info.actions, names(look.env_info))):
                memory.act(look.env_info.actions[action])
                shown = memory.look(look)
            view = shown.view(memory.history)
            env.close()
    except (gym.error.Error, ImportError, TypeError, ValueError, UsageError) as error:
        raise PromptError(f"{where}: its picture cannot be drawn: {error}") from None
    return view


def _registered(env_id: str) -> str:
    """The id without the module in front of it, which is not imported: a prompt folder may come from a stranger."""
    module, _, name = env_id.rpartition(":")
    if module and name not in gym.registry:
        raise ValueError(
            f"{env_id!r} names the module {module}, and a prompt folder imports nothing. "
            f"Write `import {module}` in front of the teacher, or give the command --trust."
        )
    return name


def _numbers_of(state: State, own: Sequence[str], told: Sequence[str]) -> list[int]:
    """The actions' numbers; each may have the environment's own name, or the one that the model is told."""
    numbers = {name: i for names in (own, told) for i, name in enumerate(names)}
    for name in state.actions:
        if name not in numbers:
            raise ValueError(f"no action {name!r}; {state.env_id} has {', '.join(own)}")
    return [numbers[name] for name in state.actions]


def _played(env: gym.Env[Any, Any], actions: Sequence[int]) -> Iterator[int]:
    for number, action in enumerate(actions, start=1):
        _, _, terminated, truncated, _ = env.step(action + int(env.action_space.start))  # type: ignore[attr-defined]
        if terminated or truncated:
            raise ValueError(f"the episode ends with action {number} of {len(actions)}")
        yield action
