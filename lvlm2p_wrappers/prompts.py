"""Prompt sets: folders of templates and data, found, rendered into conversations, and checked."""

from __future__ import annotations

import fnmatch
import functools
import hashlib
import json
import re
import tomllib
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jinja2
import jsonschema
import numpy as np
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lvlm2p_wrappers.errors import PromptError
from lvlm2p_wrappers.replies import ANALYSES, action_schema, analysis_schema, read_action, read_analysis
from lvlm2p_wrappers.views import About, Picture, View

Stage = Literal["analysis", "action"]


class Message(NamedTuple):
    """One message of a conversation; the picture, if any, follows the text."""

    role: Literal["system", "user", "assistant"]
    text: str
    picture: Picture | None = None


class Schema:
    """A JSON schema, and its text. Compared by identity: one object serves every view.

    Attributes:
        json: the schema.
        text: the schema as one line of JSON.
    """

    def __init__(self, json_schema: dict[str, Any]) -> None:
        self.json = json_schema
        self.text = json.dumps(json_schema)


class Question(NamedTuple):
    """What one stage asks: the conversation, the form of its reply, and how that reply is checked.

    ``read`` takes a raw reply and returns the checked answer as JSON text, or raises ``BadReplyError``.
    ``prompts`` is the set it was made with.
    """

    stage: Stage
    env_id: str
    messages: tuple[Message, ...]
    schema: Schema
    sampling: Mapping[str, Any]
    read: Callable[[str], str]
    prompts: PromptSet


class Action(NamedTuple):
    """An action as the templates see it."""

    name: str
    does: str


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Sampling(_Table):
    """How the model is asked to answer; None leaves the choice to the provider."""

    temperature: float | None = 0.0
    max_tokens: int = Field(default=2048, ge=1)
    reasoning_effort: str | None = None


class Names(_Table):
    """Names for the actions of environments that give none."""

    env: str
    actions: list[str]
    does: list[str] = []


class Options(_Table):
    """The options of a prompt set, as its ``set.toml`` gives them."""

    stages: Literal[1, 2] = 2
    analysis: Literal["grid", "summary"] = "summary"
    picture_in_action: bool = True
    history: int = Field(default=0, ge=0)
    sampling: Sampling = Sampling()
    rules: dict[str, str] = {}
    actions: dict[str, str] = {}
    names: list[Names] = []


def bundled_prompts() -> Path:
    """The folder of the bundled sets: inside the package when installed, at the top of a checkout when editable."""
    here = Path(__file__).resolve().parent
    for folder in (here / "_prompts", here.parent / "prompts"):
        if folder.is_dir():
            return folder
    raise PromptError(f"there is no prompt folder beside {here}; reinstall the package")


