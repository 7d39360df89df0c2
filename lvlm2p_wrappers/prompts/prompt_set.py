"""A prompt set: renders a view into the conversations of both stages, and checks their replies."""

from __future__ import annotations

import fnmatch
import functools
import json
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np

from lvlm2p_wrappers.errors import BadReplyError, PromptError
from lvlm2p_wrappers.picture import Picture
from lvlm2p_wrappers.prompts.examples import Worked, read_examples
from lvlm2p_wrappers.prompts.loader import PromptFiles
from lvlm2p_wrappers.prompts.options import read_options
from lvlm2p_wrappers.prompts.own_schema import OwnSchema
from lvlm2p_wrappers.prompts.sandbox import Sandbox
from lvlm2p_wrappers.records import EnvInfo, Message, Question, Schema, Stage, View
from lvlm2p_wrappers.schemas import ANALYSES, action_schema, analysis_schema, read_action, read_analysis


class Action(NamedTuple):
    """An action as the templates see it."""

    name: str
    does: str


class PromptSet:
    """A folder of templates and data that renders a view into the conversations of the two stages.

    A user's folder stands in front of the bundled set: its files win, and its options change only what they name.
    A folder is data: nothing in it runs code, opens an address, reads another file, or takes more than about a second.

    Args:
        folder: a user's folder, the name of a bundled set, or None for the bundled set that fits.
        family: the bundled set that stands behind a user's folder.

    Attributes:
        folders: where its files are, in this order.
        fingerprint: a short digest of every file in them.
        options: its ``set.toml``.

    Raises:
        PromptError: if the folder does not exist, or a file in it is broken.
    """

    def __init__(self, folder: str | Path | None, family: str) -> None:
        self._files = PromptFiles(folder, family)
        self.folders, self.fingerprint = self._files.folders, self._files.fingerprint
        self.options = read_options(self._files)
        self._examples = read_examples(self._files)
        self._analysis_schema, self._read_analysis = self._analysis_form()
        self._sampling = self.options.sampling.model_dump(exclude_none=True)
        self._sandbox = Sandbox(self._template)

    @functools.lru_cache(maxsize=64)  # noqa: B019 -- a set lives as long as its teacher
    def actions(self, env_info: EnvInfo) -> list[Action]:
        """The actions of an environment, named and described.

        Raises:
            PromptError: if the set names another number of actions than the environment has.
        """
        for row in self.options.names:
            if fnmatch.fnmatchcase(env_info.env_id, row.env):
                if len(row.actions) != len(env_info.actions):
                    counts = f"{len(row.actions)} actions, {env_info.env_id} has {len(env_info.actions)}"
                    raise PromptError(f"{self._files.path('set.toml')}: [[names]] for {row.env!r} has {counts}")
                if row.does and len(row.does) != len(row.actions):
                    raise PromptError(
                        f"{self._files.path('set.toml')}: [[names]] for {row.env!r}: one `does` for each action"
                    )
                does = row.does or [self.options.actions.get(name, "") for name in row.actions]
                return [Action(*pair) for pair in zip(row.actions, does, strict=True)]
        return [Action(name, self.options.actions.get(name, "")) for name in env_info.actions]

    def analysis(self, view: View) -> Question:
        """The first stage: what is where."""
        return self._question("analysis", view, self._analysis_schema, self._read_analysis, picture=view.picture)

    def action(self, view: View, analysis: str) -> Question:
        """The second stage: a probability for every action, given the first stage's answer as JSON text.

        In one-stage operation the analysis is empty and the picture is always sent.
        """
        names = self._names(view.env_info)
        picture = view.picture if self.options.picture_in_action or not analysis else None
        read = functools.partial(read_action, actions=names)
        return self._question("action", view, _schema_of(names), read, picture=picture, analysis=analysis)

    def repair(self, question: Question, reply: str, problem: str) -> Question:
        """The same question with one turn more, which quotes what was wrong with the reply."""
        turn = Message("user", self._render("repair.jinja", {"problem": problem, "schema": question.schema.text}))
        return question._replace(messages=(*question.messages, Message("assistant", reply), turn))

    @property
    def modules(self) -> list[str]:
        """The modules that the set's examples name with their environments; none of them is imported here."""
        named = {example.picture.env_id.rpartition(":")[0] for _, example in self._examples.pictured}
        return sorted(named - {""})

    def check(self, env_info: EnvInfo) -> None:
        """Render every template of the set once, so that a mistake in one shows before the first question.

        Raises:
            PromptError: naming the template, the line and what is wrong.
        """
        env_id, family, actions = env_info
        blank = Picture(np.zeros((1, 1, 3), np.uint8))
        view = View((blank,), actions, "a mission", history=actions[:1], env_id=env_id, family=family)
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
        system = Message("system", self._system(stage, view.env_info, schema, picture is not None))
        user = Message("user", self._user(stage, view, analysis), picture)
        messages = (system, *self._examples_of(stage, view.env_info), user)
        return Question(stage, view.env_info.env_id, messages, schema, self._sampling, read, self.repair)

    def _user(self, stage: Stage, view: View, analysis: str) -> str:
        named = dict(zip(view.env_info.actions, self._names(view.env_info), strict=True))
        variables: dict[str, Any] = {
            "env_id": view.env_info.env_id,
            "mission": view.mission,
            "carrying": view.carrying,
            "history": [named[action] for action in view.history],
        }
        if stage == "action":
            variables["analysis"] = analysis
        return self._render(f"{stage}.user.jinja", variables)

    def _names(self, env_info: EnvInfo) -> tuple[str, ...]:
        return tuple(action.name for action in self.actions(env_info))

    @functools.lru_cache(maxsize=64)  # noqa: B019 -- a set lives as long as its teacher
    def _system(self, stage: Stage, env_info: EnvInfo, schema: Schema, picture: bool) -> str:
        """What is the same for every view of an environment: providers cache it, the log keeps it once."""
        variables = {
            "env_id": env_info.env_id,
            "actions": self.actions(env_info),
            "rules": self._rules_for(env_info.env_id),
            "examples": self._examples.in_words_for(env_info.env_id),
            "pictured": len(self._worked(env_info)),
            "schema": schema.text,
            "picture": picture,
        }
        return self._render(f"{stage}.system.jinja", variables)

    @functools.lru_cache(maxsize=64)  # noqa: B019 -- a set lives as long as its teacher
    def _worked(self, env_info: EnvInfo) -> list[Worked]:
        options = self.options
        return self._examples.pictured_for(env_info.env_id, options.example_pictures, options.history, self._names)

    @functools.lru_cache(maxsize=64)  # noqa: B019 -- a set lives as long as its teacher
    def _examples_of(self, stage: Stage, env_info: EnvInfo) -> tuple[Message, ...]:
        """The pictured examples as turns of the conversation: a question as ours will be, and the reply to imitate."""
        turns: list[Message] = []
        for view, example, where in self._worked(env_info):
            names = self._names(env_info)
            probabilities = dict.fromkeys(names, 0.0) | example.probabilities
            action = json.dumps({"reasoning": example.reasoning, "probabilities": probabilities})
            try:
                analysis = ""
                if self.options.stages == 2:
                    analysis = self._read_analysis(json.dumps(example.analysis))
                reply = analysis if stage == "analysis" else read_action(action, names)
            except (BadReplyError, TypeError, RecursionError) as error:  # TOML has dates, and tables nested deep
                raise PromptError(f"{where} is no reply that {env_info.env_id} could get: {error}") from None
            sent = stage == "analysis" or self.options.picture_in_action or not analysis
            turns.append(Message("user", self._user(stage, view, analysis), view.picture if sent else None))
            turns.append(Message("assistant", reply))
        return tuple(turns)

    def _render(self, name: str, variables: Mapping[str, Any]) -> str:
        try:
            return self._sandbox.text(name, variables).rstrip("\n")
        except jinja2.TemplateSyntaxError as error:
            raise PromptError(f"{error.filename or name}, line {error.lineno}: {error.message}") from None
        except jinja2.TemplateNotFound as error:
            raise PromptError(f"template {error.name!r} is in none of {', '.join(map(str, self.folders))}") from None
        except jinja2.UndefinedError as error:
            known = ", ".join(sorted(variables))
            raise PromptError(f"{_line_of(error, name)}: {error.message}; the variables are {known}") from None
        except Exception as error:  # noqa: BLE001 -- a template may raise anything
            raise PromptError(f"{_line_of(error, name)}: {error}") from None

    def _template(self, name: str) -> tuple[str, str] | None:
        """A template's text and file, for the sandbox, which therefore reads nothing but the set's own files."""
        name = "/".join(part for part in name.split("/") if part not in ("", "."))
        text = self._files.text(name)
        return None if text is None else (text, str(self._files.path(name)))

    def _rules_for(self, env_id: str) -> str:
        return next((file for pattern, file in self.options.rules.items() if fnmatch.fnmatchcase(env_id, pattern)), "")

    def _analysis_form(self) -> tuple[Schema, Callable[[str], str]]:
        """The schema of the first stage's reply, and what checks such a reply."""
        own = self._files.text("analysis.schema.json")
        if own is None:
            form = ANALYSES[self.options.analysis]
            return Schema(analysis_schema(form)), functools.partial(read_analysis, form=form)
        try:
            schema = OwnSchema(own)
        except ValueError as error:
            raise PromptError(f"{self._files.path('analysis.schema.json')}: {error}") from None
        return Schema(schema.json), schema.read


@functools.lru_cache(maxsize=64)
def _schema_of(actions: tuple[str, ...]) -> Schema:
    return Schema(action_schema(actions))


def _line_of(error: Exception, name: str) -> str:
    """The template and line where rendering failed: Jinja puts them into the traceback."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.endswith(".jinja")]
    return f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else name
