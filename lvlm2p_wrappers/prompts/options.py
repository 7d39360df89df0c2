"""The options of a prompt set: what its ``set.toml`` may say."""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from lvlm2p_wrappers.errors import PromptError
from lvlm2p_wrappers.prompts.loader import PromptFiles

Pattern = Annotated[str, Field(max_length=200)]
"""Matches environment ids, with ``*``."""


class Table(BaseModel):
    """A table of a set's TOML files; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Sampling(Table):
    """Sampling options; None leaves the choice to the provider."""

    temperature: float | None = 0.0
    max_tokens: int = Field(default=4096, ge=1, le=10**9)
    reasoning_effort: str | None = None


class Names(Table):
    """Names for the actions of environments that give none."""

    env: Pattern
    actions: list[str]
    does: list[str] = []

    @field_validator("actions")
    @classmethod
    def _distinct(cls, actions: list[str]) -> list[str]:
        if twice := [name for name, count in Counter(actions).items() if count > 1]:
            raise ValueError(f"{twice[0]!r} is there twice; a reply could not tell the two apart")
        return actions


def _for_all(frames: Any) -> Any:
    """A number alone is meant for every environment."""
    return frames if isinstance(frames, dict) else {"*": frames}


class Options(Table):
    """The options of a prompt set, as its ``set.toml`` gives them.

    Attributes:
        base: the bundled set behind a user's folder, where it is not the one that fits the environment.
        stages: 2 for analysis and action, 1 for action alone.
        analysis: the form of the first stage's reply.
        picture_in_action: whether the picture is sent again with the second stage.
        picture_style: ``"plain"`` is the environment's own picture; ``"lines"`` has lines over the cells of a numbered
            grid, and outlines around things.
        history: how many of the last actions are told.
        frames: how many of the last pictures are shown, by environment id; the first match wins, without one it is 1.
        example_pictures: how many of the pictured examples are shown, at most.
        sampling: what is sent to the model along with the messages.
        rules: partials by environment id; here and below the first match wins.
        shows: what a task's pictures can contain, by environment id; the templates tell of nothing else.
        choices: the actions that can matter to a task, by environment id; the others are not asked about and get 0.
        report: the fields of the ``grid`` analysis that a task has beyond those that all have, by environment id.
        rename: what the model is told instead of an action's own name.
        actions: what actions do, by name.
        names: names for the actions of environments that give none.
    """

    stages: Literal[1, 2] = 2
    base: str | None = None
    analysis: Literal["grid", "grid-0.1", "summary"] = "summary"
    picture_in_action: bool = True
    picture_style: Literal["plain", "lines"] = "plain"
    history: int = Field(default=0, ge=0)
    frames: Annotated[dict[Pattern, Annotated[int, Field(ge=1, le=16)]], BeforeValidator(_for_all)] = {}
    example_pictures: int = Field(default=0, ge=0, le=100)
    sampling: Sampling = Sampling()
    rules: dict[Pattern, str] = {}
    shows: dict[Pattern, list[str]] = {}
    choices: dict[Pattern, list[str]] = {}
    report: dict[Pattern, list[Literal["hazards", "on_the_way"]]] = {}
    rename: dict[str, str] = {}
    actions: dict[str, str] = {}
    names: list[Names] = []

    def frames_of(self, env_id: str) -> int:
        """How many of the last pictures of an environment are shown."""
        return by_task(self.frames, env_id, 1)


_T = TypeVar("_T")


def by_task(table: Mapping[str, _T], env_id: str, default: _T) -> _T:
    """What a table says of an environment: the first pattern that its id matches wins."""
    return next((value for pattern, value in table.items() if fnmatch.fnmatchcase(env_id, pattern)), default)


def read_options(files: PromptFiles) -> Options:
    """Read ``set.toml``: a user's changes only what it names; its rules and names come before the bundled ones.

    Raises:
        PromptError: if an option does not exist, or its value cannot be.
    """
    merged: dict[str, Any] = {}
    for table in files.tables("set.toml"):
        for key, value in table.items():
            old = merged.get(key)
            if isinstance(value, dict) and isinstance(old, dict):
                merged[key] = {**value, **{name: old[name] for name in old if name not in value}}
            elif isinstance(value, list) and isinstance(old, list):
                merged[key] = value + old
            else:
                merged[key] = value
    try:
        return Options.model_validate(merged)
    except ValidationError as error:
        first = error.errors()[0]
        where = f"{files.path('set.toml')}: {'.'.join(map(str, first['loc']))}"
        raise PromptError(f"{where}: {_problem(first)}") from None


def _problem(error: Mapping[str, Any]) -> str:
    if error["type"] != "extra_forbidden":
        return str(error["msg"]).removeprefix("Value error, ")
    tables: dict[str, type[Table]] = {"sampling": Sampling, "names": Names}
    known = tables.get(str(error["loc"][0]), Options).model_fields
    return f"there is no such option; there are {', '.join(known)}"