class PromptSet:
    """A folder of templates and data that turns a view into the conversations of the two stages.

    A user's folder stands in front of the bundled set: a file of the same name wins, the rest falls through. Options
    are merged one by one.

    Args:
        folder: a user's folder, the name of a bundled set, or None for the bundled set that fits.
        family: the bundled set that stands behind a user's folder.

    Attributes:
        folders: where its files are looked for, in this order.
        fingerprint: a short digest of every file in them.
        options: its ``set.toml``.

    Raises:
        PromptError: if the folder does not exist, or a file in it is broken.
    """

    def __init__(self, folder: str | Path | None, family: str) -> None:
        bundled = bundled_prompts()
        self.folders = [bundled / family]
        if folder is not None and (bundled / str(folder)).is_dir() and not Path(folder).is_dir():
            self.folders = [bundled / str(folder)]
        elif folder is not None:
            self.folders.insert(0, _existing(Path(folder), bundled))
        self.fingerprint = _digest(self.folders)
        self.options = self._read_options()
        self._examples: list[dict[str, Any]] = _toml(self._where("examples.toml")).get("example", [])
        if not isinstance(self._examples, list):
            raise PromptError(f"{self._where('examples.toml')}: write [[example]], with two brackets")
        self._form = self._read_schema() or ANALYSES[self.options.analysis]
        self._analysis_schema = Schema(self._form if isinstance(self._form, dict) else analysis_schema(self._form))
        self._sampling = self.options.sampling.model_dump(exclude_none=True)
        self._environment = ImmutableSandboxedEnvironment(
            loader=jinja2.FileSystemLoader(self.folders),
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,  # one run, one wording
        )

    @functools.lru_cache(maxsize=64)  # noqa: B019 -- a set lives as long as its teacher
    def actions(self, about: About) -> list[Action]:
        """The actions of an environment, named and described.

        Raises:
            PromptError: if the set names another number of actions than the environment has.
        """
        for row in self.options.names:
            if fnmatch.fnmatchcase(about.env_id, row.env):
                if len(row.actions) != len(about.actions):
                    counts = f"{len(row.actions)} actions, {about.env_id} has {len(about.actions)}"
                    raise PromptError(f"{self._where('set.toml')}: [[names]] for {row.env!r} has {counts}")
                if row.does and len(row.does) != len(row.actions):
                    raise PromptError(
                        f"{self._where('set.toml')}: [[names]] for {row.env!r}: one `does` for each action"
                    )
                does = row.does or [self.options.actions.get(name, "") for name in row.actions]
                return [Action(*pair) for pair in zip(row.actions, does, strict=True)]
        return [Action(name, self.options.actions.get(name, "")) for name in about.actions]

    def analysis(self, view: View) -> Question:
        """The first stage: what is where."""
        read = functools.partial(read_analysis, form=self._form)
        return self._question("analysis", view, self._analysis_schema, read, picture=view.picture)

    def action(self, view: View, analysis: str) -> Question:
        """The second stage: a probability for every action, given the first stage's answer as JSON text.

        In one-stage operation the analysis is empty and the picture is always sent.
        """
        names = tuple(action.name for action in self.actions(view.about))
        picture = view.picture if self.options.picture_in_action or not analysis else None
        read = functools.partial(read_action, actions=names)
        return self._question("action", view, _schema_of(names), read, picture=picture, analysis=analysis)

    def repair(self, question: Question, reply: str, problem: str) -> Question:
        """The same question with one turn more, which quotes what was wrong with the reply."""
        turn = Message("user", self._render("repair.jinja", {"problem": problem, "schema": question.schema.text}))
        return question._replace(messages=(*question.messages, Message("assistant", reply), turn))

    def check(self, about: About) -> None:
        """Render every template of the set once, so that a mistake in one shows before the first question.

        Raises:
            PromptError: naming the template, the line and what is wrong.
        """
        view = View(about, Picture(np.zeros((1, 1, 3), np.uint8)), "a mission", history=about.actions[:1])
        question = self.analysis(view)
        for analysis in ("", "{}"):
            self.action(view, analysis)
        self.repair(question, "a reply", "a problem")

    def _question(
        self,
        stage: Stage,
        view: View,
        schema: Schema,
        read: Callable[[str], str],
        *,
        picture: Picture | None,
        analysis: str = "",
    ) -> Question:
        named = dict(zip(view.about.actions, (action.name for action in self.actions(view.about)), strict=True))
        variables: dict[str, Any] = {
            "env_id": view.about.env_id,
            "mission": view.mission,
            "carrying": view.carrying,
            "history": [named[action] for action in view.history],
        }
        if stage == "action":
            variables["analysis"] = analysis
        system = Message("system", self._system(stage, view.about, schema, picture is not None))
        user = Message("user", self._render(f"{stage}.user.jinja", variables), picture)
        return Question(stage, view.about.env_id, (system, user), schema, self._sampling, read, self)

    @functools.lru_cache(maxsize=64)  # noqa: B019 -- a set lives as long as its teacher
    def _system(self, stage: Stage, about: About, schema: Schema, picture: bool) -> str:
        """What is the same for every view of an environment: providers cache it, the log keeps it once."""
        variables = {
            "env_id": about.env_id,
            "actions": self.actions(about),
            "rules": self._rules_for(about.env_id),
            "examples": [row for row in self._examples if fnmatch.fnmatchcase(about.env_id, row.get("env", "*"))],
            "schema": schema.text,
            "picture": picture,
        }
        return self._render(f"{stage}.system.jinja", variables)

    def _render(self, name: str, variables: Mapping[str, Any]) -> str:
        try:
            return self._environment.get_template(name).render(variables)
        except jinja2.TemplateSyntaxError as error:
            raise PromptError(f"{error.filename or name}, line {error.lineno}: {error.message}") from None
        except jinja2.TemplateNotFound as error:
            raise PromptError(f"template {error.name!r} is in none of {', '.join(map(str, self.folders))}") from None
        except jinja2.UndefinedError as error:
            known = ", ".join(sorted(variables))
            raise PromptError(f"{_line_of(error, name)}: {error.message}; the variables are {known}") from None
        except (jinja2.TemplateError, ArithmeticError, TypeError, ValueError, LookupError, AttributeError) as error:
            raise PromptError(f"{_line_of(error, name)}: {error}") from None

    def _rules_for(self, env_id: str) -> str:
        return next((file for pattern, file in self.options.rules.items() if fnmatch.fnmatchcase(env_id, pattern)), "")

    def _where(self, name: str) -> Path:
        return next((folder / name for folder in self.folders if (folder / name).is_file()), self.folders[-1] / name)

    def _read_options(self) -> Options:
        """A user's ``set.toml`` changes only what it names; its rules and names come before the bundled ones."""
        merged: dict[str, Any] = {}
        for folder in reversed(self.folders):
            for key, value in _toml(folder / "set.toml").items():
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
            first, known = error.errors()[0], ", ".join(Options.model_fields)
            where = f"{self._where('set.toml')}: {'.'.join(map(str, first['loc']))}"
            raise PromptError(f"{where}: {first['msg']}; the options are {known}") from None

    def _read_schema(self) -> dict[str, Any] | None:
        path = self._where("analysis.schema.json")
        if not path.is_file():
            return None
        try:
            schema: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            jsonschema.Draft202012Validator.check_schema(schema)
            if not isinstance(schema, dict) or schema.get("type") != "object":
                raise ValueError('the reply has to be an object: {"type": "object", ...}')
        except (ValueError, jsonschema.SchemaError) as error:
            raise PromptError(f"{path}: {getattr(error, 'message', error)}") from None
        return schema


@functools.lru_cache(maxsize=64)
def _schema_of(actions: tuple[str, ...]) -> Schema:
    return Schema(action_schema(actions))


def _existing(folder: Path, bundled: Path) -> Path:
    if not folder.is_dir():
        sets = ", ".join(sorted(path.name for path in bundled.iterdir() if path.is_dir()))
        raise PromptError(
            f"there is no prompt folder {str(folder)!r}. Give a folder with your own templates, or one of: {sets}."
        )
    return folder


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PromptError(f"{path}: {error}") from None


def _digest(folders: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for folder in folders:
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            digest.update(file.relative_to(folder).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def _line_of(error: Exception, name: str) -> str:
    """The template and line where rendering failed: jinja puts them into the traceback."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if re.search(r"\.jinja$", frame.filename)]
    return f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else name
